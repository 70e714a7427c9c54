"""Precision and recall of every filter on footage with known defects, and what each score costs.

python -m tests.curation.study FOLDER --count=300 --seed=7

makes the footage in FOLDER and measures it, clip by clip, and prints a table. The same command goes
on where it was stopped; with --report alone it prints the table of what is there. A filter is asked
about every clip, whatever the others say; clips whose truth is None do not count.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import pathlib
import pickle
import time
from typing import Any

import numpy as np

from configs.curation import high_resolution
from mgjax.core.files import write_bytes
from mgjax.core.settings import unpack
from mgjax.curation.filters.registry import FILTERS
from mgjax.curation.measure import measure_video
from mgjax.curation.settings import CurationSettings
from mgjax.data.ingest.inputs import Input
from tests.curation.footage import FILTERS as JUDGED
from tests.curation.footage import make_clip


def settings_of(least: int) -> CurationSettings:
  """The published thresholds, with another least size."""
  config = high_resolution.get_config()
  config.keep.side = least
  return unpack(CurationSettings, config.to_dict(), 'curation')


def measured(folder: pathlib.Path, number: int, seed: int, least: int) -> tuple[dict, list[dict]]:
  """Makes a clip and measures it: its truth, and its rows."""
  truth = make_clip(folder, number, seed, least)
  path = folder / truth['name']
  caption = path.with_suffix('.txt').read_text()
  entry = Input(path.name, caption, path.stat().st_size, path.read_bytes, path=path)
  return truth, measure_video(entry, settings_of(least).measure)


def kept(folder: pathlib.Path, number: int, seed: int, least: int) -> tuple[dict, list[dict]]:
  """The same of a clip that was measured before, without its film; else as `measured`."""
  path = folder / f'clip-{number:04d}-{seed}-{least}.pickle'
  if path.exists():
    return pickle.loads(path.read_bytes())
  found = measured(folder, number, seed, least)
  write_bytes(path, pickle.dumps(found))
  (folder / found[0]['name']).unlink()
  return found


def judged(
  truths: list[dict], rows: list[list[dict]], settings: CurationSettings
) -> dict[str, dict[str, Any]]:
  """For each filter the clips that it dropped rightly and wrongly, and kept so.

  Returns:
    name -> {'right', 'wrong', 'missed', 'kept': lists of names of videos}.
  """
  by_name = {truth['name']: truth for truth in truths}
  clips = [clip for each in rows for clip in each if not clip['error']]
  names = sorted({name for clip in clips for name in clip})
  table = {name: [clip.get(name) for clip in clips] for name in names}
  found = {}
  for name in JUDGED:
    reasons = FILTERS[name].keep(table, settings.keep)
    dropped: dict[str, bool] = {}
    for clip, reason in zip(clips, reasons, strict=True):
      dropped[clip['video']] = dropped.get(clip['video'], True) and bool(reason)
    cells = {'right': [], 'wrong': [], 'missed': [], 'kept': []}
    for video, falls in dropped.items():
      truth = by_name[video][name] if name != 'duplicates' else _copied(by_name, video, dropped)
      if truth is not None:
        key = ('right' if truth else 'wrong') if falls else ('missed' if truth else 'kept')
        cells[key].append(video)
    found[name] = cells
  return found


def _copied(truths: dict[str, dict], video: str, dropped: dict[str, bool]) -> bool | None:
  """Whether a clip is to fall as a copy: all of a group but one are, whichever it is."""
  group = [each for each in dropped if truths[each]['original'] == truths[video]['original']]
  fallen = [each for each in group if dropped[each]]
  if len(group) == 1:
    return False
  if len(fallen) == len(group):
    return video != group[0]
  spared = [each for each in group if not dropped[each]]
  return video != spared[0]


def table_of(cells: dict[str, dict[str, list]]) -> str:
  """A Markdown table: clips that count, precision and recall."""
  lines = ['| filter | to drop | to keep | precision | recall |', '|---|---|---|---|---|']
  for name, each in cells.items():
    right, wrong, missed, kept = (len(each[key]) for key in ('right', 'wrong', 'missed', 'kept'))
    precision = f'{right / (right + wrong):.3f}' if right + wrong else '-'
    recall = f'{right / (right + missed):.3f}' if right + missed else '-'
    lines.append(f'| {name} | {right + missed} | {wrong + kept} | {precision} | {recall} |')
  return '\n'.join(lines)


def _main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--count', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--least', type=int, default=768)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--report', action='store_true', help='of the clips that are there')
  given = parser.parse_args()
  given.folder.mkdir(parents=True, exist_ok=True)
  numbers = [
    number
    for number in range(given.count)
    if not given.report
    or (given.folder / f'clip-{number:04d}-{given.seed}-{given.least}.pickle').exists()
  ]
  began, found = time.monotonic(), []
  with concurrent.futures.ProcessPoolExecutor(
    given.workers, multiprocessing.get_context('spawn')
  ) as pool:
    tasks = [pool.submit(kept, given.folder, number, given.seed, given.least) for number in numbers]
    for task in tasks:
      found.append(task.result())
      if len(found) % 10 == 0:
        spent = time.monotonic() - began
        print(f'{len(found)} of {len(numbers)} clips, {spent:.0f} s', flush=True)
  truths, rows = [truth for truth, _ in found], [each for _, each in found]
  (given.folder / 'truth.jsonl').write_text(''.join(f'{json.dumps(row)}\n' for row in truths))
  report(truths, rows, settings_of(given.least))


def report(truths: list[dict], rows: list[list[dict]], settings: CurationSettings) -> None:
  """Prints the table, what was judged wrongly, what broken files say, and costs."""
  cells = judged(truths, rows, settings)
  print(table_of(cells))
  by_name = {truth['name']: truth for truth in truths}
  scores = {clip['video']: clip for each in rows for clip in each}
  for name, each in cells.items():
    for key in ('wrong', 'missed'):
      for video in each[key]:
        shown = {k: v for k, v in scores[video].items() if _short(k, v)}
        truth = by_name[video]
        print(name, key, video, truth['kind'], truth['source'], truth['strength'], shown)
  broken = [each[0]['video'] for each in rows if each[0]['error']]
  wanted = [truth['name'] for truth in truths if truth['kind'] == 'broken']
  print(f'{len(broken)} videos in error, {len(set(broken) & set(wanted))} of {len(wanted)} broken')
  costs = [clip['seconds_of'] for each in rows for clip in each if not clip['error']]
  for name in costs[0]:
    print(f'{name}: {np.mean([cost[name] for cost in costs]):.3f} s')
  print(f'all: {np.mean([sum(cost.values()) for cost in costs]):.3f} s a clip')


def _short(key: str, value: Any) -> bool:
  judged = ('text', 'borders_share', 'motion', 'jitter', 'stillness', 'start', 'end', 'width')
  return isinstance(value, float | int | str) and key.startswith(judged)


if __name__ == '__main__':
  _main()
