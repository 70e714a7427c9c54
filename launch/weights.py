r"""Imports, exports, publishes, averages, verifies, prunes and checks weights of runs.

python -m launch.weights list --workdir=runs/video
python -m launch.weights verify --workdir=runs/video
python -m launch.weights prune --workdir=runs/video --keep=latest=2,every=10000,best=1 --dry_run
python -m launch.weights average --input=runs/a,runs/b@4000 --shares=2,1 --workdir=runs/averaged
python -m launch.weights export --workdir=runs/video --out=video.safetensors
python -m launch.weights export --workdir=runs/video --out=out/video --format=workdir --weights=int8
python -m launch.weights export --workdir=runs/tae --out=vae/ --format=diffusers
python -m launch.weights export --workdir=runs/style --format=kohya --out=style.safetensors
python -m launch.weights import --input=video.safetensors --workdir=runs/imported \
  --config=configs/video/t2iv_256.py --config.autoencoder=runs/tae
python -m launch.weights import --input=vae/ --config=configs/tae/tae.py --workdir=runs/inflated
python -m launch.weights import --input=clip/ --config=configs/text/metaclip_text.py \
  --workdir=runs/metaclip --tokenizer=bpe_simple_vocab_16e6.txt.gz
python -m launch.weights import --config=configs/wan/text_to_video.py:1.3b --workdir=runs/wan \
  --input=Wan2.1-T2V-1.3B-Diffusers/
python -m launch.weights export --workdir=runs/wan --out=wan/transformer --format=diffusers
python -m launch.weights check --workdir=digits/few_steps,digits/video --out=out/checked
python -m launch.weights push --workdir=runs/video --out=hf://me/moving-digits
python -m launch.weights pull --input=hf://me/moving-digits@main --workdir=runs/pulled
python -m launch.weights push --workdir=runs/video --out=s3://bucket/moving-digits
list reads no arrays: it finds missing and truncated files. verify reads every number and compares
its fingerprint with the one taken on the devices when it was saved. For a Wan it also prints the
SHA-256 of the imported files and norms of what each part answers. list and verify end with exit
code 5 if a checkpoint is damaged. prune keeps the newest, those at multiples of a step and the best
by validation loss, by default as the run itself does. It removes nothing unless the newest of them
is verified, and refuses while a run is going on.
average takes the averaged parameters of runs of the same model, from the newest good checkpoint or
from run@step, with equal or given shares. --shares=greedy keeps, in the order of their losses,
those that lower the loss of the average. All are validated on the data of the first run; the result
is the work directory of a run.
--format=peft, comfyui and kohya write the adapters of a run with config.lora.rank above 0, by the
names that other projects read; the other formats have them merged. import reads all three, for the
model at --config.start_from.
import takes an exported file or folder of any component, which holds its model's description. For
images it takes a folder of diffusers' AutoencoderKL (Stable Diffusion, FLUX) or its .safetensors
file. For audio it takes a .pth or .safetensors file of DAC-VAE, or the encoder or decoder of DAC as
transformers has it. For encoders it takes a folder of T5, UL2, ByT5, UMT5 or CLIP as transformers
has them, or a file of CLIP by OpenCLIP's names. For Wan it takes a folder of diffusers or of the
original code with all parts, or one part; docs/reference/checkpoints.md lists them. What it fixes
of config.model replaces what stands there. The work directory then serves as the run it came from,
and launch.train with --config.start_from.
--format=diffusers, dacvae and transformers write what import reads: the image model alone, a codec,
an encoder with its tokenizer. Wan's transformer and autoencoder have diffusers and original.
--weights=int8 writes the kernels of a flow model in int8 with a scale of each output, to be sampled
or to start training from. --format=workdir writes a folder that serves as a work directory at once,
with --weights=int8 of any model and in half of the bytes; those in `mgjax/weights` are such.
check evaluates the weights that ship with mgjax again, all or some, and compares each number on
their cards with the interval of the new one; exit code 3 if one is outside. --write writes the
cards and the tables of docs/ instead. With --out the same command goes on where it stopped.
push writes a run, or a folder of --format=workdir, to the Hugging Face Hub or a URL of fsspec, such
as gs://, s3:// or file:///. It writes weights, configuration, card, evaluation.json and samples,
with a list of their SHA-256. pull fetches such a folder, whole or not at all;
--workdir=hf://me/moving-digits does without, in every command, and so does --config.start_from.
Both print the name with its commit and hash. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE
count; docs/how_to/publish_weights.md has more.
"""

import contextlib
import math
import time

from absl import flags
from etils import epy

from mgjax.core import files
from mgjax.core.configuration.keys import LARGEST_INTEGER
from mgjax.core.errors import CheckpointError, ConfigError, DataError

from . import command_line, flag_values

with epy.lazy_imports():
  from mgjax.apps.weights import average_runs, cards, wan_folders, wan_values
  from mgjax.apps.weights import import_export as weights
  from mgjax.lab.report import tables
  from mgjax.training.checkpoints import (
    find_run,
    maintenance,
    orbax_io,
    published,
    weights_file,
  )
  from mgjax.training.checkpoints import workdir as runs
  from mgjax.training.monitoring import workdir_lock

_GREEDY = 'greedy'


def _shares(text: str) -> list[float] | str:
  try:
    shares = _GREEDY if text == _GREEDY else [float(word) for word in text.split(',')]
    if shares == _GREEDY or all(0 < share <= LARGEST_INTEGER for share in shares):
      return shares
  except ValueError:
    pass
  raise ConfigError(f'--shares={text:.80}: expected numbers above 0, as in 2,1,1, or {_GREEDY}')


_WORKDIR = command_line.define_required(
  'workdir',
  'runs/video',
  'Work directory of the run; import and average make one. check: names, by default of all.',
  commands=('import', 'export', 'list', 'verify', 'prune', 'average', 'push', 'pull'),
)
_INPUT = command_line.define_required(
  'input',
  'runs/a,runs/b',
  'import: folder, .safetensors, .pth or index file; average: work directories, or directory@step; '
  'pull: a name, as hf://owner/name@revision or s3://bucket/run.',
  commands=('import', 'average', 'pull'),
)
_CONFIG = command_line.define_config('configs/tae/tae.py', commands=('import',))
_OUT = command_line.define_required(
  'out',
  'tae.safetensors',
  'export: .safetensors file, or a folder. check: a folder that keeps its evaluations. push: a '
  'name, as hf://owner/name or s3://bucket/run.',
  commands=('export', 'push'),
)
_TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, 'import: of the tokenizer; by default what lies beside the weights.'
)
_FORMAT = flags.DEFINE_string(
  'format',
  'mgjax',
  'export: mgjax, a file of any component; workdir, a folder; diffusers, original, dacvae, '
  'transformers; of adapters peft, a folder, comfyui, kohya.',
)
_WEIGHTS = flag_values.define_weights(
  'export: type of the kernels of a flow model; as saved if not given.'
)
_WHICH = flags.DEFINE_enum(
  'which', 'average', ['average', 'params'], 'export: the averaged parameters, or themselves.'
)
_STEP = flags.DEFINE_integer(
  'step', None, 'verify, export: of one checkpoint; by default of all, of the newest good one.'
)
_KEEP = command_line.define_fields(
  'keep',
  'prune: what stays, as latest=2,every=10000,best=1: the newest, steps that are a multiple, those '
  'with the lowest losses; by default as the run. With corrupt=0 what was set aside goes too.',
  latest=(int, 1, math.inf),
  every=(int, 0, math.inf),
  best=(int, 0, math.inf),
  corrupt=(int, 0, 1),
)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'prune: say what would go, and remove nothing.')
_WRITE = flags.DEFINE_bool('write', False, 'check: write the cards and the tables of docs/.')
_SHARES = flag_values.define(
  'shares', _shares, 'average: one for each run, or greedy; by default all alike.'
)
_VALIDATE = flags.DEFINE_bool('validate', True, 'average: validate each run, and the average.')

command_line.flags_of(
  {
    'import': (_CONFIG, _INPUT, _TOKENIZER, _WORKDIR),
    'export': (_FORMAT, _OUT, _STEP, _WEIGHTS, _WHICH, _WORKDIR),
    'list': (_WORKDIR,),
    'verify': (_STEP, _WORKDIR),
    'prune': (_DRY_RUN, _KEEP, _WORKDIR),
    'average': (_INPUT, _SHARES, _VALIDATE, _WORKDIR),
    'check': (_OUT, _WORKDIR, _WRITE),
    'push': (_OUT, _WORKDIR),
    'pull': (_INPUT, _WORKDIR),
  }
)


def main(arguments) -> None:
  COMMANDS[arguments[1]]()


def _import() -> None:
  if command_line.print_config(_CONFIG.value):
    return
  read = wan_folders.import_wan if wan_values.is_wan(_CONFIG.value) else weights.import_weights
  read(_CONFIG.value, _INPUT.value, _WORKDIR.value, _TOKENIZER.value)


def _export() -> None:
  options = {'which': _WHICH.value, 'step': _STEP.value, 'weights': _WEIGHTS.value or ''}
  weights.export_weights(_WORKDIR.value, _OUT.value, _FORMAT.value, **options)


def _opened():
  runs.read_config(_WORKDIR.value)  # or an empty folder would pass for a run without checkpoints
  return runs.open_checkpoints(_WORKDIR.value)


def _list() -> None:
  checkpoints = _opened()
  rows = [('step', 'written', 'MiB', 'validation loss', '')]
  damaged = []
  for seen in maintenance.list_checkpoints(checkpoints):
    written = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seen.written))
    loss = '-' if seen.loss is None else f'{seen.loss:.6g}'
    rows.append((seen.name, written, f'{seen.size / 2**20:,.1f}', loss, seen.problem))
    damaged += [seen.name] * bool(seen.problem and seen.name.isdecimal())
  # What is wrong is a sentence: it stands behind the columns.
  lines = tables.aligned([row[:-1] for row in rows])
  for line, row in zip(lines, rows, strict=True):
    print(f'{line}  {row[-1]}'.rstrip())
  _end_if(damaged, checkpoints)


def _verify() -> None:
  opened = _opened()
  workdir = find_run.find_run(_WORKDIR.value)
  selected_steps = None if _STEP.value is None else [_STEP.value]
  config = files.read_optional_json(workdir / 'config.json', bool)
  damaged = {opened: _verify_all(opened, selected_steps, config)}
  for folder in weights_file.inner_folders(workdir):
    opened = runs.open_checkpoints(folder)
    damaged[opened] = _verify_all(opened, of=f'{folder.relative_to(workdir)}: ')
  if other := published.differing(workdir):
    raise CheckpointError(
      f'{", ".join(other)} in {_WORKDIR.value} is not what mgjax.json says; pull the run again'
    )
  for checkpoints, steps in damaged.items():
    _end_if(steps, checkpoints)
  if wan_values.is_wan(runs.read_config(workdir)):
    _print_values(workdir)


def _print_values(workdir) -> None:
  for value in wan_values.values_of(workdir):
    recorded = 'no recorded value' if value.recorded is None else f'recorded: {value.recorded}'
    print(f'{value.part}: {value.quantity}  {value.value}  ({recorded})', flush=True)


def _verify_all(checkpoints, selected_steps=None, config=None, of: str = '') -> list[str]:
  def report(step: int, problem: str) -> None:
    print(f'{step:>9}  {of}{problem or "good"}', flush=True)

  problems = maintenance.verify_all(checkpoints, selected_steps, report, config)
  return [str(step) for step, problem in problems.items() if problem]


def _end_if(damaged: list[str], checkpoints) -> None:
  if damaged:
    raise CheckpointError(
      f'{len(damaged)} damaged in {checkpoints.directory}: step {", ".join(damaged)}; '
      + checkpoints.MEND
    )


def _prune() -> None:
  checkpoints = _opened()
  changes = _KEEP.value or {}
  ours = checkpoints.keep
  usual = {'latest': ours.keep, 'every': ours.keep_every, 'best': ours.keep_best, 'corrupt': 1}
  *limits, corrupt = (usual | changes).values()
  with contextlib.nullcontext() if _DRY_RUN.value else workdir_lock.hold(_WORKDIR.value):
    plan = maintenance.plan_pruning(checkpoints, orbax_io.Keep(*limits), not corrupt)
    for step, problem in plan.damaged.items():
      print(f'{step:>9}  damaged, left alone: {problem}')
    for step in plan.stay:
      print(f'{step:>9}  stays{", verified" * (step == plan.stay[-1])}')
    for name in plan.remove:
      if not _DRY_RUN.value:
        maintenance.remove(checkpoints, name)
      print(f'{name:>9}  {"would go" if _DRY_RUN.value else "removed"}', flush=True)


def _average() -> None:
  greedy = _SHARES.value == _GREEDY
  runs = map(_candidate, flag_values.paths(_INPUT.value))
  shares = None if greedy else _SHARES.value
  averaged = average_runs.average_runs(
    list(runs), _WORKDIR.value, weights=shares, greedy=greedy, validate=_VALIDATE.value
  )
  print(averaged.table())


def _check() -> None:
  names = [name for name in (_WORKDIR.value or '').split(',') if name]
  result = cards.check_cards(names, _OUT.value, write=_WRITE.value)
  print(result.table)
  if result.wrong:
    raise DataError(
      f'{len(result.wrong)} differ from what was measured now: {"; ".join(result.wrong)}; --write '
      'writes the cards anew'
    )


def _push() -> None:
  print(weights.publish(_WORKDIR.value, _OUT.value))


def _pull() -> None:
  print(published.pull(_INPUT.value, _WORKDIR.value))


def _candidate(run: str):
  workdir, _, step = run.rpartition('@')
  arguments = (workdir, int(step)) if workdir and step.isdecimal() else (run,)
  return average_runs.AverageCandidate(*arguments)


COMMANDS = {
  'import': _import,
  'export': _export,
  'list': _list,
  'verify': _verify,
  'prune': _prune,
  'average': _average,
  'check': _check,
  'push': _push,
  'pull': _pull,
}


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
