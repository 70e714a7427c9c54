"""Generates audio longer than the training length, window by window (Movie Gen §6).

Latents are (b t 1 1 c), a video of one pixel. A `generate(batch, noise) -> latents` makes one
window; every method below needs that, or its velocity, and nothing else of the model:

- `concatenate` joins independent windows: the baseline.
- `autoregress` shows each window the end of what was made so far as its audio context.
- `multi_diffusion` averages the velocities of overlapping windows at every step of the solver.

Noise belongs to a frame and not to a window (`flow.frame_noise`), so the methods differ in
nothing else.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Magnitude, Range
from mgjax.core.typing import Array, Batch, Float
from mgjax.flow.windows import Cover, windows

WAYS = ('multi_diffusion', 'autoregressive', 'concatenate', 'whole')
_LONGEST = 4 * 3600.0  # seconds, as of files that are read
ALONG = {'frame_features': 1, 'context': 1}  # what a batch has for every latent, on axis 1
# batch, noise (b t 1 1 c) -> latents
GenerateAudio = Callable[[Batch, np.ndarray], Array | np.ndarray]
Conditions = Callable[[int, int], Batch]  # start, stop of frames -> batch of one row
DrawNoise = Callable[[np.ndarray, int, int], Array]  # candidates (n,), start, stop -> (n t 1 1 c)
Score = Callable[[np.ndarray, int], np.ndarray]  # windows (n t 1 1 c), their start -> (n,)


Seconds = Annotated[float, Range(above=0)]


@dataclasses.dataclass(frozen=True)
class Extension(Checked):
  """How audio longer than one window of the model is made; lengths are in seconds.

  Attributes:
    how: 'multi_diffusion' averages overlapping windows at every step, block by block, each block
      conditioned on the end of the one before. 'autoregressive' makes window after window that way.
      'concatenate' joins independent windows. 'whole' makes all at once, if the model can.
    window: what the model makes at a time; None is what it was trained on.
    overlap: what windows share; None is half a window for multi-diffusion and else a quarter, the
      paper's 5 of 20 s, which is also the longest context of training.
    block: of multi-diffusion; None is eight windows, of which the next block sees a quarter of one.
      Not in public sources.
    weights: of the windows of multi-diffusion, 'bartlett' or 'uniform'.
  """

  how: str = 'multi_diffusion'
  window: Seconds | None = None
  overlap: Magnitude | None = None
  block: Seconds | None = None
  weights: str = 'bartlett'

  def plan(
    self, seconds: float, *, rate: float, size: int, most: int
  ) -> tuple[Cover, Cover | None]:
    """Returns the windows, or of multi-diffusion the blocks and a block's windows, in latents.

    Args:
      rate: latents a second.
      size: latents of a window.

    Raises:
      ConfigError: lengths do not suit, or no way has this name.
    """
    if self.how not in WAYS:
      raise ConfigError(
        f'unknown way to extend sound {self.how!r}; choose one of {", ".join(WAYS)}'
      )
    if not 0 < seconds <= _LONGEST:
      raise ConfigError(
        f'a soundtrack of {seconds:g} s; expected more than 0 and at most {_LONGEST:g} s'
      )
    total = math.ceil(seconds * rate - 1e-6)
    overlap = None if self.overlap is None else round(self.overlap * rate)
    if self.how == 'whole':
      if total > most:
        raise ConfigError(
          f'{seconds:g} s cannot be made as a whole, the model has positions for '
          f'{most / rate:g} s; choose one of {", ".join(WAYS[:-1])}'
        )
      return windows(total, total), None
    if self.how == 'concatenate':
      return windows(total, size), None
    if self.how == 'autoregressive':
      return windows(total, size, size // 4 if overlap is None else overlap), None
    blocks = windows(total, 8 * size if self.block is None else round(self.block * rate), size // 4)
    return blocks, windows(blocks.size, size, size // 2 if overlap is None else overlap)


class _Beam(NamedTuple):
  waiting: tuple[np.ndarray, ...]  # new parts that not all beams agree on
  tail: np.ndarray  # (t 1 1 c), the last frames made, a window's worth at most
  score: float


class Search(NamedTuple):
  """How segments are chosen.

  With several candidates a segment is the one of the best score; with several beams the best
  histories are carried on, by the sum of the scores of their windows.

  Attributes:
    candidates: of each segment, for each beam.
    score: judges whole windows; the higher, the better.
  """

  candidates: int = 1
  beams: int = 1
  score: Score | None = None


NO_SEARCH = Search()


def autoregress(
  generate: GenerateAudio,
  conditions: Conditions,
  noise: DrawNoise,
  cover: Cover,
  *,
  read_known: Callable[[int, int], tuple[np.ndarray, np.ndarray]] | None = None,
  search: Search = NO_SEARCH,
  rows: int = 8,
) -> Iterator[Float[np.ndarray, 't 1 1 c']]:
  """Yields audio segment by segment, each conditioned on the end of the previous one.

  What windows share is 'context' of the later one: known latents, zeros where nothing is known. The
  model fills in the rest, and what was known stays as it is, bit for bit (Movie Gen §6: extension
  and infilling).

  Args:
    generate: makes a window: batch, noise -> latents. It is always called with as many rows.
    conditions: frames -> batch of one row without 'context'. `start` never goes back.
    noise: candidates and frames -> their noise, from `frame_noise`.
    cover: the windows; their overlap is the context.
    read_known: start and stop -> latents (t 1 1 c), and a mask (t,) of those known beforehand.
      Known frames stay unchanged, wherever they lie.
    search: how segments are chosen; by default there is one of each.
    rows: in a call of `generate` at most.

  Yields:
    The next frames: a window, and then of every window what it adds.

  Raises:
    ConfigError: there is a choice, but no score to choose by.
  """
  candidates, beams, score = search
  if min(candidates, beams, rows) < 1:
    raise ConfigError(f'{candidates} candidates, {beams} beams, {rows} rows; expected 1 at least')
  if beams > candidates:
    raise ConfigError(f'{beams} beams of {candidates} candidates; the first segment has no more')
  if candidates > 1 and score is None:
    raise ConfigError(f'{candidates} candidates and no score; give one to choose by')
  numbers = np.arange(candidates)
  rows = min(rows, candidates)
  held = [_Beam((), np.zeros((0, 1, 1, 1), np.float32), 0.0)]
  done = 0

  for start in cover.starts:
    stop = start + cover.size
    shared = done - start
    batch = conditions(start, stop)
    draws = np.asarray(noise(numbers, start, stop))
    latents, known = _known(read_known, start, draws[0])
    grown = []
    for beam in held:
      if shared > 0:
        latents[:shared] = beam.tail[-shared:]  # generated frames already contain the known ones
        known[:shared] = cover.feather > 0
      filled = _fill(generate, batch, draws, latents, known, rows)
      gains = np.zeros(1) if score is None else np.asarray(score(filled, start), np.float64)
      for window, gain in zip(filled, gains, strict=False):
        new = window[max(shared, 0) :]
        grown.append(_Beam((*beam.waiting, new), window, beam.score + float(gain)))
    held = sorted(grown, key=lambda beam: -beam.score)[:beams]
    done = stop
    while held[0].waiting and all(beam.waiting[0] is held[0].waiting[0] for beam in held):
      yield held[0].waiting[0]
      held = [beam._replace(waiting=beam.waiting[1:]) for beam in held]
  yield from held[0].waiting


def concatenate(
  generate: GenerateAudio, conditions: Conditions, noise: DrawNoise, cover: Cover, **options
) -> Iterator[Float[np.ndarray, 't 1 1 c']]:
  """Yields independent windows, with the arguments of `autoregress`.

  The last window, moved back, gives what is left over.
  """
  apart = Cover(cover.length, cover.size, 0)
  return autoregress(generate, conditions, noise, apart, **options)


def _known(read_known, start: int, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the known latents of a window, zeros elsewhere, and the mask of known frames."""
  if read_known is None:
    return np.zeros_like(like), np.zeros(len(like), bool)
  latents, known = read_known(start, start + len(like))
  return np.where(known[:, None, None, None], latents, 0).astype(like.dtype), known.copy()


def _fill(
  generate: GenerateAudio,
  batch: Batch,
  draws: np.ndarray,
  latents: np.ndarray,
  known: np.ndarray,
  rows: int,
) -> np.ndarray:
  """Generates candidates (n t 1 1 c) of a window whose `known` frames equal `latents`."""
  if known.all():
    return latents[None].copy()
  keep = known[:, None, None, None]
  batch = batch | {'context': np.where(keep, latents, 0)[None]}
  batch = {name: np.repeat(np.asarray(value), rows, axis=0) for name, value in batch.items()}
  chunks = []
  for first in range(0, len(draws), rows):
    few = draws[first : first + rows]
    full = np.concatenate([few, np.repeat(few[-1:], rows - len(few), axis=0)])
    chunks.append(np.asarray(generate(batch, full))[: len(few)])
  return np.where(keep[None], latents[None], np.concatenate(chunks))
