"""Says whether a model fits a machine and how fast it could be there; needs no devices.

python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=v5p:8x8x8
python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=v5p:4x4x4 --compile
python -m launch.plan --config=configs/video/t2iv_768.py:30b --topology=h200:8 --search
python -m launch.plan --config=configs/tae/tae.py --topology=v5p:2x2x1 --compile
python -m launch.plan --config=configs/text/ul2.py --topology=v5p:2x2x1 --compile
Topologies are v5p:8x8x8, v5e:16x16, v6e:16x16, tpu7x:4x4x4 (chips along the torus), h100:8x64 (64
nodes of 8 GPUs), h200:8. Estimates are formulas and take seconds; --compile compiles for TPUs that
are not there, in minutes, and takes memory and collectives from the compiler.
"""

import json

import jax
from absl import flags

from launch import command_line
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.planning import plan as planning
from mgjax.planning import report
from mgjax.planning.autoencoder import compile_autoencoder, describe_autoencoder
from mgjax.planning.text_encoder import ENCODERS, describe_encoder, plan_encoder

_CONFIG = command_line.define_config()
_TOPOLOGY = flags.DEFINE_string('topology', '', 'Chips, as v5p:8x8x8 or h100:8x64.')
_MESH = flags.DEFINE_list('mesh', [], 'Mesh, as fsdp=32,context=16; by default the best.')
_BUCKET = flags.DEFINE_string('bucket', '', 'Bucket of the samples; by default the longest.')
_ROWS = flags.DEFINE_integer('rows', 0, 'Samples a step; 0 is one a group of chips.', lower_bound=0)
_REMAT = flags.DEFINE_string('remat', '', 'Policy; by default the fastest that fits.')
_EXCHANGE = flags.DEFINE_string('exchange', '', 'Of context shards; by default as configured.')
_ESTIMATE = flags.DEFINE_bool('estimate', False, 'Plan by formula, which is the default.')
_COMPILE = flags.DEFINE_bool('compile', False, 'Compile the step, without devices; TPUs only.')
_SEARCH = flags.DEFINE_bool('search', False, 'Rank meshes, policies and exchanges by formula.')
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object.')
_OUT = flags.DEFINE_string('out', '', 'JSON file for the same object.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/video/t2iv_768.py:30b')
  if command_line.print_config(config):
    return
  topology = command_line.required(_TOPOLOGY, 'v5p:8x8x8')
  if _ESTIMATE.value + _COMPILE.value + _SEARCH.value > 1:
    raise ConfigError('--estimate, --compile and --search exclude each other; give one of them')
  jax.config.update('jax_platforms', 'cpu')  # shapes alone: whatever devices there are, stay free
  choices = planning.Choices(
    _mesh(_MESH.value), _BUCKET.value, _ROWS.value, _REMAT.value, _EXCHANGE.value
  )
  if config.part == 'autoencoder':
    if not _COMPILE.value:
      raise ConfigError('of an autoencoder there is no formula; add --compile')
    answer = compile_autoencoder(config, topology, choices.mesh)
    text = describe_autoencoder(answer)
  elif config.part in ENCODERS:
    if _SEARCH.value:
      raise ConfigError('of an encoder there is nothing to search; leave --search away')
    answer = plan_encoder(config, topology, choices.mesh, compiled=_COMPILE.value)
    text = describe_encoder(answer)
  elif _SEARCH.value:
    found = planning.search_plans(config, topology, choices)
    text, answer = report.describe_search(*found), report.search_as_json(*found)
  else:
    plan = planning.make_plan(config, topology, choices)
    if _COMPILE.value:
      plan = planning.compiled(config, plan)
    text, answer = report.describe(plan), report.plan_as_json(plan)
  print(json.dumps(answer, indent=2) if _JSON.value else text)
  if _OUT.value:
    write_json(_OUT.value, answer)


def _mesh(entries: list[str]) -> dict[str, int] | None:
  sizes = {}
  for entry in entries:
    axis, _, size = entry.partition('=')
    if not size.isdigit() or int(size) < 1:
      raise ConfigError(f'--mesh={",".join(entries)}: expected sizes as in fsdp=32,context=16')
    sizes[axis.strip()] = int(size)
  return sizes or None


if __name__ == '__main__':
  command_line.run(main)
