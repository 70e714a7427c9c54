"""Scores videos of a suite, whoever made them: from files alone, without a model's directory."""

import dataclasses
import functools
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mgjax.clip.pipeline import Clip
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Float, UInt8
from mgjax.data.clips import evenly
from mgjax.digits.clips import all_captions
from mgjax.digits.judge import DigitJudge, train_judge
from mgjax.digits.scene import COLOURS, MOTIONS
from mgjax.evaluation.metrics.stability import second_difference
from mgjax.evaluation.suites.means import Mean, mean_of
from mgjax.evaluation.suites.suite import Suite
from mgjax.evaluation.suites.vbench import markdown, video_names
from mgjax.media.video import probe, stream_clip
from mgjax.runtime.progress import track
from mgjax.text.prompts import clean_prompt

JUDGES = ('digits',)
KINDS = ('.mp4', '.webm', '.mov', '.mkv', '.gif', '.png')
_NUMBERED = re.compile(r'(\d+)(?:_[0-9a-f]{8})?')
_FRAMES = 8  # of a video that CLIP looks at
_SIDE = 256  # pixels of the shorter side, above which a video is looked at smaller

Clips = Mapping[int, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class VideoScores:
  """Numbers of the videos of a suite.

  Attributes:
    suite: which one.
    values: metric -> a number a row; NaN where there is none.
    files: of each row the video, '' where there is none.
  """

  suite: Suite
  values: Mapping[str, Float[np.ndarray, 'n']]
  files: list[str]

  def mean(self, metric: str, tag: str = '') -> Mean:
    """Returns a metric's mean over all prompts, or over those with a tag."""
    rows = self.suite.tags[tag] if tag else list(range(len(self.suite.rows)))
    prompts = self.suite.prompts
    return mean_of(self.values[metric][rows], [prompts[row] for row in rows])

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    means = {name: self.mean(name).as_dict() for name in self.values}
    tags = {
      tag: {name: self.mean(name, tag).as_dict() for name in self.values} for tag in self.suite.tags
    }
    videos = [
      {'index': row.index, 'prompt': row.prompt, 'file': file}
      | {name: None if math.isnan(v[at]) else float(v[at]) for name, v in self.values.items()}
      for at, (row, file) in enumerate(zip(self.suite.rows, self.files, strict=True))
      if file
    ]
    missing = self.files.count('')
    return {'suite': self.suite.name, 'missing': missing} | {
      'scores': means, 'tags': tags, 'videos': videos,
    }  # fmt: skip

  def table(self) -> str:
    """Formats the means with their intervals over prompts, of all and by tag, for people."""
    names = list(self.values)
    rows = [('prompts', 'n', *names)]
    for tag in ('', *self.suite.tags):
      found = [self.mean(name, tag) for name in names]
      rows.append((tag or 'all', str(max(each.videos for each in found)), *map(str, found)))
    missing = self.files.count('')
    note = f'{missing} of {len(self.files)} prompts have no video and count nowhere'
    return '\n'.join([markdown(rows), *([note] if missing else [])])


def find_videos(directory: str | os.PathLike[str], suite: Suite) -> dict[int, pathlib.Path]:
  """Returns the videos of a directory by the place of their row in the suite.

  A video is called by the index of its prompt, '00012.mp4' or '0012_1f3a55c0.mp4', or as VBench
  does by the prompt, 'a dog runs-0.mp4', of which sample 0 counts.

  Raises:
    DataError: there is no such directory, or no video of the suite, or two of one prompt.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise DataError(f'{directory}: is no folder of videos; name one')
  files = sorted(each for each in directory.iterdir() if each.suffix.lower() in KINDS)
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


def score_videos(
  videos: Clips, suite: Suite, *, clip: Clip | None = None, judge: str = ''
) -> VideoScores:
  """Measures videos one after another, in memory that does not grow with their length.

  'step' is the mean |x_t - x_{t-1}| in grey levels of 255, of motion and of flicker, and 'jerk'
  that of the second difference, of what comes and goes; both of frames of at most 256 pixels on
  their shorter side. 'clip' is the mean cosine of a prompt with eight frames. Of the small world's
  judge, shares that show what the prompt says.

  Args:
    videos: place of a row in the suite -> file.
    suite: the prompts.
    clip: compares prompts with frames.
    judge: 'digits' for the judge of the small world, '' for none.

  Raises:
    ConfigError: there is no such judge.
    DataError: a video cannot be read, or a prompt is none that the judge knows.
  """
  labels = _labels(suite, videos, judge) if judge else {}
  names = ('step', 'jerk', *(['clip'] if clip else []), *(_SHOWN if judge else ()))
  values = {name: np.full(len(suite.rows), np.nan) for name in names}
  texts, seen = None, None
  if clip is not None:
    texts = clip.encode_texts([clean_prompt(prompt) for prompt in suite.prompts])
  for place in track(sorted(videos), len(videos), 'video'):
    watched = _Watched(videos[place], bool(judge))
    values['step'][place], values['jerk'][place] = watched.step, watched.jerk
    if clip is not None and texts is not None:
      values['clip'][place] = float(np.mean(clip.encode_images(watched.shown) @ texts[place]))
    if judge:
      seen = seen or _make_judge(len(watched.frames), *watched.frames[0].shape[:2])
      reading = seen.read(np.stack(watched.frames))
      right = [mine == asked for mine, asked in zip(reading, labels[place], strict=False)]
      for name, value in zip(_SHOWN, (*right, all(right)), strict=True):
        values[name][place] = value
  files = [os.fspath(videos[place]) if place in videos else '' for place in range(len(suite.rows))]
  return VideoScores(suite, values, files)


_SHOWN = ('digit', 'colour', 'direction', 'all')
_Frame = UInt8[np.ndarray, 'h w 3']


class _Watched:
  """One video, seen once."""

  def __init__(self, path: pathlib.Path, whole: bool):
    info = probe(path)
    scale = min(1.0, _SIDE / min(info.height, info.width))
    size = (round(info.height * scale), round(info.width * scale))
    self.frames: list[_Frame] = []
    self._shown: list[_Frame] = []
    self._steps: list[float] = []
    self._whole, self._chosen = whole, {*evenly(info.frames, min(_FRAMES, info.frames))}
    frames = self._watch(stream_clip(path, size=size, fps=info.fps))
    try:
      self.jerk = float(second_difference(frames).mean())
    except DataError:
      if len(self._steps) > 1:
        raise
      self.jerk = math.nan  # of a picture, or two of them
    self.step = float(np.mean(self._steps)) if self._steps else math.nan
    self.shown = np.stack(self._shown)

  def _watch(self, frames: Iterator[_Frame]) -> Iterator[_Frame]:
    last = None
    for number, frame in enumerate(frames):
      if number in self._chosen:
        self._shown.append(frame)
      if self._whole:
        self.frames.append(frame)
      if last is not None:
        self._steps.append(float(np.mean(np.abs(frame.astype(np.int16) - last))))
      last = frame
      yield frame


@functools.cache
def _make_judge(frames: int, height: int, width: int) -> DigitJudge:
  least = min(height, width)  # only the proportions of the size matter to it
  return train_judge(frames=frames, size=(round(32 * height / least), round(32 * width / least)))


def _labels(suite: Suite, videos: Clips, judge: str) -> dict[int, tuple[int, str, str]]:
  """What the prompts of videos say: place -> digit, colour and motion."""
  if judge not in JUDGES:
    raise ConfigError(f'--judge={judge}: there is none of this name; expected {", ".join(JUDGES)}')
  every = all_captions(tuple(COLOURS), (*MOTIONS, ''))
  known = {caption: (digit, colour, motion) for digit, colour, motion, caption in every}
  found = {}
  for place in videos:
    prompt = clean_prompt(suite.rows[place].prompt)
    if prompt not in known:
      raise DataError(
        f'{suite.name}: prompt {suite.rows[place].index}, {prompt[:40]!r}, is no caption of the '
        'small world, which the judge reads; leave --judge out'
      )
    found[place] = known[prompt]
  return found
