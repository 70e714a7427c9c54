"""Encodes samples into rows of latents, on all devices of this process."""

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from mgjax.conditioning.contract import Conditioning
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Count, Positive, check
from mgjax.core.typing import Array
from mgjax.data.records.rows import text_key
from mgjax.data.source import Source
from mgjax.flow_models.conditions import LATENTS, derived_fields, encoded_names, field_names
from mgjax.parallel.shard import batch_sharding
from mgjax.tae.latents import Sums

# Fields of any sample that rows keep, beside the `text_key` that names its caption. What else they
# keep is up to the model's conditionings.
ABOUT = ('caption', 'source', 'fps')
DTYPES = {
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
  'float32': np.dtype(np.float32),
}


Encode = Callable[[Sequence[Any], Callable[[np.ndarray], Array]], Iterator[Array]]
Complete = Callable[[Sequence[dict[str, Any]]], Sequence[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class EncodeSettings:
  """`encode` of a configuration.

  Attributes:
    train: rows of the training data to encode, where a source has more.
    validation: rows of the validation data.
    dtype: that latents are stored in, one of `DTYPES`.
    pixels_per_device: how much a device takes in at once.
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

  Raises:
    ConfigError: the name is not one of `DTYPES`.
  """
  if name not in DTYPES:
    raise ConfigError(f'dtype = {name!r}; expected one of {", ".join(DTYPES)}')
  return DTYPES[name]


class RowEncoder:
  """Turns samples into rows: 'latents', those of clips that conditionings want, and their fields.

  A batch is cut over the devices of a mesh of this process alone.

  A row depends on the rows before it in no way, but on their number only: the same ones, in the
  same order, give the same bytes.

  Attributes:
    rows: of a batch; the last one is filled up, so that one program serves all.
    sums: over the latents, as they are stored, since the last `take_sums`.
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
      encode: of an `EncodePlan`, its parameters on the devices of the mesh.
      rows: of a batch; a multiple of the devices.
      dtype: of the latents in the rows.
      mesh: of devices of this process, all along the rows of a batch.
      raw: the field of a sample that becomes its latents.
      conditionings: of the model that will be trained on the rows.
      complete: of an `EncodePlan`.
    """
    self._encode, self.rows, self.sums = encode, rows, Sums()
    self._raw, self._conditionings, self._complete = raw, conditionings, complete
    encoded = encoded_names(conditionings)
    self._fields = (*ABOUT, *(n for n in field_names(conditionings) if n not in encoded))
    self._dtype, self._sharding = dtype, batch_sharding(mesh)

  def take_sums(self) -> Sums:
    """Returns the sums and begins new ones."""
    sums, self.sums = self.sums, Sums()
    return sums

  def encode(self, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the row of each sample.

    Raises:
      DataError: the samples of a batch differ in shape, or latents are not finite.
    """
    samples = iter(samples)
    while batch := list(itertools.islice(samples, self.rows)):
      batch = self._complete(batch)
      names = [_name(sample) for sample in batch]
      clips = [self._clips(sample) for sample in batch]
      for name, each in zip(names, clips, strict=True):
        if each.keys() != clips[0].keys():
          raise DataError(
            f'{name} has the clips {sorted(each)}, another sample of its bucket '
            f'{sorted(clips[0])}; put samples of other kinds into another bucket'
          )
      columns = {}
      for key in clips[0]:
        tiles = list(self._tiles([each[key] for each in clips], names))
        columns[key] = np.concatenate(tiles, axis=1)
        if key == LATENTS:
          self.sums = sum(map(Sums.of, tiles), self.sums)
      for row, sample in enumerate(batch):
        yield {key: column[row] for key, column in columns.items()} | self._kept(sample)

  def _clips(self, sample: dict[str, Any]) -> dict[str, Any]:
    """Returns what is to be encoded of a sample, by the names of the latents."""
    clips = {LATENTS: sample[self._raw]}
    for each in self._conditionings:
      clips |= each.clips(sample)
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
    """Fills up the rows and places them on the devices."""
    missing = self.rows - len(array)
    if missing:
      array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    return jax.device_put(array, self._sharding)

  def _kept(self, sample: dict[str, Any]) -> dict[str, Any]:
    kept = derived_fields(self._conditionings, sample)
    kept |= {key: sample[key] for key in self._fields if key in sample}
    for key, value in kept.items():
      if isinstance(value, np.ndarray):
        kept[key] = value.astype(self._dtype)
      elif isinstance(value, np.generic):
        kept[key] = value.item()
    return {**kept, 'text_key': text_key(sample['caption'])}


def _name(sample: dict[str, Any]) -> str:
  return f'{sample.get("source") or sample["caption"]!r:.80}'


def read_ahead(
  source: Source, indices: Iterable[int], *, threads: int, ahead: int
) -> Iterator[dict[str, Any]]:
  """Yields samples in the order of their indices, while threads read the next `ahead` ones."""
  waiting: collections.deque[concurrent.futures.Future[dict[str, Any]]] = collections.deque()
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
