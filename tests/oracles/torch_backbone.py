"""The backbone and its training step written a second time, in PyTorch.

It shares no code with `mgjax.models.backbone`: `test_torch_backbone.py` holds both to the same
numbers and `python -m launch.bench --baseline=tests/oracles/torch_backbone.py` to the same clock.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

WHAT = ('step', 'blocks', 'sample')

Wrap = Callable[[Any], Any]  # of a module or a function: torch.compile, or nothing


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What both networks are built from; `latents` is (b, t, h, w, c), `context` is m."""

  dim: int
  depth: int
  heads: int
  mlp_dim: int
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
  def __init__(self, dim: int, mlp_dim: int):
    super().__init__()
    self.gate, self.up, self.down = linear(dim, mlp_dim), linear(dim, mlp_dim), linear(mlp_dim, dim)

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
    self.feed_forward = FeedForward(dim, sizes.mlp_dim)

  def forward(self, x, modulation, positions, context, mask):
    modulation = modulation + self.modulation
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.split(1, dim=1)
    x = x + positions
    y = self.self_norm(x) * (1 + scale_a) + shift_a
    x = x + gate_a * self.self_attention(y, y)
    x = x + self.cross_attention(self.cross_norm(x), context, mask)
    y = self.feed_norm(x) * (1 + scale_f) + shift_f
    return x + gate_f * self.feed_forward(y)


def through(layers: nn.ModuleList, x, modulation, positions, context, mask, *, again: bool):
  """Applies layers, of which the backward pass may keep the inputs alone and compute all again."""
  for layer in layers:
    inputs = (x, modulation, positions, context, mask)
    keep = again and torch.is_grad_enabled()
    x = checkpoint(layer, *inputs, use_reentrant=False) if keep else layer(*inputs)
  return x


class Time(nn.Module):
  def __init__(self, dim: int):
    super().__init__()
    self.into, self.out, self.shared = linear(256, dim), linear(dim, dim), linear(dim, 6 * dim)

  def forward(self, time):
    places = torch.arange(128, device=time.device)
    angles = 1000 * time.float()[:, None] * torch.exp(-math.log(10000) * places / 128)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(time.dtype)
    x = self.out(F.silu(self.into(waves)))
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

  def __init__(self, sizes: Sizes, again: bool = False):
    super().__init__()
    self.again = again
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
    x = through(self.layers, x, modulation, positions, context, mask, again=self.again)
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


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes what `launch.bench` times, on random data: a training step, the layers alone, or
  a loop that samples.

  With the compute type bfloat16 everything is bfloat16, weights and moments too: less to read than
  ours. Layers are computed again where our policy saves little of them.
  """
  torch.set_num_threads(task['threads'])
  device = 'cuda' if task['platform'] == 'gpu' else 'cpu'
  sizes = Sizes(**{field.name: task[field.name] for field in dataclasses.fields(Sizes)})
  place = {'device': device, 'dtype': getattr(torch, task['dtype'])}
  again = task['remat'] in ('full', 'attention', 'offload')

  def programs(wrap: Wrap) -> dict[str, Callable[[], Any]]:
    if task['what'] == 'step':
      return {'step': make_step(sizes, task['threads'], again=again, wrap=wrap, **place)}
    if task['what'] == 'sample':
      if task['solver'] != 'euler':
        raise ValueError(f"this loop is Euler's, not {task['solver']}")
      return make_samplers(sizes, task['times'], task['guidance'], wrap=wrap, **place)
    return make_blocks(sizes, again=again, wrap=wrap, **place)

  wraps = {'': lambda module: module}
  if device == 'cpu':  # on a GPU a second model would take the memory of layers
    wraps[', compiled'] = torch.compile
  return {
    f'PyTorch {torch.__version__}{name}': {
      program: waited(run, device) for program, run in programs(wrap).items()
    }
    for name, wrap in wraps.items()
  }


def waited(run: Callable[[], Any], device: str) -> Callable[[], Any]:
  """Returns a run that ends when the device is done."""

  def wait() -> Any:
    results = run()
    if device == 'cuda':
      torch.cuda.synchronize()
    return results

  return wait


def make_step(
  sizes: Sizes,
  threads: int = 2,
  again: bool = False,
  wrap: Wrap = lambda module: module,
  **place: Any,
) -> Callable[[], float]:
  """Returns a training step on fixed random data: forward, MSE, backward, AdamW; gives the loss."""
  torch.set_num_threads(threads)
  generator = torch.Generator().manual_seed(0)

  def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator).to(**place)

  x, target = (draw(*sizes.latents) for _ in range(2))
  context = draw(sizes.latents[0], sizes.context, sizes.dim)
  mask = torch.ones(sizes.latents[0], sizes.context, dtype=torch.bool, device=x.device)
  time = torch.rand(sizes.latents[0], generator=generator).to(**place)
  with torch.device(x.device):
    model = Backbone(sizes, again).to(x.dtype)
  # The fused form is the fastest of the three on a CPU.
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
  predict = wrap(model)

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = F.mse_loss(predict(x, time, context, mask), target)
    loss.backward()
    optimizer.step()
    return loss.item()

  return step


def make_samplers(
  sizes: Sizes,
  times: Sequence[float],
  guidance: float,
  device: str = 'cpu',
  dtype: torch.dtype = torch.float32,
  wrap: Wrap = lambda module: module,
) -> dict[str, Callable[[], torch.Tensor]]:
  """Returns Euler's first step and the whole loop on random data, as one writes them by hand.

  Guidance makes two rows of one, in one pass; the context is there already.
  """
  with torch.device(device):
    model = wrap(Backbone(sizes).to(dtype).eval())
    noise = torch.randn(sizes.latents, dtype=dtype)
    context = torch.randn(2 * len(noise), sizes.context, sizes.dim, dtype=dtype)
    mask = torch.ones(2 * len(noise), sizes.context, dtype=torch.bool)
  rows = 1 if guidance == 1 else 2

  @torch.inference_mode()
  def sample(count: int) -> torch.Tensor:
    x = noise
    for time, after in itertools.pairwise(times[: count + 1]):
      many = torch.full((rows * len(x),), time, device=device, dtype=dtype)
      part = slice(rows * len(x))
      u = model(x.repeat(rows, 1, 1, 1, 1), many, context[part], mask[part])
      if rows == 2:
        with_text, without = u.chunk(2)
        u = without + guidance * (with_text - without)
      x = x + (after - time) * u
    return x

  return {'guided_step': lambda: sample(1), 'sample': lambda: sample(len(times) - 1)}


def make_blocks(
  sizes: Sizes,
  again: bool = False,
  device: str = 'cpu',
  dtype: torch.dtype = torch.float32,
  wrap: Wrap = lambda module: module,
) -> dict[str, Callable[[], Any]]:
  """Returns the layers alone on random data: forward, and with gradients of what they read."""
  rows, dim = sizes.latents[0], sizes.dim
  tokens = math.prod(sizes.latents[1:4]) // math.prod(sizes.patch)
  with torch.device(device):
    layers = nn.ModuleList([Block(sizes) for _ in range(sizes.depth)]).to(dtype)
    shapes = ((rows, tokens, dim), (rows, 6, dim), (tokens, dim), (rows, sizes.context, dim))
    inputs = [(0.1 * torch.randn(shape, dtype=dtype)).requires_grad_() for shape in shapes]
    mask = torch.ones(rows, sizes.context, dtype=torch.bool)
    dy = torch.randn(shapes[0], dtype=dtype)

  @wrap
  def apply() -> torch.Tensor:
    x, *others = inputs
    return through(layers, x, *others, mask, again=again)

  def forward() -> torch.Tensor:
    with torch.no_grad():
      return apply()

  def both() -> tuple[torch.Tensor, ...]:
    y = apply()
    return y, *torch.autograd.grad(y, [*inputs, *layers.parameters()], dy)

  return {'forward': forward, 'forward_backward': both}
