"""Times a configuration of any component on random data, on the devices that there are."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.lab.benchmarks.flow_model import measure_flow_model
from mgjax.lab.benchmarks.forward import measure_forward
from mgjax.lab.benchmarks.programs import STEP
from mgjax.lab.benchmarks.report import describe_benchmark
from mgjax.lab.planning.dispatch import Answer
from mgjax.lab.planning.forward import read_forward
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.parallel.mesh import make_mesh
from mgjax.registry import find_component

# Family -> its options beside baselines and rounds.
FAMILIES = {
  'flow model': ('latents', 'layers'),
  'autoencoder': ('video',),
  'codec': (),
  'encoder': (),
}


def bench_any(
  config: ConfigDict,
  what: str = STEP,
  *,
  latents: tuple[int, ...] | None = None,
  video: tuple[int, ...] | None = None,
  layers: int | None = None,
  baselines: Sequence[str] = (),
  rounds: int = 5,
) -> Answer:
  """Times a configuration with the benchmark of its component's family.

  Args:
    config: a configuration of any component.
    what: a program of the family: for a flow model one of `programs.WHAT` or 'sample', for an
      autoencoder or a codec 'encode' or 'decode', for an encoder 'encode'.
    latents: shape (b t h w c), of a flow model; by default of the longest bucket.
    video: shape (b t h w), of an autoencoder; by default of the longest bucket.
    layers: of a flow model; None takes those configured, 0 as many as fit.
    baselines: 'jax.nn', or Python files (`baselines.py`).
    rounds: timed runs of each program.

  Raises:
    ConfigError: the component has no such benchmark, or no such option.
  """
  family = find_component(config.component).family
  if family not in FAMILIES:
    raise ConfigError(f'there is no benchmark of the family {family!r}: {", ".join(FAMILIES)} have')
  shapes = {'latents': latents, 'video': video, 'layers': layers}
  options = {flag: value for flag, value in shapes.items() if value is not None}
  if unsupported := set(options) - set(FAMILIES[family]):
    raise ConfigError(f'--{min(unsupported)} is for configurations of another part; leave it away')
  mesh = make_mesh(fields_of(config, 'mesh'), config.rules)
  compared = {'baselines': baselines, 'rounds': rounds}
  if family == 'flow model':
    report = measure_flow_model(FlowRun.of(config), what, mesh, **options, **compared)
  else:
    report = measure_forward(read_forward(config, video=video), what, mesh, **compared)
  return Answer(describe_benchmark(report), report)
