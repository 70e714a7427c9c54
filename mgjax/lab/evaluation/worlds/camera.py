"""Compares the camera path in captions with the path that a judge reads from videos."""

from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.lab.evaluation.record.measured import Measured, number_metric
from mgjax.lab.worlds.judging import CameraPath


def compare_paths(paths: Mapping[str, Sequence[CameraPath]]) -> Measured:
  """Compares the last points of paths, of 'model' and 'real clips', with the requested ones.

  Of each it has the root mean square of the difference, its mean beside the requested one, and the
  correlation of both. It also has how far paths are from straight, in shares of their length.
  """
  metrics = {}
  record = {}
  for who, camera_paths in paths.items():
    if len(camera_paths) < 2:
      continue
    requested, read = (
      np.array([getattr(path, way)[-1] for path in camera_paths]) for way in ('asked', 'read')
    )
    error = float(np.sqrt(np.square(read - requested).mean()))
    along = (
      float(np.corrcoef(requested, read)[0, 1]) if np.ptp(requested) and np.ptp(read) else np.nan
    )
    bent = float(np.mean([_bent(path.read) for path in camera_paths]))
    turned = float((read * np.sign(requested)).mean())
    beside = {'asked for': float(np.abs(requested).mean())}
    record[who] = {'clips': len(camera_paths), 'error': error, 'correlation': along, 'bent': bent}
    metrics[f'camera/{who}/error'] = number_metric(
      error, len(camera_paths), f'camera, degrees, {who}', -1
    )
    metrics[f'camera/{who}/correlation'] = number_metric(
      along, len(camera_paths), f'camera, {who}', 1
    )
    metrics[f'camera/{who}/turned'] = number_metric(
      turned, len(camera_paths), f'camera turned, degrees, {who}', beside=beside
    )
    metrics[f'camera/{who}/bent'] = number_metric(
      bent, len(camera_paths), f'camera off its line, {who}', -1
    )
  return Measured(metrics, record={'camera': record})


def _bent(path: np.ndarray) -> float:
  straight = np.linspace(path[0], path[-1], len(path))
  return float(np.abs(path - straight).max() / max(abs(path[-1] - path[0]), 1e-6))
