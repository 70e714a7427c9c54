"""Clips to latent records, so that training need not run the autoencoder (Movie Gen §3.1.6)."""

import json
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.data.mixture import Source
from mgjax.data.records import RecordWriter
from mgjax.data.sources import SPLITS, make_source
from mgjax.tae.latents import LatentCodec
from mgjax.train.metrics import Progress
from mgjax.train.restore import load_codec

ROWS_PER_SHARD = 512

_log = logging.getLogger(__name__)


def encode(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
  """Encodes every bucket of `config.data` into `workdir/<split>/<bucket>`.

  A row holds the normalised latents in float16 and the caption. The command can be stopped at any
  moment; run again, it goes on with the first shard that is missing.

  Args:
    config: `autoencoder`, `data`, `buckets` and `encode` (rows to encode of each split, where a
      source has more).
    workdir: of the records.

  Raises:
    ConfigError: the directory was begun with another autoencoder or other data.
    DataError: there is no usable data.
  """
  workdir = pathlib.Path(workdir)
  if config.part != 'video':
    raise ConfigError(
      f'encoding takes the configuration of a video model, this one is of the part {config.part!r}'
    )
  codec = load_codec(config.autoencoder)
  data = config.data.to_dict() | {'latents': ''}  # encode what latents are made from
  for split in SPLITS:
    for name, shape in config.buckets.items():
      source = make_source(data, name, shape, split, workdir / 'rejected.jsonl')
      rows = min(len(source), config.encode[split])
      content = {key: value for key, value in data.items() if key not in ('threads', 'latents')}
      meta = {
        'statistics': codec.statistics.as_dict(),
        'shape': [shape.frames, shape.height, shape.width],
        'fps': config.data.fps,
        'data': json.dumps(content),
      }
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


def _rows(
  codec: LatentCodec, source: Source, indices: range, batch_size: int
) -> Iterator[dict[str, Any]]:
  for begin in range(0, len(indices), batch_size):
    samples = [source[index] for index in indices[begin : begin + batch_size]]
    video = np.stack([sample['video'] for sample in samples])
    # One shape for all batches, so that one program serves them; what is added is dropped again.
    video = np.pad(video, [(0, batch_size - len(video)), *[(0, 0)] * 4], mode='edge')
    latents = np.asarray(codec.encode(jnp.asarray(video)), np.float16)
    for sample, row in zip(samples, latents, strict=False):
      yield {'latents': row, 'caption': sample['caption']}
