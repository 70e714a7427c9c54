"""Generates videos from prompts with a trained text-to-video model.

python -m launch.sample --workdir=runs/video --prompt='the green digit 3 moves left' --out=out.mp4
python -m launch.sample --workdir=runs/video --prompts=file.txt --samples=4 --seed=7 --out=videos/
python -m launch.sample --workdir=runs/video --prompt='a dog' --fps=24 --guidance=text=6@0.1-0.9
A model that reads more than text takes --condition=first_frame=picture.png, once for each, or lines
of a .jsonl such as {"prompt": "a dog runs", "first_frame": "dog.png"}.
--upsample=runs/upsampler enlarges each video with a trained upsampler before it is written.
Writes mp4s (png for images), a contact sheet, an animation of all (WebP) and a json with everything
needed to make them again. Small pictures are enlarged to be seen; --scale=1 writes the model's own.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

_WORKDIR = command_line.define_required(
  'workdir', 'runs/video', 'Work directory of the trained video model.'
)
_PROMPT = command_line.define_required(
  'prompt', 'the green digit 3 moves left', 'What to show.', unless=('prompts',)
)
_PROMPTS = flag_values.define(
  'prompts', flag_values.file('prompts'), 'One prompt a line, or a .jsonl, with conditions.'
)
_CONDITION = flag_values.define(
  'condition',
  flag_values.condition,
  'Beside the prompt, by name, for all videos: first_frame=picture.png.',
  many=True,
)
_OUT = flag_values.define(
  'out',
  flag_values.output('.mp4', '.png'),
  'An .mp4 (image: .png) or, for several, a directory; out.mp4, out.png or samples/.',
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_SAMPLES = flags.DEFINE_integer('samples', 1, 'Videos a prompt.', lower_bound=1)
_STEPS = flag_values.define_steps()
_GUIDANCE = flag_values.define_guidance()
_SOLVER = flag_values.define_solver()
_SCHEDULE = flags.DEFINE_enum(
  'schedule', None, flag_values.SCHEDULES, 'Of the steps; the run decides if not given.'
)
_FRAMES = flags.DEFINE_integer('frames', None, 'Length; 1 makes an image.', lower_bound=1)
_FPS = flags.DEFINE_float(
  'fps', None, "Frames a second; as the prompt begins, or training's.",
  lower_bound=1, upper_bound=240,
)  # fmt: skip
_SIZE = flag_values.define('size', flag_values.size, 'Height,width in pixels.')
_SCALE = flags.DEFINE_integer(
  'scale', None, "Repeats of each pixel in the files; 1 for the model's own, else to 256 px.",
  lower_bound=1,
)  # fmt: skip
_UPSAMPLE = flag_values.define(
  'upsample', flag_values.file('upsample'), 'Work directory of an upsampler, which enlarges by 2.'
)
_MESH = flag_values.define_mesh()
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Videos at a time.', lower_bound=1)


def main(_) -> None:
  if _PROMPT.value is not None and _PROMPTS.value is not None:
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")

  from mgjax.video.files import check_request, read_prompts, read_requests
  from mgjax.video.pipeline import VideoPipeline

  if _PROMPT.value is None:
    prompts, conditions = read_requests(_PROMPTS.value)
  else:
    prompts, conditions = read_prompts(_PROMPT.value, None), {}
  prompts = _repeated(prompts)
  conditions = {name: _repeated(each) for name, each in conditions.items()} | dict(_CONDITION.value)
  changes = {
    'steps': _STEPS.value,
    'guidance': _GUIDANCE.value,
    'solver': _SOLVER.value,
    'schedule': None if _SCHEDULE.value is None else {'name': _SCHEDULE.value},
  }
  shape = check_request(
    _WORKDIR.value,
    prompts,
    out=_OUT.value,
    frames=_FRAMES.value,
    size=_SIZE.value,
    fps=_FPS.value,
    conditions=conditions,
    changes=changes,
  )
  sampler = VideoPipeline(_WORKDIR.value, mesh=_MESH.value, **changes)
  upsampler = None
  if _UPSAMPLE.value is not None:
    from mgjax.upsampler.pipeline import Upsampler

    upsampler = Upsampler(_UPSAMPLE.value, mesh=_MESH.value)
  out = _OUT.value or ('samples' if len(prompts) > 1 else f'out.{"mp4" if shape[0] > 1 else "png"}')
  for path in sampler.save(
    prompts,
    out,
    seed=_SEED.value,
    shape=shape,
    fps=_FPS.value,
    batch_size=_BATCH_SIZE.value,
    scale=_SCALE.value,
    upsampler=upsampler,
    **conditions,
  ):
    print(path)


def _repeated(values: list) -> list:
  return [value for value in values for _ in range(_SAMPLES.value)]


if __name__ == '__main__':
  command_line.run(main)
