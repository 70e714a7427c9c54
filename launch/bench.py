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
python -m launch.bench --workdir=runs/quickstart/video
python -m launch.bench --what=speedrun --config=configs/quickstart.py --rounds=3 --out=race.json
--what=step is a whole training step. Of a video model, forward is one pass; blocks is the layers
alone and attention that of one layer, both forward and with gradients; sample is a guided step and
the loop of all. Of an autoencoder or a codec, encode takes samples to latents and decode takes them
back; of an encoder of text or images, encode is its pass. --what=speedrun runs a recipe from
nothing, with as many seeds as --rounds says, and prints its row of the speedrun
(docs/results/speedrun.md). --workdir times a trained text-to-video model: loading, pixels of a
prompt, its file. A baseline is jax.nn (attention alone) or a Python file
(mgjax/lab/benchmarks/baselines.py); all are timed interleaved on one device.
--table makes one table in Markdown of many --out (launch/recipes/gpu_matrix.sh: all of one GPU).
"""

from absl import flags

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json

from . import command_line

_CONFIG = command_line.define_config('configs/bench/cpu.py', unless=('workdir', 'table'))
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Of a trained text-to-video model, timed from loading to its files.'
)
_WHAT = flags.DEFINE_enum(
  'what',
  'step',
  ['step', 'forward', 'blocks', 'attention', 'sample', 'encode', 'decode', 'speedrun'],
  'What is timed; see above.',
)
_LATENTS = flags.DEFINE_list(
  'latents', [], 'b,t,h,w,c, for a video model; by default of the longest bucket.'
)
_VIDEO = flags.DEFINE_list(
  'video', [], 'b,t,h,w in pixels, for an autoencoder; by default of the longest bucket.'
)
_LAYERS = flags.DEFINE_integer(
  'layers',
  None,
  'Layers of a video model; 0 is as many as fit, by default those configured.',
  lower_bound=0,
)
_BASELINE = flags.DEFINE_multi_string('baseline', [], 'jax.nn or a Python file')
_ROUNDS = flags.DEFINE_integer(
  'rounds', 5, 'Timed runs of each program; of a speedrun, its seeds.', lower_bound=1
)
_OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')
_TABLE = flags.DEFINE_string('table', '', 'Print a table of the files of a folder; time nothing.')


def main(_) -> None:
  if _TABLE.value:
    from mgjax.lab.benchmarks.report import describe_folder

    print(describe_folder(_TABLE.value))
  elif _WORKDIR.value:
    from mgjax.lab.benchmarks.pipeline import describe_pipeline, measure_pipeline

    if _CONFIG.value is not None:
      raise ConfigError('--workdir times what it holds; leave --config away')
    report = measure_pipeline(_WORKDIR.value, _ROUNDS.value)
    _answer(describe_pipeline(report), report)
  elif command_line.print_config(_CONFIG.value):
    pass
  elif _WHAT.value == 'speedrun':
    from mgjax.lab.benchmarks.speedrun import race

    flags = command_line.config_words()
    print(race(_CONFIG.value.to_dict(), flags, _ROUNDS.value, _OUT.value).text)
  else:
    _bench()


def _bench() -> None:
  """Times a configuration; of several processes the first one answers."""
  import jax

  from mgjax.lab.benchmarks.dispatch import bench_any
  from mgjax.parallel import distributed

  distributed.initialize()
  answer = bench_any(
    _CONFIG.value,
    _WHAT.value,
    latents=_sizes('latents', _LATENTS.value, 'b,t,h,w,c'),
    video=_sizes('video', _VIDEO.value, 'b,t,h,w'),
    layers=_LAYERS.value,
    baselines=_BASELINE.value,
    rounds=_ROUNDS.value,
  )
  if jax.process_index() == 0:
    _answer(answer.text, answer.numbers)


def _answer(text: str, numbers) -> None:
  print(text)
  if _OUT.value:
    write_json(_OUT.value, numbers)


def _sizes(flag: str, words: list[str], names: str) -> tuple[int, ...] | None:
  sizes = tuple(int(word) for word in words if word.isdigit())
  count = len(names.split(','))
  if words and (len(sizes) != count or len(words) != count or 0 in sizes):
    raise ConfigError(f'--{flag}={",".join(words)}: expected {count} sizes {names}')
  return sizes or None


if __name__ == '__main__':
  command_line.run(main)
