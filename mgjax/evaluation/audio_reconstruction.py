"""Measures the reconstruction quality of an audio codec (Movie Gen §6)."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.audio.codec.latents import AudioCodec
from mgjax.audio.codec.losses import SPECTRAL_FLOOR, mel_distance
from mgjax.core.errors import DataError, NonFiniteError
from mgjax.core.typing import Float
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.settings import AudioShape, DataSettings
from mgjax.evaluation.metrics.audio import signal_to_distortion, synchrony
from mgjax.evaluation.reconstruction import evenly
from mgjax.evaluation.record.measured import Measured, extremes, mean_metric, numbers_of
from mgjax.media.audio import write_wav
from mgjax.media.audio_sheet import audio_sheet
from mgjax.media.loudness import loudness
from mgjax.runtime.progress import track
from mgjax.tae.latents import estimate_statistics

SHOWN = 4  # sounds that are written
SECONDS = 2.0  # of a sound; loudness needs 0.4
CODEC = 'codec'
LABELS = {
  'mel': ('mel distance', '.3f'),
  'mel_as_trained': ('mel distance as trained', '.3f'),
  'distortion': ('SI-SDR, dB', '.2f'),
  'loudness': ('change of loudness, LU', '.2f'),
  'correlation': ('correlation of onsets', '.3f'),
  'onset_error': ('error of onsets, ms', '.1f'),
}
_BETTER = {'distortion': 1, 'correlation': 1}  # of the others less is
_UNUSED = 0.1  # standard deviation of a channel that says next to nothing; the prior's is 1

_EVERY = 16  # sounds after which those are let go that are neither among the best nor the worst

_mel_distance = jax.jit(mel_distance, static_argnums=(2, 3))

Way = Callable[[Float[np.ndarray, 's c']], Float[np.ndarray, 's c']]


@dataclasses.dataclass(frozen=True)
class AudioPair:
  """A sound and its reconstructions, by method."""

  original: Float[np.ndarray, 's c']
  again: dict[str, Float[np.ndarray, 's c']]


@dataclasses.dataclass(frozen=True)
class AudioReconstruction:
  """Metrics of a codec's reconstructions and of those of baselines at the same rate.

  Attributes:
    sounds: of each sound, by the name of the way, its numbers, named as in `LABELS`; what has no
      meaning is left out: all but mel distances beside silence (below -70 LUFS), the change of
      loudness to silence, and the error of onsets where none are heard.
    latents: `a_second`, `channels`, `unused` channels (of a deviation below 0.1, before they are
      normalised), and of the normalised ones `mean`, the root mean square over channels, which
      should be 0, and `std`, the mean over channels, which should be 1.
    seconds: of a sound, the different ones.
    notes: what a reader of the numbers has to know.
    shown: some of the sounds.
    extremes: the best and the worst sounds by each metric, by their numbers.
    names: of the sounds.
  """

  sounds: list[dict[str, dict[str, float]]]
  latents: dict[str, float]
  seconds: list[float]
  notes: list[str]
  shown: list[AudioPair]
  extremes: Mapping[int, AudioPair] = dataclasses.field(default_factory=dict)
  names: Sequence[str] = ()

  def scores(self) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Returns by way and name the mean over sounds and its standard error, None of a single one."""
    scores = {}
    for way in self.sounds[0]:
      scores[way] = {}
      for name in LABELS:
        values = np.array([sound[way][name] for sound in self.sounds if name in sound[way]])
        if len(values):
          error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
          scores[way][name] = float(values.mean()), error
    return scores

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    scores = {
      way: {name: {'mean': mean, 'standard_error': error} for name, (mean, error) in found.items()}
      for way, found in self.scores().items()
    }
    values = {'scores': scores, 'latents': self.latents, 'seconds': self.seconds}
    return {**values, 'notes': self.notes, 'sounds': self.sounds}

  def measured(self) -> Measured:
    """Returns the codec's means with their intervals, beside the baselines."""
    scores, metrics = self.scores(), {}
    for name in scores[CODEC]:
      each = numbers_of([sound[CODEC] for sound in self.sounds], name)
      beside = {
        way: found[name][0] for way, found in scores.items() if way != CODEC and name in found
      }
      metrics[f'scores/{CODEC}/{name}'] = mean_metric(
        each, LABELS[name][0], _BETTER.get(name, -1), beside=beside
      )
    names = self.names or [f'sound {number}' for number in range(len(self.sounds))]
    return Measured(metrics, names, sound=True)

  def table(self) -> str:
    """Formats the means and their standard errors, a column a way, for people."""
    scores = self.scores()
    lines = [f'{"":26}' + ''.join(f'{way:>20}' for way in scores)]
    for name, (label, digits) in LABELS.items():
      cells = [_cell(scores[way].get(name), digits) for way in scores]
      if set(cells) != {'-'}:
        lines.append(f'{label:26}' + ''.join(f'{cell:>20}' for cell in cells))
    length = ', '.join(f'{seconds:g}' for seconds in self.seconds)
    lines.append(f'{len(self.sounds)} sound(s) of {length} s')
    lines.append(
      '{a_second:g} latents of {channels} a second, {unused} channel(s) unused; normalised, their '
      'mean is {mean:.3f} and their deviation {std:.3f}'.format(**self.latents)
    )
    return '\n'.join([*lines, *self.notes])


def evaluate_audio_reconstruction(
  codec: AudioCodec,
  sounds: Iterable[np.ndarray],
  *,
  others: Mapping[str, Way] | None = None,
  spectral_floor: float = SPECTRAL_FLOOR,
  shown: Collection[int] = range(SHOWN),
) -> AudioReconstruction:
  """Encodes and decodes sounds and compares the results with the originals.

  Args:
    codec: the codec.
    sounds: float (s c) in [-1, 1], at the codec's rate.
    others: baselines: name -> sound to its reconstruction.
    spectral_floor: of training; if it is not the usual one, which hears the least noise in digital
      silence, there is a mel distance with this floor too.
    shown: numbers of the sounds to keep.

  Raises:
    DataError: there is no sound, or one is too short.
    NonFiniteError: a latent is not finite.
  """
  ways, muted = dict(others or {}), {}
  numbers, latents, kept, seconds, furthest = [], [], [], {}, {}
  for index, sound in enumerate(sounds):
    latents.append(np.asarray(codec.encode(jnp.asarray(sound[None])))[0])
    if not np.isfinite(latents[-1]).all():
      raise NonFiniteError(f'the latents of sound {index} are not finite; was the training stable?')
    again = {CODEC: np.asarray(codec.decode(jnp.asarray(latents[-1][None]), len(sound)))[0]}
    again |= {name: way(sound) for name, way in ways.items()}
    numbers.append(
      {
        name: compare_audio(sound, other, codec.rate, spectral_floor)
        for name, other in again.items()
      }
    )
    for name, found in numbers[-1].items():
      muted[name] = muted.get(name, 0) + ('distortion' in found and 'loudness' not in found)
    seconds[len(sound) / codec.rate] = None
    if index in shown:
      kept.append(AudioPair(sound, again))
    furthest[index] = AudioPair(sound, again)
    if index % _EVERY == 0:
      furthest = _among(furthest, numbers)
  if not numbers:
    raise DataError('there is no sound to judge; give one or more')
  silent = sum('distortion' not in each[CODEC] for each in numbers)
  notes = [f'{silent} silent sound(s) have mel distances only'] if silent else []
  notes += [f'{count} sound(s) came back silent: {name}' for name, count in muted.items() if count]
  return AudioReconstruction(
    numbers, _describe(codec, latents), list(seconds), notes, kept, _among(furthest, numbers)
  )


def _among(
  pairs: Mapping[int, AudioPair], sounds: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[int, AudioPair]:
  """Those of the pairs that are among the best or the worst by a metric."""
  rows = [sound[CODEC] for sound in sounds]
  found = (extremes(numbers_of(rows, name), _BETTER.get(name, -1)) for name in LABELS)
  wanted = {place for best, worst in found for place in (*best, *worst)}
  return {place: pair for place, pair in pairs.items() if place in wanted}


def compare_audio(
  original: Float[np.ndarray, 's c'],
  again: Float[np.ndarray, 's c'],
  rate: int,
  spectral_floor: float = SPECTRAL_FLOOR,
) -> dict[str, float]:
  """Returns the metrics of `LABELS` that are defined; `spectral_floor` is that of training.

  Raises:
    DataError: the sound is shorter than 0.4 s, over which loudness is.
  """
  x, y = jnp.asarray(original[None]), jnp.asarray(again[None])
  numbers = {'mel': float(_mel_distance(x, y, rate, SPECTRAL_FLOOR))}
  if spectral_floor != SPECTRAL_FLOOR:
    numbers['mel_as_trained'] = float(_mel_distance(x, y, rate, spectral_floor))
  level = loudness(original, rate)
  if not np.isfinite(level) or not np.ptp(original, axis=0).any():
    return numbers
  numbers['distortion'] = signal_to_distortion(original, again)
  change = loudness(again, rate) - level
  if np.isfinite(change):
    numbers['loudness'] = abs(change)
  together = synchrony(original, again, rate)
  numbers['correlation'] = together.correlation or 0.0  # of what is even with what is not
  if together.onset_error is not None:
    numbers['onset_error'] = 1000 * together.onset_error
  return numbers


def sample_audio(
  data: DataSettings,
  samples: int,
  *,
  sounds: str = '',
  channels: int = 1,
  seconds: float = SECONDS,
) -> tuple[Iterator[Float[np.ndarray, 's c']], dict[str, Any]]:
  """Chooses sounds for the codec of a run, evenly spread over its data.

  Args:
    data: of the run.
    samples: how many, if there are as many.
    sounds: a folder of files; by default the run's own validation data.
    channels: of sounds from such a folder.
    seconds: of a sound.

  Returns:
    The sounds, read one by one, and a description of them for a record.

  Raises:
    DataError: there is no usable sound.
  """
  if sounds:
    data = dataclasses.replace(
      data, kind='sounds', path=sounds, validation_path='', channels=channels
    )
  source = make_audio_sources(data, {'sounds': AudioShape(seconds)}, 'validation')['sounds']
  chosen = evenly(len(source), samples)
  described = {'sounds': sounds or 'validation data of the run', 'seconds': seconds}
  return (source[index]['audio'] for index in track(chosen, len(chosen), 'sound')), {
    **described,
    'chosen': chosen,
  }


def write_audio(
  directory: pathlib.Path, shown: Sequence[AudioPair], rate: int
) -> list[pathlib.Path]:
  """Writes each sound and its reconstructions as wavs, and all on one sheet."""
  (directory / 'sounds').mkdir(parents=True, exist_ok=True)
  for earlier in (directory / 'sounds').glob('[0-9][0-9][0-9]_*.wav'):
    earlier.unlink()  # of an evaluation that showed more sounds
  rows, titles, paths = [], [], []
  for index, heard in enumerate(shown):
    for name, sound in {'original': heard.original, **heard.again}.items():
      paths.append(directory / 'sounds' / f'{index:03d}_{name}.wav')
      rows.append(np.clip(sound, -1, 1))
      titles.append(f'{name} {index}')
      write_wav(paths[-1], rows[-1], rate)
  sheet = directory / 'sounds.png'
  audio_sheet(sheet, rows, titles, rate)
  return [sheet, *paths]


def sounds_of(
  sounds: Mapping[int, Float[np.ndarray, 's c']], rate: int
) -> Callable[[int, pathlib.Path], pathlib.Path]:
  """Returns what writes sounds as .wav, by their places."""

  def show(place: int, stem: pathlib.Path) -> pathlib.Path:
    path = stem.with_suffix('.wav')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, np.clip(sounds[place], -1, 1), rate)
    return path

  return show


def _describe(codec: AudioCodec, latents: Sequence[np.ndarray]) -> dict[str, float]:
  found = estimate_statistics(latents)
  mean, std = np.array(found.mean), np.array(found.std)
  return {
    'a_second': codec.latent_rate,
    'channels': len(mean),
    'unused': int(np.sum(std * np.array(codec.statistics.std) < _UNUSED)),
    'mean': float(np.sqrt(np.mean(mean**2))),
    'std': float(np.mean(std)),
  }


def _cell(score: tuple[float, float | None] | None, digits: str) -> str:
  if score is None:
    return '-'
  mean, error = score
  return f'{mean:{digits}}' + ('' if error is None else f' +- {error:{digits}}')
