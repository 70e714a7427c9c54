"""The temporal autoencoder written a second time, in PyTorch.

It shares no code with `mgjax.models.tae`: `test_torch_autoencoder.py` holds both to the same
numbers and `python -m launch.bench --what=encode --baseline=tests/oracles/torch_autoencoder.py` to
one clock. Videos are (b t c h w); frames go through PyTorch's 2D layers as rows (b t) c h w, in
either of its memory formats.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mgjax.core.tree import named_leaves

WHAT = ('encode', 'decode')
FORMATS = {'': torch.contiguous_format, ' channels last': torch.channels_last}


class Spatial(nn.Conv2d):
  """A 2D convolution of every frame; stride 2 pads one row and one column at the far ends."""

  def __init__(self, inputs: int, outputs: int, window: int = 3, stride: int = 1):
    padding = window // 2 if stride == 1 else 0
    super().__init__(inputs, outputs, window, stride=stride, padding=padding)

  def forward(self, x):
    frames = x.flatten(0, 1)
    if self.stride == (2, 2):
      frames = F.pad(frames, (0, 1, 0, 1))
    return super().forward(frames).unflatten(0, x.shape[:2])


class Temporal(nn.Conv2d):
  """A 1D convolution over time at every place, the first and last frames repeated.

  Over (t, h w) with a window of (3, 1), for which PyTorch has its fastest kernels.
  """

  def __init__(self, channels: int, stride: int = 1):
    super().__init__(channels, channels, (3, 1), stride=(stride, 1))

  def forward(self, x):
    # By index, because `F.pad` forgets the memory format.
    times = torch.arange(-1, x.shape[1] + 1).clamp(0, x.shape[1] - 1)
    places = x[:, times].transpose(1, 2).flatten(3)
    return super().forward(places).unflatten(3, x.shape[3:]).transpose(1, 2)


class Norm(nn.GroupNorm):
  """Group normalisation of each frame by itself."""

  def __init__(self, groups: int, channels: int):
    super().__init__(groups, channels, eps=1e-6)

  def forward(self, x):
    return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Conv(nn.Module):
  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.spatial, self.temporal = Spatial(inputs, outputs), Temporal(outputs)

  def forward(self, x):
    return self.temporal(self.spatial(x))


class Residual(nn.Module):
  def __init__(self, inputs: int, outputs: int, groups: int):
    super().__init__()
    self.norm_1, self.conv_1 = Norm(groups, inputs), Conv(inputs, outputs)
    self.norm_2, self.conv_2 = Norm(groups, outputs), Conv(outputs, outputs)
    self.shortcut = Spatial(inputs, outputs, window=1) if inputs != outputs else nn.Identity()

  def forward(self, x):
    y = self.conv_1(F.silu(self.norm_1(x)))
    y = self.conv_2(F.silu(self.norm_2(y)))
    return self.shortcut(x) + y


class Attention(nn.Module):
  """Single-head attention along the tokens of (b n c)."""

  def __init__(self, channels: int):
    super().__init__()
    self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

  def forward(self, x):
    projected = (part(x)[:, None] for part in (self.query, self.key, self.value))
    return self.out(F.scaled_dot_product_attention(*projected)[:, 0])


class Attentions(nn.Module):
  """Among the places of a frame, then among the frames of a place."""

  def __init__(self, channels: int, groups: int):
    super().__init__()
    self.spatial_norm, self.spatial = Norm(groups, channels), Attention(channels)
    self.temporal_norm, self.temporal = Norm(groups, channels), Attention(channels)

  def forward(self, x):
    b, t, c, h, w = x.shape
    y = self.spatial_norm(x).permute(0, 1, 3, 4, 2)
    y = self.spatial(y.reshape(b * t, h * w, c)).view(b, t, h, w, c)
    x = x + y.permute(0, 1, 4, 2, 3)
    y = self.temporal_norm(x).permute(0, 3, 4, 1, 2)
    y = self.temporal(y.reshape(b * h * w, t, c)).view(b, h, w, t, c)
    return x + y.permute(0, 3, 4, 1, 2)


class Down(nn.Module):
  def __init__(self, channels: int, strides: tuple[int, int, int]):
    super().__init__()
    time, height, _ = strides
    self.spatial = Spatial(channels, channels, stride=2) if height == 2 else nn.Identity()
    self.temporal = Temporal(channels, stride=2) if time == 2 else nn.Identity()

  def forward(self, x):
    return self.temporal(self.spatial(x))


class Up(nn.Module):
  def __init__(self, channels: int, strides: tuple[int, int, int]):
    super().__init__()
    self.time, self.factors = strides[0], strides[1:]
    self.conv = Conv(channels, channels)

  def forward(self, x):
    if self.time == 2:
      x = x.repeat_interleave(2, dim=1)
    if self.factors != (1, 1):
      frames = F.interpolate(x.flatten(0, 1), scale_factor=self.factors, mode='nearest')
      x = frames.unflatten(0, x.shape[:2])
    return self.conv(x)


def middle(channels: int, groups: int) -> dict[str, nn.Module]:
  return {
    'middle_block_0': Residual(channels, channels, groups),
    'middle_attention': Attentions(channels, groups),
    'middle_block_1': Residual(channels, channels, groups),
  }


def apply(layers: nn.ModuleDict, x):
  for name, layer in layers.items():
    x = F.silu(layer(x)) if name == 'norm_out' else layer(x)
  return x


class Autoencoder(nn.Module):
  """Layers in the order in which they act, by the names that ours have."""

  def __init__(self, *, latent_channels, widths, strides, blocks, groups):
    super().__init__()
    levels = list(enumerate(widths))
    down, width = {'conv_in': Conv(3, widths[0])}, widths[0]
    for level, after in levels:
      for block in range(blocks):
        down[f'level_{level}_block_{block}'] = Residual(width, after, groups)
        width = after
      if level < len(strides):
        down[f'level_{level}_down'] = Down(width, strides[level])
    down |= middle(width, groups)
    down |= {'norm_out': Norm(groups, width), 'conv_out': Conv(width, 2 * latent_channels)}

    up = {'conv_in': Conv(latent_channels, width), **middle(width, groups)}
    for level, after in reversed(levels):
      if level < len(strides):
        up[f'level_{level}_up'] = Up(width, strides[level])
      for block in range(blocks + 1):
        up[f'level_{level}_block_{block}'] = Residual(width, after, groups)
        width = after
    up |= {'norm_out': Norm(groups, width), 'conv_out': Spatial(width, 3)}
    self.encoder, self.decoder = nn.ModuleDict(down), nn.ModuleDict(up)

  def encode(self, video):
    """Returns the posterior's mean of pixels in [-1, 1]."""
    return apply(self.encoder, video).chunk(2, dim=2)[0]

  def decode(self, latents):
    return apply(self.decoder, latents)


def to_ours(name: str) -> str:
  """Turns 'encoder.conv_in.spatial.weight' into 'encoder/conv_in/spatial/kernel'."""
  *path, kind = name.split('.')
  if kind == 'weight':
    kind = 'scale' if path[-1].startswith('norm') or path[-1].endswith('norm') else 'kernel'
  layer = '/'.join(path)
  if '/middle_attention/' in layer:
    layer = layer.replace('spatial/', 'spatial_').replace('temporal/', 'temporal_')
  return f'{layer}/{kind}'


def load(model: Autoencoder, params: Mapping[str, np.ndarray]) -> Autoencoder:
  """Gives a model the values of our parameters, all of them, by their names."""
  own = {to_ours(name): parameter for name, parameter in model.named_parameters()}
  if own.keys() != params.keys():
    raise ValueError(f'other parameters: {sorted(own.keys() ^ params.keys())[:3]}')
  with torch.no_grad():
    for name, parameter in own.items():
      array = np.array(params[name])
      if array.ndim > 1:  # (.. i o) to (o i ..)
        array = np.moveaxis(array, (-1, -2), (0, 1)).copy()
      parameter.copy_(torch.from_numpy(array).view(parameter.shape))
  return model


def gradients(model: Autoencoder) -> dict[str, np.ndarray]:
  """Returns gradients, of parameters that have some, by our names and in our shapes."""
  found = {}
  for name, parameter in model.named_parameters():
    if parameter.grad is not None:
      array = parameter.grad.numpy()
      if isinstance(model.get_submodule(name.rpartition('.')[0]), Temporal) and array.ndim > 1:
        array = array[..., 0]
      found[to_ours(name)] = np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array
  return found


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes what `launch.bench` times, with our weights, in PyTorch's memory formats and compiled."""
  torch.set_num_threads(task['threads'])
  if task['dtype'] != 'float32' or task['quant_convolutions'] or task['patch'] != (1, 1, 1):
    raise ValueError('the twin computes in float32, without patches and quant_convolutions')
  fields = ('latent_channels', 'widths', 'strides', 'blocks', 'groups')
  model = Autoencoder(**{name: task[name] for name in fields})
  model = load(model, named_leaves(task['params'])).eval()
  what = task['what']

  def run(code: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
      y = code(x)
      return (y if what == 'encode' else y[:, : task['frames']]).permute(0, 1, 3, 4, 2)

  x = torch.from_numpy(task['x'].copy()).permute(0, 1, 4, 2, 3)
  found = {}
  for name, form in FORMATS.items():
    own, inputs = copy.deepcopy(model).to(memory_format=form), frames(x, form)
    for kind, wrap in (('', lambda code: code), (', compiled', torch.compile)):
      code = wrap(own.encode if what == 'encode' else own.decode)
      found[f'PyTorch {torch.__version__}{name}{kind}'] = {
        what: functools.partial(run, code, inputs)
      }
  return found


def frames(x: torch.Tensor, form: torch.memory_format) -> torch.Tensor:
  return x.flatten(0, 1).contiguous(memory_format=form).unflatten(0, x.shape[:2])
