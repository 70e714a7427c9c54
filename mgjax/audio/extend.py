"""Sound longer than the model has learnt, window by window (Movie Gen §6).

Latents are (b t 1 1 c), a video of one pixel. A `generate(batch, noise) -> latents` makes one
window; every way to go beyond it needs that, or its velocity, and nothing else of the model:

- `concatenate` lays windows side by side that know nothing of each other: the baseline.
- `autoregress` shows each window the end of what was made so far as its audio context.
- `multi_diffusion` averages the velocities of overlapping windows at every step of the solver.

Noise belongs to a frame and not to a window (`frame_noise`), so the ways differ in nothing else.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Batch, Float
from mgjax.flow.guidance import MakeVelocity
from mgjax.flow.solvers import Velocity
from mgjax.tae.tiling import Cover

Generate = Callable[[Batch, np.ndarray], Array | np.ndarray]  # batch, noise (b t 1 1 c) -> latents
Conditions = Callable[[int, int], Batch]  # start, stop of frames -> batch of one row
Noise = Callable[[np.ndarray, int, int], Array]  # candidates (n,), start, stop -> (n t 1 1 c)
Score = Callable[[np.ndarray, int], np.ndarray]  # windows (n t 1 1 c), their start -> (n,)

ALONG = ('frame_features', 'context')  # what a batch has for every frame, on axis 1


def windows(total: int, size: int, overlap: int = 0) -> Cover:
  """Covers `total` frames by windows of one size, of which the last is moved back to end there.

  Where the whole is shorter than a window, it is the window. `starts` says where each begins.

  Raises:
    ConfigError: nothing is to be covered, or windows would not go on.
  """
  if total < 1 or size < 1 or not 0 <= overlap < size:
    raise ConfigError(
      f'{total} frames in windows of {size} that share {overlap}: expected a frame at least, and '
      'fewer that are shared than a window has'
    )
  return Cover(total, min(size, total), min(overlap, total - 1))


def frame_noise(
  seed: int, candidates: np.ndarray, start: int, stop: int, channels: int
) -> Float[Array, 'b t 1 1 c']:
  """Draws X_0 ~ N(0, 1) of the frames from `start` to `stop`, one row a candidate.

  The noise of a frame depends on (seed, candidate, frame) alone, not on the window it is in.
  """
  frames = np.arange(start, stop, dtype=np.uint32)
  return _draw(jax.random.key(seed), np.asarray(candidates, np.uint32), frames, channels)


@functools.partial(jax.jit, static_argnums=3)
def _draw(key: Array, candidates: Array, frames: Array, channels: int) -> Array:
  def one(candidate: Array, frame: Array) -> Array:
    own = jax.random.fold_in(jax.random.fold_in(key, candidate), frame)
    return jax.random.normal(own, (1, 1, channels), jnp.float32)

  along = jax.vmap(one, in_axes=(None, 0))
  return jax.vmap(along, in_axes=(0, None))(candidates, frames)


def bartlett(size: int) -> Float[np.ndarray, ' t']:
  """The triangular window, positive everywhere: min(i + 1/2, size - i - 1/2) (Movie Gen §6)."""
  places = np.arange(size) + 0.5
  return np.minimum(places, size - places)


def uniform(size: int) -> Float[np.ndarray, ' t']:
  """Every place of a window counts the same, which the report found to be worse."""
  return np.ones(size)


SHAPES: dict[str, Callable[[int], np.ndarray]] = {'bartlett': bartlett, 'uniform': uniform}


def weights(cover: Cover, shape: str = 'bartlett') -> Float[np.ndarray, 'windows t']:
  """Returns w_i(x) = u(x - s_i) / sum_j u(x - s_j) of each window at its own places.

  Raises:
    ConfigError: no window has this shape.
  """
  if shape not in SHAPES:
    raise ConfigError(f'unknown window {shape!r}; choose one of {", ".join(SHAPES)}')
  rise, total = SHAPES[shape](cover.size), np.zeros(cover.length)
  for start in cover.starts:
    total[start : start + cover.size] += rise
  return np.stack([rise / total[start : start + cover.size] for start in cover.starts])


def multi_diffusion(
  make_velocity: MakeVelocity,
  cover: Cover,
  *,
  shape: str = 'bartlett',
  rows: int = 8,
  along: Sequence[str] = ALONG,
) -> MakeVelocity:
  """Makes a model of windows into one of the whole length (Movie Gen §6).

  v(x, t) = sum_i w_i v_i(x_i, t), where x_i is what window i shows of x, v_i its velocity under the
  conditions of those frames, and w_i its weight. The solver sees one velocity, so the windows agree
  on one sound at every step. Windows are rows of a batch, as many as `rows` allows at a time, and
  the times are a loop: the program and its memory are those of one group.

  Args:
    make_velocity: batch of windows -> velocity, for instance `make_guided` with its model.
    cover: the windows.
    shape: of their weights, a name in `SHAPES`.
    rows: in a call of the model, guidance not counted.
    along: what in a batch has a value for every frame, on axis 1.

  Returns:
    batch of the whole length -> velocity of the whole length.

  Raises:
    ConfigError: no window has this shape, or `rows` is not positive.
  """
  if rows < 1:
    raise ConfigError(f'{rows} rows at a time; expected 1 at least')
  starts, share = list(cover.starts), weights(cover, shape)

  def make_whole(batch: Batch) -> Velocity:
    batch = {name: jnp.asarray(value) for name, value in batch.items()}

    def velocity(
      x: Float[Array, 'b t 1 1 c'], time: Float[Array, ' b']
    ) -> Float[Array, 'b t 1 1 c']:
      count = len(x)
      together = min(max(1, rows // count), len(starts))
      extra = -len(starts) % together  # windows that fill the last group, without weight
      groups = jnp.array(starts + [0] * extra, jnp.int32).reshape(-1, together)
      shares = jnp.array(np.pad(share, ((0, extra), (0, 0))), jnp.float32)
      shares = shares.reshape(-1, together, cover.size)

      def cut(array: Array, begin: Array) -> Array:
        pieces = [_slice(array, begin[i], cover.size) for i in range(together)]
        return jnp.concatenate(pieces)

      def add(total: Array, group: tuple[Array, Array]) -> tuple[Array, None]:
        begin, share = group
        shown = {
          name: cut(value, begin) if name in along else jnp.concatenate([value] * together)
          for name, value in batch.items()
        }
        answer = make_velocity(shown)(cut(x, begin), jnp.tile(time, together))
        answer = answer.astype(total.dtype).reshape(together, count, *answer.shape[1:])
        answer *= share[:, None, :, None, None, None]
        for i in range(together):  # one after another, so that sums are always in one order
          sofar = _slice(total, begin[i], cover.size)
          total = jax.lax.dynamic_update_slice_in_dim(total, sofar + answer[i], begin[i], 1)
        return total, None

      zeros = jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))
      return jax.lax.scan(add, zeros, (groups, shares))[0]

    return velocity

  return make_whole


def _slice(array: Array, start: Array, size: int) -> Array:
  return jax.lax.dynamic_slice_in_dim(array, start, size, 1)


class _Beam(NamedTuple):
  waiting: tuple[np.ndarray, ...]  # new parts that not all beams agree on
  tail: np.ndarray  # (t 1 1 c), the last frames made, a window's worth at most
  score: float


def autoregress(
  generate: Generate,
  conditions: Conditions,
  noise: Noise,
  cover: Cover,
  *,
  given: Callable[[int, int], tuple[np.ndarray, np.ndarray]] | None = None,
  candidates: int = 1,
  beams: int = 1,
  score: Score | None = None,
  rows: int = 8,
) -> Iterator[Float[np.ndarray, 't 1 1 c']]:
  """Yields sound segment by segment, each made with the end of the one before in sight.

  What windows share is 'context' of the later one: known latents, zeros where nothing is known. The
  model fills in the rest, and what was known stays as it is, bit for bit (Movie Gen §6: extension
  and infilling). With several candidates a segment is the one of the best score; with several
  beams the best histories are carried on, by the sum of the scores of their windows.

  Args:
    generate: makes a window: batch, noise -> latents. It is always called with as many rows.
    conditions: frames -> batch of one row without 'context'. `start` never goes back.
    noise: candidates and frames -> their noise, from `frame_noise`.
    cover: the windows; their overlap is the context.
    given: frames -> latents (t 1 1 c) and (t,) which of them are known beforehand; such frames are
      kept as they are, wherever they lie.
    candidates: of each segment, for each beam.
    beams: histories that are kept.
    score: judges whole windows; the higher, the better.
    rows: in a call of `generate` at most.

  Yields:
    The next frames: a window, and then of every window what it adds.

  Raises:
    ConfigError: there is a choice, but no score to choose by.
  """
  if min(candidates, beams, rows) < 1:
    raise ConfigError(f'{candidates} candidates, {beams} beams, {rows} rows; expected 1 at least')
  if beams > candidates:
    raise ConfigError(f'{beams} beams of {candidates} candidates; the first segment has no more')
  if candidates > 1 and score is None:
    raise ConfigError(f'{candidates} candidates and no score; give one to choose by')
  numbers, rows = np.arange(candidates), min(rows, candidates)
  held, done = [_Beam((), np.zeros((0, 1, 1, 1), np.float32), 0.0)], 0

  for start in cover.starts:
    stop, shared = start + cover.size, done - start
    batch, draws = conditions(start, stop), np.asarray(noise(numbers, start, stop))
    latents, known = _known(given, start, draws[0])
    grown = []
    for beam in held:
      if shared > 0:
        latents[:shared] = beam.tail[-shared:]  # what was made already contains what was given
        known[:shared] = cover.feather > 0
      made = _fill(generate, batch, draws, latents, known, rows)
      gains = np.zeros(1) if score is None else np.asarray(score(made, start), np.float64)
      for window, gain in zip(made, gains, strict=False):
        new = window[max(shared, 0) :]
        grown.append(_Beam((*beam.waiting, new), window, beam.score + float(gain)))
    held, done = sorted(grown, key=lambda beam: -beam.score)[:beams], stop
    while held[0].waiting and all(beam.waiting[0] is held[0].waiting[0] for beam in held):
      yield held[0].waiting[0]
      held = [beam._replace(waiting=beam.waiting[1:]) for beam in held]
  yield from held[0].waiting


def concatenate(
  generate: Generate, conditions: Conditions, noise: Noise, cover: Cover, **options
) -> Iterator[Float[np.ndarray, 't 1 1 c']]:
  """Yields windows that know nothing of each other, with the arguments of `autoregress`.

  The last window, moved back, gives what is left over.
  """
  apart = Cover(cover.length, cover.size, 0)
  return autoregress(generate, conditions, noise, apart, **options)


def _known(given, start: int, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns a copy of what is given of a window, zeros elsewhere, and where it is given."""
  if given is None:
    return np.zeros_like(like), np.zeros(len(like), bool)
  latents, known = given(start, start + len(like))
  return np.where(known[:, None, None, None], latents, 0).astype(like.dtype), known.copy()


def _fill(
  generate: Generate,
  batch: Batch,
  draws: np.ndarray,
  latents: np.ndarray,
  known: np.ndarray,
  rows: int,
) -> np.ndarray:
  """Returns candidates (n t 1 1 c) of a window of which `known` frames are as in `latents`."""
  if known.all():
    return latents[None].copy()
  keep = known[:, None, None, None]
  batch = batch | {'context': np.where(keep, latents, 0)[None]}
  batch = {name: np.repeat(np.asarray(value), rows, axis=0) for name, value in batch.items()}
  made = []
  for first in range(0, len(draws), rows):
    few = draws[first : first + rows]
    full = np.concatenate([few, np.repeat(few[-1:], rows - len(few), axis=0)])
    made.append(np.asarray(generate(batch, full))[: len(few)])
  return np.where(keep[None], latents[None], np.concatenate(made))
