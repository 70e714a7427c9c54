"""Measures the reconstruction quality of an audio codec (Movie Gen §6)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import DataError, NonFiniteError
from mgjax.core.typing import Float
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.clips import evenly
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.media.loudness import loudness
from mgjax.data.settings import AudioShape, DataSettings
from mgjax.lab.evaluation.metrics.audio import signal_to_distortion, synchrony
from mgjax.lab.evaluation.record.measured import (
  Furthest,
  Measured,
  mean_metric,
  numbers_of,
  standard_means,
)
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.losses import SPECTRAL_FLOOR, mel_distance
from mgjax.models.tae.latents import estimate_statistics
from mgjax.training.monitoring.progress import track

SHOWN = 4  # sounds to write
SECONDS = 2.0  # of a sound; loudness needs 0.4
CODEC = 'codec'
LABELS = {
  'mel': 'mel distance',
  'mel_as_trained': 'mel distance as trained',
  'distortion': 'SI-SDR, dB',
  'loudness': 'change of loudness, LU',
  'correlation': 'correlation of onsets',
  'onset_error': 'error of onsets, ms',
}
BETTER = {name: 1 if name in ('distortion', 'correlation') else -1 for name in LABELS}
_UNUSED = 0.1  # standard deviation below which a channel is unused; the prior's is 1

_mel_distance = jax.jit(mel_distance, static_argnums=(2, 3))

Way = Callable[[Float[np.ndarray, 's c']], Float[np.ndarray, 's c']]


@dataclasses.dataclass(frozen=True)
class AudioPair:
  """A sound and its reconstructions, by method."""

  original: Float[np.ndarray, 's c']
  again: dict[str, Float[np.ndarray, 's c']]


def evaluate_audio_reconstruction(
  codec: AudioCodec,
  sounds: Iterable[np.ndarray],
  *,
  others: Mapping[str, Way] | None = None,
  spectral_floor: float = SPECTRAL_FLOOR,
  keep: Collection[int] = range(SHOWN),
  names: Sequence[str] = (),
) -> tuple[Measured, dict[int, AudioPair]]:
  """Encodes and decodes audio (s c) in [-1, 1], at the codec's rate, and compares them.

  Args:
    others: baselines: name -> function from a sound to its reconstruction.
    spectral_floor: of training. If it is not the usual one, which is sensitive to the least noise
      in digital silence, a second mel distance uses this floor.
    keep: indices of clips to return besides the best and the worst.

  Returns:
    The numbers, and by their numbers the audio to keep, and the best and the worst. The record
    has of each sound, by the name of the way, its numbers, named as in `LABELS`; what has no
    meaning is left out: all but mel distances beside silence (below -70 LUFS), the change of
    loudness to silence, and the error of onsets where none are heard. Its `latents` are
    `a_second`, `channels`, and `unused` channels (of a deviation below 0.1, before they are
    normalised). Of the normalised ones they have `mean`, the root mean square over channels, which
    should be 0, and `std`, the mean over channels, which should be 1.

  Raises:
    DataError: there is no sound, or one is too short.
    NonFiniteError: a latent is not finite.
  """
  ways = dict(others or {})
  muted = {}
  pairs = Furthest(BETTER, keep)
  numbers = []
  rows = []
  latents = []
  seconds = {}
  for index, sound in enumerate(sounds):
    latents.append(np.asarray(codec.encode(jnp.asarray(sound[None])))[0])
    if not np.isfinite(latents[-1]).all():
      raise NonFiniteError(f'the latents of sound {index} are not finite; was the training stable?')
    again = {CODEC: np.asarray(codec.decode(jnp.asarray(latents[-1][None]), len(sound)))[0]}
    again |= {name: way(sound) for name, way in ways.items()}
    numbers.append({})
    for name, other in again.items():
      comparison = numbers[-1][name] = compare_audio(sound, other, codec.rate, spectral_floor)
      muted[name] = muted.get(name, 0) + (
        'distortion' in comparison and 'loudness' not in comparison
      )
    seconds[len(sound) / codec.rate] = None
    rows.append(numbers[-1][CODEC])
    pairs.add(AudioPair(sound, again), rows)
  if not numbers:
    raise DataError('there is no sound to judge; give one or more')
  silent = sum('distortion' not in row[CODEC] for row in numbers)
  notes = [f'{silent} silent sound(s) have mel distances only'] if silent else []
  notes += [f'{count} sound(s) came back silent: {name}' for name, count in muted.items() if count]
  pairs.let_go(rows)
  description = _describe(codec, latents)
  return _measured(numbers, description, list(seconds), notes, names), pairs.kept


def _measured(
  sounds: Sequence[Mapping[str, Mapping[str, float]]],
  latents: Mapping[str, float],
  seconds: Sequence[float],
  notes: Sequence[str],
  names: Sequence[str],
) -> Measured:
  scores = {
    way: standard_means([sound[way] for sound in sounds], list(LABELS)) for way in sounds[0]
  }
  metrics = {}
  ours = [sound[CODEC] for sound in sounds]
  others = {way: means for way, means in scores.items() if way != CODEC}
  for name in scores[CODEC]:
    beside = {way: means[name]['mean'] for way, means in others.items() if name in means}
    metrics[f'scores/{CODEC}/{name}'] = mean_metric(
      numbers_of(ours, name), LABELS[name], BETTER[name], beside=beside
    )
  return Measured(
    metrics,
    names or [f'sound {number}' for number in range(len(sounds))],
    sound=True,
    record={
      'scores': scores,
      'latents': latents,
      'seconds': seconds,
      'notes': notes,
      'sounds': sounds,
    },
    notes=[
      f'{len(sounds)} sound(s) of {", ".join(f"{length:g}" for length in seconds)} s',
      '{a_second:g} latents of {channels} a second, {unused} channel(s) unused; normalised, their '
      'mean is {mean:.3f} and their deviation {std:.3f}'.format(**latents),
      *notes,
    ],
  )


def compare_audio(
  original: Float[np.ndarray, 's c'],
  again: Float[np.ndarray, 's c'],
  rate: int,
  spectral_floor: float = SPECTRAL_FLOOR,
) -> dict[str, float]:
  """Returns the metrics of `LABELS` that are defined; DataError for less than 0.4 s of sound."""
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
  numbers['correlation'] = together.correlation or 0.0  # None if one sound is constant
  if together.onset_error is not None:
    numbers['onset_error'] = 1000 * together.onset_error
  return numbers


def sample_audio(
  data: DataSettings, samples: int, *, sounds: str = '', channels: int = 1, seconds: float = SECONDS
) -> tuple[Iterator[Float[np.ndarray, 's c']], dict[str, Any]]:
  """Chooses audio for the codec of a run, evenly spread over its validation data or `sounds`.

  Returns a lazy iterator over the clips, and a description for a record. Raises DataError if no
  sound is usable.
  """
  if sounds:
    data = dataclasses.replace(
      data, kind='sounds', path=sounds, validation_path='', channels=channels
    )
  source = make_audio_sources(data, {'sounds': AudioShape(seconds)}, 'validation')['sounds']
  chosen = evenly(len(source), samples)
  described = {'sounds': sounds or 'validation data of the run', 'seconds': seconds}
  described['chosen'] = chosen
  return (source[index]['audio'] for index in track(chosen, len(chosen), 'sound')), described


def write_audio(
  directory: pathlib.Path, pairs: Sequence[AudioPair], rate: int
) -> list[pathlib.Path]:
  """Writes each sound and its reconstructions as .wav, and a sheet of all of them."""
  for earlier in (directory / 'sounds').glob('[0-9][0-9][0-9]_*.wav'):
    earlier.unlink()  # an earlier evaluation may have written more sounds
  rows = []
  titles = []
  paths = []
  for index, pair in enumerate(pairs):
    for name, sound in {'original': pair.original, **pair.again}.items():
      paths.append(directory / 'sounds' / f'{index:03d}_{name}.wav')
      rows.append(np.clip(sound, -1, 1))
      titles.append(f'{name} {index}')
      write_wav(paths[-1], rows[-1], rate)
  sheet = directory / 'sounds.png'
  audio_sheet(sheet, rows, titles, rate)
  return [sheet, *paths]


def _describe(codec: AudioCodec, latents: Sequence[np.ndarray]) -> dict[str, float]:
  statistics = estimate_statistics(latents)
  mean = np.array(statistics.mean)
  std = np.array(statistics.std)
  return {
    'a_second': codec.latent_rate,
    'channels': len(mean),
    'unused': int(np.sum(std * np.array(codec.statistics.std) < _UNUSED)),
    'mean': float(np.sqrt(np.mean(mean**2))),
    'std': float(np.mean(std)),
  }


def make_truncated_mdct(codec: AudioCodec) -> Way:
  """Makes a baseline with as many numbers per second: the lowest frequencies of an MDCT.

  Classical audio coding uses the modified discrete cosine transform. With N the hop of one latent,
  the baseline keeps C coefficients of each window of 2 N samples (and one hop more in all):

    X_k = sum_n h_n x_n cos(pi / N (n + 1/2 + N/2) (k + 1/2)),   h_n = sin(pi (n + 1/2) / (2 N))
  """
  num_kept = max(codec.model.latent_channels // codec.model.channels, 1)
  return functools.partial(truncated_mdct, hop=codec.compression, num_kept=num_kept)


def truncated_mdct(
  sound: Float[np.ndarray, 's c'], hop: int, num_kept: int
) -> Float[np.ndarray, 's c']:
  """Reconstructs a sound from the first `num_kept` of its `hop` MDCT coefficients per window.

  The sound counts as silent beyond its ends. The aliasing of neighbouring windows cancels in their
  sum (Princen and Bradley 1986), so `num_kept = hop` returns the sound itself.
  """
  samples, channels = sound.shape
  n = np.arange(2 * hop) + 0.5
  k = np.arange(num_kept) + 0.5
  waves = np.cos(np.pi / hop * np.outer(n + hop / 2, k)) * np.sin(np.pi * n / (2 * hop))[:, None]
  padded = np.pad(sound, ((hop, hop + -samples % hop), (0, 0))).reshape(-1, hop, channels)
  windows = np.concatenate((padded[:-1], padded[1:]), axis=1)
  coefficients = np.einsum('tnc,nk->tkc', windows, waves, optimize=True)
  windows = np.einsum('tkc,nk->tnc', coefficients, waves, optimize=True) * (2 / hop)
  again = windows[:-1, hop:] + windows[1:, :hop]
  return again.reshape(-1, channels)[:samples].astype(np.float32)
