"""The dry run: parameters and batch shapes of a configuration."""

import dataclasses
import os
import pathlib

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from mgjax.core.errors import MgjaxError
from mgjax.core.settings import checked, fields_of
from mgjax.core.tree import parameter_table
from mgjax.data.batch_order import REPLACED, make_ordered_batches
from mgjax.data.settings import data_settings
from mgjax.parallel.mesh import Size
from mgjax.registry import make_section, make_spec
from mgjax.training.optimizers.rates import describe_rates
from mgjax.training.settings import bucket_settings, optimizer_settings, run_settings


def dry_run(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
  """Says what a run would train, without allocating or compiling anything.

  Returns a table of parameters by group, which of them train, and the shapes of one batch of each
  bucket; where the data or the autoencoder are not there yet, a note instead.
  """
  outline = make_section(config).outline()
  shapes = jax.eval_shape(outline.model.init, jax.random.key(0), *outline.inputs)['params']
  shapes = nn.unbox(shapes)
  for axis, size in fields_of(config, 'mesh').items():
    checked(Size, size, f'mesh.{axis}')
  run_settings(fields_of(config, 'train'), config.seed)
  data_settings(fields_of(config, 'data'))
  bucket_settings(fields_of(config, 'buckets'))
  rates = optimizer_settings(fields_of(config, 'optimizer')).rates
  lines = [parameter_table(shapes), '', *describe_rates(rates, shapes), *outline.notes]
  try:
    spec = make_spec(config, pathlib.Path(workdir))
    for bucket in spec.buckets:
      sample = make_ordered_batches(dataclasses.replace(bucket, batch_size=1), 1)[0]
      arrays = {
        name: f'{array.dtype}{[bucket.batch_size, *array.shape[1:]]}'
        for name, array in sample.items()
        if name != REPLACED
      }
      lines.append(f'bucket {bucket.name}: {len(bucket.source):,} samples, {arrays}')
  except MgjaxError as error:
    lines.append(f'note: it cannot train yet: {error}')
  return '\n'.join(lines)
