"""Makes image_autoencoder.npz: what diffusers' AutoencoderKL answers with weights drawn by name.

python -m tests.oracles.image_autoencoder
It was made with diffusers 0.42.1, torch 2.13.0 and numpy 2.4.6. Weights are not in the file: both
sides draw them, from numpy's RandomState, whose numbers never change.
"""

import json
import pathlib
import zlib

import numpy as np

from tests.oracles import codec

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
# Between them: with and without 1 x 1 convolutions around the latents, levels that change width and
# such as do not, one block a level and two.
MODELS = {
  'quant': {
    'block_out_channels': (8, 16),
    'layers_per_block': 1,
    'latent_channels': 4,
    'scaling_factor': 0.18215,
  },
  'plain': {
    'block_out_channels': (8, 8, 16),
    'layers_per_block': 2,
    'latent_channels': 6,
    'use_quant_conv': False,
    'use_post_quant_conv': False,
    'scaling_factor': 1.5305,
    'shift_factor': 0.0609,
  },
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a tensor as training might leave it: of sensible size, nowhere zero."""
  noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if len(shape) > 1:
    noise = noise * np.prod(shape[1:]) ** -0.5
  else:
    noise = noise / 10 + ('norm' in name and name.endswith('weight'))
  return noise.astype(np.float32)


def make_model(**fields):
  """Makes diffusers' model with drawn weights, in double precision."""
  import torch
  from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

  levels = len(fields['block_out_channels'])
  model = AutoencoderKL(
    down_block_types=('DownEncoderBlock2D',) * levels,
    up_block_types=('UpDecoderBlock2D',) * levels,
    norm_num_groups=4,
    **fields,
  )
  drawn = {name: torch.tensor(draw(name, tuple(t.shape))) for name, t in model.state_dict().items()}
  model.load_state_dict(drawn)
  return model.double().eval()


def answers(model, images: np.ndarray) -> dict[str, np.ndarray]:
  """Returns moments of images (b h w 3) in [-1, 1], drawn latents, and what these decode to."""
  import torch

  def last(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()

  with torch.no_grad():
    x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    posterior = model.encode(x).latent_dist
    latents = np.random.RandomState(1).standard_normal(posterior.mean.shape).astype(np.float32)
    decoded = model.decode(torch.tensor(latents, dtype=torch.float64)).sample
  return {
    'mean': last(posterior.mean),
    'log_variance': last(posterior.logvar),
    'latents': latents.transpose(0, 2, 3, 1),
    'decoded': last(decoded),
  }


def draw_bytes() -> np.ndarray:
  """Returns three frames of 16 x 24 pixels."""
  return np.random.RandomState(0).randint(0, 256, (3, 16, 24, 3)).astype(np.uint8)


def draw_images() -> np.ndarray:
  """Returns the same in [-1, 1]."""
  return draw_bytes().astype(np.float32) / np.float32(127.5) - 1


if __name__ == '__main__':
  found = {}
  for name, fields in MODELS.items():
    model = make_model(**fields)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    about = {'config': json.loads(model.to_json_string()), 'shapes': shapes}
    found[name] = {'about': np.array(json.dumps(about)), **answers(model, draw_images())}
  codec.write_vectors(VECTORS, found)
