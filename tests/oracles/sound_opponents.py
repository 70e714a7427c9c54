"""Makes sound_opponents.npz: what a twin in PyTorch says of sound as the codec's opponents do.

python -m tests.oracles.sound_opponents
It was made with torch 2.13.0, transformers 5.23.0 and numpy 2.4.6, in double precision: logits and
features of discriminators whose weights both sides draw by name, and the distances of spectra with
the gradients that the compared sound gets. The filters of pitch are those of transformers.
"""

import pathlib
import warnings

import numpy as np

from tests.oracles.codec import draw

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
PERIODS, WIDTHS = (2, 3), (4, 6, 5)
WINDOWS, WIDTH = (128, 64), 4
EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
RATE = 48_000
JUDGED = 250  # samples
SCALES = dict(zip((32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True))


def draw_sounds() -> tuple[np.ndarray, np.ndarray]:
  """Returns two rows, (b s c), and what a codec might make of them; one row has a silent half."""
  rng = np.random.RandomState(0)
  time = np.arange(2500)[:, None] / RATE
  first = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1
  second = 0.5 * np.sin(2 * np.pi * np.cumsum(np.linspace(100, 12_000, 2500))[:, None] / RATE)
  second[1000:] = 0
  sound = np.stack((first, second)) + 0.05 * rng.uniform(-1, 1, (2, 2500, 1)) * [[[1]], [[0]]]
  other = 0.8 * sound + 0.02 * rng.standard_normal(sound.shape)
  return sound.astype(np.float32), other.astype(np.float32)


def shapes() -> dict[str, tuple[int, ...]]:
  """Returns the shape of every tensor of the discriminators, as PyTorch would name it."""
  found = {}

  def layer(name: str, inputs: int, outputs: int, window: tuple[int, int]) -> int:
    found[f'{name}.weight_v'] = (outputs, inputs, *window)
    found[f'{name}.weight_g'] = (outputs, 1, 1, 1)
    found[f'{name}.bias'] = (outputs,)
    return outputs

  for period in PERIODS:
    width = 1
    for level, outputs in enumerate(WIDTHS):
      width = layer(f'period_{period}.conv_{level}', width, outputs, (5, 1))
    layer(f'period_{period}.logits', width, 1, (3, 1))
  for window in WINDOWS:
    for band in range(len(EDGES) - 1):
      for level in range(5):
        taps = (3, 3) if level == 4 else (3, 9)
        layer(f'window_{window}.band_{band}_conv_{level}', WIDTH if level else 2, WIDTH, taps)
    layer(f'window_{window}.logits', WIDTH, 1, (3, 3))
  return found


def draw_tensors() -> dict[str, np.ndarray]:
  """Returns the weights that both sides have."""
  return {name: draw(name, shape) for name, shape in shapes().items()}


def judged(sound: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the features of every layer, and logits, channels last."""
  import torch
  from torch.nn import functional as F

  tensors = {name: torch.tensor(t, dtype=torch.float64) for name, t in draw_tensors().items()}
  found = {}

  def conv(name, x, stride=(1, 1), active=True):
    v = tensors[f'{name}.weight_v']
    weight = v * tensors[f'{name}.weight_g'] / v.flatten(1).norm(dim=1)[:, None, None, None]
    edges = [taps // 2 for taps in v.shape[2:]]
    y = F.conv2d(x, weight, tensors[f'{name}.bias'], stride, edges)
    y = F.leaky_relu(y, 0.1) if active else y
    found[name] = y.permute(0, 2, 3, 1).numpy()
    return y

  x = torch.tensor(sound, dtype=torch.float64).transpose(1, 2)
  x = x - x.mean(-1, keepdim=True)
  x = 0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9)
  for period in PERIODS:
    y = F.pad(x, (0, period - x.shape[-1] % period), mode='reflect').unflatten(-1, (-1, period))
    for level in range(len(WIDTHS)):
      last = level == len(WIDTHS) - 1
      y = conv(f'period_{period}.conv_{level}', y, (1 if last else 3, 1))
    conv(f'period_{period}.logits', y, active=False)
  for window in WINDOWS:
    hop, count = window // 4, x.shape[-1]
    # As many windows as hops, each on the middle of its hop: PyTorch's centred ones of longer
    # sound, without the two at either end that see what PyTorch pads.
    edge = (window - hop) // 2
    y = F.pad(x, (edge, edge + -count % hop), mode='reflect')[:, 0]
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64)
    y = torch.stft(y, window, hop, window=hann, center=True, return_complex=True)[..., 2:-2]
    y = torch.view_as_real(y).permute(0, 3, 2, 1)
    bands = []
    for band in range(len(EDGES) - 1):
      low, high = (int(edge * (window // 2 + 1)) for edge in EDGES[band : band + 2])
      z = y[..., low:high]
      for level in range(5):
        z = conv(f'window_{window}.band_{band}_conv_{level}', z, (1, 2 if 0 < level < 4 else 1))
      bands.append(z)
    conv(f'window_{window}.logits', torch.cat(bands, -1), active=False)
  return found


def distances(sound: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the distances of mel levels, its gradient by `other`, and that of spectra."""
  import torch
  from transformers.audio_utils import mel_filter_bank

  def magnitudes(x, window):
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64)
    x = x.transpose(1, 2).flatten(0, 1)
    return torch.stft(x, window, window // 4, window=hann, return_complex=True).abs()

  def levels(x, window, bands):
    options = {'norm': 'slaney', 'mel_scale': 'slaney'}
    with warnings.catch_warnings():
      warnings.simplefilter(
        'ignore', UserWarning
      )  # narrow bands lie between places: they are silent
      filters = mel_filter_bank(window // 2 + 1, bands, 0.0, RATE / 2, RATE, **options)
    return torch.einsum('bft,fn->bnt', magnitudes(x, window), torch.tensor(filters))

  def log(x):
    return x.clamp(1e-5).log10()

  def mel_distance(x, y):
    pairs = [(levels(x, *scale), levels(y, *scale)) for scale in SCALES.items()]
    return sum((log(a) - log(b)).abs().mean() for a, b in pairs)

  def stft_distance(x, y):
    pairs = [(magnitudes(x, window), magnitudes(y, window)) for window in (2048, 512)]
    return sum((2 * log(a) - 2 * log(b)).abs().mean() + (a - b).abs().mean() for a, b in pairs)

  x, y = (torch.tensor(array, dtype=torch.float64) for array in (sound, other))
  mel = mel_distance(x, y.requires_grad_())
  mel.backward()
  found = {'mel': mel, 'mel_gradient': y.grad, 'stft': stft_distance(x, y)}
  return {name: tensor.detach().numpy() for name, tensor in found.items()}


def answers() -> dict[str, np.ndarray]:
  """Returns all of it; discriminators judge the first samples alone."""
  sound, other = draw_sounds()
  return {f'judged/{name}': array for name, array in judged(other[:, :JUDGED]).items()} | distances(
    sound, other
  )


if __name__ == '__main__':
  np.savez_compressed(VECTORS, **{name: a.astype(np.float32) for name, a in answers().items()})
