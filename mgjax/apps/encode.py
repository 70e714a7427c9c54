"""Encodes clips into records of latents, so that training need not (Movie Gen §3.1.6)."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, check_one_of
from mgjax.core.files import write_json
from mgjax.core.settings import Count, Positive, check, fields_of, unpack
from mgjax.core.typing import Array, Sample
from mgjax.data.broken_samples import Replacing
from mgjax.data.loader import MOVING_WORLDS
from mgjax.data.records.rows import text_key
from mgjax.data.records.writer import RecordWriter, Share
from mgjax.data.settings import DataSettings, data_settings
from mgjax.data.source import Source
from mgjax.data.sources import EMPTY, SPLITS, stored_latents
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.flow_model.conditions import LATENTS, derived_fields, encoded_names, field_names
from mgjax.models.tae.latents import Sums
from mgjax.models.text.prompts import frame_rate_of, prompt_of, with_frame_rate
from mgjax.parallel.distributed import check_shared
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import batch_sharding
from mgjax.registry import make_section
from mgjax.sections.flow.section import FlowSection
from mgjax.sections.text.embeddings import TextSettings, embed_prompts
from mgjax.sections.text.encoder import encoder_identity
from mgjax.training.monitoring.progress import Progress

ROWS_PER_SHARD = 512  # at most
BYTES_PER_SHARD = 2**28
# Of `config.data`, what counted in records that earlier versions began.
_COUNTED_BEFORE = ('kind', 'digits', 'signs', 'fps', 'intervals', 'rate', 'channels')
_PAUSE = 2  # seconds between looks at what others have done
# Fields of any sample that rows keep, beside the `text_key` that names its caption. What else they
# keep is up to the model's conditionings.
ABOUT = ('caption', 'source', 'fps')
DTYPES = {
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
  'float32': np.dtype(np.float32),
}

Encode = Callable[[Sequence[Any], Callable[[np.ndarray], Array]], Iterator[Array]]
Complete = Callable[[Sequence[JSON]], Sequence[JSON]]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EncodeSettings:
  """What `launch.data encode` does: `encode` of a configuration.

  Attributes:
    train, validation: rows of those data that are encoded at most, of each bucket.
    dtype: of the stored latents.
    pixels_per_device: pixels, or samples of sound, that a device takes in at once.
  """

  train: Count
  validation: Count
  dtype: str
  pixels_per_device: Positive

  def __post_init__(self):
    check(self)
    stored_type(self.dtype)


def stored_type(name: str) -> np.dtype:
  """Returns the type that latents are stored in.
  Raises ConfigError if the name is not one of `DTYPES`.
  """
  check_one_of(f'dtype = {name!r}', name, DTYPES)
  return DTYPES[name]


def encode(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  *,
  process: int | None = None,
  processes: int | None = None,
) -> bool:
  """Encodes every bucket of `config.data` into `workdir/<split>/<bucket>`.

  A row holds the normalised latents, the caption and what else the model's conditionings read. The
  records' summary has mean and deviation of each channel over all latents as they are stored.

  The command can be stopped at any moment; run again, it goes on with the first shard that is
  missing. With `config.text` the prompts of all rows are encoded afterwards, into stores beside the
  latents or at `config.embeddings`. Of several processes, by default JAX's, each writes the shards
  i with i % processes == process, on its own devices, into the same `workdir`; the last one makes
  the directory readable. What one has left undone, another finishes later, as with process 0 of 1.

  Returns:
    Whether all rows are encoded, those of other processes too.

  Raises:
    ConfigError: the directory was begun with another autoencoder or other data.
    DataError: there is no usable data.
  """
  check_shared(workdir)
  workdir = pathlib.Path(workdir)
  section = _flow_section(config)
  share = _stripe(process, processes)
  text = TextSettings.of(config.to_dict())
  for encoder in text.encoders.values():
    encoder_identity(encoder.workdir)  # what cannot be used is said before hours of latents
  mesh = make_mesh({'data': -1}, 'single', devices=jax.local_devices())
  settings = unpack(EncodeSettings, fields_of(config, 'encode'), 'encode')
  # What latents are made from, which is what is encoded.
  data = data_settings(fields_of(config, 'data')).without_latents()
  unfinished = []
  dtype = stored_type(settings.dtype)
  with jax.set_mesh(mesh):
    autoencoder = section.codec.fingerprints[-2]  # of the first run with this encoder
    conditionings = section.settings.model.conditionings
    for split, name, source in _sources(list(config.buckets), data, section, workdir):
      rows = min(len(source), getattr(settings, split))
      content = data.of(config.buckets[name].get('source', '')).content()
      kind = {'statistics': section.codec.statistics.as_dict(), 'dtype': settings.dtype}
      row_bytes = math.prod(section.sizes(section.codec.model, name)[1]) * dtype.itemsize
      writer = _open_writer(
        workdir / split / name,
        (
          {'data': json.dumps([source.fingerprint, content]), 'autoencoder': autoencoder},
          {'data': json.dumps([source.fingerprint, content])},
          {'data': _as_before(source.fingerprint, fields_of(config, 'data'))},
        ),
        rows=rows,
        rows_per_shard=max(1, min(ROWS_PER_SHARD, BYTES_PER_SHARD // row_bytes)),
        meta=kind | section.describe_records(name),
      )
      left_out = f', the first of {len(source)} samples' if rows < len(source) else ''
      _log.info('%s/%s: %d rows%s', split, name, rows, left_out)
      mine = writer.missing_shards(*share)
      most = -(-config.buckets[name].batch_size // mesh.size)  # no more than a batch of training
      held = rows_of_device(section.tile(name), settings.pixels_per_device, most)
      rows = held * mesh.size
      encoder = RowEncoder(
        section.encode, rows, dtype, mesh, section.raw, conditionings, section.complete
      )
      _write(writer, mine, source, encoder, data.threads)
      if not _finish(writer):
        unfinished.append(writer)
  if jax.process_count() > 1:
    # Who leaves early is waited for at the end, though for minutes only.
    while unfinished := [writer for writer in unfinished if not _finish(writer)]:
      time.sleep(_PAUSE)
  for writer in unfinished:
    _log.warning(
      '%s: process %d of %d is done, %d shards of others are still missing',
      writer.directory,
      *share,
      len(writer.missing_shards()),
    )
  if unfinished or not text.encoders:
    return not unfinished
  prompts = stored_prompts(list(config.buckets), workdir)
  return embed_prompts(text, text.store(workdir), prompts, share)


def encode_prompts(
  config: Fields,
  workdir: str | os.PathLike[str],
  prompts: Sequence[str],
  *,
  process: int | None = None,
  processes: int | None = None,
) -> bool:
  """Encodes cleaned prompts alone, each for every rate and kind of samples of the buckets.

  Returns whether all are encoded, those of other processes too. Raises ConfigError if the
  configuration names no encoders, or the stores were filled by others.
  """
  text = TextSettings.of(config)
  if not text.encoders:
    raise ConfigError(
      'config.text names no encoders, so there is nothing to encode prompts with; take a '
      'configuration that does, as --config=configs/video/t2iv_256.py:30b,encoders'
    )
  share = _stripe(process, processes)
  shapes = config['buckets'].values()
  fps = config['data']['fps']
  texts = []
  still = any(shape.get('frames') == 1 or 'seconds' in shape for shape in shapes)
  moving = any(shape.get('frames', 1) > 1 for shape in shapes)
  for prompt in prompts:
    rates = [None] * still + [frame_rate_of(prompt, None, fps)] * moving
    texts += [with_frame_rate(prompt, rate) for rate in rates]
  return embed_prompts(text, text.store(workdir), texts, share)


def stored_prompts(buckets: Sequence[str], workdir: pathlib.Path) -> Iterator[str]:
  """Yields the prompts of all rows of a directory, as the model is given them."""
  for split in SPLITS:
    for records in stored_latents(os.fspath(workdir), buckets, split).values():
      yield from map(prompt_of, records.captions(keep=True))


def _flow_section(config: ConfigDict) -> FlowSection:
  section = make_section(config)
  if not isinstance(section, FlowSection):
    raise ConfigError(
      f'the component {config.component!r} is not one that learns from latents of an '
      'autoencoder; expected a configuration of a flow model, as configs/digits/video.py'
    )
  return section


def _sources(
  buckets: Sequence[str], data: DataSettings, section: FlowSection, workdir: pathlib.Path
) -> Iterator[tuple[str, str, Replacing]]:
  """Yields the samples of each split and bucket that has any, and notes which have none."""
  for split in SPLITS:
    report = workdir / 'rejected.jsonl'
    sources = section.sources(data, split, report)
    empty = [name for name in buckets if name not in sources]
    for name in empty:
      if os.path.isdir(workdir / split / name):
        raise ConfigError(
          f'{workdir / split / name} holds latents, but none of these data belong to that bucket: '
          'the directory was begun with others; use the same ones, or another directory'
        )
    for name, source in sources.items():
      yield split, name, Replacing(source, name, workdir / 'quarantine.jsonl')
    # Only now: of a directory that was begun with other data, which is refused, nothing changes.
    write_json(workdir / split / EMPTY, empty)


def _open_writer(
  directory: pathlib.Path, contents: Sequence[Any], *, meta: JSON, **sizes: int
) -> RecordWriter:
  """Begins records of the first of `contents`, or goes on with those of any of them."""
  refused = None
  for content in contents:
    try:
      return RecordWriter(directory, meta=meta | content, **sizes)
    except ConfigError as error:
      refused = refused or error
  raise refused or ValueError('no content')


def _as_before(fingerprint: Any, fields: Fields) -> str:
  """Returns what records said of their data before all fields of `config.data` counted."""
  named = None if str(fingerprint).startswith(MOVING_WORLDS) else fingerprint
  return json.dumps([named, {key: fields[key] for key in _COUNTED_BEFORE if key in fields}])


def _stripe(process: int | None, processes: int | None) -> Share:
  """Returns the share of the work that flags say, or that JAX does."""
  if (process is None) != (processes is None):
    raise ConfigError('--process and --processes go together, as in --process=0 --processes=4')
  if process is None or processes is None:
    return Share(jax.process_index(), jax.process_count())
  if jax.process_count() > 1:
    raise ConfigError(
      f'--process={process} --processes={processes}: this process already is '
      f'{jax.process_index()} of {jax.process_count()}; leave them away'
    )
  if not 0 <= process < processes:
    raise ConfigError(f'--process={process} --processes={processes}: expected 0 <= process < many')
  return Share(process, processes)


class RowEncoder:
  """Turns samples into rows: 'latents', those of clips that conditionings want, and their fields.

  A batch of `rows`, the last one filled up, is cut over the devices of a mesh of this process
  alone. A row depends on the rows before it in no way, but on their number only: the same ones, in
  the same order, give the same bytes. `sums` are over the stored latents since `take_sums`.
  """

  def __init__(
    self,
    encode: Encode,
    rows: int,
    dtype: np.dtype,
    mesh: Mesh,
    raw: str,
    conditionings: Sequence[Conditioning] = (),
    complete: Complete = lambda samples: samples,
  ):
    """Binds the encoder.

    Args:
      encode: of a `FlowSection`, as `complete`; its parameters on the devices of the mesh.
      rows: of a batch; a multiple of the devices.
      mesh: of devices of this process, all along the rows of a batch.
      raw: the field of a sample that becomes its latents.
    """
    self._encode = encode
    self.rows = rows
    self.sums = Sums()
    self._raw, self._conditionings, self._complete = raw, conditionings, complete
    encoded = encoded_names(conditionings)
    self._fields = (*ABOUT, *(n for n in field_names(conditionings) if n not in encoded))
    self._dtype = dtype
    self._sharding = batch_sharding(mesh)

  def take_sums(self) -> Sums:
    sums = self.sums
    self.sums = Sums()
    return sums

  def encode(self, samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yields the row of each sample.
    Raises DataError if the samples of a batch differ in shape, or latents are not finite.
    """
    samples = iter(samples)
    while batch := list(itertools.islice(samples, self.rows)):
      batch = self._complete(batch)
      names = [f'{sample.get("source") or sample["caption"]!r:.80}' for sample in batch]
      clips = [self._clips(sample) for sample in batch]
      for name, sample_clips in zip(names, clips, strict=True):
        if sample_clips.keys() != clips[0].keys():
          raise DataError(
            f'{name} has the clips {sorted(sample_clips)}, another sample of its bucket '
            f'{sorted(clips[0])}; put samples of other kinds into another bucket'
          )
      columns = {}
      for key in clips[0]:
        tiles = list(self._tiles([sample_clips[key] for sample_clips in clips], names))
        columns[key] = np.concatenate(tiles, axis=1)
        if key == LATENTS:
          self.sums = sum(map(Sums.of, tiles), self.sums)
      for row, sample in enumerate(batch):
        yield {key: column[row] for key, column in columns.items()} | self._row_fields(sample)

  def _clips(self, sample: dict[str, Any]) -> dict[str, Any]:
    """Returns the clips of a sample to encode, by the names of their latents."""
    clips = {LATENTS: sample[self._raw]}
    for conditioning in self._conditionings:
      clips |= conditioning.clips(sample)
    return clips

  def _tiles(self, clips: Sequence[Any], names: Sequence[str]) -> Iterator[np.ndarray]:
    """Yields latents as they are stored, tile by tile, without the rows that were filled up."""
    for tile in self._encode(clips, self._put):
      latents = np.asarray(tile.astype(jnp.dtype(self._dtype)))[: len(clips)]
      for name, row in zip(names, latents, strict=True):
        if not np.isfinite(row).all():
          raise DataError(
            f'the latents of {name} are not all finite in {self._dtype}; take another '
            'config.encode.dtype, or look at the autoencoder'
          )
      yield latents

  def _put(self, array: np.ndarray) -> Array:
    missing = self.rows - len(array)
    if missing:
      array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    return jax.device_put(array, self._sharding)

  def _row_fields(self, sample: dict[str, Any]) -> dict[str, Any]:
    fields = derived_fields(self._conditionings, sample)
    fields |= {key: sample[key] for key in self._fields if key in sample}
    for key, value in fields.items():
      if isinstance(value, np.ndarray):
        fields[key] = value.astype(self._dtype)
      elif isinstance(value, np.generic):
        fields[key] = value.item()
    return {**fields, 'text_key': text_key(sample['caption'])}


def read_ahead(
  source: Source, indices: Iterable[int], *, threads: int, ahead: int
) -> Iterator[Sample]:
  """Yields samples in the order of their indices, while threads read the next `ahead` ones."""
  waiting: collections.deque[concurrent.futures.Future[JSON]] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool:
    try:
      for index in indices:
        waiting.append(pool.submit(source.__getitem__, index))
        if len(waiting) > ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      pool.shutdown(wait=False, cancel_futures=True)


def rows_of_device(shape: Sequence[int], pixels_per_device: int, most: int) -> int:
  """Returns how many rows of a tile of `shape` a device takes at once: at least 1."""
  return max(1, min(pixels_per_device // int(np.prod(shape)), most))


def _write(
  writer: RecordWriter, shards: Sequence[int], source: Source, encoder: RowEncoder, threads: int
) -> None:
  """Writes shards; the notes of each hold the sums over its latents."""
  total = sum(len(writer.shard_rows(shard)) for shard in shards)
  indices = itertools.chain.from_iterable(writer.shard_rows(shard) for shard in shards)
  samples = read_ahead(source, indices, threads=threads, ahead=max(encoder.rows, threads))
  done = 0

  def counted(rows: Iterator[JSON]) -> Iterator[Sample]:
    nonlocal done
    for row in rows:
      compiling.close()
      yield row
      done += 1
      if done % encoder.rows == 0 or done == total:
        progress.report(done)

  bar = contextlib.closing(Progress(total, unit='row'))
  with bar as progress, contextlib.ExitStack() as compiling:
    compiling.enter_context(progress.waiting('compiling the encoder'))
    for shard in shards:
      mine = itertools.islice(samples, len(writer.shard_rows(shard)))
      rows = counted(encoder.encode(mine))
      writer.write_shard(shard, rows, lambda: {'latents': encoder.take_sums().as_dict()})


def _finish(writer: RecordWriter) -> bool:
  """Makes the directory readable if no shard is missing, with statistics over all its latents."""
  if writer.missing_shards():
    return False
  sums = sum((Sums.from_dict(shard['notes']['latents']) for shard in writer.shards()), Sums())
  writer.finish({'latents': {'count': sums.count, **sums.statistics().as_dict()}})
  return True
