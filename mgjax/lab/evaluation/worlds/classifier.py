"""Says which words of captions a model reads, by its likelihoods: a diffusion classifier.

A model that reads a word finds a clip likelier under its own caption than under one that says
another thing there. That needs no sample and nobody who reads it, and is known long before samples
show it.
"""

import dataclasses

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.lab.evaluation.record.measured import Measured, Metric
from mgjax.lab.evaluation.worlds.alignment import judge_for
from mgjax.lab.statistics.values import mean_value
from mgjax.lab.worlds.judging import VariedJudge
from mgjax.sections.video.pipeline import VideoPipeline


def classify(pipeline: VideoPipeline, *, samples: int = 128, seed: int = 0) -> Measured:
  """Tells real clips' captions from those that differ in one factor, by what the model expects.

  Of each factor: how many clips it finds likelier under their own caption (half without reading),
  and by how many bits, the logarithm of how many times as likely. Captions are those that training
  never showed, of the first group.

  Raises ConfigError if the dataset's judge has no other captions.
  """
  judge = judge_for(pipeline)
  if not isinstance(judge, VariedJudge):
    raise ConfigError('the judge of this synthetic dataset has no captions that differ in one word')
  asked = next(iter(judge.asks(samples).values()))
  videos = np.stack([clip['video'] for clip in judge.clips(asked)])
  captions = [each.caption for each in asked]
  own = pipeline.evidence(captions, videos, seed=seed)
  metrics = {}
  record = {}
  for name, others in judge.variants(asked).items():
    says = np.array([other != caption for other, caption in zip(others, captions, strict=True)])
    nats = own - pipeline.evidence(others, videos, seed=seed)
    bits = np.where(says, nats / np.log(2), np.nan)
    right = np.where(says, (bits > 0) + 0.5 * (bits == 0), np.nan)
    label = judge.factors.get(name, name)
    share, mean = (dataclasses.replace(mean_value(each), each=()) for each in (right, bits))
    metrics[f'classifier/{name}/right'] = Metric(share, f'told apart: {label}', 1, mean=False)
    metrics[f'classifier/{name}/bits'] = Metric(mean, f'bits: {label}', 1, mean=False)
    record[name] = {'right': share.value, 'bits': mean.value, 'clips': int(says.sum())}
  return Measured(metrics, record={'classifier': record})
