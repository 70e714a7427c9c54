"""Checked dataclasses of a configuration's `data` and `buckets`, made once by the caller."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from mgjax.core.config import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.data.buckets import Shape
from mgjax.digits.clips import Digits
from mgjax.digits.signs import Signs
from mgjax.digits.sounds import RATE

SHARES = ('samples', 'given')
_OF_BATCHES = ('batch_size', 'weight')  # keys of a bucket that the engine reads
_Made = TypeVar('_Made')


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """`config.data`. Attributes are the configuration's keys.

  Attributes:
    kind: 'digits' or 'signs' (made on the fly), 'clips' (videos), 'sounds' (any files with sound)
      or 'records' (clip records, which `launch.data convert` makes).
    path: of the clips, sounds or records: a folder, a manifest or a URL.
    validation_path: those that validate; '' validates on the training data.
    latents: where `launch.encode` put the same data in encoded form; '' reads the data as it is.
    fps: frames a second of videos in buckets without a rate of their own; 0 for sounds alone.
    share: 'samples', so that every sample of a group of buckets comes equally often, or 'given',
      by the buckets' weights alone.
    skip_missing: whether to go on without lost shards.
    intervals: between frames of training clips, of which one is drawn.
    threads: that read batches; 0 reads in the calling thread.
    workers: processes that read batches instead; 0 for none.
    rate: samples a second of sound; digits have 48,000.
    channels: of sound, 1 or 2; digits have one.
    digits: fields of `mgjax.digits.clips.Digits` beside those that the bucket decides.
    signs: the same of `mgjax.digits.signs.Signs`.
  """

  kind: str
  path: str = ''
  validation_path: str = ''
  latents: str = ''
  fps: float = 0
  share: str = 'given'
  skip_missing: bool = False
  intervals: tuple[int, ...] = (1,)
  threads: int = 16
  workers: int = 0
  rate: int = RATE
  channels: int = 1
  digits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  signs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for key, fits, expected in (
      ('fps', self.fps >= 0, 'frames a second, or 0 for sounds alone'),
      ('share', self.share in SHARES, ' or '.join(map(repr, SHARES))),
      ('intervals', all(each >= 1 for each in self.intervals), 'whole numbers of frames from 1'),
      ('threads', self.threads >= 0, '0 or more'),
      ('workers', self.workers >= 0, '0 or more'),
      ('rate', self.rate >= 1, 'samples a second'),
      ('channels', self.channels in (1, 2), '1 or 2'),
    ):
      if not fits:
        raise ConfigError(f'config.data.{key}={getattr(self, key)!r}, expected {expected}')
    _refuse_unknown('data.digits', self.digits, _names(Digits))
    _refuse_unknown('data.signs', self.signs, _names(Signs))

  def path_of(self, split: str) -> str:
    """Returns where the clips of a split lie; ConfigError if nowhere."""
    if not self.path:
      raise ConfigError(
        'config.data.path is empty; name a folder of clips with captions, as in '
        '--config.data.path=my_clips/ or --config=...:my_clips/'
      )
    return (self.validation_path or self.path) if split == 'validation' else self.path


@dataclasses.dataclass(frozen=True)
class AudioShape:
  """The shape of an audio bucket's samples.

  Attributes:
    seconds: of sound.
    height: of the pictures that belong to it, in pixels; None without pictures.
    width: as `height`.
  """

  seconds: float
  height: int | None = None
  width: int | None = None

  def __post_init__(self):
    if not self.seconds > 0:
      raise ConfigError(f'seconds={self.seconds}, expected more than 0')
    if (self.height is None) != (self.width is None) or min((*self.size, 1)) < 1:
      raise ConfigError(
        f'height={self.height}, width={self.width}: expected pixels, 1 or more, or neither'
      )

  @property
  def size(self) -> tuple[int, ...]:
    """(height, width); () without pictures."""
    return () if self.height is None or self.width is None else (self.height, self.width)


def data_settings(fields: Mapping[str, Any]) -> DataSettings:
  """Makes the settings of a configuration's `data`, as plain values.

  Raises:
    ConfigError: an unknown key, or a value out of range.
  """
  _refuse_unknown('data', fields, _names(DataSettings))
  intervals = tuple(fields.get('intervals') or (1,))
  return DataSettings(**{**fields, 'intervals': intervals})


def video_shapes(buckets: Mapping[str, Mapping[str, Any]], fps: float) -> dict[str, Shape]:
  """Makes the shapes of a configuration's `buckets`, as plain values.

  Args:
    buckets: name -> `frames`, `height`, `width` and, if wanted, `fps`: a rate or a range of them.
    fps: of buckets that have none of their own.

  Raises:
    ConfigError: an unknown key, or a value out of range.
  """
  shapes = {}
  for name, fields in buckets.items():
    rate = fields.get('fps', fps)
    rates = (rate, rate) if isinstance(rate, int | float) else tuple(rate)
    shapes[name] = _make_shape(name, Shape, {**fields, 'fps': rates})
  return shapes


def audio_shapes(buckets: Mapping[str, Mapping[str, Any]]) -> dict[str, AudioShape]:
  """Makes the shapes of a configuration's buckets of sound, as plain values.

  Args:
    buckets: name -> `seconds` and, where there are pictures, `height` and `width`.

  Raises:
    ConfigError: an unknown key, or a value out of range.
  """
  return {name: _make_shape(name, AudioShape, fields) for name, fields in buckets.items()}


def _make_shape(name: str, make: type[_Made], fields: Mapping[str, Any]) -> _Made:
  """Makes the shape of a bucket from its fields, of which some are the engine's."""
  _refuse_unknown(f'buckets.{name}', fields, [*_names(make), *_OF_BATCHES])
  needed = [each.name for each in dataclasses.fields(make) if each.default is dataclasses.MISSING]
  if missing := [key for key in needed if key not in fields]:
    raise ConfigError(f'config.buckets.{name} lacks {", ".join(missing)}')
  try:
    return make(**{key: value for key, value in fields.items() if key not in _OF_BATCHES})
  except ConfigError as error:
    raise ConfigError(f'config.buckets.{name}: {error}') from None


def _names(settings: type) -> list[str]:
  return [field.name for field in dataclasses.fields(settings)]


def _refuse_unknown(place: str, fields: Mapping[str, Any], known: Iterable[str]) -> None:
  for key in fields:
    if key not in known:
      raise ConfigError(did_you_mean(f'{place}.{key}', [f'{place}.{each}' for each in known]))
