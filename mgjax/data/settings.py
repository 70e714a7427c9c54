"""Checked dataclasses of a configuration's `data` and `buckets`, made once by the caller."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from mgjax.core.configuration.keys import JSON, Fields, did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.settings import (
  Count,
  Fraction,
  Magnitude,
  Positive,
  Range,
  arguments,
  check,
  checked,
  unpack,
)
from mgjax.data.shape import Shape
from mgjax.data.synthetic_datasets import RATE, WORLDS, source_of

SHARES = ('samples', 'given')
_OF_BATCHES = ('batch_size', 'weight')  # keys of a bucket that the engine reads
# What all sources have in common, and what of one says where or how it is read but not what it is.
_OF_A_RUN = ('fps', 'share', 'threads', 'workers', 'rate', 'channels')
_NO_CONTENT = (
  'path',
  'validation_path',
  'latents',
  'share',
  'skip_missing',
  'threads',
  'workers',
  'sources',
  'in_memory',
  'only',
  'repeats',  # the fingerprint has what is left
  'worlds',  # the fingerprint has them
)
_Workers = Annotated[int, Range(least=0, most=1024)]
_Made = TypeVar('_Made')


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """`config.data`. Attributes are the configuration's keys.

  Attributes:
    kind: a row of `mgjax.data.synthetic_datasets` (made on the fly), 'clips' (videos), 'sounds'
      (any files with sound) or 'records' (clip records, which `launch.data convert` makes).
    path: of the clips, audio files or records: a folder, a manifest or a URL.
    validation_path: those that validate; '' validates on the training data.
    latents: the same data as `launch.data encode` left it; '' reads the data as it is.
    fps: frames a second of videos in buckets without a rate of their own; 0 for audio alone.
    share: 'samples', so that every sample of a group of buckets (images or videos, of one source)
      comes equally often, or 'given', by the buckets' weights alone. A sound then serves every
      bucket that it is long enough for, with 'samples' the longest of them.
    skip_missing: whether to go on without lost shards.
    only: of records, a column of truth values whose rows are taken, such as 'cross'; behind 'not '
      the others; '' takes all.
    intervals: between frames of training clips, of which one is drawn.
    in_memory: how many windows of videos are taken of a bucket, about as many of each clip, and
      kept once they are read; 0 takes all and reads them anew each time.
    repeats: the largest share of a video's frames that may repeat the one before, where a clip has
      fewer frames a second than its bucket takes; others are rejected, or go to another bucket.
    threads: that read batches; 0 reads in the calling thread.
    workers: processes that read batches instead; 0 for none.
    rate: samples a second of sound; worlds have 48,000.
    channels: of sound, 1 or 2.
    worlds: of synthetic datasets by name, keys of their own in a configuration, as `data.solids`:
      fields of their sources beside those that the bucket decides.
    sources: other data by name, for the buckets whose `source` says so.
  """

  kind: str
  path: str = ''
  validation_path: str = ''
  latents: str = ''
  fps: Magnitude = 0
  share: str = 'given'
  skip_missing: bool = False
  only: str = ''
  intervals: tuple[Positive, ...] = (1,)
  in_memory: Count = 0
  repeats: Fraction = 1.0
  threads: _Workers = 16
  workers: _Workers = 0
  rate: Positive = RATE
  channels: Annotated[int, Range(least=1, most=2)] = 1
  worlds: Mapping[str, Fields] = dataclasses.field(default_factory=dict)
  sources: Mapping[str, 'DataSettings'] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(self)
    if self.share not in SHARES:
      raise ConfigError(f'share = {self.share!r}; expected {" or ".join(map(repr, SHARES))}')
    if not self.intervals:
      raise ConfigError('intervals = (); expected whole numbers of frames, as in (1,)')
    for name, source in self.sources.items():
      if bool(source.latents) != bool(self.latents):
        raise ConfigError(
          f'data.sources.{name}.latents = {source.latents!r}, and data.latents = {self.latents!r}; '
          'expected latents of all data or of none'
        )

  @property
  def world(self) -> Mapping[str, Any]:
    """The fields of the synthetic dataset that `kind` names."""
    return self.worlds.get(self.kind, {})

  def of(self, source: str) -> 'DataSettings':
    """Returns the data of one source, those without a name of ''; ConfigError if there are none."""
    if source and source not in self.sources:
      known = [f'data.sources.{name}' for name in self.sources]
      raise ConfigError(did_you_mean(f'data.sources.{source}', known))
    return self.sources[source] if source else dataclasses.replace(self, sources={})

  def check_named(self, named: Mapping[str, str]) -> None:
    """Raises ConfigError unless buckets, name -> source, name existing sources, and all of them."""
    for bucket, source in named.items():
      try:
        self.of(source)
      except ConfigError as error:
        raise ConfigError(f'buckets.{bucket}.source = {source!r}: {error}') from None
    if unused := sorted(self.sources.keys() - set(named.values())):
      raise ConfigError(
        f'no bucket has the source {unused[0]!r} of data.sources; give one to it, as in '
        f'buckets.x.source = {unused[0]!r}, or take it out'
      )

  def content(self) -> JSON:
    """Returns, as plain JSON values, all fields but those that say where or how data are read.

    Beside the fingerprint of its files it is what samples of one source depend on. A new field
    counts unless it is listed above.
    """
    fields = dataclasses.asdict(self)
    return {
      **{name: value for name, value in fields.items() if name not in _NO_CONTENT},
      'digits': {},
      'signs': {},  # which all records name
      **fields['worlds'],
    }

  def without_latents(self) -> 'DataSettings':
    sources = {name: source.without_latents() for name, source in self.sources.items()}
    return dataclasses.replace(self, latents='', sources=sources)

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
  """Seconds of sound and, with pictures, their size in pixels; `source` as of `Shape`."""

  seconds: Annotated[float, Range(above=0)]
  height: Positive | None = None
  width: Positive | None = None
  source: str = ''

  def __post_init__(self):
    check(self)
    if (self.height is None) != (self.width is None):
      raise ConfigError(f'height = {self.height}, width = {self.width}; expected both or neither')

  @property
  def size(self) -> tuple[int, ...]:
    """(height, width); () without pictures."""
    return () if self.height is None or self.width is None else (self.height, self.width)


def longest_audio_bucket(shapes: Mapping[str, AudioShape]) -> str:
  """Returns the name of the bucket with the longest audio, the first of several."""
  return max(shapes, key=lambda name: shapes[name].seconds)


def data_settings(fields: Mapping[str, Any]) -> DataSettings:
  """Makes the settings of a configuration's `data`, given as plain values.

  A source has the fields that `data.sources` gives it, and of the others those of `data`, but for
  `validation_path` where it has a path of its own.
  Raises ConfigError if an unknown key, or a value out of range.
  """
  fields = dict(fields)
  sources = checked(Mapping[str, Fields], fields.pop('sources', {}), 'data.sources')
  data = _unpack_data(fields, 'data')
  settings = {name: _source_settings(name, own, fields) for name, own in sources.items()}
  return dataclasses.replace(data, sources=settings)


def _source_settings(name: str, own: Mapping[str, Any], data: Mapping[str, Any]) -> DataSettings:
  field = f'data.sources.{name}'
  if not name.isidentifier():
    raise ConfigError(f'{field}: a source is named by letters, digits and _, as in edited_images')
  for key in own:
    if key in _OF_A_RUN:
      raise ConfigError(f'{field}.{key}: all sources have one {key}; give it as data.{key}')
  validation = {'validation_path': ''} if 'path' in own else {}
  return _unpack_data({**data, **validation, **own}, field)


def _unpack_data(fields: Mapping[str, Any], field: str) -> DataSettings:
  worlds = {
    name: arguments(source_of(name), fields[name], f'{field}.{name}')
    for name in WORLDS
    if fields.get(name)
  }
  fields = {name: value for name, value in fields.items() if name not in WORLDS}
  fields['intervals'] = fields.get('intervals') or (1,)
  return unpack(DataSettings, fields, field, sources={}, worlds=worlds)


def video_shapes(buckets: Mapping[str, Fields], fps: float) -> dict[str, Shape]:
  """Makes the shapes of a configuration's `buckets`, as plain values.

  Of each: `frames`, `height`, `width` and, if wanted, `source` and `fps`, a rate or a range; the
  argument `fps` is that of buckets that have none of their own.
  Raises ConfigError if an unknown key, or a value out of range.
  """
  shapes = {}
  for name, fields in buckets.items():
    if 'fps' not in fields and not fps:
      raise ConfigError(f'data.fps = 0, and buckets.{name} has no fps; expected one of them')
    rate = fields.get('fps', fps)
    rates = rate if isinstance(rate, list | tuple) else (rate, rate)
    shapes[name] = _make_shape(name, Shape, {**fields, 'fps': rates})
  return shapes


def audio_shapes(buckets: Mapping[str, Fields]) -> dict[str, AudioShape]:
  """Makes the shapes of a configuration's buckets of sound, as plain values.

  Of each: `seconds` and, where there are pictures, `height` and `width`, and `source`.
  Raises ConfigError if an unknown key, or a value out of range.
  """
  return {name: _make_shape(name, AudioShape, fields) for name, fields in buckets.items()}


def _make_shape(name: str, make: type[_Made], fields: Fields) -> _Made:
  """Makes the shape of a bucket from its fields, of which some are the engine's."""
  others = {key: value for key, value in fields.items() if key not in _OF_BATCHES}
  return unpack(make, others, f'buckets.{name}')
