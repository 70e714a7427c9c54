"""Compares the camera's path that captions ask for with the path that a judge reads from videos."""

from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.lab.evaluation.record.measured import Measured, number_metric
from mgjax.lab.worlds.judging import CameraPath


def compare_paths(paths: Mapping[str, Sequence[CameraPath]]) -> Measured:
  """Says how the last points of paths, 'model' and 'real clips', agree with what was asked for.

  Of each it has the root mean square of the difference, its mean beside the requested one, and the
  correlation of both. It also has how far paths are from straight, in shares of their length.
  """
  metrics = {}
  record = {}
  for who, its in paths.items():
    if len(its) < 2:
      continue
    asked, read = (np.array([getattr(each, way)[-1] for each in its]) for way in ('asked', 'read'))
    error = float(np.sqrt(np.square(read - asked).mean()))
    along = float(np.corrcoef(asked, read)[0, 1]) if np.ptp(asked) and np.ptp(read) else np.nan
    bent = float(np.mean([_bent(each.read) for each in its]))
    turned = float((read * np.sign(asked)).mean())
    beside = {'asked for': float(np.abs(asked).mean())}
    record[who] = {'clips': len(its), 'error': error, 'correlation': along, 'bent': bent}
    metrics[f'camera/{who}/error'] = number_metric(error, len(its), f'camera, degrees, {who}', -1)
    metrics[f'camera/{who}/correlation'] = number_metric(along, len(its), f'camera, {who}', 1)
    metrics[f'camera/{who}/turned'] = number_metric(
      turned, len(its), f'camera turned, degrees, {who}', beside=beside
    )
    metrics[f'camera/{who}/bent'] = number_metric(bent, len(its), f'camera off its line, {who}', -1)
  return Measured(metrics, record={'camera': record})


def _bent(path: np.ndarray) -> float:
  straight = np.linspace(path[0], path[-1], len(path))
  return float(np.abs(path - straight).max() / max(abs(path[-1] - path[0]), 1e-6))
