"""Sound as a video of one pixel: its latents, and how many there are."""

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float
from mgjax.models.codec.model import CODEC_RATE, Codec
from mgjax.models.flow_model.model import FlowModel

VISION = 'vision'  # the encoder of frames, in configurations and notes


def as_video(latents: Float[Array, 'b t c']) -> Float[Array, 'b t 1 1 c']:
  """Returns latents of sound in the form of those of a video of one pixel."""
  return latents[:, :, None, None]


def check_length(model: FlowModel, codec: Codec, seconds: float, what: str) -> int:
  """Returns how many latents so many seconds have.

  Raises:
    ConfigError: they are not a whole number of latents, or more than the model has positions for.
  """
  step = codec.compression / CODEC_RATE
  most = model.backbone.positions[0]
  latents = round(seconds / step)
  if not 1 <= latents <= most or abs(seconds - latents * step) > 1e-6:
    raise ConfigError(
      f'{what} has audio of {seconds:g} s; expected a multiple of {step:g} s, which one latent '
      f'stands for, and at most {most * step:g} s, for which the model has positions'
    )
  return latents
