"""Generates videos from prompts with a trained text-to-video model.

python -m launch.sample --workdir=runs/video --prompt='the green digit 3 moves left' --out=out.mp4
python -m launch.sample --workdir=runs/video --prompts=file.txt --samples=4 --seed=7 --out=videos/
python -m launch.sample --workdir=runs/video --prompt='a dog' --fps=24 --guidance=text=6@0.1-0.9
A model that reads more than text takes --condition=first_frame=picture.png, once for each, or lines
of a .jsonl such as {"prompt": "a dog runs", "first_frame": "dog.png"}.
Writes mp4s (png for images), a contact sheet, an animation of all (WebP) and a json with everything
needed to make them again. Small pictures are enlarged to be seen; --scale=1 writes the model's own.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line

_WORKDIR = flags.DEFINE_string('workdir', '', 'Work directory of the trained video model.')
_PROMPT = flags.DEFINE_string('prompt', None, 'What to show.')
_PROMPTS = flags.DEFINE_string(
  'prompts', None, 'One prompt a line, or a .jsonl of prompts and conditions.'
)
_CONDITION = flags.DEFINE_multi_string(
  'condition', [], 'Beside the prompt, by name, for all videos: first_frame=picture.png.'
)
_OUT = flags.DEFINE_string(
  'out', None, 'An .mp4 (image: .png) or, for several, a directory; out.mp4, out.png or samples/.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_SAMPLES = flags.DEFINE_integer('samples', 1, 'Videos a prompt.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', None, 'Sampling steps; the run decides if not given.')
_GUIDANCE = flags.DEFINE_string(
  'guidance', None, 'Scale of every condition, or by name in order: source=1.5,text=7@0.2-0.8.'
)
_SOLVER = flags.DEFINE_string('solver', None, 'euler, midpoint, heun or dormand_prince.')
_SCHEDULE = flags.DEFINE_string('schedule', None, 'linear or linear_quadratic.')
_FRAMES = flags.DEFINE_integer('frames', None, 'Length; 1 makes an image.', lower_bound=1)
_FPS = flags.DEFINE_float('fps', None, "Frames a second; as the prompt begins, or training's.")
_SIZE = flags.DEFINE_list('size', None, 'Height,width in pixels.')
_SCALE = flags.DEFINE_integer(
  'scale', None, "Repeats of each pixel in the files; 1 for the model's own, else to 256 px.",
  lower_bound=1,
)  # fmt: skip
_MESH = flags.DEFINE_string('mesh', None, 'Over devices, as context=8; one device if not given.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Videos at a time.', lower_bound=1)


def main(_) -> None:
  from mgjax.video.files import read_prompts, read_requests
  from mgjax.video.pipeline import VideoPipeline

  workdir = command_line.required(_WORKDIR, 'runs/video')
  if (_PROMPT.value is None) == (_PROMPTS.value is None):
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")
  if _PROMPT.value is None:
    prompts, conditions = read_requests(_PROMPTS.value)
  else:
    prompts, conditions = read_prompts(_PROMPT.value, None), {}
  sampler = VideoPipeline(
    workdir,
    mesh=_MESH.value,
    steps=_STEPS.value,
    guidance=command_line.guidance(_GUIDANCE.value),
    solver=_SOLVER.value,
    schedule=None if _SCHEDULE.value is None else {'name': _SCHEDULE.value},
  )
  frames, height, width = sampler.default_shape
  if _SIZE.value is not None:
    height, width = command_line.size(_SIZE.value)
  shape = (frames if _FRAMES.value is None else _FRAMES.value, height, width)
  prompts = _repeated(prompts)
  conditions = {name: _repeated(each) for name, each in conditions.items()}
  conditions |= command_line.conditions(_CONDITION.value)
  out = _OUT.value or ('samples' if len(prompts) > 1 else f'out.{"mp4" if shape[0] > 1 else "png"}')
  for path in sampler.save(
    prompts,
    out,
    seed=_SEED.value,
    shape=shape,
    fps=_FPS.value,
    batch_size=_BATCH_SIZE.value,
    scale=_SCALE.value,
    **conditions,
  ):
    print(path)


def _repeated(values: list) -> list:
  return [value for value in values for _ in range(_SAMPLES.value)]


if __name__ == '__main__':
  command_line.run(main)
