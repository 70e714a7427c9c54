r"""Generates videos from prompts with a trained text-to-video model.

python -m launch.sample --workdir=runs/video --prompt='the green digit 3 moves left' --out=out.mp4
python -m launch.sample --workdir=runs/video --prompts=file.txt --samples=4 --seed=7 --out=videos/
python -m launch.sample --workdir=runs/video --prompt='a dog' --fps=24 --guidance=text=6@0.1-0.9
python -m launch.sample --workdir=runs/video --prompt='a dog runs' --negative='blurred, shaking'
A model that reads more than text takes --condition=first_frame=picture.png, once for each, or lines
of a .jsonl such as {"prompt": "a dog runs", "first_frame": "dog.png"}.
One that reads frames (configs/digits/frames.py) takes --image=first.png, --last_image=last.png, or
--video=clip.mp4, which it continues by --more=48 frames or to --frames=64 in all, window by window.
--weights=int8 holds the kernels of the network in one byte a number, a quarter of what is saved.
--upsample=runs/upsampler enlarges each video with a trained upsampler before it is written, and
--soundtrack=runs/audio writes it once more, with sound: out_sound.mp4. With the models of moving
digits that come with mgjax (`mgjax/weights`) all of it, without training anything:
  python -m launch.sample --workdir=digits/few_steps --steps=4 --prompt='the red digit 7 bounces' \
    --upsample=digits/upsampler --soundtrack=digits/audio --out=out.mp4
--rewrite=llama@http://127.0.0.1:8000/v1 has the language model of a server write each prompt anew,
as training's captions are written; what it wrote is logged, and stands in the json.
Writes mp4s (png for images), a contact sheet, an animation of all (WebP) and a json with everything
needed to make them again. Small pictures are enlarged to be seen; --scale=1 writes the model's own.
"""

import os

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
_NEGATIVE = flags.DEFINE_string(
  'negative', '', 'What no video should show; guidance leads away from it.'
)
_CONDITION = flag_values.define(
  'condition',
  flag_values.condition,
  'Beside the prompt, by name, for all videos: first_frame=picture.png.',
  many=True,
)
_IMAGE = flag_values.define(
  'image', flag_values.file('image'), 'A picture that is the first frame.'
)
_LAST_IMAGE = flag_values.define(
  'last_image', flag_values.file('last_image'), 'A picture that is the last frame.'
)
_VIDEO = flag_values.define(
  'video', flag_values.file('video'), 'A clip to continue; it comes first in what is written.'
)
_MORE = flags.DEFINE_integer(
  'more', None, 'Frames to add to --video; by default half a window.', lower_bound=1
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
_REUSE = flag_values.define_reuse()
_FRAMES = flags.DEFINE_integer(
  'frames', None, 'Length, with that of --video; 1 makes an image.', lower_bound=1
)
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
  'upsample', flag_values.run('upsample'), 'Work directory of an upsampler, which enlarges by 2.'
)
_SOUNDTRACK = flag_values.define(
  'soundtrack', flag_values.run('soundtrack'), 'Work directory of an audio model, which adds sound.'
)
_REWRITE = flags.DEFINE_string(
  'rewrite', None, 'MODEL@URL of a chat server that writes prompts anew, or a .json of settings.'
)
_WEIGHTS = flag_values.define_weights()
_MESH = flag_values.define_mesh()
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Videos at a time.', lower_bound=1)


def main(_) -> None:
  if _PROMPT.value is not None and _PROMPTS.value is not None:
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")
  _check_frames()

  from mgjax.video.extend import check_length, default_overlap
  from mgjax.video.files import check_request, read_prompts, read_requests, read_source
  from mgjax.video.pipeline import VideoPipeline

  if _PROMPT.value is None:
    prompts, conditions = read_requests(_PROMPTS.value)
  else:
    prompts, conditions = read_prompts(_PROMPT.value, None), {}
  if _REWRITE.value is not None:
    from mgjax.text.rewriting import read_rewriter, rewrite_prompts

    rewriter = read_rewriter(_REWRITE.value)
  prompts = _repeated(prompts)
  conditions = {name: _repeated(each) for name, each in conditions.items()} | dict(_CONDITION.value)
  conditions |= {name: path for name, path in _pictures().items() if path is not None}
  changes = {
    'steps': _STEPS.value,
    'guidance': _GUIDANCE.value,
    'solver': _SOLVER.value,
    'reuse': _REUSE.value,
    'schedule': None if _SCHEDULE.value is None else {'name': _SCHEDULE.value},
    'weights': _WEIGHTS.value,
  }
  shape = check_request(
    _WORKDIR.value,
    prompts,
    out=_OUT.value,
    frames=None if _VIDEO.value else _FRAMES.value,
    size=_SIZE.value,
    fps=_FPS.value,
    conditions=conditions | ({'known_frames': _VIDEO.value} if _VIDEO.value else {}),
    changes=changes,
  )
  typed = prompts
  if _REWRITE.value is not None:
    prompts = rewrite_prompts(prompts, rewriter, os.path.join(_WORKDIR.value, 'rewrites'))
  sampler = VideoPipeline(_WORKDIR.value, mesh=_MESH.value, **changes)
  video, upsampler = None, None
  if _VIDEO.value is not None:
    window, *size = shape
    rate, *_ = sampler.frame_rates(prompts, _FPS.value)
    video = read_source(_VIDEO.value, tuple(size), rate)
    more = _MORE.value or window - default_overlap(window)
    shape = (_FRAMES.value or len(video) + more, *size)
    check_length(shape[0], len(video))
  if _SOUNDTRACK.value is not None and shape[0] == 1:
    raise ConfigError('--soundtrack is for videos, and --frames=1 makes an image; leave one out')
  if _UPSAMPLE.value is not None:
    from mgjax.upsampler.pipeline import Upsampler

    upsampler = Upsampler(_UPSAMPLE.value, mesh=_MESH.value)
  out = _OUT.value or ('samples' if len(prompts) > 1 else f'out.{"mp4" if shape[0] > 1 else "png"}')
  written = sampler.save(
    prompts,
    out,
    seed=_SEED.value,
    shape=shape,
    fps=_FPS.value,
    batch_size=_BATCH_SIZE.value,
    scale=_SCALE.value,
    upsampler=upsampler,
    video=video,
    typed=typed,
    negative=_NEGATIVE.value,
    **conditions,
  )
  for path in written:
    print(path)
  if _SOUNDTRACK.value is not None:
    from mgjax.audio.files import write_soundtracks
    from mgjax.audio.pipeline import AudioPipeline

    videos = dict(zip((path for path in written if path.suffix == '.mp4'), prompts, strict=True))
    tracker = AudioPipeline(_SOUNDTRACK.value, mesh=_MESH.value)
    for path in write_soundtracks(tracker, videos, seed=_SEED.value):
      print(path)


def _pictures() -> dict[str, str | None]:
  return {'first_frame': _IMAGE.value, 'last_frame': _LAST_IMAGE.value}


def _check_frames() -> None:
  """Raises ConfigError if flags of known frames do not go together."""
  given = {f'--condition={name}' for name, _ in _CONDITION.value}
  if _VIDEO.value is None and _MORE.value is not None:
    raise ConfigError('--more adds frames to a clip; give it as --video=clip.mp4')
  if _VIDEO.value is not None and any(_pictures().values()):
    raise ConfigError('give one of --video, a clip to continue, and --image or --last_image')
  if _VIDEO.value is not None and None not in (_MORE.value, _FRAMES.value):
    raise ConfigError('give one of --more, frames to add, and --frames, those in all')
  for name, path in _pictures().items():
    if path is not None and f'--condition={name}' in given:
      raise ConfigError(f'{name} is given twice, by a flag and by --condition={name}')


def _repeated(values: list) -> list:
  return [value for value in values for _ in range(_SAMPLES.value)]


if __name__ == '__main__':
  command_line.run(main)
