"""Times a trained text-to-video model from its work directory: loading, pixels, files."""

import functools
import pathlib
import tempfile
import time
from typing import Any

import jax

from mgjax.core.configuration.keys import Fields
from mgjax.lab.benchmarks.timing import interleave, warm_up
from mgjax.lab.report.tables import aligned
from mgjax.sections.video.pipeline import VideoPipeline

PROMPT = 'the green digit 3 moves left'


def measure_pipeline(workdir: str, rounds: int = 5) -> dict[str, Any]:
  """Times loading a model and its first file, then pixels of a prompt and its file interleaved.

  Returns:
    Plain JSON values: `first`, seconds to load and of the first file, in which programs are
    compiled or read; `programs`, times of `pixels` and of `file` (video, sheet, animation, json),
    as `interleave` has them.

  Raises:
    ConfigError: the directory does not hold a text-to-video model.
    CheckpointError: it has no checkpoint that can be trusted.
  """
  begin = time.perf_counter()
  pipeline = VideoPipeline(workdir)
  loaded = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / 'sample.mp4'
    pipeline.save([PROMPT], out)
    first = {'load': loaded - begin, 'file': time.perf_counter() - loaded}
    programs = {
      'pixels': functools.partial(pipeline.generate, [PROMPT]),
      'file': functools.partial(pipeline.save, [PROMPT], out),
    }
    for run in programs.values():
      warm_up(run)
    timings = interleave(programs, rounds)
  return {
    'what': 'pipeline',
    'workdir': workdir,
    'device': jax.devices()[0].device_kind,
    'shape': list(pipeline.default_shape),
    'steps': pipeline.settings['steps'],
    'rounds': rounds,
    'first': first,
    'programs': timings,
  }


def describe_pipeline(report: Fields) -> str:
  """Returns what `measure_pipeline` found as a table for people."""
  rows = [('', 'median s', 'min s', 'processor s')]
  rows += [
    (name, *(f'{times[key]:.3f}' for key in ('median', 'min', 'cpu')))
    for name, times in report['programs'].items()
  ]
  size = ' x '.join(map(str, report['shape']))
  first = report['first']
  return '\n'.join(
    [
      f'one prompt, {size} on {report["device"]}, {report["steps"]} steps: loaded in '
      f'{first["load"]:.3f} s, the first file in {first["file"]:.3f} s',
      *aligned(rows),
      f'of {report["rounds"]} runs in turns',
    ]
  )
