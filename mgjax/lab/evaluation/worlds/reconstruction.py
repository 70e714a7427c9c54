"""What the judge of a synthetic dataset reads through an autoencoder, and how well what matters
comes back.

A mean over complete frames is dominated by the background. So PSNR is also computed inside the
objects of captions, and the judge checks whether it can still read them.
"""

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Bool, UInt8
from mgjax.lab.evaluation.metrics.similarity import decibels
from mgjax.lab.evaluation.reconstruction import reconstruct
from mgjax.lab.evaluation.record.measured import Measured, mean_metric
from mgjax.lab.evaluation.worlds.alignment import measured
from mgjax.lab.worlds.judging import VideoJudge
from mgjax.models.tae.latents import LatentCodec
from mgjax.training.monitoring.progress import track


def judge_reconstruction(codec: LatentCodec, judge: VideoJudge, samples: int) -> Measured:
  """Encodes and decodes `samples` clips of each group of a judge, which then reads them.

  If samples have a 'segmentation', the numbers include the PSNR inside of it, over all frames of a
  clip, besides that of the complete clip.
  """
  groups = judge.asks(samples)
  videos = {}
  errors = {'inside': [], 'whole': []}
  for group, requests in groups.items():
    again = []
    for sample in track(judge.clips(requests), len(requests), group):
      pair = reconstruct(codec, sample['video'])
      again.append(pair.reconstruction)
      for name, number in _numbers(sample, pair.reconstruction).items():
        errors[name].append(number)
    videos[group] = np.stack(again)
  alignment = measured(judge, groups, videos)
  if not errors['inside']:
    return alignment
  labels = {'inside': 'PSNR inside of solids, dB', 'whole': 'PSNR of a clip, dB'}
  psnr_metrics = {
    f'psnr/{name}': mean_metric(errors[name], label, 1) for name, label in labels.items()
  }
  record = {f'psnr_{name}': float(np.nanmean(values)) for name, values in errors.items()}
  return Measured(
    alignment.metrics | psnr_metrics,
    alignment.samples,
    record=alignment.record | record,
    notes=alignment.notes,
  )


def _numbers(sample: Fields, again: UInt8[np.ndarray, 't h w 3']) -> dict[str, float]:
  if 'segmentation' not in sample:
    return {}
  square = np.square((again.astype(np.float32) - sample['video']) / 255).mean(-1)
  inside: Bool[np.ndarray, 't h w'] = sample['segmentation'] > 0
  errors = np.array([square[inside].mean() if inside.any() else np.nan, square.mean()])
  return dict(zip(('inside', 'whole'), decibels(errors).tolist(), strict=True))
