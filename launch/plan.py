r"""Plans a run: does the model fit a machine, and how fast could it be; needs no devices.

python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=v5p:8x8x8
python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=v5p:4x4x4 --compile
python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=h200:8 --search
python -m launch.plan --config=configs/video/recipe.py:30b --topology=512xH200 --price=2.5
python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=v6e:4x4 --what=sample
python -m launch.plan --config=configs/upsampler/upsampler.py:7b --topology=v5p:1x1x1 \
  --what=sample --frames=256 --size=1080,1920
python -m launch.plan --config=configs/tae/tae.py --topology=v5p:2x2x2
python -m launch.plan --config=configs/wan/autoencoder.py --topology=rtx4090 --what=sample \
  --frames=81 --size=480,832 --compile
Topologies are v5p:8x8x8, v5e:16x16, v6e:16x16, tpu7x:4x4x4 (chips along the torus), h100:8x64 (64
nodes of 8 GPUs), h200:8, and as people write them: v5p-64, v6e-256, 8xH100, 2x8xA100-80GB, rtx4090.
A recipe is planned stage by stage, as launch.train runs it. --price=2.5, dollars a chip-hour, adds
what a step, a stage or a sample costs. Estimates are formulas and take seconds; --compile compiles
for TPUs (extra tpu) or NVIDIA GPUs (extra cuda_compile) that are not there, in minutes, and takes
memory and collectives from the compiler.
--what=sample plans sampling: of a video or audio model the latency of the configured steps, and
with fewer or cheaper passes (--rows samples at a time). Of an upsampler it is the making of a
--frames video, of an autoencoder the decoding of a clip of --frames and --size on one chip.
"""

from absl import flags

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json

from . import command_line, flag_values

_CONFIG = command_line.define_config('configs/video/t2iv_768.py:30b')
_TOPOLOGY = command_line.define_required(
  'topology', 'v5p:8x8x8', 'Chips, as v5p:8x8x8, h100:8x64, v5p-64 or 8xH100.'
)
_MESH = flag_values.define_mesh('Mesh, as fsdp=32,context=16; by default the best.')
_WHAT = flags.DEFINE_enum('what', 'train', ['train', 'sample'], 'What is planned.')
_FRAMES = flags.DEFINE_integer(
  'frames', 0, 'Of what an upsampler makes, by default 256, or a decoder.', lower_bound=0
)
_SIZE = flag_values.define(
  'size', flag_values.size, 'Height,width of the same; by default, of an upsampler, 1080,1920.'
)
_BUCKET = flags.DEFINE_string('bucket', '', 'Bucket of the samples; by default the longest.')
_ROWS = flags.DEFINE_integer(
  'rows', 0, 'Samples a step, or at a time; 0 is one a group of chips, or one.', lower_bound=0
)
_REMAT = flags.DEFINE_string('remat', '', 'Policy; by default as configured.')
_EXCHANGE = flags.DEFINE_string('exchange', '', 'Of context shards; by default as configured.')
_COMPILE = flags.DEFINE_bool('compile', False, 'Compile the step, without devices.')
_SEARCH = flags.DEFINE_bool('search', False, 'Rank meshes, policies and exchanges by formula.')
_PRICE = flag_values.define(
  'price', flag_values.price, 'Dollars a chip-hour that you pay; prints costs.'
)
_OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')


def main(_) -> None:
  config = _CONFIG.value
  if command_line.print_config(config):
    return
  if _COMPILE.value and _SEARCH.value:
    raise ConfigError('--compile and --search exclude each other; give one of them')
  if -1 in (_MESH.value or {}).values():
    raise ConfigError('--mesh: a plan needs every size, as in fsdp=32,context=16')

  import jax

  import mgjax

  jax.config.update('jax_platforms', 'cpu')  # shapes alone: whatever devices there are, stay free
  answer = mgjax.plan(
    config,
    _TOPOLOGY.value,
    mesh=_MESH.value or None,
    bucket=_BUCKET.value,
    rows=_ROWS.value,
    remat=_REMAT.value,
    exchange=_EXCHANGE.value,
    how='compile' if _COMPILE.value else 'search' if _SEARCH.value else 'estimate',
    what=_WHAT.value,
    frames=_FRAMES.value,
    size=_SIZE.value,
    price=_PRICE.value,
  )
  print(answer.text)
  if _OUT.value:
    write_json(_OUT.value, answer.numbers)


if __name__ == '__main__':
  command_line.run(main)
