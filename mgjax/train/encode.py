"""Clips to latent records, so that training need not run the autoencoder (Movie Gen §3.1.6)."""

import json
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.audio.latents import SoundCodec
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.data.buckets import make_shape
from mgjax.data.faults import Replacing
from mgjax.data.mixture import Source
from mgjax.data.records import RecordWriter
from mgjax.data.sources import EMPTY, SPLITS, make_sources
from mgjax.tae.latents import LatentCodec
from mgjax.train.audio_part import samples_of
from mgjax.train.metrics import Progress
from mgjax.train.restore import load_codec, load_sound_codec

ROWS_PER_SHARD = 512
KEPT = ('caption', 'source', 'fps', 'frame_features')  # of a sample, beside its latents

Codec = LatentCodec | SoundCodec

_log = logging.getLogger(__name__)


def encode(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
  """Encodes every bucket of `config.data` into `workdir/<split>/<bucket>`.

  A row holds the normalised latents in float16, the caption and, of sound, features of the frames
  on show. The command can be stopped at any moment; run again, it goes on with the first shard that
  is missing.

  Args:
    config: `autoencoder`, `data`, `buckets` and `encode` (rows to encode of each split, where a
      source has more).
    workdir: of the records.

  Raises:
    ConfigError: the directory was begun with another autoencoder or other data.
    DataError: there is no usable data.
  """
  workdir = pathlib.Path(workdir)
  if config.part not in ('video', 'audio'):
    raise ConfigError(
      'encoding takes the configuration of a video or an audio model, this one is of the part '
      f'{config.part!r}'
    )
  codec = (load_sound_codec if config.part == 'audio' else load_codec)(config.autoencoder)
  data = config.data.to_dict() | {'latents': ''}  # encode what latents are made from
  content = {key: value for key, value in data.items() if key not in ('threads', 'latents')}
  for split in SPLITS:
    sources = _sources(config, data, codec, split, workdir / 'rejected.jsonl')
    write_json(workdir / split / EMPTY, [name for name in config.buckets if name not in sources])
    for name, shape in config.buckets.items():
      if name not in sources:
        continue
      source, about = sources[name], _about(config, name)
      source = Replacing(source, name, workdir / 'quarantine.jsonl')
      rows = min(len(source), config.encode[split])
      meta = {'statistics': codec.statistics.as_dict(), **about, 'data': json.dumps(content)}
      writer = RecordWriter(
        workdir / split / name, rows=rows, rows_per_shard=ROWS_PER_SHARD, meta=meta
      )
      missing = writer.missing_shards()
      done = rows - sum(len(writer.shard_rows(shard)) for shard in missing)
      left_out = f', the first of {len(source)} samples' if rows < len(source) else ''
      _log.info('%s/%s: %d of %d rows are encoded%s', split, name, done, rows, left_out)
      progress = Progress(rows, done)
      for shard in missing:
        writer.write_shard(shard, _rows(codec, source, writer.shard_rows(shard), shape.batch_size))
        done += len(writer.shard_rows(shard))
        progress.report(done, {})
      progress.close()
      writer.finish()


def _sources(
  config: ConfigDict, data: dict[str, Any], codec: Codec, split: str, report: pathlib.Path
) -> Mapping[str, Source]:
  if isinstance(codec, SoundCodec):
    return samples_of(data, config.buckets, codec, split, report)
  return make_sources(data, config.buckets, split, report)


def _about(config: ConfigDict, name: str) -> dict[str, Any]:
  """What else than the data the latents of a bucket depend on."""
  shape = config.buckets[name]
  if config.part == 'audio':
    return {'seconds': shape.seconds}
  sizes = [shape.frames, shape.height, shape.width]
  return {'shape': sizes, 'fps': list(make_shape(shape, config.data.fps).fps)}


def _rows(
  codec: Codec, source: Source, indices: range, batch_size: int
) -> Iterator[dict[str, Any]]:
  for begin in range(0, len(indices), batch_size):
    samples = [dict(source[index]) for index in indices[begin : begin + batch_size]]
    name = 'sound' if 'sound' in samples[0] else 'video'
    array = np.stack([sample.pop(name) for sample in samples])
    # One shape for all batches, so that one program serves them; what is added is dropped again.
    more = [(0, batch_size - len(array)), *[(0, 0)] * (array.ndim - 1)]
    latents = np.asarray(codec.encode(jnp.asarray(np.pad(array, more, mode='edge'))), np.float16)
    for sample, row in zip(samples, latents, strict=False):
      kept = {key: sample[key] for key in KEPT if key in sample}
      yield {'latents': row, **jax.tree.map(_halved, kept)}


def _halved(value: Any) -> Any:
  return value.astype(np.float16) if isinstance(value, np.ndarray) else value
