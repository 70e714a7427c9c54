"""What a configuration's run sees of its data, by the loader's own schedule of turns."""

import pathlib

import numpy as np

from mgjax.data.batch_order import samples_seen
from mgjax.data.settings import data_settings
from mgjax.training.settings import bucket_settings
from mgjax.training.spec import make_buckets


class Rows:
  """So many samples."""

  def __init__(self, count):
    self.count = count

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return {'x': np.zeros(1)}


def training_buckets(config, counts):
  """Returns the training buckets that hold so many samples each: a number, or name -> number."""
  data = data_settings(config.data.to_dict())
  shapes = bucket_settings(config.buckets.to_dict(), data)
  counts = counts if isinstance(counts, dict) else dict.fromkeys(config.buckets, counts)
  sources = {name: Rows(counts[name]) for name in config.buckets}
  here = pathlib.Path()  # nothing is rejected, so nothing is written
  return make_buckets(shapes, here, lambda split, report: sources, dict, share=data.share)[0]


def seen_in_stage(config, counts=1_000_000):
  """Returns bucket -> samples that all steps of a configuration see."""
  return samples_seen(training_buckets(config, counts), config.train.steps)
