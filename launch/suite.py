"""Makes all videos of a prompt suite, and hands them to VBench and back.

python -m launch.suite run --workdir=runs/video --suite=bench/MovieGenVideoBench.txt --out=videos/
python -m launch.suite run --workdir=runs/video --suite=MovieGenVideoBench.txt:mini --out=videos/
python -m launch.suite run --workdir=runs/quickstart/video --suite=digits:108 --out=videos/
Makes a video of each prompt, called by its index, with a json beside it that says how. The same
command goes on after a stop. --process=0 --processes=4 makes a quarter, beside three others.
A suite is a .txt (a prompt a line), a .csv (prompt,concept,motion_level), a .jsonl, or digits:N,
held-out captions of the small world; :mini behind a file draws 381 of its prompts by a fixed seed.
NAME.txt and NAMEWithTag.csv beside each other are joined by index.

python -m launch.suite run --workdir=runs/editing/paired --suite=tgve_plus/ --out=edited/
python -m launch.suite run --workdir=runs/sound/audio --suite=MovieGenAudioBenchSfx.jsonl \
  --videos=videos/ --out=out/
Edits of a folder with a table of instructions, and sound for videos that are called by index.

python -m launch.suite export --videos=videos/ --out=vbench/ --out-format=vbench
Writes vbench/videos/<prompt>-<sample>.mp4 and vbench/prompts.json, for VBench in an environment of
its own; its prompts are a suite as well: --suite=VBench_full_info.json with --samples=5.

python -m launch.suite import --results=evaluation_results/ --out=scores/
Reads VBench's *_eval_results.json; prints a table, and writes vbench.md and vbench.json.
"""

from absl import flags

from . import command_line, flag_values

COMMANDS = ('run', 'export', 'import')

_WORKDIR = command_line.define_required(
  'workdir', 'runs/video', 'Work directory of the model.', commands=('run',)
)
_SUITE = command_line.define_required(
  'suite',
  'bench/MovieGenVideoBench.txt',
  'What is asked for; of export, if the folder of videos does not say it itself.',
  commands=('run',),
)
_OUT = command_line.define_required('out', 'videos/', 'A folder.')
_VIDEOS = command_line.define_required(
  'videos',
  'videos/',
  'Folder of videos to export; of run, those that get sound.',
  commands=('export',),
)
_RESULTS = command_line.define_required(
  'results', 'evaluation_results/', 'What VBench wrote: a file or its folder.', commands=('import',)
)
flags.DEFINE_enum('out-format', 'vbench', ('vbench',), 'Of export.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_SAMPLES = flags.DEFINE_integer(
  'samples', 1, 'Videos a prompt; those after the first in sample_1/, ...', lower_bound=1
)
_LIMIT = flags.DEFINE_integer('limit', None, 'Of the prompts, the first so many.', lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Videos at a time.', lower_bound=1)
_SCALE = flags.DEFINE_integer(
  'scale', None, "Repeats of each pixel in the files; 1 for the model's own, else to 256 px.",
  lower_bound=1,
)  # fmt: skip
_STEPS = flag_values.define_steps()
_GUIDANCE = flag_values.define_guidance()
_MESH = flag_values.define_mesh()
_PROCESS = flags.DEFINE_integer('process', 0, 'Of the processes that work at once, this one.')
_PROCESSES = flags.DEFINE_integer('processes', 1, 'How many work at once.', lower_bound=1)


def main(arguments) -> None:
  {'run': _run, 'export': _export, 'import': _import}[arguments[1]]()


def _run() -> None:
  from mgjax.evaluation.suites.suite import read_suite
  from mgjax.workflows.suite import SuiteSettings, run_suite

  settings = SuiteSettings(
    seed=_SEED.value,
    samples=_SAMPLES.value,
    batch_size=_BATCH_SIZE.value,
    limit=_LIMIT.value,
    scale=_SCALE.value,
    videos=_VIDEOS.value or '',
    process=_PROCESS.value,
    processes=_PROCESSES.value,
  )
  options = {'mesh': _MESH.value, 'steps': _STEPS.value, 'guidance': _GUIDANCE.value}
  made = run_suite(_WORKDIR.value, read_suite(_SUITE.value), _OUT.value, settings, **options)
  print(made, *made.paths, sep='\n')


def _export() -> None:
  from mgjax.evaluation.suites.suite import read_suite
  from mgjax.workflows.suite import export_vbench

  suite = None if _SUITE.value is None else read_suite(_SUITE.value)
  count, told = export_vbench(_VIDEOS.value, _OUT.value, suite)
  print(f'{_OUT.value}: {count} videos')
  if told:
    print(f'{len(told)} prompts do not fit into names of files: give VBench prompts.json')


def _import() -> None:
  from mgjax.workflows.suite import import_vbench

  table, paths = import_vbench(_RESULTS.value, _OUT.value)
  print(table, *paths, sep='\n')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
