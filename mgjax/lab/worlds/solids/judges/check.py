r"""What judges of solids read from real clips: ceiling, floor, and how far off they are.

python -m mgjax.lab.worlds.solids.judges.check --clips=1000
"""

import argparse
import collections
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import UInt8
from mgjax.lab.statistics.intervals import Interval, central_interval
from mgjax.lab.worlds.judging import Asked
from mgjax.lab.worlds.solids.captions import size_word
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.examples import FPS
from mgjax.lab.worlds.solids.judges.video import FACTORS, GROUPS, SolidsJudge, make_judge, scores_of
from mgjax.lab.worlds.solids.kinds import CAMERAS
from mgjax.lab.worlds.solids.physics import ON_FLOOR

CONTACTS = {'meets': 'contacts of two solids', 'lands': 'landings'}
_NEAR = 0.25  # seconds, within which a contact that is read is one that is there
_DRAWS = 1000


class Checked(NamedTuple):
  """What a judge reads from clips whose truth is known."""

  right: dict[str, Interval]  # share of the statements of each factor
  shuffled: dict[str, Interval]  # under the captions of other clips
  chance: dict[str, float]  # under the captions of all other clips
  amounts: dict[str, tuple[float, float]]  # of each camera move: root mean square error, and mean
  contacts: dict[str, tuple[float, float, float, float]]  # found, extra, median error, within 1
  confused: dict[str, list[tuple[str, str, int]]]  # what is, as what it is read, how often

  def table(self) -> str:
    """Formats all for people."""
    lines = [f'{"":26}{"right":>24}{"shuffled":>24}{"chance":>8}']
    for name, label in FACTORS.items():
      shares = f'{self.right[name]!s:>24}{self.shuffled[name]!s:>24}{self.chance[name]:8.3f}'
      lines.append(f'{label:26}{shares}')
    for move, (error, mean) in self.amounts.items():
      unit = (
        'log'
        if move == 'zooms'
        else next(each.unit for name, each in CAMERAS.items() if name.split()[0] == move)
      )
      lines.append(f'{move + ": error of its amount":34}{error:8.2f} {unit}, mean {mean:.2f}')
    for kind, (found, extra, median, within) in self.contacts.items():
      lines.append(
        f'{CONTACTS[kind]:26}{found:.3f} found, {extra:.3f} of those read are none; error '
        f'{median:.2f} frames, within one {within:.3f}'
      )
    for kind, pairs in self.confused.items():
      told = ', '.join(f'{true} as {read} {times}' for true, read, times in pairs)
      lines.append(f'{kind} confused: {told or "none"}')
    return '\n'.join(lines)


def check_judge(
  judge: SolidsJudge, asked: Sequence[Asked], videos: Iterable[UInt8[np.ndarray, 't h w 3']]
) -> Checked:
  """Compares what a judge reads with what is true of clips."""
  readings = judge.read(list(videos))
  wanted = [each.label for each in asked]
  right = scores_of(readings, asked)
  turns = [scores_of(readings, [*asked[k:], *asked[:k]]) for k in (1, 2, 3, 5, 8, 13, 21)]
  return Checked(
    {name: _mean(rows) for name, rows in right.items()},
    {name: _mean(rows) for name, rows in turns[0].items()},
    {name: float(np.nanmean([turn[name] for turn in turns])) for name in FACTORS},
    _amounts(judge, readings, wanted),
    {kind: _contacts(judge, readings, wanted, kind) for kind in CONTACTS},
    _confused(readings, wanted),
  )


def _mean(rows: np.ndarray) -> Interval:
  """Bootstrap over clips."""
  rows = rows[~np.isnan(rows)]
  if not len(rows):
    return Interval(np.nan, np.nan, np.nan)
  drawn = np.random.default_rng(0).integers(len(rows), size=(_DRAWS, len(rows)))
  return Interval(float(rows.mean()), *central_interval(rows[drawn].mean(1)))


def _amounts(judge: SolidsJudge, readings, wanted) -> dict[str, tuple[float, float]]:
  errors, amounts = collections.defaultdict(list), collections.defaultdict(list)
  for reading, each in zip(readings, wanted, strict=True):
    move = each.scene.camera.move
    if reading.camera == move and CAMERAS[move].sign:
      true = judge.source.labels(each.scene).amount
      read = reading.amount
      if move.startswith('zooms'):
        true, read = np.log(true), np.log(read)
      errors[move.split()[0]].append(read - true)
      amounts[move.split()[0]].append(true)
  return {
    kind: (float(np.sqrt(np.mean(np.square(each)))), float(np.mean(amounts[kind])))
    for kind, each in errors.items()
  }


def _contacts(judge: SolidsJudge, readings, wanted, kind: str) -> tuple[float, float, float, float]:
  errors = []
  missed = 0
  extra = 0
  for reading, each in zip(readings, wanted, strict=True):
    contacts = judge.source.labels(each.scene).contacts
    for index, solid in enumerate(each.scene.solids):
      true = [
        contact.time
        for contact in contacts
        if (contact.second == ON_FLOOR) == (kind == 'lands')
        and index in (contact.first, contact.second)
      ]
      seen = reading.solids.get(solid.colour)
      read = list(getattr(seen, kind)) if seen else []
      for time in true:
        near = min(read, key=lambda other: abs(other - time), default=np.inf)
        if abs(near - time) < _NEAR:
          errors.append(abs(near - time) * FPS)
          read.remove(near)
        else:
          missed += 1
      extra += len(read)
  found = len(errors)
  errors = np.array(errors or [np.nan])
  return (
    found / max(found + missed, 1),
    extra / max(found + extra, 1),
    float(np.median(errors)),
    float(np.mean(errors <= 1)),
  )


def _confused(readings, wanted) -> dict[str, list[tuple[str, str, int]]]:
  kinds = ('shape', 'material', 'size', 'motion')
  counts = {kind: collections.Counter() for kind in (*kinds, 'camera')}
  for reading, each in zip(readings, wanted, strict=True):
    for solid in each.scene.solids:
      if seen := reading.solids.get(solid.colour):
        for kind in kinds:
          true = size_word(solid) if kind == 'size' else getattr(solid, kind)
          counts[kind][true, getattr(seen, kind)] += 1
    counts['camera'][each.scene.camera.move, reading.camera] += 1
  return {
    kind: [(*pair, times) for pair, times in each.most_common() if pair[0] != pair[1]][:3]
    for kind, each in counts.items()
  }


def main(report: Callable[[str], None] = print) -> None:
  """Prints the tables of a judge."""
  raw = argparse.RawTextHelpFormatter
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
  parser.add_argument('--clips', type=int, default=1000, help='of each group')
  parser.add_argument('--judge', default='judge', help="or 'filter'")
  given = parser.parse_args()
  try:
    judge = make_judge(Solids(), given.judge)
  except ConfigError as error:
    parser.error(str(error))
  for group in GROUPS:
    asked = judge.asks(given.clips)[group]
    videos = (sample['video'] for sample in judge.clips(asked))
    report(f'{group}, {given.clips} clips\n{check_judge(judge, asked, videos).table()}\n')


if __name__ == '__main__':
  main()
