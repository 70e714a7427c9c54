"""mgjax: Movie Gen (arXiv 2410.13720) in JAX and Flax.

Everything here is imported when it is first used: `import mgjax` alone brings no JAX.
"""

# ruff: noqa: F401

from etils import epy

__version__ = '0.3.0'

with epy.lazy_api_imports(globals()):
  from mgjax import (
    audio,
    backbone,
    benchmarks,
    checkpoints,
    clip,
    conditioning,
    core,
    data,
    evaluation,
    flow,
    flow_models,
    media,
    nn,
    parallel,
    planning,
    registry,
    runtime,
    tae,
    text,
    training,
    video,
    workflows,
    worlds,
  )
  from mgjax.api import config, evaluate, load, plan, train
  from mgjax.media.show import save, show
