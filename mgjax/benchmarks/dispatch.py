"""Times a configuration of any component on random data, on the devices that there are."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from mgjax.benchmarks.autoencoder import measure_autoencoder
from mgjax.benchmarks.data import WHAT as DATA
from mgjax.benchmarks.data import describe_data, measure_data
from mgjax.benchmarks.flow_model import measure_flow_model
from mgjax.benchmarks.programs import STEP
from mgjax.benchmarks.report import describe_benchmark
from mgjax.benchmarks.text_encoder import measure_encoder
from mgjax.core.errors import ConfigError
from mgjax.planning.dispatch import Answer
from mgjax.planning.text_encoder import ENCODE
from mgjax.registry import section

# The options that each family has beside baselines and rounds.
OPTIONS = {
  DATA: (),
  'encoder': ('profile',),
  'autoencoder': ('video', 'profile'),
  'flow model': ('latents', 'layers', 'profile'),
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
  profile: str = '',
) -> Answer:
  """Times a configuration with the benchmark of its component's family.

  Args:
    config: of any component, or of data (`configs/bench/data.py`).
    what: 'data', or a program that the family has: `programs.WHAT`, `autoencoder.PASSES`, 'encode'.
    latents: shape (b t h w c), of a flow model; by default of the longest bucket.
    video: shape (b t h w), of an autoencoder; by default of the longest bucket.
    layers: of a flow model; None takes those configured, 0 as many as fit.
    baselines: 'jax.nn', or Python files (`baselines.py`).
    rounds: timed runs of each program.
    profile: directory for a trace; '' for none.

  Returns:
    A table for people, and the report as plain JSON values.

  Raises:
    ConfigError: the component has no such benchmark, or no such option.
  """
  if (config.component == DATA) != (what == DATA):
    raise ConfigError(
      f'--what={DATA} and a configuration of data go together: configs/bench/data.py'
    )
  family = DATA if what == DATA else section(config.component).family
  if family not in OPTIONS:
    raise ConfigError(f'there is no benchmark of the family {family!r}: {", ".join(OPTIONS)} have')
  given = {'latents': latents, 'video': video, 'layers': layers, 'profile': profile or None}
  for flag, value in given.items():
    if value is not None and flag not in OPTIONS[family]:
      raise ConfigError(f'--{flag} is for configurations of another part; leave it away')
  options = {flag: given[flag] for flag in OPTIONS[family] if given[flag] is not None}
  options |= {'baselines': baselines, 'rounds': rounds}
  if family == DATA:
    report = measure_data(config, **options)
    return Answer(describe_data(report), report)
  if family == 'encoder':
    if what != ENCODE:
      raise ConfigError(f'of an encoder --what={ENCODE} is timed')
    report = measure_encoder(config, **options)
  elif family == 'autoencoder':
    report = measure_autoencoder(config, what, **options)
  else:
    report = measure_flow_model(config, what, **options)
  return Answer(describe_benchmark(report), report)
