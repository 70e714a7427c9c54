r"""Edits a video by instruction, or by SDEdit, with a trained editor; its sound stays as it is.

python -m launch.edit --workdir=runs/editing/paired --video=in.mp4 --instruction='make it red' \
  --out=out.mp4
python -m launch.edit --workdir=runs/editing/paired --video=in.mp4 --instruction='make it red' \
  --task=recolour --guidance=source_video=1.5,text=3 --seed=7 --out=out.mp4
python -m launch.edit --workdir=runs/video --video=in.mp4 --how=sdedit --strength=0.6 \
  --instruction='the red digit 3 moves left' --out=out.mp4
Writes out.mp4, out_sheet.png with some frames before and after, and out.json with everything needed
to make it again. A long video is edited in windows that overlap and are made together: memory does
not grow with the number of frames. SDEdit needs no editor: it noises the video and makes what the
instruction, then a description of the edited video, says.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

COMMANDS = (USUAL,) = ('generate',)

_WORKDIR = command_line.define_required(
  'workdir', 'runs/editing/paired', 'Work directory of the trained editor.'
)
_VIDEO = command_line.define_required(
  'video', 'in.mp4', 'What is edited: a video, or a picture.', commands=(USUAL,)
)
_INSTRUCTION = command_line.define_required(
  'instruction',
  'make it red',
  'What to change; with --how=sdedit, what the edited video shows.',
  commands=(USUAL,),
)
_OUT = flag_values.define(
  'out', flag_values.output('.mp4', '.png'), 'An .mp4, or a .png of a picture; out.mp4.'
)
_TASK = flags.DEFINE_string('task', '', 'Which kind of edit it is, of those the model knows.')
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


def main(arguments) -> None:
  {USUAL: _generate}[arguments[1]]()


def _generate() -> None:
  if _STRENGTH.value is not None and _HOW.value != 'sdedit':
    raise ConfigError(f'--strength={_STRENGTH.value:g} is of --how=sdedit; leave it out')

  from mgjax.editing.files import Request, check_request, check_workdir, write_edited
  from mgjax.editing.pipeline import Editor

  strength = {} if _STRENGTH.value is None else {'strength': _STRENGTH.value}
  request = Request(
    video=_VIDEO.value, instruction=_INSTRUCTION.value, task=_TASK.value, how=_HOW.value,
    seed=_SEED.value, rows=_ROWS.value, crf=_CRF.value, **strength,
  )  # fmt: skip
  out, changes = _OUT.value or 'out.mp4', {'steps': _STEPS.value, 'guidance': _GUIDANCE.value}
  # Before the weights are read.
  check_workdir(_WORKDIR.value, request, changes)
  check_request(request, out)
  editor = Editor(_WORKDIR.value, mesh=_MESH.value, **changes)
  for path in write_edited(editor, request, out):
    print(path)


if __name__ == '__main__':
  command_line.run(main, COMMANDS, USUAL)
