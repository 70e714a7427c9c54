"""The family of audio models, DiTs: widths and depths (Movie Gen §6, Table 35)."""

from typing import Any

from mgjax.core.errors import ConfigError

from ..text.encoders import AUDIO, FRAMES, conditioning, split

SIZES = {
  # Small enough to run anywhere; learns nothing worth looking at.
  'debug': {'dim': 64, 'depth': 2, 'heads': 4, 'mlp_dim': 256},
  # The report trains 300M, 3B and 9B too but names no sizes (its 300M is another architecture).
  # Chosen: heads of 128 and FFN = 4 d as in 13B, and depths that make the numbers.
  '300m': {'dim': 1024, 'depth': 18, 'heads': 8, 'mlp_dim': 4096},
  '3b': {'dim': 2560, 'depth': 28, 'heads': 20, 'mlp_dim': 10240},
  '9b': {'dim': 4096, 'depth': 34, 'heads': 32, 'mlp_dim': 16384},
  '13b': {'dim': 4608, 'depth': 36, 'heads': 36, 'mlp_dim': 18432},
}

# The byte encoder that stands where the report has T5-base, frozen, 512 tokens, as '13b,encoders'
# does: it needs no weights of others.
TEXT = {
  'debug': {'width': 32, 'depth': 1, 'heads': 2, 'length': 64},
  '300m': {'width': 512, 'depth': 4, 'heads': 8, 'length': 512},
  '3b': {'width': 768, 'depth': 6, 'heads': 12, 'length': 512},
  '9b': {'width': 768, 'depth': 6, 'heads': 12, 'length': 512},
  '13b': {'width': 768, 'depth': 6, 'heads': 12, 'length': 512},
}

# The block of a DiT. That norms have no weights beside the modulation's, their epsilon and the
# activation are those of the published DiT: not in public sources.
DIT = {
  'feed_forward': 'gelu',
  'norm': 'layer',
  'affine': False,
  'bias': True,
  'epsilon': 1e-6,
}

PIXELS = 768  # features of a frame without an encoder: mgjax/sections/audio/frame_features.py


def fields(size: str, latents: int) -> dict[str, Any]:
  """Returns the fields of a model of a named size for at most so many latents, 25 a second.

  '13b,encoders' reads the paper's frozen encoders of text and frames, '13b' bytes and pixels.
  """
  size, words = split(size, 'encoders')
  if size not in SIZES:
    raise ConfigError(f'there is no size {size!r}; choose one of {", ".join(SIZES)}')
  return {
    **SIZES[size],
    # A sound is a video of one pixel. That positions are learned, as the video model's, is not in
    # public sources.
    'positions': (latents, 1, 1),
    'patch': (1, 1, 1),
    **DIT,
    'remat': 'nothing' if size in ('debug', '300m') else 'attention',
    'dtype': 'float32' if size == 'debug' else 'bfloat16',
    'conditionings': {
      'context': {'kind': 'known_latents'},
      'text': conditioning(AUDIO) if words else {'kind': 'byte_text', **TEXT[size]},
      'video': {'kind': 'frame_features', 'features': FRAMES[1] if words else PIXELS},
    },
  }
