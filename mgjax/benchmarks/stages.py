"""From a prompt to a file, stage by stage: where the seconds of `launch.sample` go."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from mgjax.benchmarks.timing import COMPILED, event_seconds
from mgjax.core.tables import aligned
from mgjax.core.typing import Array, Batch
from mgjax.runtime.phases import Phases
from mgjax.video.pipeline import VideoPipeline

START, IMPORT, LOAD, TEXT, STEPS, DECODE, WRITE = STAGES = (
  'start', 'import', 'load', 'text', 'steps', 'decode', 'write',
)  # fmt: skip
AGAIN = (TEXT, STEPS, DECODE, WRITE)
PROMPT = 'the green digit 3 moves left'
# What a first call of a program does before it runs, in JAX's own words: tracing, lowering,
# compiling or, where the cache holds it, reading. They nest, so that only these three add up.
PREPARED = {
  'trace': '/jax/core/compile/jaxpr_trace_duration',
  'lower': '/jax/core/compile/jaxpr_to_mlir_module_duration',
  'compile': COMPILED,
}


Clocks = Sequence[Phases]  # of wall seconds and of processor seconds


class _StagedPipeline(VideoPipeline):
  """The pipeline, which tells the phase that it is in and waits for the devices at each end."""

  def __init__(self, clocks: Clocks, workdir: str):
    super().__init__(workdir)
    self._clocks = clocks
    self._generate = _during(clocks, STEPS, self._generate)
    self._codec = _StagedCodec(clocks, self._codec)

  def _samples(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return _during(self._clocks, TEXT, super()._samples)(*arguments, **options)

  def _batch(self, samples: Sequence[Any]) -> Batch:
    return _during(self._clocks, TEXT, super()._batch)(samples)


class _StagedCodec:
  """A codec whose decoding is a phase."""

  def __init__(self, clocks: Clocks, codec: Any):
    self._codec, self._clocks = codec, clocks

  def __getattr__(self, name: str) -> Any:
    return getattr(self._codec, name)

  def decode(self, latents: Array, frames: int) -> Array:
    return _during(self._clocks, DECODE, self._codec.decode)(latents, frames)


def _during(clocks: Clocks, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
  def run(*arguments: Any, **options: Any) -> Any:
    with stage(clocks, name):
      return jax.block_until_ready(function(*arguments, **options))

  return run


@contextlib.contextmanager
def stage(clocks: Clocks, name: str) -> Iterator[None]:
  """Enters a stage by every clock."""
  with contextlib.ExitStack() as stack:
    for phases in clocks:
      stack.enter_context(phases.during(name))
    yield


def measure_stages(clocks: Clocks, workdir: str, rounds: int = 5) -> dict[str, Any]:
  """Times a prompt from the start of this process to its file, and again in the same process.

  Args:
    clocks: two `Phases` of `STAGES`, of wall and of processor seconds, begun when the process was;
      `IMPORT` is over when this is called.
    workdir: of a trained text-to-video model.
    rounds: how often it is sampled again.

  Returns:
    Plain JSON values: `first`, seconds of every stage of the first file, and `first_cpu`, processor
    seconds; `prepared`, those of `first` in which programs were traced, lowered and compiled (or
    read from the cache); `again`, the least seconds of each stage of the files after it, and
    `again_cpu`; `steps` and `step_milliseconds`, of them.

  Raises:
    ConfigError: the directory does not hold a text-to-video model.
    CheckpointError: it has no checkpoint that can be trusted.
  """
  with event_seconds(PREPARED.values()) as events, tempfile.TemporaryDirectory() as folder:
    with stage(clocks, LOAD):
      pipeline = _StagedPipeline(clocks, workdir)
    out = pathlib.Path(folder)
    with stage(clocks, WRITE):
      pipeline.save([PROMPT], out / 'first.mp4')
    first = [phases.seconds() for phases in clocks]
    prepared = {name: sum(events[event]) for name, event in PREPARED.items()}
    again = []
    for number in range(rounds):
      before = [phases.seconds() for phases in clocks]
      with stage(clocks, WRITE):
        pipeline.save([PROMPT], out / f'{number}.mp4', seed=number + 1)
      after = [phases.seconds() for phases in clocks]
      again.append([{n: b[n] - a[n] for n in AGAIN} for a, b in zip(before, after, strict=True)])
  least, least_cpu = (
    {n: min(each[n] for each in run) for n in AGAIN} for run in zip(*again, strict=True)
  )
  steps = pipeline.settings['steps']
  return {
    'what': 'stages',
    'workdir': workdir,
    'device': jax.devices()[0].device_kind,
    'shape': list(pipeline.default_shape),
    'steps': steps,
    'rounds': rounds,
    'first': first[0],
    'first_cpu': first[1],
    'prepared': prepared,
    'again': least,
    'again_cpu': least_cpu,
    'step_milliseconds': 1000 * least[STEPS] / steps,
  }


def describe_stages(report: dict[str, Any]) -> str:
  """Returns what `measure_stages` found as a table for people."""
  columns = {
    'first file, s': report['first'], 'processor s': report['first_cpu'],
    'the next, s': report['again'], 'its processor s': report['again_cpu'],
  }  # fmt: skip
  rows = [('', *columns)]
  rows += [(name, *(_seconds(each.get(name)) for each in columns.values())) for name in STAGES]
  rows.append(('sum', *(_seconds(sum(each.values())) for each in columns.values())))
  within = ', '.join(f'{name} {seconds:.3f}' for name, seconds in report['prepared'].items())
  size = ' x '.join(map(str, report['shape']))
  return '\n'.join(
    [
      f'one prompt to a file of {size} on {report["device"]}, {report["steps"]} steps',
      *aligned(rows, names=1),
      f'in the first file, before programs ran: {within} s; compiling is reading where the cache '
      'has the program',
      f'a step of the loop: {report["step_milliseconds"]:.2f} ms; of the next files, the least of '
      f'{report["rounds"]}',
    ]
  )


def _seconds(value: float | None) -> str:
  return '-' if value is None else f'{value:.3f}'
