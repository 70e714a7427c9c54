"""The networks of a judge of solids: one looks at four frames, one at what that saw over time.

No two solids of a scene have one colour, so the second net reads a row for each colour. It has the
mean of what the cells of that colour say, where it is and how much of it is seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float, Tree, UInt8
from mgjax.lab.worlds.solids.judges.examples import AMOUNTS, COURSE, FRAMES, LOOKS, RATES
from mgjax.lab.worlds.solids.kinds import CAMERAS, COLOURS, MOTIONS

APART = 3  # frames between the first and the last that are looked at together
STEPS = FRAMES - APART
CELL = 4  # pixels, along each side
RATE_SCALE = np.array([20.0, 12.0, 60.0, 0.6, 1.0, 1.0], np.float32)
AMOUNT_SCALE = np.array([20.0, 12.0, 0.6, 60.0, 2.0], np.float32)  # degrees, log of times, units
_AT_ONCE = 32  # clips
_DARK = 2e-4  # squared gradients that noise has, of brightness in [-1, 1] a pixel


class Seen(NamedTuple):
  """What some frames show, cell by cell, and in all."""

  colour: Float[Array, 'b i j k']  # logits of the colours and, last, of none
  looks: tuple[Float[Array, 'b i j _'], ...]  # logits of each of `LOOKS`
  motion: Float[Array, 'b i j m']  # logits
  course: Float[Array, 'b i j c']  # of the solid that is there, see `examples.COURSE`
  cells: Float[Array, 'b i j f']  # what all that is read from
  rates: Float[Array, 'b r']  # of the camera
  camera: Float[Array, 'b _']  # logits of its moves
  view: Float[Array, 'b g']  # what both are read from


class Frames(nn.Module):
  """Looks at frames in [-1, 1]: residual 3 x 3 convolutions on cells, with a global mean.

  Cells see the first and the last frame and how brightness flows from frame to frame.
  """

  width: int = 64
  depth: int = 4

  @nn.compact
  def __call__(self, clip: Float[Array, 'b t h w 3']) -> Seen:
    pair = jnp.concatenate([clip[:, 0], clip[:, -1]], -1)
    x = nn.Conv(self.width, (2 * CELL, 2 * CELL), CELL, name='patch')(pair)
    x += nn.Dense(self.width, name='flow')(flow(clip))
    for layer in range(self.depth):
      y = nn.LayerNorm(name=f'norm_{layer}')(x)
      context = nn.Dense(self.width, name=f'whole_{layer}')(y.mean((1, 2)))
      y = nn.Conv(self.width, (3, 3), name=f'in_{layer}')(y) + context[:, None, None]
      x = x + nn.Dense(self.width, name=f'out_{layer}')(jax.nn.silu(y))
    x = jax.nn.silu(nn.LayerNorm(name='norm')(x))
    parts = x.reshape(x.shape[0], 4, x.shape[1] // 4, 4, x.shape[2] // 4, -1).mean((2, 4))
    view = jax.nn.silu(nn.Dense(self.width, name='view')(parts.reshape(x.shape[0], -1)))
    return Seen(
      nn.Dense(len(COLOURS) + 1, name='colour')(x),
      tuple(nn.Dense(len(names), name=name)(x) for name, names in LOOKS.items()),
      nn.Dense(len(MOTIONS), name='motion')(x),
      nn.Dense(COURSE, name='course')(x),
      x,
      nn.Dense(RATES, name='rates')(view),
      nn.Dense(len(CAMERAS), name='camera')(view),
      view,
    )


def flow(clip: Float[Array, 'b t h w 3']) -> Float[Array, 'b i j 6']:
  """How brightness I moves, v = -(sum g g^T + e)^-1 sum g I_t with g = grad I, in two windows.

  It follows Lucas and Kanade (1981). Sums are over a cell, or three by three of them, and all pairs
  of consecutive frames. The log of the sum of g g comes last and says how much is to be seen.
  """
  grey = blurred(clip.mean(-1), (1, 2, 1))
  middle = (grey[:, 1:] + grey[:, :-1]) / 2
  change = grey[:, 1:] - grey[:, :-1]
  down, right = (jnp.gradient(middle, axis=axis) for axis in (2, 3))
  products = (right * right, right * down, down * down, right * change, down * change)
  b, _, height, width = middle.shape
  cells = jnp.stack(products, -1).mean(1)
  cells = cells.reshape(b, height // CELL, CELL, width // CELL, CELL, 5).mean((2, 4))
  wide = jax.lax.reduce_window(cells, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME') / 9
  return jnp.concatenate([_solved(cells), _solved(wide)], -1)


def _solved(sums: Float[Array, 'b i j 5']) -> Float[Array, 'b i j 3']:
  xx, xy, yy, xt, yt = jnp.moveaxis(sums, -1, 0)
  xx, yy = xx + _DARK, yy + _DARK
  scale = -1 / (xx * yy - xy * xy)
  v = [scale * (yy * xt - xy * yt), scale * (xx * yt - xy * xt), jnp.log(xx + yy) / 4 + 1.5]
  return jnp.clip(jnp.stack(v, -1), -3, 3)


def blurred(video: Float[Array, 'b t h w *c'], weights: Sequence[Any]) -> Array:
  """Averages neighbours along both sides of frames with an odd number of weights, clip by clip."""
  reach = len(weights) // 2
  for axis in (2, 3):
    wide = jnp.pad(video, [(reach * (k == axis),) * 2 for k in range(video.ndim)], 'edge')
    parts = (
      weight * jax.lax.slice_in_dim(wide, k, k + video.shape[axis], axis=axis)
      for k, weight in enumerate(weights)
    )
    video = sum(parts) / sum(weights)
  return video


class Rows(NamedTuple):
  """What is kept of some frames: a row for each colour, and one of the whole."""

  solids: Float[Array, 'b n f']
  view: Float[Array, 'b g']


def rows_of(seen: Seen) -> Rows:
  """Averages the cells of each colour: sum_ij p_ij x_ij / sum_ij p_ij."""
  share = jax.nn.softmax(seen.colour)[..., :-1]
  mass = share.sum((1, 2))
  u, v = _places(share.shape[:3])
  cells = jnp.concatenate([*seen.looks, seen.motion, seen.course, seen.cells, u, v], -1)
  mean = jnp.einsum('bijn,bijf->bnf', share, cells) / (mass[..., None] + 1e-3)
  peak = share.max((1, 2))
  solids = jnp.concatenate([mean, jnp.log(mass + 0.01)[..., None], peak[..., None]], -1)
  return Rows(solids, jnp.concatenate([seen.rates, seen.camera, seen.view], -1))


class ClipPredictions(NamedTuple):
  """What a clip shows, colour by colour, and of the camera; logits, and numbers."""

  present: Float[Array, 'b n']
  looks: tuple[Float[Array, 'b n _'], ...]
  motion: Float[Array, 'b n m']
  place: Float[Array, 'b n 2']
  contacts: Float[Array, 'b t n 4']  # logit and time after the frame: of solids, of the floor
  camera: Float[Array, 'b _']
  amount: Float[Array, 'b a']  # of each of `AMOUNTS`, by `AMOUNT_SCALE`; of zooms its log


class Clips(nn.Module):
  """Reads the rows of a clip: residual convolutions over time, colour by colour."""

  width: int = 96
  depth: int = 3

  @nn.compact
  def __call__(
    self, solids: Float[Array, 'b t n f'], view: Float[Array, 'b t g']
  ) -> ClipPredictions:
    at = np.clip(np.arange(FRAMES) - 1, 0, STEPS - 1)  # steps around each frame
    solids = nn.LayerNorm(name='norm_solids')(solids[:, at])
    rates = view[:, at, :RATES]
    view = nn.LayerNorm(name='norm_view')(view[:, at])
    view = jnp.concatenate([rates, view], -1)
    x = nn.Dense(self.width, name='rows')(solids)
    others = x.sum(2, keepdims=True) - x  # such as the one it meets
    x += nn.Dense(self.width, name='others')(jax.nn.silu(others))
    x += nn.Dense(self.width, name='view')(view)[:, :, None]
    x = x.swapaxes(1, 2)  # b n t f
    for layer in range(self.depth):
      y = nn.Conv(self.width, (5,), name=f'time_{layer}')(nn.LayerNorm(name=f'norm_{layer}')(x))
      x = x + nn.Dense(self.width, name=f'out_{layer}')(jax.nn.silu(y))
    x = jax.nn.silu(nn.LayerNorm(name='norm')(x))
    summary = jnp.concatenate([x.mean(2), x.max(2), x[:, :, 0], x[:, :, -1]], -1)
    summary = jax.nn.silu(nn.Dense(2 * self.width, name='whole')(summary))
    features = jnp.concatenate([view.reshape(len(view), -1), summary.max(1)], -1)
    features = jax.nn.silu(
      nn.Dense(2 * self.width, name='seen')(nn.LayerNorm(name='norm_seen')(features))
    )
    return ClipPredictions(
      nn.Dense(1, name='present')(summary)[..., 0],
      tuple(nn.Dense(len(names), name=name)(summary) for name, names in LOOKS.items()),
      nn.Dense(len(MOTIONS), name='motion')(summary),
      nn.Dense(2, name='place')(summary),
      nn.Dense(4, name='contacts')(x).swapaxes(1, 2),
      nn.Dense(len(CAMERAS), name='camera')(features),
      nn.Dense(len(AMOUNTS), name='amount')(features),
    )


def _places(shape: tuple[int, int, int]) -> tuple[Array, Array]:
  """The middles of cells (b i j 1), u to the right and v up, in [-1, 1]."""
  _, height, width = shape
  u = (2 * jnp.arange(width) + 1) / width - 1
  v = 1 - (2 * jnp.arange(height) + 1) / height
  return (
    jnp.broadcast_to(u[None, None, :, None], (*shape, 1)),
    jnp.broadcast_to(v[None, :, None, None], (*shape, 1)),
  )


def pieces(clip: Float[Array, 't h w 3']) -> Float[Array, 'k u h w 3']:
  """Returns the frames that are looked at together, `STEPS` times `APART` + 1 of a clip."""
  return clip[np.arange(STEPS)[:, None] + np.arange(APART + 1)]


def as_floats(video: UInt8[Array, '*t h w 3']) -> Float[Array, '*t h w 3']:
  """Bytes in [-1, 1]."""
  return video.astype(jnp.float32) / 127.5 - 1


@jax.jit
def look(params: Tree, video: UInt8[Array, 'b t h w 3']) -> Rows:
  """Returns the rows of clips, a step after the other: (b t n f) and (b t g)."""

  def one(clip):
    return rows_of(Frames().apply(params, pieces(as_floats(clip))))

  return jax.lax.map(one, video)


_read = jax.jit(lambda params, rows: Clips().apply(params, *rows))


def tell(
  weights: Mapping[str, Tree], video: UInt8[np.ndarray, 'b 16 64 64 3']
) -> tuple[ClipPredictions, Float[np.ndarray, 'b t r']]:
  """Returns predictions in NumPy, with amounts in their units, and the camera's step rates."""
  predictions = []
  rates = []
  for first in range(0, len(video), _AT_ONCE):
    clips = video[first : first + _AT_ONCE]
    missing = _AT_ONCE - len(clips)  # one shape is one program
    rows = look(weights['frames'], np.pad(clips, [(0, missing), *[(0, 0)] * 4]))
    predictions.append(_read(weights['clips'], rows))
    rates.append(np.asarray(rows.view)[..., :RATES] * RATE_SCALE)
  predictions = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(video)], *predictions)
  predictions = predictions._replace(amount=predictions.amount * AMOUNT_SCALE)
  return predictions, np.concatenate(rates)[: len(video)]
