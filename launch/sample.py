r"""Samples a trained model of any section: video, image, sound, and changed videos.

python -m launch.sample --workdir=runs/video --prompt='the green digit 3 moves left' --out=out.mp4
python -m launch.sample --workdir=runs/video --prompts=file.txt --samples=4 --seed=7 --out=videos/
python -m launch.sample --workdir=runs/video --prompt='a dog' --fps=24 --guidance=text=6@0.1-0.9
Text to video, and with --frames=1 images. A model that reads more than text takes
--condition=first_frame=picture.png, once for each, or lines of a .jsonl such as
{"prompt": "a dog runs", "first_frame": "dog.png"}; one that reads frames continues --video=clip.mp4
to --frames=64 in all. --upsample enlarges each video before it is written, and --soundtrack writes
it once more, with sound: out_sound.mp4. With the models of moving digits that come with mgjax:
  python -m launch.sample --workdir=digits/few_steps --steps=4 --prompt='the red digit 7 bounces' \
    --upsample=digits/upsampler --soundtrack=digits/audio --out=out.mp4
--rewrite=llama@http://127.0.0.1:8000/v1 has the language model of a server write each prompt anew.
Small pictures are enlarged to be seen; --scale=1 writes the model's own.

python -m launch.sample --workdir=runs/audio --video=clip.mp4 --prompt='rain' --out=out.mp4
python -m launch.sample --workdir=runs/audio --prompt='waves' --seconds=60 --out=waves.wav
Sound for a video of any length, or of a text alone, brought to --loudness. --continue=waves.wav
keeps all of a sound and goes on after it; with --known=0-4,6-8 only these seconds of it are kept.

python -m launch.sample --workdir=runs/upsampler --video=small.mp4 --scale=1.5 --out=large.mp4
python -m launch.sample --workdir=runs/editing/paired --video=in.mp4 --prompt='make it red'
python -m launch.sample --workdir=runs/video --video=in.mp4 --strength=0.6 \
  --prompt='the red digit 3 moves left' --out=out.mp4
An upsampler enlarges by --scale, 2 if not given, or to --size=1080,1920; an editor follows an
instruction. --strength edits by SDEdit, with any model of text to video: it noises the video and
makes what the prompt says that the edited video shows; an editor begins there and reads the video.

python -m launch.sample --workdir=runs/personalization --reference=face.jpg \
  --prompt='a person plays the violin' --out=out.mp4
Videos of somebody; out_reference.png shows what of the picture the model is given. Ask them first:
docs/personalization.md says what this must not be used for.

python -m launch.sample --workdir=runs/video --suite=bench/MovieGenVideoBench.txt --out=videos/
python -m launch.sample --workdir=runs/editing/paired --suite=tgve_plus/ --out=edited/
All of a prompt suite (docs/evaluation_suites.md), called by index. The same command goes on after
a stop; --process=0/4 makes a quarter, beside three others. Beside all that is made there are a
picture of it and a .json with everything needed to make it again.
"""

import dataclasses
import os
from typing import Any

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

_WORKDIR = command_line.define_required(
  'workdir', 'runs/video', 'Work directory of the trained model, or the name of one of mgjax.'
)
_PROMPT = command_line.define_required(
  'prompt',
  'the green digit 3 moves left',
  'What to show, to be heard, or to change.',
  unless=('prompts', 'suite', 'video'),
)
_PROMPTS = flag_values.define(
  'prompts', flag_values.file('prompts'), 'One prompt a line, or a .jsonl, with conditions.'
)
_SUITE = flags.DEFINE_string('suite', None, 'A prompt suite, of which all is made, into --out.')
_PROCESS = flag_values.define(
  'process', flag_values.share, 'Of a suite: 0/4 makes the first of four shares.'
)
_OUT = flag_values.define(
  'out',
  flag_values.output('.mp4', '.png', '.wav'),
  'An .mp4, .png or .wav or, for several, a directory; out.mp4 or what suits.',
)
_SEED = flag_values.seed('seed', 'Of the noise.')
_SAMPLES = flags.DEFINE_integer('samples', 1, 'Of each prompt.', lower_bound=1)
_UPSAMPLE = flag_values.define(
  'upsample', flag_values.run('upsample'), 'Work directory of an upsampler, which enlarges by 2.'
)
_SOUNDTRACK = flag_values.define(
  'soundtrack', flag_values.run('soundtrack'), 'Work directory of an audio model, which adds sound.'
)
_REWRITE = flags.DEFINE_string(
  'rewrite', None, 'MODEL@URL of a chat server that writes prompts anew, or a .json of settings.'
)
_STRENGTH = flags.DEFINE_float(
  'strength', None, 'How far an edit noises the video to begin with; 1 to noise.', upper_bound=1
)
_SAMPLING = flag_values.define_sampling()
_MESH = flag_values.define_mesh()
_REQUESTED = (  # fields of a section's request, by their names or those of _FIELDS
  flag_values.least('batch_size', 1, 'Videos, or windows of a long one, at a time.'),
  flag_values.least('frames', 1, 'Length, with that of --video; 1 makes an image.'),
  flag_values.define('size', flag_values.size, 'Height,width in pixels.'),
  flag_values.within('fps', 1, 240, "Frames a second; as the prompt begins, or training's."),
  flag_values.define(
    'scale',
    flag_values.factor,
    "Repeats of each pixel in the files, 1 for the model's own; of an upsampler its factor.",
  ),
  flags.DEFINE_string('negative', None, 'What no video should show; guidance leads away from it.'),
  flag_values.define(
    'condition',
    flag_values.condition,
    'Beside the prompt, by name, for all: first_frame=picture.png.',
    many=True,
  ),
  flag_values.define(
    'video',
    flag_values.file('video'),
    'What is continued, enlarged, edited or gets sound; of a suite of sounds their folder.',
  ),
  flag_values.within('seconds', 0, None, 'Length of a sound without a video.'),
  flags.DEFINE_string('music', None, 'Mood and genre of music that is wanted too.'),
  flag_values.define('continue', flag_values.file('continue'), 'A sound to go on with or to fill.'),
  flag_values.define('known', flag_values.spans, 'Seconds of it that stay, as in 0-4,6-8; or all.'),
  flags.DEFINE_enum(
    'extend',
    None,
    flag_values.WAYS,
    'How sound goes beyond the length of training; multi_diffusion if not given.',
  ),
  flag_values.least(
    'candidates', 1, 'Sounds of which the best is taken; 8 with a video or a scorer, else 1.'
  ),
  flag_values.define(
    'scorer',
    flag_values.scorer,
    'A command that judges candidates; else their alignment with the pictures.',
  ),
  flag_values.within('loudness', -60, 0, 'LUFS that a sound is brought to, -16; 0 leaves it.'),
  flag_values.within('gain_limit', 0, 60, 'dB that a soft sound is amplified by at most, 24.'),
  flags.DEFINE_bool(
    'keep_colours',
    True,
    'Of an upsampler: those of the video; without, of a spoilt one the model mends them.',
  ),
  flags.DEFINE_string('task', None, 'Which kind of edit it is; guessed if not given.'),
  flag_values.define(
    'reference',
    flag_values.files('reference'),
    'A picture of the person, or several of one person: face.jpg,other.jpg.',
  ),
  flag_values.define(
    'deny_list',
    flag_values.file('deny_list'),
    'Embeddings (.npy) of people of whom no videos are made.',
  ),
)
# Flag -> the field that a request has for it, where that has another name.
_FIELDS = {
  'condition': 'conditions',
  'continue': 'given',
  'known': 'spans',
  'extend': 'extension',
  'upsample': 'upsampler',
  'soundtrack': 'upsampler',
  'rewrite': 'typed',
  'prompts': 'typed',
  'samples': 'typed',
}
_ALONE = ('prompt', 'prompts', 'upsample', 'soundtrack', 'rewrite')  # never of a suite


def main(_) -> None:
  _check_together()

  from mgjax.registry import feature
  from mgjax.training.checkpoints.workdir import read_config

  component = read_config(_WORKDIR.value).component
  feature(component, 'request', 'can be sampled')
  sdedit = _STRENGTH.value is not None and component != 'editing'
  if sdedit:
    component = 'editing'  # of a model of text to video
  _check_applies(component)
  changes = {flag.name: flag.value for flag in _SAMPLING if flag.present}
  if 'schedule' in changes:
    changes['schedule'] = {'name': changes['schedule']}
  fields = {_FIELDS.get(flag.name, flag.name): flag.value for flag in _REQUESTED if flag.present}
  if 'conditions' in fields:
    fields['conditions'] = dict(fields['conditions'])
  if _STRENGTH.value is not None:
    fields |= {'how': 'sdedit' if sdedit else 'edit', 'strength': _STRENGTH.value}
  loaded = changes | {'mesh': _MESH.value}
  if 'deny_list' in fields:
    loaded['deny_list'] = fields['deny_list']
  if _SUITE.value is not None:
    _make_suite(component, fields, loaded)
    return
  kind = feature(component, 'request', 'can be sampled').get()
  prompts, conditions = _read_prompts()
  if not any(prompts) and kind.needs_prompt:
    raise ConfigError("--prompt is missing; for example --prompt='the green digit 3 moves left'")
  if conditions:
    fields['conditions'] = conditions | fields.get('conditions', {})
  request = kind(prompts, _OUT.value, _SEED.value, **fields)
  request.check(_WORKDIR.value, changes)  # before the weights, which take longer to read
  request = _rewritten(request)
  pipeline = _load(component, _WORKDIR.value, **loaded)
  if _SOUNDTRACK.value is not None and (request.frames or pipeline.default_shape[0]) == 1:
    raise ConfigError('--soundtrack is for videos, and one frame makes an image; leave one out')
  if _UPSAMPLE.value is not None:
    upsampler = _load('upsampler', _UPSAMPLE.value, mesh=_MESH.value)
    request = dataclasses.replace(request, upsampler=upsampler)
  written = request.write(pipeline)
  print(*written, sep='\n')
  if _SOUNDTRACK.value is not None:
    from mgjax.sections.audio.files import write_soundtracks

    videos = (path for path in written if path.suffix == '.mp4')
    tracker = _load('audio', _SOUNDTRACK.value, mesh=_MESH.value)
    told = dict(zip(videos, request.prompts, strict=True))
    print(*write_soundtracks(tracker, told, seed=_SEED.value), sep='\n')


def _load(component: str, workdir: str, **options: Any) -> Any:
  from mgjax.registry import feature

  return feature(component, 'load', 'can be loaded')(workdir, **options)


def _check_together() -> None:
  """Raises ConfigError for flags that exclude each other, whatever the model."""
  given = {name for name in flags.FLAGS if flags.FLAGS[name].present}
  if {'prompt', 'prompts'} <= given:
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")
  if 'suite' in given:
    if wrong := [name for name in _ALONE if name in given]:
      raise ConfigError(f'--{wrong[0]} and --suite exclude each other; leave one out')
    if not _OUT.value:
      raise ConfigError('--out is missing: the folder of a suite, as in --out=videos/')
  elif 'process' in given:
    raise ConfigError('--process is a share of a suite; give it with --suite')


def _check_applies(component: str) -> None:
  """Raises ConfigError for a flag that says nothing to a component."""
  from mgjax.registry import SECTIONS, section

  def takes(name: str) -> set[str]:
    request = SECTIONS[name].request  # imports its section
    return {field.name for field in dataclasses.fields(request.get())} if request else set()

  taken = takes(component)
  single = () if _SUITE.value is not None else (_SAMPLES,)
  for flag in (*_REQUESTED, *single, _PROMPTS, _UPSAMPLE, _SOUNDTRACK, _REWRITE):
    field = _FIELDS.get(flag.name, flag.name)
    if flag.present and field not in taken:
      able = ' or '.join(name for name in SECTIONS if field in takes(name))
      raise ConfigError(
        f'--{flag.name} says nothing to {section(component).noun}; it is for a run of the '
        f'component {able}'
      )


def _read_prompts() -> tuple[list[str], dict[str, Any]]:
  """Returns each prompt as often as it is sampled, and conditions, one of each for each."""
  from mgjax.sections.flow.requests import read_prompts

  prompts = [_PROMPT.value or '']
  conditions = {}
  if _PROMPTS.value is not None:
    prompts, conditions = read_prompts(_PROMPTS.value)

  def repeated(values: list) -> list:
    return [value for value in values for _ in range(_SAMPLES.value)]

  return repeated(prompts), {name: repeated(each) for name, each in conditions.items()}


def _rewritten(request: Any) -> Any:
  """Returns the request with prompts that a language model wrote, if there is to be one."""
  if _REWRITE.value is None:
    return request

  from mgjax.lab.language_models.rewriting import read_rewriter, rewrite_prompts

  folder = os.path.join(_WORKDIR.value, 'rewrites')
  prompts = rewrite_prompts(list(request.prompts), read_rewriter(_REWRITE.value), folder)
  return dataclasses.replace(request, prompts=prompts, typed=request.prompts)


def _make_suite(component: str, fields: dict[str, Any], loaded: dict[str, Any]) -> None:
  """Makes all of a suite, as the flags say."""
  from mgjax.lab.evaluation.suites.make_videos import SuiteSettings, run_suite
  from mgjax.lab.evaluation.suites.suite import read_suite

  process, processes = _PROCESS.value or (0, 1)
  settings = SuiteSettings(
    seed=_SEED.value,
    samples=_SAMPLES.value,
    batch_size=fields.pop('batch_size', 16),
    videos=fields.pop('video', ''),
    process=process,
    processes=processes,
    request=fields,
  )
  suite = read_suite(_SUITE.value)
  made = run_suite(_WORKDIR.value, suite, _OUT.value, settings, component=component, **loaded)
  print(made, *made.paths, sep='\n')


if __name__ == '__main__':
  command_line.run(main)
