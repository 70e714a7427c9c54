"""What looks at the frames of a video and says numbers of its clips (Movie Gen §3.2.1).

A scorer sees the frames of a video once, in order. Where the video is cut is known only after the
last one, so a scorer keeps a few numbers a frame, and adds them up over whichever stretch it is
asked for. Scores are numbers, texts, bytes or lists of numbers: they are columns of a table.
"""

import abc
import time
from collections.abc import Iterable, Sequence
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_object
from mgjax.data.media.containers import File
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.settings import MeasureSettings

Score = float | int | str | list | bytes | None
_SLACK = 1e-6  # seconds that a frame may come early, as rounded times do


class Scorer(abc.ABC):
  """Sees the frames of a video once, in order, then says the scores of any stretch of it."""

  name: str  # of its scores' columns: 'text' has 'text_score'
  side: int | None = None  # shorter side, in pixels, of its frames; None for as they are
  rate: float | None = None  # frames a second that it sees; None for all

  def open(self, file: File) -> None:
    """Takes the video before its first frame: of scorers that look at more than its frames."""
    return

  @abc.abstractmethod
  def see(self, frame: Frame) -> None:
    """Takes the next frame."""

  @abc.abstractmethod
  def scores(self, start: float, end: float) -> dict[str, Score]:
    """Scores of the frames shown from `start` on and before `end`, in seconds; None if unknown."""


def shown(seen: Sequence[tuple[Any, ...]], start: float, end: float) -> list[tuple[Any, ...]]:
  """Those of (start, end, ...) that are shown in a stretch; where none is, the one before it."""
  inside = [row for row in seen if row[1] > start and row[0] < end]
  return inside or [row for row in seen if row[0] < end][-1:]


# name -> the class that makes it from `MeasureSettings`, imported when it is used.
SCORERS = {
  'text': 'mgjax.lab.curation.scores.text:Text',
  'borders': 'mgjax.lab.curation.scores.borders:Borders',
  'motion': 'mgjax.lab.curation.scores.motion:Motion',
  'jitter': 'mgjax.lab.curation.scores.jitter:Jitter',
  'stillness': 'mgjax.lab.curation.scores.stillness:Stillness',
  'fingerprint': 'mgjax.lab.curation.scores.fingerprint:Fingerprint',
  'aesthetics': 'mgjax.lab.curation.scores.plug_in:Aesthetics',
  'copies': 'mgjax.lab.curation.scores.plug_in:Copies',
  'people': 'mgjax.lab.curation.scores.plug_in:People',
  'concepts': 'mgjax.lab.curation.scores.plug_in:Concepts',
  'camera': 'mgjax.lab.curation.scores.camera:Camera',
  'subject': 'mgjax.lab.curation.scores.subject:Subject',
  'sound': 'mgjax.lab.curation.scores.soundtrack:Soundtrack',
}


def make_scorers(settings: MeasureSettings) -> list[Scorer]:
  """Makes the scorers in `settings.scorers` whose weights or plug-ins are configured.
  Raises ConfigError if a name is unknown, or what a scorer needs is not installed.
  """
  scorers = []
  for name in settings.scorers:
    if name not in SCORERS:
      raise ConfigError(f'scorer {name!r}: expected one of {", ".join(SCORERS)}')
    scorer = load_object(SCORERS[name])(settings)
    if getattr(scorer, 'missing', None) is None:
      scorers.append(scorer)
  return scorers


def watch(frames: Iterable[Frame], scorers: Sequence[Scorer]) -> dict[str, float]:
  """Shows every scorer the frames that it wants; returns processor seconds by scorer, and 'decode'.

  A conversion counts for the first scorer that asks for it.
  """
  spent = dict.fromkeys(['decode', *(scorer.name for scorer in scorers)], 0.0)
  due = dict.fromkeys(spent, 0.0)
  before = time.process_time()
  for frame in frames:
    now = time.process_time()
    spent['decode'] += now - before
    for scorer in scorers:
      before = now
      if scorer.rate is None or frame.start >= due[scorer.name] - _SLACK:
        if scorer.rate is not None:
          due[scorer.name] = (int(frame.start * scorer.rate + _SLACK) + 1) / scorer.rate
        scorer.see(frame.shrunk(scorer.side))
      now = time.process_time()
      spent[scorer.name] += now - before
    before = now
  return spent
