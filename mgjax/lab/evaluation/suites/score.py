"""Scores videos of a suite from files alone, so of any model."""

import functools
import importlib.util
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.video import probe, stream_clip
from mgjax.data.synthetic_datasets import judge_of, open_world, prompts_of
from mgjax.lab.evaluation.metrics.videos import BETTER, read_vectors, score_videos
from mgjax.lab.evaluation.record.measured import Measured, Metric
from mgjax.lab.evaluation.suites.suite import Suite
from mgjax.lab.evaluation.suites.vbench import video_names
from mgjax.lab.statistics.values import Mean, Value, mean_of, plain
from mgjax.lab.worlds.judging import Asked, VideoJudge
from mgjax.models.text.prompts import clean_prompt
from mgjax.sections.clip.pipeline import Clip
from mgjax.training.monitoring.progress import track

KINDS = ('.mp4', '.webm', '.mov', '.mkv', '.gif', '.png')
_NUMBERED = re.compile(r'(\d+)(?:_[0-9a-f]{8})?')
_SIDE = 256  # pixels of the shorter side; larger videos are scaled down

Clips = Mapping[int, pathlib.Path]


def find_videos(directory: str | os.PathLike[str], suite: Suite) -> dict[int, pathlib.Path]:
  """Returns the videos of a directory by the position of their row in the suite.

  The name of a video has the index of its prompt, '00012.mp4' or '0012_1f3a55c0.mp4', or as in
  VBench the prompt, 'a dog runs-0.mp4', of which sample 0 counts. Raises DataError if the directory
  does not exist or has no video of the suite, or two of one prompt.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise DataError(f'{directory}: is no folder of videos; name one')
  files = _videos_in(directory)
  by_index = {row.index: position for position, row in enumerate(suite.rows)}
  by_name: dict[str, int] = {}
  for position, name in enumerate(video_names(suite.prompts, [''] * len(suite.rows))):
    by_name[name] = position
  videos: dict[int, pathlib.Path] = {}
  for file in files:
    number = _NUMBERED.fullmatch(file.stem)
    position = by_index.get(int(number[1])) if number else by_name.get(file.stem)
    if position is None:
      continue
    if position in videos:
      raise DataError(
        f'{directory}: {videos[position].name} and {file.name} are both of prompt '
        f'{suite.rows[position].index}; leave one of them there'
      )
    videos[position] = file
  if not videos:
    raise DataError(
      f'{directory}: none of its {len(files)} videos is of {suite.name}; call them by the index of '
      'their prompt, 00000.mp4, 00001.mp4, ...'
    )
  return videos


def _videos_in(directory: pathlib.Path) -> list[pathlib.Path]:
  # sheet.png of launch.sample is no video of the suite.
  files = (path for path in directory.iterdir() if path.stem != 'sheet')
  return sorted(path for path in files if path.suffix.lower() in KINDS)


def score_suite(
  videos: Clips,
  suite: Suite,
  *,
  clip: Clip | None = None,
  judge: str = '',
  reference: str | os.PathLike[str] = '',
) -> Measured:
  """Scores videos one by one: the metrics of `metrics.videos`, and the judge's shares.

  Frames are scaled down to at most 256 pixels on their shorter side. Metrics of motion need OpenCV
  and are left out without it. `videos` maps positions of rows in the suite to files. `clip`
  compares frames with prompts and with each other, and videos with the `reference`: a folder of
  true videos, or a .npy of their vectors of the same CLIP. `judge` is a dataset with prompts, or ''
  for none.

  Raises ConfigError if the judge does not exist, or for a reference without a CLIP. Raises
  DataError if a video cannot be read, or the judge cannot parse a prompt.
  """
  if reference and clip is None:
    raise ConfigError('--reference is compared by the vectors of a CLIP; name one with --clip')
  requests = _requests(suite, videos, judge) if judge else {}
  positions = sorted(videos)
  right = dict[int, Mapping[str, np.ndarray]]()

  def watch() -> Iterator[UInt8[np.ndarray, 't h w 3']]:
    reader = None
    for position in track(positions, len(positions), 'video'):
      frames = _frames_of(videos[position])
      if judge:
        reader = reader or _make_judge(judge, *frames.shape[:3])
        right[position] = reader.right([frames], [requests[position]])
      yield frames

  true = None
  if reference:
    folder = pathlib.Path(reference)
    true = map(_frames_of, _videos_in(folder)) if folder.is_dir() else read_vectors(folder)
  prompts = [clean_prompt(suite.prompts[position]) for position in positions]
  motion = importlib.util.find_spec('cv2') is not None
  results = score_videos(watch(), prompts, clip, true, motion=motion)
  values = {name: value.each for name, value in results.items() if value.each}
  judged_names = tuple(right[positions[0]]) if judge else ()
  values |= {
    name: [right[position][name].item() for position in positions] for name in judged_names
  }
  spread = {name: np.full(len(suite.rows), np.nan) for name in values}
  for name, column in values.items():
    spread[name][positions] = column
  files = [
    os.fspath(videos[position]) if position in videos else '' for position in range(len(suite.rows))
  ]
  sets = {name: value for name, value in results.items() if not value.each}
  return _measured(suite, spread, files, sets, judged_names)


def _measured(
  suite: Suite,
  values: Mapping[str, Float[np.ndarray, 'n']],
  files: Sequence[str],
  sets: Mapping[str, Value],
  judged_names: Sequence[str],
) -> Measured:
  """Returns the means with intervals over prompts, overall and by tag.

  `values` have a number a row, and `files` has '' for a row without a video. `sets` compare all
  videos with those of a reference, and `judged_names` are the names of the judge's values.
  """
  prompts = suite.prompts
  rows = range(len(suite.rows))
  means, *tagged = (
    {
      name: mean_of(column[selected], [prompts[row] for row in selected])
      for name, column in values.items()
    }
    for selected in (list(rows), *suite.tags.values())
  )
  tags = dict(zip(suite.tags, tagged, strict=True))
  present = [row for row in rows if files[row]]
  metrics = {}
  videos = []
  for name, mean in means.items():
    label = name.replace('_', ' ')
    right = name in (*judged_names, 'dynamic_degree')
    value = _value(mean, values[name][present])
    metrics[f'scores/{name}'] = Metric(value, label, BETTER.get(name, 1), share=right)
  for name, value in sets.items():
    label = name.replace('_', ' ')
    metrics[f'sets/{name}'] = Metric(value, label, BETTER[name], mean=False)
  for row in present:
    fields = {'index': suite.rows[row].index, 'prompt': prompts[row], 'file': files[row]}
    videos.append(fields | plain({name: column[row].item() for name, column in values.items()}))
  missing = len(files) - len(present)
  notes = [f'{name}: {value.warning}' for name, value in sets.items() if value.warning]
  compared = {name: value.as_dict() for name, value in sets.items()}
  if missing:
    notes.append(f'{missing} of {len(files)} prompts have no video and count nowhere')
  return Measured(
    metrics,
    [prompts[row] for row in present],
    {
      tag: {f'scores/{name}': _value(mean) for name, mean in tag_means.items()}
      for tag, tag_means in tags.items()
    },
    record={
      'suite': suite.name,
      'missing': missing,
      'scores': means,
      'sets': compared,
      'tags': tags,
      'videos': videos,
    },
    notes=notes,
  )


def _value(mean: Mean, per_video: Sequence[float] | np.ndarray = ()) -> Value:
  return Value(mean.value, mean.low, mean.high, mean.videos, tuple(map(float, per_video)))


def _frames_of(path: pathlib.Path) -> UInt8[np.ndarray, 't h w 3']:
  info = probe(path)
  scale = min(1.0, _SIDE / min(info.height, info.width))
  size = (round(info.height * scale), round(info.width * scale))
  return np.stack(list(stream_clip(path, size=size, fps=info.fps)))


@functools.cache
def _make_judge(world: str, frames: int, height: int, width: int) -> VideoJudge:
  source = open_world(world, {}, 'train', frames=frames, size=(height, width))
  return judge_of(world, 'video')(source)


def _requests(suite: Suite, videos: Clips, world: str) -> dict[int, Asked]:
  """Returns the judge's requests for the prompts of videos, by position."""
  known = prompts_of(world)
  requests = {}
  for position in videos:
    row = suite.rows[position]
    try:
      requests[position] = known.asked(clean_prompt(row.prompt), row.scene)
    except DataError as error:
      raise DataError(
        f'{suite.name}: prompt {row.index}, {error}, which the judge reads; leave --judge out'
      ) from None
  return requests
