"""Finds the words of captions that a model reads, by its likelihoods: a diffusion classifier.

A model that reads a word assigns a clip a higher likelihood under its own caption than under a
caption that differs in this word. The test needs no samples and no judge of samples, and works long
before samples show the word.
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
  """Distinguishes real clips' captions from variants in one factor by the model's likelihood.

  For each factor it returns the share of clips that are more likely under their own caption (0.5 by
  chance), and the mean log likelihood ratio in bits. It uses the held-out captions of the first
  group.

  Raises ConfigError if the dataset's judge has no variants of captions.
  """
  judge = judge_for(pipeline)
  if not isinstance(judge, VariedJudge):
    raise ConfigError('the judge of this dataset knows no captions that differ in one word')
  requests = next(iter(judge.asks(samples).values()))
  videos = np.stack([clip['video'] for clip in judge.clips(requests)])
  captions = [request.caption for request in requests]
  own = pipeline.evidence(captions, videos, seed=seed)
  metrics = {}
  record = {}
  for name, others in judge.variants(requests).items():
    says = np.array([other != caption for other, caption in zip(others, captions, strict=True)])
    nats = own - pipeline.evidence(others, videos, seed=seed)
    bits = np.where(says, nats / np.log(2), np.nan)
    right = np.where(says, (bits > 0) + 0.5 * (bits == 0), np.nan)
    label = judge.factors.get(name, name)
    share, mean = (dataclasses.replace(mean_value(values), each=()) for values in (right, bits))
    metrics[f'classifier/{name}/right'] = Metric(share, f'told apart: {label}', 1, mean=False)
    metrics[f'classifier/{name}/bits'] = Metric(mean, f'bits: {label}', 1, mean=False)
    record[name] = {'right': share.value, 'bits': mean.value, 'clips': int(says.sum())}
  return Measured(metrics, record={'classifier': record})
