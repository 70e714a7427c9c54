r"""Times a configuration on this machine, on random data: seconds, rates, MFU and memory.

python -m launch.bench --config=configs/bench/cpu.py --baseline=tests/oracles/torch_backbone.py
python -m launch.bench --config=configs/bench/h200.py:73728 --what=blocks --layers=0 --out=out.json
python -m launch.bench --config=configs/bench/h200.py:8192 --what=attention --baseline=jax.nn \
  --baseline=tests/oracles/torch_attention.py
python -m launch.bench --config=configs/digits/video.py --what=sample \
  --baseline=tests/oracles/torch_backbone.py
python -m launch.bench --config=configs/bench/tae_cpu.py --what=decode --video=1,17,128,128 \
  --baseline=tests/oracles/torch_autoencoder.py
python -m launch.bench --config=configs/text/t5_base.py --what=encode \
  --config.model.dtype=float32 --baseline=tests/oracles/transformers_t5.py
python -m launch.bench --workdir=runs/quickstart/video --what=sample
python -m launch.bench --workdir=runs/quickstart/video --what=levers --beside=runs/few_steps
--what=step is a whole training step. Of a video model, guards is that step with and without update
guard and reports, and a checkpoint's fingerprints; forward is one pass; blocks is the layers alone
and attention that of one layer, both forward and with gradients; sample is a guided step and the
loop of all, reading that loop with conditions read once and at every step. Of a run, by --workdir,
sample is the stages from a prompt to its file; levers are ways to sample a model of moving digits
or of their sound, judged and timed, beside those of other models. Of an autoencoder, encode takes
pixels to latents and decode takes them back; of an encoder of text or images, encode is its pass.
--what=data reads clips and latents, with configs/bench/data.py. A baseline is jax.nn (attention
alone) or a Python file (mgjax/benchmarks/baselines.py); all are timed in turns on one device.
--table makes one table in Markdown of many --out (launch/recipes/gpu_matrix.sh: all of one GPU).
"""

from absl import flags

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json

from . import command_line

_CONFIG = command_line.define_config('configs/bench/cpu.py', unless=('workdir', 'table'))
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Of a trained model: where the seconds from a prompt to a file go, or levers.'
)
_WHAT = flags.DEFINE_enum(
  'what',
  'step',
  [
    'step', 'guards', 'forward', 'blocks', 'attention', 'sample', 'reading', 'levers', 'encode',
    'decode', 'data',
  ],
  'What is timed; see above.',
)  # fmt: skip
_BESIDE = flags.DEFINE_multi_string(
  'beside', [], 'Of levers: work directory of another model, such as one that learnt few steps.'
)
_SAMPLES = flags.DEFINE_integer('samples', 216, 'Of levers: judged, of each way.', lower_bound=8)
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
_TABLE = flags.DEFINE_string('table', '', 'Print a table of the files of a folder; time nothing.')


def main(_) -> None:
  if _TABLE.value:
    from mgjax.benchmarks.table import describe_folder

    print(describe_folder(_TABLE.value))
    return
  if _WORKDIR.value:
    if _WHAT.value == 'levers' and _CONFIG.value is None:
      _bench_levers()
    else:
      _bench_stages()
    return
  import jax

  from mgjax.benchmarks.dispatch import bench_any
  from mgjax.parallel import distributed

  config = _CONFIG.value
  if command_line.print_config(config):
    return
  distributed.initialize()
  answer = bench_any(
    config,
    _WHAT.value,
    latents=_sizes('latents', _LATENTS.value, 'b,t,h,w,c'),
    video=_sizes('video', _VIDEO.value, 'b,t,h,w'),
    layers=_LAYERS.value,
    baselines=_BASELINE.value,
    rounds=_ROUNDS.value,
    profile=_PROFILE.value,
  )
  if jax.process_index() == 0:
    print(answer.text)
    if _OUT.value:
      write_json(_OUT.value, answer.numbers)


def _bench_levers() -> None:
  """Judges and times ways to sample."""
  from mgjax.benchmarks.levers import describe_ways, list_ways, measure_ways

  ways = list_ways(_WORKDIR.value, _BESIDE.value)
  report = measure_ways(ways, samples=_SAMPLES.value, rounds=_ROUNDS.value)
  print(describe_ways(report))
  if _OUT.value:
    write_json(_OUT.value, report)


def _bench_stages() -> None:
  """Times `launch.sample` from the start of this process on."""
  import time

  from mgjax.runtime.phases import Phases, since_start

  if _WHAT.value != 'sample' or _CONFIG.value is not None:
    raise ConfigError(
      f'--workdir={_WORKDIR.value} times the way from a prompt to a file; add --what=sample, or '
      'levers, and leave --config away'
    )
  names = ('start', 'import', 'load', 'text', 'steps', 'decode', 'write')
  wall = Phases(since_start(), names=names)
  clocks = (wall, Phases(time.process_time(), time.process_time, names))
  with clocks[0].during('import'), clocks[1].during('import'):
    from mgjax.benchmarks.stages import describe_stages, measure_stages
  report = measure_stages(clocks, _WORKDIR.value, _ROUNDS.value)
  print(describe_stages(report))
  if _OUT.value:
    write_json(_OUT.value, report)


def _sizes(flag: str, words: list[str], names: str) -> tuple[int, ...] | None:
  sizes = tuple(int(word) for word in words if word.isdigit())
  count = len(names.split(','))
  if words and (len(sizes) != count or len(words) != count or 0 in sizes):
    raise ConfigError(f'--{flag}={",".join(words)}: expected {count} sizes {names}')
  return sizes or None


if __name__ == '__main__':
  command_line.run(main)
