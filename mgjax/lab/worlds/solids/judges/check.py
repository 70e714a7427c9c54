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
    """Formats the tables for people."""
    lines = [f'{"":26}{"right":>24}{"shuffled":>24}{"chance":>8}']
    for name, label in FACTORS.items():
      shares = f'{self.right[name]!s:>24}{self.shuffled[name]!s:>24}{self.chance[name]:8.3f}'
      lines.append(f'{label:26}{shares}')
    for move, (error, mean) in self.amounts.items():
      unit = (
        'log'
        if move == 'zooms'
        else next(camera.unit for name, camera in CAMERAS.items() if name.split()[0] == move)
      )
      lines.append(f'{move + ": error of its amount":34}{error:8.2f} {unit}, mean {mean:.2f}')
    for kind, (hit_share, extra, median, within) in self.contacts.items():
      lines.append(
        f'{CONTACTS[kind]:26}{hit_share:.3f} found, {extra:.3f} of those read are none; error '
        f'{median:.2f} frames, within one {within:.3f}'
      )
    for kind, pairs in self.confused.items():
      text = ', '.join(f'{true} as {reading} {times}' for true, reading, times in pairs)
      lines.append(f'{kind} confused: {text or "none"}')
    return '\n'.join(lines)


def check_judge(
  judge: SolidsJudge, requests: Sequence[Asked], videos: Iterable[UInt8[np.ndarray, 't h w 3']]
) -> Checked:
  """Compares a judge's readings with the ground truth of clips."""
  readings = judge.read(list(videos))
  targets = [request.label for request in requests]
  right = scores_of(readings, requests)
  turns = [scores_of(readings, [*requests[k:], *requests[:k]]) for k in (1, 2, 3, 5, 8, 13, 21)]
  return Checked(
    {name: _mean(rows) for name, rows in right.items()},
    {name: _mean(rows) for name, rows in turns[0].items()},
    {name: float(np.nanmean([turn[name] for turn in turns])) for name in FACTORS},
    _amounts(judge, readings, targets),
    {kind: _contacts(judge, readings, targets, kind) for kind in CONTACTS},
    _confused(readings, targets),
  )


def _mean(rows: np.ndarray) -> Interval:
  """Bootstrap over clips."""
  rows = rows[~np.isnan(rows)]
  if not len(rows):
    return Interval(np.nan, np.nan, np.nan)
  drawn = np.random.default_rng(0).integers(len(rows), size=(_DRAWS, len(rows)))
  return Interval(float(rows.mean()), *central_interval(rows[drawn].mean(1)))


def _amounts(judge: SolidsJudge, readings, targets) -> dict[str, tuple[float, float]]:
  errors = collections.defaultdict(list)
  amounts = collections.defaultdict(list)
  for reading, target in zip(readings, targets, strict=True):
    move = target.scene.camera.move
    if reading.camera == move and CAMERAS[move].sign:
      true = judge.source.labels(target.scene).amount
      predicted = reading.amount
      if move.startswith('zooms'):
        true, predicted = np.log(true), np.log(predicted)
      errors[move.split()[0]].append(predicted - true)
      amounts[move.split()[0]].append(true)
  return {
    kind: (float(np.sqrt(np.mean(np.square(values)))), float(np.mean(amounts[kind])))
    for kind, values in errors.items()
  }


def _contacts(
  judge: SolidsJudge, readings, targets, kind: str
) -> tuple[float, float, float, float]:
  errors = []
  missed = 0
  extra = 0
  for reading, target in zip(readings, targets, strict=True):
    contacts = judge.source.labels(target.scene).contacts
    for index, solid in enumerate(target.scene.solids):
      true = [
        contact.time
        for contact in contacts
        if (contact.second == ON_FLOOR) == (kind == 'lands')
        and index in (contact.first, contact.second)
      ]
      reading_of_solid = reading.solids.get(solid.colour)
      times = list(getattr(reading_of_solid, kind)) if reading_of_solid else []
      for time in true:
        nearest = min(times, key=lambda read_time: abs(read_time - time), default=np.inf)
        if abs(nearest - time) < _NEAR:
          errors.append(abs(nearest - time) * FPS)
          times.remove(nearest)
        else:
          missed += 1
      extra += len(times)
  hits = len(errors)
  errors = np.array(errors or [np.nan])
  return (
    hits / max(hits + missed, 1),
    extra / max(hits + extra, 1),
    float(np.median(errors)),
    float(np.mean(errors <= 1)),
  )


def _confused(readings, targets) -> dict[str, list[tuple[str, str, int]]]:
  kinds = ('shape', 'material', 'size', 'motion')
  counts = {kind: collections.Counter() for kind in (*kinds, 'camera')}
  for reading, target in zip(readings, targets, strict=True):
    for solid in target.scene.solids:
      if predicted := reading.solids.get(solid.colour):
        for kind in kinds:
          true = size_word(solid) if kind == 'size' else getattr(solid, kind)
          counts[kind][true, getattr(predicted, kind)] += 1
    counts['camera'][target.scene.camera.move, reading.camera] += 1
  return {
    kind: [(*pair, times) for pair, times in pairs.most_common() if pair[0] != pair[1]][:3]
    for kind, pairs in counts.items()
  }


def main(report: Callable[[str], None] = print) -> None:
  """Prints the tables of a judge."""
  raw = argparse.RawTextHelpFormatter
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
  parser.add_argument('--clips', type=int, default=1000, help='of each group')
  parser.add_argument('--judge', default='judge', help="or 'filter'")
  options = parser.parse_args()
  try:
    judge = make_judge(Solids(), options.judge)
  except ConfigError as error:
    parser.error(str(error))
  for group in GROUPS:
    requests = judge.asks(options.clips)[group]
    videos = (sample['video'] for sample in judge.clips(requests))
    report(f'{group}, {options.clips} clips\n{check_judge(judge, requests, videos).table()}\n')


if __name__ == '__main__':
  main()
