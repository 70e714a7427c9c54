r"""Enlarges a video of any length with a trained upsampler; its sound stays as it is.

python -m launch.upsample --workdir=runs/upsampler --video=small.mp4 --out=large.mp4
python -m launch.upsample --workdir=runs/upsampler --video=small.mp4 --scale=1.5 --seed=7 \
  --prompt='a red panda eats bamboo' --out=large.mp4
python -m launch.upsample --workdir=runs/upsampler --video=small.mp4 --size=1080,1920 \
  --out=large.mp4
Writes out.mp4, out_sheet.png with a part of some frames beside bicubic enlarging, and out.json with
everything needed to make it again. Windows of frames and tiles of space overlap and are made
together: memory grows with the size of the frames, but not with their number.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

_WORKDIR = command_line.define_required(
  'workdir', 'runs/upsampler', 'Work directory of the trained upsampler.'
)
_VIDEO = command_line.define_required(
  'video', 'small.mp4', 'What is enlarged: a video, or a picture.'
)
_OUT = flag_values.define('out', flag_values.output('.mp4'), 'The .mp4 that is written; large.mp4.')
_SCALE = flags.DEFINE_float(
  'scale', None, 'Of both sides; 2 unless --size is given.', lower_bound=1, upper_bound=16
)
_SIZE = flag_values.define('size', flag_values.size, 'Height,width in pixels, in place of --scale.')
_PROMPT = flags.DEFINE_string('prompt', '', 'What the video shows, if somebody can say it.')
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


def main(_) -> None:
  if _SCALE.value is not None and _SIZE.value is not None:
    raise ConfigError('give one of --scale=2 and --size=1080,1920')

  from mgjax.upsampler.files import Request, check_request, write_upsampled
  from mgjax.upsampler.pipeline import Upsampler

  request = Request(
    video=_VIDEO.value, scale=_SCALE.value or 2.0, size=_SIZE.value, prompt=_PROMPT.value,
    seed=_SEED.value, rows=_ROWS.value, crf=_CRF.value,
  )  # fmt: skip
  out = _OUT.value or 'large.mp4'
  check_request(request, out)  # before the weights are read
  upsampler = Upsampler(
    _WORKDIR.value, mesh=_MESH.value, steps=_STEPS.value, guidance=_GUIDANCE.value
  )
  for path in write_upsampled(upsampler, request, out):
    print(path)


if __name__ == '__main__':
  command_line.run(main)
