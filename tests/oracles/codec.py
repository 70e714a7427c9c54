"""Makes codec.npz: what a twin of DAC-VAE in PyTorch answers with weights drawn by name.

python -m tests.oracles.codec
It was made with torch 2.13.0 and numpy 2.4.6. The twin is built as the published codec is, so that
PyTorch itself gives the published names to its tensors; layers of the watermark are left empty.
Weights are not in the file: both sides draw them.
"""

import json
import pathlib
import warnings
import zlib

import numpy as np

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
# The published strides, and stereo with a rest that is filled up by reflection.
MODELS = {
  'published': {
    'channels': 1,
    'width': 2,
    'strides': (2, 8, 10, 12),
    'latent_channels': 3,
    'decoder_width': 32,
  },
  'stereo': {
    'channels': 2,
    'width': 4,
    'strides': (2, 4),
    'latent_channels': 5,
    'decoder_width': 12,
  },
}
SAMPLES = {'published': 2 * 1920, 'stereo': 8 * 8 - 3}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a tensor as training might leave it: of sensible size, nowhere zero."""
  noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if name.endswith('.weight'):  # folded; of two shapes, which fans in is not known
    noise = noise * np.prod(shape) ** -0.5 * min(shape[:2]) ** 0.5 / 2
  elif name.endswith('weight_g'):  # a half, as PyTorch draws them: sound stays within tanh
    noise = (1 + noise / 10) / 2
  elif name.endswith(('bias', 'alpha')):
    noise = noise / 10 + name.endswith('alpha')
  return noise.astype(np.float32)


def draw_sound(name: str) -> np.ndarray:
  """Returns two rows of noise, (b s c)."""
  shape = (2, SAMPLES[name], MODELS[name]['channels'])
  return np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)


def draw_latents(name: str) -> np.ndarray:
  """Returns two rows of latents, (b t c)."""
  fields = MODELS[name]
  count = -(-SAMPLES[name] // int(np.prod(fields['strides'])))
  return (
    np.random.RandomState(1)
    .standard_normal((2, count, fields['latent_channels']))
    .astype(np.float32)
  )


def make_model(name: str):
  """Makes the twin with drawn weights, in double precision."""
  import torch
  from torch import nn

  class Snake(nn.Module):
    def __init__(self, channels):
      super().__init__()
      self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x):
      return x + torch.sin(self.alpha * x) ** 2 / (self.alpha + 1e-9)

  def conv(inputs, outputs, window, dilation=1, stride=1):
    edge = (window - stride) * dilation // 2
    return nn.utils.weight_norm(nn.Conv1d(inputs, outputs, window, stride, edge, dilation))

  def up(inputs, outputs, stride):
    return nn.utils.weight_norm(
      nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride, (stride + 1) // 2, stride % 2)
    )

  class Unit(nn.Module):
    def __init__(self, width, dilation):
      super().__init__()
      layers = Snake(width), conv(width, width, 7, dilation), Snake(width), conv(width, width, 1)
      self.block = nn.Sequential(*layers)

    def forward(self, x):
      return x + self.block(x)

  class Block(nn.Module):
    def __init__(self, *layers):
      super().__init__()
      self.block = nn.Sequential(*layers)

    def forward(self, x):
      return self.block(x)

  class Places(nn.Module):
    def __init__(self, **children):
      super().__init__()
      for child, module in children.items():
        setattr(self, child, module)

  fields = MODELS[name]
  width, channels, strides = fields['width'], fields['channels'], fields['strides']
  encoder = [conv(channels, width, 7)]
  for stride in strides:
    units = [Unit(width, dilation) for dilation in (1, 3, 9)]
    encoder.append(Block(*units, Snake(width), conv(width, 2 * width, 2 * stride, 1, stride)))
    width *= 2
  encoder += [Snake(width), conv(width, width, 3)]
  mlp_dim, width = width, fields['decoder_width']
  decoder, empty = [conv(mlp_dim, width, 7)], nn.Identity
  for stride in reversed(strides):
    change, width = (Snake(width), up(width, width // 2, stride)), width // 2
    one, two, three = (Unit(width, dilation) for dilation in (1, 3, 9))
    layers = (*change, empty(), empty(), one, two, empty(), empty(), three, empty())
    decoder.append(Block(*layers))
  head = nn.Sequential(Snake(width), conv(width, channels, 7))
  latents = fields['latent_channels']
  model = Places(
    encoder=Block(*encoder),
    quantizer=Places(in_proj=conv(mlp_dim, 2 * latents, 1), out_proj=conv(latents, mlp_dim, 1)),
    decoder=Places(model=nn.Sequential(*decoder), wm_model=Places(encoder_block=Places(pre=head))),
  )
  drawn = {key: torch.tensor(draw(key, tuple(t.shape))) for key, t in model.state_dict().items()}
  model.load_state_dict(drawn)
  return model.double().eval()


def answers(name: str) -> dict[str, np.ndarray]:
  """Returns mean, scale, deviation and KL of drawn sound, what drawn latents decode to, names."""
  import torch
  from torch.nn import functional as F

  with warnings.catch_warnings():
    warnings.simplefilter('ignore', FutureWarning)  # weight_norm, whose names are published
    model = make_model(name)
  sound = torch.tensor(draw_sound(name), dtype=torch.float64).transpose(1, 2)
  latents = torch.tensor(draw_latents(name), dtype=torch.float64).transpose(1, 2)
  with torch.no_grad():
    more = -sound.shape[-1] % int(np.prod(MODELS[name]['strides']))
    features = model.encoder(F.pad(sound, (0, more), 'reflect'))
    mean, scale = model.quantizer.in_proj(features).chunk(2, dim=1)
    std = F.softplus(scale) + 1e-4
    kl = (mean**2 + std**2 - torch.log(std**2) - 1).sum(1).mean()
    features = model.decoder.model(model.quantizer.out_proj(latents))
    decoded = torch.tanh(model.decoder.wm_model.encoder_block.pre(features))
  found = {'mean': mean, 'scale': scale, 'std': std, 'decoded': decoded}
  found = {key: tensor.transpose(1, 2).numpy() for key, tensor in found.items()}
  shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
  return found | {'kl': kl.numpy(), 'shapes': np.array(json.dumps(shapes))}


def write_vectors(path: pathlib.Path, answers: dict[str, dict[str, np.ndarray]]) -> None:
  """Writes numbers as float32, and JSON as it is."""
  found = {}
  for name, arrays in answers.items():
    for key, array in arrays.items():
      found[f'{name}/{key}'] = array if array.dtype.kind == 'U' else array.astype(np.float32)
  np.savez_compressed(path, **found)


if __name__ == '__main__':
  write_vectors(VECTORS, {name: answers(name) for name in MODELS})
