"""Scores videos of a suite, of any model: from files alone, without a model's directory."""

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
_SIDE = 256  # pixels of the shorter side, above which a video is looked at smaller

Clips = Mapping[int, pathlib.Path]


def find_videos(directory: str | os.PathLike[str], suite: Suite) -> dict[int, pathlib.Path]:
  """Returns the videos of a directory by the place of their row in the suite.

  A video is called by the index of its prompt, '00012.mp4' or '0012_1f3a55c0.mp4', or as VBench
  does by the prompt, 'a dog runs-0.mp4', of which sample 0 counts. Raises DataError if there is no
  such directory, or no video of the suite, or two of one prompt.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise DataError(f'{directory}: is no folder of videos; name one')
  files = _videos_in(directory)
  by_index = {row.index: place for place, row in enumerate(suite.rows)}
  by_name: dict[str, int] = {}
  for place, name in enumerate(video_names(suite.prompts, [''] * len(suite.rows))):
    by_name[name] = place
  found: dict[int, pathlib.Path] = {}
  for file in files:
    number = _NUMBERED.fullmatch(file.stem)
    place = by_index.get(int(number[1])) if number else by_name.get(file.stem)
    if place is None:
      continue
    if place in found:
      raise DataError(
        f'{directory}: {found[place].name} and {file.name} are both of prompt '
        f'{suite.rows[place].index}; leave one of them there'
      )
    found[place] = file
  if not found:
    raise DataError(
      f'{directory}: none of its {len(files)} videos is of {suite.name}; call them by the index of '
      'their prompt, 00000.mp4, 00001.mp4, ...'
    )
  return found


def _videos_in(directory: pathlib.Path) -> list[pathlib.Path]:
  # What launch.sample draws of all videos is none.
  files = (each for each in directory.iterdir() if each.stem != 'sheet')
  return sorted(each for each in files if each.suffix.lower() in KINDS)


def score_suite(
  videos: Clips,
  suite: Suite,
  *,
  clip: Clip | None = None,
  judge: str = '',
  reference: str | os.PathLike[str] = '',
) -> Measured:
  """Measures videos one after another: the metrics of `metrics.videos`, and the judge's shares.

  Frames are looked at with at most 256 pixels on their shorter side. Metrics of motion need OpenCV
  and are left out without it. `videos` are place of a row in the suite -> file. `clip` compares
  frames with prompts and with each other, and videos with the `reference`: a folder of true videos,
  or a .npy of vectors that the same CLIP made of them. `judge` is a synthetic dataset with prompts,
  or '' for none.

  Raises ConfigError if there is no such judge, or a reference without a CLIP, DataError if a video
  cannot be read, or the judge has no such prompt.
  """
  if reference and clip is None:
    raise ConfigError('--reference is compared by the vectors of a CLIP; name one with --clip')
  asked = _asked(suite, videos, judge) if judge else {}
  places = sorted(videos)
  right = dict[int, Mapping[str, np.ndarray]]()

  def watch() -> Iterator[UInt8[np.ndarray, 't h w 3']]:
    reader = None
    for place in track(places, len(places), 'video'):
      frames = _frames_of(videos[place])
      if judge:
        reader = reader or _make_judge(judge, *frames.shape[:3])
        right[place] = reader.right([frames], [asked[place]])
      yield frames

  true = None
  if reference:
    folder = pathlib.Path(reference)
    true = map(_frames_of, _videos_in(folder)) if folder.is_dir() else read_vectors(folder)
  prompts = [clean_prompt(suite.prompts[place]) for place in places]
  motion = importlib.util.find_spec('cv2') is not None
  found = score_videos(watch(), prompts, clip, true, motion=motion)
  values = {name: value.each for name, value in found.items() if value.each}
  shown = tuple(right[places[0]]) if judge else ()
  values |= {name: [right[place][name].item() for place in places] for name in shown}
  spread = {name: np.full(len(suite.rows), np.nan) for name in values}
  for name, each in values.items():
    spread[name][places] = each
  files = [os.fspath(videos[place]) if place in videos else '' for place in range(len(suite.rows))]
  sets = {name: value for name, value in found.items() if not value.each}
  return _measured(suite, spread, files, sets, shown)


def _measured(
  suite: Suite,
  values: Mapping[str, Float[np.ndarray, 'n']],
  files: Sequence[str],
  sets: Mapping[str, Value],
  shown: Sequence[str],
) -> Measured:
  """The means with their intervals over prompts, of all and by tag; `values` have a number a row.

  Of a row without a video `files` has ''; `sets` compare all videos with those of a reference, and
  `shown` are what a judge read.
  """
  prompts = suite.prompts
  rows = range(len(suite.rows))
  means, *tagged = (
    {name: mean_of(each[some], [prompts[row] for row in some]) for name, each in values.items()}
    for some in (list(rows), *suite.tags.values())
  )
  tags = dict(zip(suite.tags, tagged, strict=True))
  there = [row for row in rows if files[row]]
  metrics = {}
  videos = []
  for name, mean in means.items():
    label = name.replace('_', ' ')
    right = name in (*shown, 'dynamic_degree')
    value = _value(mean, values[name][there])
    metrics[f'scores/{name}'] = Metric(value, label, BETTER.get(name, 1), share=right)
  for name, value in sets.items():
    label = name.replace('_', ' ')
    metrics[f'sets/{name}'] = Metric(value, label, BETTER[name], mean=False)
  for row in there:
    told = {'index': suite.rows[row].index, 'prompt': prompts[row], 'file': files[row]}
    videos.append(told | plain({name: each[row].item() for name, each in values.items()}))
  missing = len(files) - len(there)
  notes = [f'{name}: {value.warning}' for name, value in sets.items() if value.warning]
  compared = {name: value.as_dict() for name, value in sets.items()}
  if missing:
    notes.append(f'{missing} of {len(files)} prompts have no video and count nowhere')
  return Measured(
    metrics,
    [prompts[row] for row in there],
    {
      tag: {f'scores/{name}': _value(mean) for name, mean in found.items()}
      for tag, found in tags.items()
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


def _value(mean: Mean, each: Sequence[float] | np.ndarray = ()) -> Value:
  return Value(mean.value, mean.low, mean.high, mean.videos, tuple(map(float, each)))


def _frames_of(path: pathlib.Path) -> UInt8[np.ndarray, 't h w 3']:
  info = probe(path)
  scale = min(1.0, _SIDE / min(info.height, info.width))
  size = (round(info.height * scale), round(info.width * scale))
  return np.stack(list(stream_clip(path, size=size, fps=info.fps)))


@functools.cache
def _make_judge(world: str, frames: int, height: int, width: int) -> VideoJudge:
  source = open_world(world, {}, 'train', frames=frames, size=(height, width))
  return judge_of(world, 'video')(source)


def _asked(suite: Suite, videos: Clips, world: str) -> dict[int, Asked]:
  """What the prompts of videos say, by their place."""
  known = prompts_of(world)
  found = {}
  for place in videos:
    row = suite.rows[place]
    try:
      found[place] = known.asked(clean_prompt(row.prompt), row.scene)
    except DataError as error:
      raise DataError(
        f'{suite.name}: prompt {row.index}, {error}, which the judge reads; leave --judge out'
      ) from None
  return found
