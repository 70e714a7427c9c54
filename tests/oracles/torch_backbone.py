"""The backbone and its training step written a second time, in PyTorch.

It shares no code with `mgjax.backbone`: `test_torch_backbone.py` holds both to the same numbers and
`python -m launch.bench --rival=tests/oracles/torch_backbone.py` to the same clock.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What both networks are built from; `latents` is (b, t, h, w, c), `context` is m."""

  dim: int
  depth: int
  heads: int
  hidden: int
  positions: tuple[int, int, int]
  patch: tuple[int, int, int]
  latents: tuple[int, int, int, int, int]
  context: int
  epsilon: float = 1e-5


def linear(inputs: int, outputs: int) -> nn.Linear:
  return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
  def __init__(self, dim: int, heads: int):
    super().__init__()
    self.heads = heads
    self.query, self.key, self.value, self.out = (linear(dim, dim) for _ in range(4))

  def forward(self, x, source, mask=None):
    query, key, value = (
      y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for y in (self.query(x), self.key(source), self.value(source))
    )
    mask = None if mask is None else mask[:, None, None, :]
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return self.out(y.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
  def __init__(self, dim: int, hidden: int):
    super().__init__()
    self.gate, self.up, self.down = linear(dim, hidden), linear(dim, hidden), linear(hidden, dim)

  def forward(self, x):
    return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
  def __init__(self, sizes: Sizes):
    super().__init__()
    dim = sizes.dim
    self.modulation = nn.Parameter(torch.zeros(6, dim))
    self.self_norm, self.cross_norm, self.feed_norm = (
      nn.RMSNorm(dim, eps=sizes.epsilon) for _ in range(3)
    )
    self.self_attention = Attention(dim, sizes.heads)
    self.cross_attention = Attention(dim, sizes.heads)
    self.feed_forward = FeedForward(dim, sizes.hidden)

  def forward(self, x, modulation, positions, context, mask):
    modulation = modulation + self.modulation
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.split(1, dim=1)
    x = x + positions
    y = self.self_norm(x) * (1 + scale_a) + shift_a
    x = x + gate_a * self.self_attention(y, y)
    x = x + self.cross_attention(self.cross_norm(x), context, mask)
    y = self.feed_norm(x) * (1 + scale_f) + shift_f
    return x + gate_f * self.feed_forward(y)


class Time(nn.Module):
  def __init__(self, dim: int):
    super().__init__()
    self.into, self.out, self.shared = linear(256, dim), linear(dim, dim), linear(dim, 6 * dim)

  def forward(self, time):
    frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)
    angles = 1000 * time[:, None] * frequencies
    x = self.out(F.silu(self.into(torch.cat([angles.cos(), angles.sin()], dim=1))))
    return x, self.shared(F.silu(x)).unflatten(-1, (6, -1))


class Positions(nn.Module):
  def __init__(self, lengths: tuple[int, int, int], dim: int):
    super().__init__()
    t, h, w = (nn.Parameter(0.02 * torch.randn(length, dim)) for length in lengths)
    self.time, self.height, self.width = t, h, w

  def forward(self, t, h, w):
    total = self.time[:t, None, None] + self.height[:h, None] + self.width[:w]
    return total.flatten(0, 2)


class Backbone(nn.Module):
  """u(x, context, time) for latents (b t h w c)."""

  def __init__(self, sizes: Sizes):
    super().__init__()
    values = math.prod(sizes.patch) * sizes.latents[-1]
    self.patch = sizes.patch
    self.patch_in = linear(values, sizes.dim)
    self.positions = Positions(sizes.positions, sizes.dim)
    self.time = Time(sizes.dim)
    self.layers = nn.ModuleList([Block(sizes) for _ in range(sizes.depth)])
    self.norm = nn.RMSNorm(sizes.dim, eps=sizes.epsilon)
    self.modulation = nn.Parameter(torch.zeros(2, sizes.dim))
    self.patch_out = linear(sizes.dim, values)
    nn.init.zeros_(self.patch_out.weight)
    nn.init.zeros_(self.time.shared.weight)

  def forward(self, x, time, context, mask=None):
    (b, t, h, w, c), (dt, dh, dw) = x.shape, self.patch
    t, h, w = t // dt, h // dh, w // dw
    x = x.reshape(b, t, dt, h, dh, w, dw, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    x = self.patch_in(x.reshape(b, t * h * w, -1))
    positions = self.positions(t, h, w)
    embedding, modulation = self.time(time)
    for layer in self.layers:
      x = layer(x, modulation, positions, context, mask)
    shift, scale = (embedding[:, None] + self.modulation).split(1, dim=1)
    x = self.patch_out(self.norm(x) * (1 + scale) + shift)
    x = x.reshape(b, t, h, w, dt, dh, dw, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, t * dt, h * dh, w * dw, c)


def to_jax(named: dict[str, torch.Tensor]) -> dict:
  """Turns {torch name: tensor} into our parameter tree of numpy arrays, layers stacked."""
  stacks, tree = {}, {}
  for name, tensor in named.items():
    path, array = name.split('.'), tensor.detach().numpy()
    if path[-1] == 'weight':
      path[-1] = 'scale' if path[-2].endswith('norm') else 'kernel'
      array = array.T
    if path[0] == 'layers':
      stacks.setdefault(('layers', *path[2:]), []).append(array)
    else:
      stacks[tuple(path)] = array
  for path, value in stacks.items():
    node = tree
    for part in path[:-1]:
      node = node.setdefault(part, {})
    node[path[-1]] = np.stack(value) if isinstance(value, list) else value
  return tree


def from_jax(params: dict, sizes: Sizes) -> Backbone:
  """Builds the network with the values of our parameter tree, boxes removed."""
  model = Backbone(sizes)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      path = name.split('.')
      layer = int(path.pop(1)) if path[0] == 'layers' else None
      if path[-1] == 'weight':
        path[-1] = 'scale' if path[-2].endswith('norm') else 'kernel'
      node = params
      for part in path:
        node = node[part]
      array = np.array(node if layer is None else node[layer])
      parameter.copy_(torch.from_numpy(array.T if path[-1] == 'kernel' else array))
  return model


def make_step(sizes: Sizes, threads: int = 2) -> Callable[[], float]:
  """Returns a training step on fixed random data: forward, MSE, backward, AdamW; gives the loss."""
  torch.set_num_threads(threads)
  generator = torch.Generator().manual_seed(0)
  x, target = (torch.randn(sizes.latents, generator=generator) for _ in range(2))
  context = torch.randn(sizes.latents[0], sizes.context, sizes.dim, generator=generator)
  mask = torch.ones(sizes.latents[0], sizes.context, dtype=torch.bool)
  time = torch.rand(sizes.latents[0], generator=generator)
  model = Backbone(sizes)
  # The fused form is the fastest of the three on a CPU.
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = F.mse_loss(model(x, time, context, mask), target)
    loss.backward()
    optimizer.step()
    return loss.item()

  return step
