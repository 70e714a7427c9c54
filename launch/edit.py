r"""Edits a video by instruction, or by SDEdit, with a trained editor; its sound stays as it is.

python -m launch.edit --workdir=runs/editing/paired --video=in.mp4 --instruction='make it red' \
  --out=out.mp4
python -m launch.edit --workdir=runs/editing/paired --video=in.mp4 --instruction='make it red' \
  --task=recolour --guidance=source_video=1.5,text=3 --seed=7 --out=out.mp4
python -m launch.edit --workdir=runs/video --video=in.mp4 --how=sdedit --strength=0.6 \
  --instruction='the red digit 3 moves left' --out=out.mp4
python -m launch.edit --workdir=runs/editing/paired --bench=tgve_plus/ --out=edited/
python -m launch.edit make_pairs --config=configs/digits/editing.py:backtranslation \
  --output=runs/editing/latents_backtranslation
python -m launch.edit mark_clips --input=clips/ --segmenter=package.module:function \
  --output=data/marked
Writes out.mp4, out_sheet.png with some frames before and after, and out.json with everything needed
to make it again. A long video is edited in windows that overlap and are made together: memory does
not grow with the number of frames. SDEdit needs no editor: it noises the video and makes what the
instruction, then a description of the edited video, says.
make_pairs edits real clips by a trained editor and turns the instructions round, for the last stage
of training: a filter keeps the good pairs, and all are in pairs.html beside the records, with their
scores. The same command again goes on where it stopped.
mark_clips makes pairs for the stage before it of clips whose captions say what to mark: function
takes the frames (uint8, t h w 3) and the caption, and returns masks (t h w) of [0, 1].
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

COMMANDS = USUAL, _PAIRS, _MARKS = ('generate', 'make_pairs', 'mark_clips')

_WORKDIR = command_line.define_required(
  'workdir', 'runs/editing/paired', 'Work directory of the trained editor.', commands=(USUAL,)
)
_VIDEO = command_line.define_required(
  'video',
  'in.mp4',
  'What is edited: a video, or a picture.',
  commands=(USUAL,),
  unless=('bench',),
)
_INSTRUCTION = command_line.define_required(
  'instruction',
  'make it red',
  'What to change; with --how=sdedit, what the edited video shows.',
  commands=(USUAL,),
  unless=('bench',),
)
_BENCH = flag_values.define(
  'bench',
  flag_values.file('bench'),
  'A folder of videos with a table of instructions, as of TGVE+, or the table: all are made.',
)
_OUT = flag_values.define(
  'out',
  flag_values.output('.mp4', '.png'),
  'An .mp4, a .png of a picture, or of a bench a folder; out.mp4 or edited/.',
)
_TASK = flags.DEFINE_string(
  'task', None, 'Which kind of edit it is, of those the model knows; guessed if not given.'
)
_HOW = flags.DEFINE_enum('how', 'edit', ('edit', 'sdedit'), 'By instruction, or by SDEdit.')
_STRENGTH = flags.DEFINE_float(
  'strength', None, 'Of SDEdit: 1 keeps nothing of the video; 0.6 if not given.', upper_bound=1
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_STEPS = flag_values.define_steps()
_GUIDANCE = flag_values.define_guidance()
_ROWS = flags.DEFINE_integer(
  'rows', 8, 'Windows in a call of the model; more are faster and take more memory.', lower_bound=1
)
_CRF = flags.DEFINE_float(
  'crf', 16.0, 'Of x264: lower is better and larger.', lower_bound=0, upper_bound=51
)
_MESH = flag_values.define_mesh()
_CONFIG = command_line.define_config(
  'configs/digits/editing.py:backtranslation', commands=(_PAIRS,)
)
_OUTPUT = command_line.define_required(
  'output',
  'runs/editing/latents_backtranslation',
  'Folder of the latents, or of the marked clips.',
  commands=(_PAIRS, _MARKS),
)
_INPUT = command_line.define_required(
  'input', 'clips/', 'Clips to mark: a folder with captions, or a manifest.', commands=(_MARKS,)
)
_SEGMENTER = command_line.define_required(
  'segmenter',
  'package.module:function',
  'What finds the thing that a caption names.',
  commands=(_MARKS,),
)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Clips at a time.', lower_bound=1)
_PROCESS = flags.DEFINE_integer('process', 0, 'Of the processes that make pairs, this one.')
_PROCESSES = flags.DEFINE_integer('processes', 1, 'How many make pairs at once.', lower_bound=1)


def main(arguments) -> None:
  {USUAL: _generate, _PAIRS: _make_pairs, _MARKS: _mark_clips}[arguments[1]]()


def _generate() -> None:
  if _STRENGTH.value is not None and _HOW.value != 'sdedit':
    raise ConfigError(f'--strength={_STRENGTH.value:g} is of --how=sdedit; leave it out')

  from mgjax.editing.files import Request, check_request, check_workdir, write_bench, write_edited
  from mgjax.editing.pipeline import Editor

  options = {} if _STRENGTH.value is None else {'strength': _STRENGTH.value}
  options |= {'how': _HOW.value, 'seed': _SEED.value, 'rows': _ROWS.value, 'crf': _CRF.value}
  changes = {'steps': _STEPS.value, 'guidance': _GUIDANCE.value}
  if _BENCH.value is not None:
    if given := [f.name for f in (_VIDEO, _INSTRUCTION, _TASK) if f.value is not None]:
      raise ConfigError(f'--{given[0]} and --bench exclude each other; a bench has its own')

    from mgjax.data.ingest.edit_bench import read_edit_bench

    rows = read_edit_bench(_BENCH.value)
    first = Request(str(rows[0].video), rows[0].instruction, **options)
    check_workdir(_WORKDIR.value, first, changes)
    editor = Editor(_WORKDIR.value, mesh=_MESH.value, **changes)
    for path in write_bench(editor, rows, _OUT.value or 'edited', **options):
      print(path)
    return
  request = Request(video=_VIDEO.value, instruction=_INSTRUCTION.value, task=_TASK.value, **options)
  out = _OUT.value or 'out.mp4'
  # Before the weights are read.
  check_workdir(_WORKDIR.value, request, changes)
  check_request(request, out)
  editor = Editor(_WORKDIR.value, mesh=_MESH.value, **changes)
  for path in write_edited(editor, request, out):
    print(path)


def _make_pairs() -> None:
  if command_line.print_config(_CONFIG.value):
    return

  from mgjax.workflows.backtranslation import backtranslate
  from mgjax.workflows.make_pairs import PAGE

  made = backtranslate(
    _CONFIG.value, _OUTPUT.value, batch_size=_BATCH_SIZE.value, process=_PROCESS.value,
    processes=_PROCESSES.value,
  )  # fmt: skip
  for bucket, result in made.items():
    print(f'{bucket}: {result}')
    if result.finished:
      print(f'{_OUTPUT.value.rstrip("/")}/{bucket}/{PAGE}')
    else:
      print('the shards of other processes have yet to be written')


def _mark_clips() -> None:
  from mgjax.core.plug_ins import load_function
  from mgjax.curation.marked_clips import mark_clips

  made = mark_clips(_INPUT.value, _OUTPUT.value, load_function(_SEGMENTER.value))
  for name, reason in made.rejected.items():
    print(f'{name}: {reason}')
  print(f'{made.path}: {made.pairs} pairs of {made.pairs + len(made.rejected)} clips')


if __name__ == '__main__':
  command_line.run(main, COMMANDS, USUAL)
