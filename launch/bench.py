r"""Times a configuration, here and now, on random data: seconds, rates, MFU and memory.

python -m launch.bench --config=configs/bench/cpu.py --baseline=tests/oracles/torch_backbone.py
python -m launch.bench --config=configs/bench/h200.py:73728 --what=blocks --layers=0 --out=out.json
python -m launch.bench --config=configs/bench/h200.py:8192 --what=attention --baseline=jax.nn \
  --baseline=tests/oracles/torch_attention.py
python -m launch.bench --config=configs/bench/tae_cpu.py --what=decode --video=1,17,128,128 \
  --baseline=tests/oracles/torch_autoencoder.py
python -m launch.bench --config=configs/text/t5_base.py --what=encode \
  --config.model.dtype=float32 --baseline=tests/oracles/transformers_t5.py
--what=step is a whole training step; guards are a video model's with and without gate and reports,
and the fingerprints of a checkpoint. Of a video model forward is one pass, blocks its layers alone
and attention that of one layer, both forward and with gradients; of an autoencoder encode takes
pixels to latents and decode takes them back; of an encoder of text or images encode reads them;
--what=data reads clips and latents, with configs/bench/data.py. A baseline is jax.nn (attention alone)
or a Python file (mgjax/benchmarks/baselines.py); all take turns on one device.
"""

from typing import Any

import jax
from absl import flags

from mgjax.benchmarks.autoencoder import PASSES, measure_autoencoder
from mgjax.benchmarks.data import WHAT as DATA
from mgjax.benchmarks.data import describe_data, measure_data
from mgjax.benchmarks.flow_model import measure_flow_model
from mgjax.benchmarks.programs import WHAT
from mgjax.benchmarks.report import describe_benchmark
from mgjax.benchmarks.text_encoder import measure_encoder
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.parallel import distributed
from mgjax.planning.text_encoder import ENCODE, ENCODERS

from . import command_line

_CONFIG = command_line.define_config()
_WHAT = flags.DEFINE_enum('what', 'step', sorted({*WHAT, *PASSES, DATA}), 'What is timed.')
_LATENTS = flags.DEFINE_list(
  'latents', [], 'b,t,h,w,c, for a video model; by default of the longest bucket.'
)
_VIDEO = flags.DEFINE_list(
  'video', [], 'b,t,h,w in pixels, for an autoencoder; by default of the longest bucket.'
)
_LAYERS = flags.DEFINE_integer(
  'layers', None, 'Layers of a video model; 0 is as many as fit, by default those configured.',
  lower_bound=0,
)  # fmt: skip
_BASELINE = flags.DEFINE_multi_string('baseline', [], 'jax.nn or a Python file')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Timed runs of each program.', lower_bound=1)
_PROFILE = flags.DEFINE_string('profile', '', 'Directory for a trace, for TensorBoard or XProf.')
_OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/bench/cpu.py')
  if command_line.print_config(config):
    return
  distributed.initialize()
  options = {'baselines': _BASELINE.value, 'rounds': _ROUNDS.value, 'profile': _PROFILE.value}
  if (config.component == DATA) != (_WHAT.value == DATA):
    raise ConfigError(
      f'--what={DATA} and a configuration of data go together: configs/bench/data.py'
    )
  if config.component == DATA:
    _refuse(latents=_LATENTS.value, video=_VIDEO.value, profile=_PROFILE.value)
    _refuse(layers=_LAYERS.value is not None)
    report = measure_data(config, baselines=_BASELINE.value, rounds=_ROUNDS.value)
    return _show(describe_data(report), report)
  if config.component in ENCODERS:
    _refuse(latents=_LATENTS.value, video=_VIDEO.value, layers=_LAYERS.value is not None)
    if _WHAT.value != ENCODE:
      raise ConfigError(f'of an encoder --what={ENCODE} is timed')
    report = measure_encoder(config, **options)
  elif config.component == 'autoencoder':
    _refuse(latents=_LATENTS.value, layers=_LAYERS.value is not None)
    video = _sizes('video', _VIDEO.value, 'b,t,h,w')
    report = measure_autoencoder(config, _WHAT.value, video=video, **options)
  else:
    _refuse(video=_VIDEO.value)
    latents = _sizes('latents', _LATENTS.value, 'b,t,h,w,c')
    report = measure_flow_model(
      config, _WHAT.value, latents=latents, layers=_LAYERS.value, **options
    )
  if jax.process_index() == 0:
    _show(describe_benchmark(report), report)


def _show(text: str, report: dict[str, Any]) -> None:
  print(text)
  if _OUT.value:
    write_json(_OUT.value, report)


def _refuse(**given) -> None:
  for flag, value in given.items():
    if value:
      raise ConfigError(f'--{flag} is for configurations of another part; leave it away')


def _sizes(flag: str, words: list[str], names: str) -> tuple[int, ...] | None:
  sizes = tuple(int(word) for word in words if word.isdigit())
  count = len(names.split(','))
  if words and (len(sizes) != count or len(words) != count or 0 in sizes):
    raise ConfigError(f'--{flag}={",".join(words)}: expected {count} sizes {names}')
  return sizes or None


if __name__ == '__main__':
  command_line.run(main)
