"""The sound of a clip as scores of its row: see `sound.py` (Movie Gen §6, Table 24)."""

from collections.abc import Callable
from typing import Any

from mgjax.core.errors import DataError
from mgjax.core.plug_ins import load_function
from mgjax.data.media.audio import probe_audio
from mgjax.data.media.containers import File
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.plug_in import HELD, HeldFrames
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.scores.sound import EVENTS, SoundPlugIns, sound_scores
from mgjax.lab.curation.settings import MeasureSettings, PlugIn

# Of a clip without sound: all of it is silent, and nothing more is known.
_SILENCE = {
  'silence': 1.0,
  'loudness': None,
  'peak': 0.0,
  **dict.fromkeys(EVENTS),
  'cosine': None,
  'quality': None,
}


class Soundtrack(Scorer):
  """`sound_silence`, `sound_loudness` and so on, of `sound.sound_scores`.

  A clip without sound, or with one that cannot be decoded, is silent.
  """

  name = 'sound'
  rate = HELD

  def __init__(self, settings: MeasureSettings):
    self._settings = settings.sound
    plug_ins = (settings.sound_events, settings.sound_cosine, settings.sound_quality)
    self._plug_ins = SoundPlugIns(*map(_loaded, plug_ins))
    self._frames, self.side = settings.sound_cosine.frames, settings.sound_cosine.side
    self._held = HeldFrames()
    self._file = None

  def open(self, file: File) -> None:
    try:
      probe_audio(file)
      self._file = file
    except DataError:
      self._file = None

  def see(self, frame: Frame) -> None:
    if self._plug_ins.cosine is not None and self._file is not None:
      self._held.add(frame)

  def scores(self, start: float, end: float) -> dict[str, Score]:
    if self._file is None:
      return dict(_SILENCE)
    frames = self._held.between(start, end, self._frames)  # None where nothing is held
    try:
      return {**sound_scores(self._file, start, end, self._settings, self._plug_ins, frames=frames)}
    except DataError:
      return dict(_SILENCE)


def _loaded(settings: PlugIn) -> Callable[..., Any] | None:
  """Returns a plug-in with its weights bound; None if none is configured."""
  if not settings.python:
    return None
  function = load_function(settings.python)
  return lambda *inputs: function(*inputs, settings.weights)
