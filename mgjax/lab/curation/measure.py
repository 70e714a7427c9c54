"""Measures videos: one pass over their frames gives shots, clips and every score of these.

Each video is decoded once. All scorers see the same frames, shrunk for those that ask for it, and
tell the scores of a stretch when it is known where the video is cut. A row is what is known of one
clip:

video, clip         str, the name of the video, and that with the number of the clip
place               int, of the video among all inputs
start, end          float, seconds from the first frame of the video
shot, shots         int, which shot it is of, and how many the video has
frames              int
seconds, fps        float, of the video
width, height       int, of the video as it is shown
caption, sound      str, and bool: whether there is some
middle              bytes, a small JPEG of about the middle frame
seconds_of          {name: seconds}, what its scores cost: the share of this clip
packets, decoded    int, of the video: frames that it has, and times that one was decoded
loop                bytes, a small animated WebP of frames from all of the clip
<scorer>_<score>    what scorers say
gated               None, or of a video that was not decoded: why; then nothing of clips and scores
                    is there
error               None, or in a row of a video that cannot be measured: why; nothing else is there
"""

import functools
import io
import time
from collections.abc import Callable
from typing import Any

from PIL import Image

from mgjax.core.errors import ConfigError, DataError, StorageError, printable
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.inputs import Input
from mgjax.data.media.containers import Blob, File
from mgjax.data.media.video import probe
from mgjax.lab.curation import frames
from mgjax.lab.curation.clips import choose_clips
from mgjax.lab.curation.filters.scenes import SIDE, SceneSettings, ShotFinder
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.gate import OPEN, Gate
from mgjax.lab.curation.scores.scorer import Score, Scorer, make_scorers, watch
from mgjax.lab.curation.settings import MeasureSettings

_PICTURES = 2.0  # a second that are kept, one of which is near the middle of a clip
_QUALITY = 80  # of JPEG
_LOOP, _LOOP_SIDE = 8, 96  # pictures of an animation, and the shorter side of them
_LOOP_STEP = 250  # milliseconds that each is shown
_LOOP_QUALITY = 50  # of WebP
_FATAL = (ConfigError, MemoryError)


def measure_video(
  video: Input | RejectedEntry, settings: MeasureSettings, index: int = 0, gate: Gate = OPEN
) -> list[dict[str, Any]]:
  """Measures a video: returns a row a clip, or one row with an `error` or what `gated` it.

  Args:
    index: of the video among the inputs.

  Raises:
    StorageError: the storage does not answer.
    ConfigError: a library is missing.
    MemoryError: there is too little memory.
  """
  result = or_reason(lambda: _measured(video, settings, index, gate), video, 'measured', *_FATAL)
  return [error_row(video.name, result, index)] if isinstance(result, str) else result


def or_reason(
  make: Callable[[], Any], video: Input | RejectedEntry, done: str, *fatal: type[Exception]
) -> Any:
  """Returns the result of `make` for a video, or a str that says why the video cannot be used.

  Raises:
    StorageError: the storage does not answer; later videos would fail as well.
    Exception: one of the types in `fatal`.
  """
  if isinstance(video, RejectedEntry):
    return video.reason
  try:
    return make()
  except (StorageError, *fatal):
    raise
  except DataError as error:  # without the name of the video
    named = (printable(f'{name}: ', keep='\n') for name in (video.name, video.path))
    return functools.reduce(str.removeprefix, named, str(error))
  except Exception as error:  # no error from a file of unknown origin may end the run
    return f'cannot be {done} ({type(error).__name__}: {error!s:.200})'


def error_row(video: str, reason: str, index: int) -> dict[str, Any]:
  """Returns the row of a video that cannot be measured."""
  return {'video': video, 'clip': video, 'place': index, 'error': reason}


def open_video(video: Input) -> File:
  """Returns the file of an input: its path, or its content."""
  return Blob(video.name, video.load()) if video.path is None else video.path


def _measured(
  video: Input, settings: MeasureSettings, index: int, gate: Gate
) -> list[dict[str, Any]]:
  began = time.process_time()
  file = open_video(video)
  info = probe(file)
  about = {
    'video': video.name,
    'place': index,
    'seconds': info.seconds,
    'width': info.width,
    'height': info.height,
    'fps': info.fps,
    'caption': video.caption,
    'sound': info.has_audio,
    'packets': info.frames,
  }
  reason = gate.reason(about)
  probed = {'probe': time.process_time() - began}
  if reason:
    row = {'clip': video.name, 'decoded': 0, 'seconds_of': probed, 'gated': reason, 'error': None}
    return [about | row]
  shots = _Shots(settings.scenes)
  pictures = _Pictures()
  scorers = make_scorers(settings)
  for scorer in scorers:
    scorer.open(file)
  costs = probed | watch(frames.stream(file), [shots, pictures, *scorers])
  shot_list = shots.finder.shots()
  times = shots.finder.times
  clips = choose_clips(shot_list, times, settings.clips)
  rows = []
  for number, clip in enumerate(clips):
    row = about | {
      'clip': f'{video.name}#{number}',
      'decoded': len(times) - 1,
      'start': clip.start,
      'end': clip.end,
      'shot': clip.shot,
      'shots': len(shot_list),
      'frames': clip.last - clip.first,
    }
    for scorer in (pictures, *scorers):
      began = time.process_time()
      scores = scorer.scores(clip.start, clip.end)
      prefix = '' if scorer is pictures else f'{scorer.name}_'
      row |= {f'{prefix}{name}': value for name, value in scores.items()}
      costs[scorer.name] += time.process_time() - began
    rows.append(row | {'gated': None, 'error': None})
  shares = {name: seconds / len(rows) for name, seconds in costs.items()}
  return [row | {'seconds_of': shares} for row in rows]


class _Shots(Scorer):
  """Looks for cuts, by its `finder`."""

  name = 'shots'
  side = SIDE

  def __init__(self, settings: SceneSettings):
    self.finder = ShotFinder(settings)

  def see(self, frame: Frame) -> None:
    self.finder.see(frame.start, frame.end, frame.pixels)

  def scores(self, start: float, end: float) -> dict[str, Score]:
    return {}


class _Pictures(Scorer):
  """Keeps small pictures, for people: `middle` and `loop` of a clip."""

  name = 'pictures'
  side = SIDE
  rate = _PICTURES

  def __init__(self):
    self._pictures: list[tuple[float, bytes]] = []

  def see(self, frame: Frame) -> None:
    file = io.BytesIO()
    Image.fromarray(frame.pixels).save(file, 'JPEG', quality=_QUALITY)
    self._pictures.append((frame.start, file.getvalue()))

  def scores(self, start: float, end: float) -> dict[str, Score]:
    count = max(1, min(_LOOP, round((end - start) * _PICTURES)))
    moments = [start + (number + 0.5) * (end - start) / count for number in range(count)]
    return {
      'middle': self._nearest((start + end) / 2),
      'loop': _animation([self._nearest(moment) for moment in moments]),
    }

  def _nearest(self, moment: float) -> bytes:
    return min(self._pictures, key=lambda picture: abs(picture[0] - moment))[1]


def _animation(pictures: list[bytes]) -> bytes:
  """Returns JPEGs of one size as an animated WebP that repeats for ever."""
  opened = [Image.open(io.BytesIO(picture)) for picture in pictures]
  scale = min(1.0, _LOOP_SIDE / min(opened[0].size))
  size = tuple(max(1, round(length * scale)) for length in opened[0].size)
  resized = [picture.resize(size, reducing_gap=2.0) for picture in opened]
  file = io.BytesIO()
  resized[0].save(
    file,
    'WEBP',
    save_all=True,
    append_images=resized[1:],
    duration=_LOOP_STEP,
    loop=0,
    quality=_LOOP_QUALITY,
    method=0,
  )
  return file.getvalue()
