"""Precision and recall of every filter on footage with known defects, and what each score costs.

python -m tests.lab.curation.study FOLDER --count=300 --seed=7

makes the footage in FOLDER and measures it, clip by clip, and prints a table. The same command goes
on where it was stopped. A filter is asked about every clip, whatever the others say; clips whose
truth is None do not count.
"""

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import pathlib
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.curation import high_resolution
from mgjax.core.files import write_bytes
from mgjax.core.settings import unpack
from mgjax.data.ingest.inputs import Input
from mgjax.lab.curation.filters.registry import FILTERS
from mgjax.lab.curation.measure import measure_video
from mgjax.lab.curation.settings import CurationSettings
from mgjax.training.monitoring.progress import track
from tests.lab.curation.footage import FILTERS as JUDGED
from tests.lab.curation.footage import make_clip


def settings_of(least: int) -> CurationSettings:
  """The published thresholds, with another least size."""
  config = high_resolution.get_config()
  config.keep.side = least
  return unpack(CurationSettings, config.to_dict(), 'curation')


def measured(folder: pathlib.Path, seed: int, least: int, number: int) -> tuple[dict, list[dict]]:
  """Makes a clip and measures it, once: its truth, and its rows."""
  kept = folder / f'clip-{number:04d}-{seed}-{least}.pickle'
  if not kept.exists():
    truth = make_clip(folder, number, seed, least)
    path = folder / truth['name']
    caption = path.with_suffix('.txt').read_text()
    entry = Input(path.name, caption, path.stat().st_size, path.read_bytes, path=path)
    rows = measure_video(entry, settings_of(least).measure)
    write_bytes(kept, pickle.dumps((truth, rows)))
    path.unlink()
  return pickle.loads(kept.read_bytes())


def judged(
  truths: Sequence[dict], rows: Sequence[list[dict]], settings: CurationSettings
) -> dict[str, dict[str, Any]]:
  """Filter -> names of the videos that it dropped ('right', 'wrong') or not ('missed', 'kept')."""
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


def report(truths: Sequence[dict], rows: Sequence[list[dict]], settings: CurationSettings) -> None:
  """Prints the table, what was judged wrongly, what broken files say, and costs."""
  cells = judged(truths, rows, settings)
  print(table_of(cells))
  by_name = {truth['name']: truth for truth in truths}
  for name, each in cells.items():
    for key in ('wrong', 'missed'):
      for truth in (by_name[video] for video in each[key]):
        print(name, key, truth['name'], truth['kind'], truth['source'], truth['strength'])
  broken = [each[0]['video'] for each in rows if each[0]['error']]
  wanted = [truth['name'] for truth in truths if truth['kind'] == 'broken']
  print(f'{len(broken)} videos in error, {len(set(broken) & set(wanted))} of {len(wanted)} broken')
  costs = [clip['seconds_of'] for each in rows for clip in each if not clip['error']]
  for name in costs[0]:
    print(f'{name}: {np.mean([cost[name] for cost in costs]):.3f} s')
  print(f'all: {np.mean([sum(cost.values()) for cost in costs]):.3f} s a clip')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--count', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--least', type=int, default=768)
  parser.add_argument('--workers', type=int, default=2)
  given = parser.parse_args()
  given.folder.mkdir(parents=True, exist_ok=True)
  spawn = multiprocessing.get_context('spawn')
  measure = functools.partial(measured, given.folder, given.seed, given.least)
  with concurrent.futures.ProcessPoolExecutor(given.workers, spawn) as pool:
    found = list(track(pool.map(measure, range(given.count)), given.count, 'clip'))
  truths, rows = zip(*found, strict=True)
  (given.folder / 'truth.jsonl').write_text(''.join(f'{json.dumps(row)}\n' for row in truths))
  report(truths, rows, settings_of(given.least))
