"""The sound of a clip as scores: silence, loudness, what is heard, and whether it is of the scene.

Movie Gen §6, Table 24. An event network says how likely voice, music and other audio are, a joint
embedding of sound and pictures gives their cosine. Together they tell diegetic sound, which
belongs to what is seen, from what was laid over it:

  voice, sound, voice + sound                  and cosine > 0.2          diegetic
  music, music + sound, voice + music + sound  and cosine > 0.3          diegetic
  music                                        and cosine < 0.1          non-diegetic
  music + sound                                and 0.1 <= cosine <= 0.25   non-diegetic
  voice + music + sound                        and 0.1 <= cosine <= 0.25   mixed
  else                                                                   unknown

Both networks are the user's own. Without them what they would say is None. The thresholds belong to
the cheap pass: `filters/sound.py` asks `place_of_sound` of scores that were written before.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError, printable
from mgjax.core.settings import Checked, Fraction, Range, check
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.audio import read_audio
from mgjax.data.media.containers import File
from mgjax.data.media.loudness import SILENT, measure_loudness

EVENTS = ('voice', 'music', 'sound')
Cosine = Annotated[float, Range(least=-1, most=1)]
# Sound (s 1) and its samples a second -> how likely each of EVENTS is.
EventPlugIn = Callable[[np.ndarray, int], Mapping[str, float]]
# Frames (t h w 3), sound (s 1) and its samples a second -> the cosine of their embeddings.
CosinePlugIn = Callable[[np.ndarray, np.ndarray, int], float]
# Sound (s 1) and its samples a second -> its quality, 0 to 10.
QualityPlugIn = Callable[[np.ndarray, int], float]
PLACES = ('diegetic', 'non-diegetic', 'mixed', 'unknown')
Level = Annotated[float, Range(least=-120, most=20)]


@dataclasses.dataclass(frozen=True)
class SoundSettings(Checked):
  """What is looked at, and what counts as silence; block and silent are not in public sources."""

  rate: Annotated[int, Range(least=8000, most=192_000)] = 48_000  # samples a second
  block: Annotated[float, Range(above=0, most=10)] = 0.1  # seconds of which silence is said
  silent: Annotated[float, Range(least=-120, most=0)] = SILENT  # dB of full scale


@dataclasses.dataclass(frozen=True)
class SoundLimits:
  """What counts as heard and as of the scene (Table 24), and which audio is kept.

  Not in public sources: heard, silence, loudness, places.
  """

  heard: Fraction = 0.5  # likelihood from which an event is there
  diegetic: Cosine = 0.2  # cosine above which voice and sound are of the scene
  diegetic_music: Cosine = 0.3  # the same, where there is music
  apart: Cosine = 0.1  # cosine below which music alone is not
  between: tuple[Cosine, Cosine] = (0.1, 0.25)  # cosines of music beside sounds that is not
  silence: Fraction = 0.5  # share above which it dominates a clip
  loudness: tuple[Level, Level] = (-50.0, 0.0)  # LUFS, from and to
  places: tuple[str, ...] = ('diegetic', 'non-diegetic', 'mixed')  # that are kept

  def __post_init__(self):
    check(self)
    for name in self.places:
      if name not in PLACES:
        raise ConfigError(f'places has {name!r}; expected some of {", ".join(PLACES)}')


_LIMITS = SoundLimits()


class SoundPlugIns(NamedTuple):
  """The networks that hear; what one that is None would say is not known."""

  events: EventPlugIn | None = None
  cosine: CosinePlugIn | None = None
  quality: QualityPlugIn | None = None


_NONE = SoundPlugIns()


def sound_scores(
  file: File,
  start: float,
  end: float,
  settings: SoundSettings = SoundSettings(),
  plug_ins: SoundPlugIns = _NONE,
  *,
  frames: UInt8[np.ndarray, 't h w 3'] | None = None,
) -> dict[str, float | None]:
  """Returns the scores of the sound of a clip, mixed down to one channel.

  silence          share of the clip's blocks that are silent, 0 to 1
  loudness         integrated, LUFS; None of silence
  peak             largest sample, 1 at full scale
  voice, music, sound   likelihoods; None without `events`
  cosine           of sound and pictures; None without `cosine` and `frames`
  quality          0 to 10; None without `quality`

  Raises:
    DataError: the sound cannot be read.
    ConfigError: a plug-in returns something else than it should.
  """
  events, cosine, quality = plug_ins
  sound = read_audio(file, start=start, seconds=end - start, rate=settings.rate)
  level = measure_loudness([sound], settings.rate)
  likely = dict.fromkeys(EVENTS) if events is None else _likelihoods(events(sound, settings.rate))
  similarity = None
  if cosine is not None and frames is not None:
    similarity = float(cosine(frames, sound, settings.rate))
    if not -1.001 <= similarity <= 1.001:
      raise ConfigError(
        f'the plug-in for sound and pictures returned {similarity}; expected a cosine'
      )
  good = None if quality is None else float(quality(sound, settings.rate))
  if good is not None and not 0 <= good <= 10:
    raise ConfigError(f'the plug-in for quality returned {good}; expected a number from 0 to 10')
  return {
    'silence': silent_share(sound, settings),
    'loudness': level.loudness if math.isfinite(level.loudness) else None,
    'peak': level.peak,
    **likely,
    'cosine': similarity,
    'quality': good,
  }


def silent_share(sound: Float[np.ndarray, 's c'], settings: SoundSettings) -> float:
  """Share of the blocks of a sound, the last may be shorter, whose root mean square is silent."""
  size = max(1, round(settings.block * settings.rate))
  power = np.square(sound.astype(np.float64)).mean(-1)
  starts = np.arange(0, len(power), size)
  counts = np.diff([*starts, len(power)])
  means = np.add.reduceat(power, starts) / counts
  return float((means < 10 ** (settings.silent / 10)).mean())


def place_of_sound(heard: Collection[str], cosine: float, settings: SoundLimits = _LIMITS) -> str:
  """Returns one of `PLACES`, by Table 24; `heard` are those of `EVENTS` that are there."""
  kinds = frozenset(heard)
  low, high = settings.between
  if kinds and 'music' not in kinds:
    return 'diegetic' if cosine > settings.diegetic else 'unknown'
  if 'music' not in kinds or kinds == {'voice', 'music'}:  # of which the table says nothing
    return 'unknown'
  if cosine > settings.diegetic_music:
    return 'diegetic'
  if kinds == {'music'}:
    return 'non-diegetic' if cosine < settings.apart else 'unknown'
  if low <= cosine <= high:
    return 'mixed' if 'voice' in kinds else 'non-diegetic'
  return 'unknown'


def _likelihoods(answer: Mapping[str, float]) -> dict[str, float]:
  likelihoods = {name: float(answer.get(name, 0.0)) for name in EVENTS}
  if set(answer) - set(EVENTS) or not all(0 <= value <= 1 for value in likelihoods.values()):
    raise ConfigError(
      f'the plug-in for events returned {printable(dict(answer))[:80]}; expected likelihoods, 0 to '
      f'1, of {", ".join(EVENTS)}'
    )
  return likelihoods
