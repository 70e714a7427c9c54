r"""Samples a trained model: videos, images, sound, edits, larger videos, or all of a prompt suite.

python -m launch.sample video --workdir=runs/video --prompt='the green digit 3 moves left'
python -m launch.sample video --workdir=runs/video --prompts=file.txt --samples=4 --out=videos/
python -m launch.sample video --workdir=runs/video --prompt='a dog' --fps=24 \
  --guidance=text=6@0.1-0.9
Videos of prompts. A model that reads more than text takes --condition=first_frame=picture.png, once
for each, or lines of a .jsonl such as {"prompt": "a dog runs", "first_frame": "dog.png"}. One that
reads frames continues --continue=clip.mp4 to --frames=64 in all. --upsample enlarges each video
before it is written, and --soundtrack writes it once more, with sound: out_sound.mp4. With the
models of moving digits that ship with mgjax:
  python -m launch.sample video --workdir=digits/few_steps --steps=4 \
    --prompt='the red digit 7 bounces' --upsample=digits/upsampler --soundtrack=digits/audio
--rewrite=llama@http://127.0.0.1:8000/v1 has the language model of a server write each prompt anew.
Small pictures are enlarged to be seen; --scale=1 writes the model's own.

python -m launch.sample image --workdir=runs/video --prompt='a red digit 3' --out=out.png
Videos of one frame, by a model that learned images.

python -m launch.sample audio --workdir=runs/audio --video=clip.mp4 --prompt='rain' --out=out.mp4
python -m launch.sample audio --workdir=runs/audio --prompt='waves' --seconds=60 --out=waves.wav
Sound for a video of any length, or of a text alone, brought to --loudness. --continue=waves.wav
keeps all of a sound and goes on after it; with --known=0-4,6-8 only these seconds of it are kept.

python -m launch.sample edit --workdir=runs/editing/paired --video=in.mp4 --prompt='make it red'
python -m launch.sample edit --workdir=runs/video --video=in.mp4 --strength=0.6 \
  --prompt='the red digit 3 moves left' --out=out.mp4
An editor follows an instruction. --strength edits by SDEdit, with any model of text to video: it
noises the video and samples under a prompt that describes the edited video. An editor begins there
and reads the video.

python -m launch.sample upsample --workdir=runs/upsampler --video=small.mp4 --factor=1.5
An upsampler enlarges by --factor, 2 if not given, or to --size=1080,1920.

python -m launch.sample personalize --workdir=runs/personalization --reference=face.jpg \
  --prompt='a person plays the violin' --out=out.mp4
Videos of a person; out_reference.png shows what of the picture the model is given. Ask them first:
docs/how_to/personalize.md says what this must not be used for.

python -m launch.sample suite --workdir=runs/video --suite=bench/MovieGenVideoBench.txt \
  --out=videos/
python -m launch.sample suite --workdir=runs/editing/paired --suite=tgve_plus/ --out=edited/
All of a prompt suite (docs/how_to/evaluate_prompt_suites.md), called by index. The same command
goes on after a stop; --process=0/4 makes a quarter, beside three others.

Beside all that is made there are a picture of it and a .json with everything needed to make it
again.
"""

import dataclasses
import os
from typing import Any

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

COMMANDS = 'video', 'image', 'audio', 'edit', 'upsample', 'personalize', 'suite'
_VIDEO, _IMAGE, _AUDIO, _EDIT, _UPSAMPLE, _PERSONALIZE, _SUITE = COMMANDS
FIRST = 'workdir', 'prompt', 'out', 'steps', 'seed'  # in --help

_WORKDIR = command_line.define_required(
  'workdir', 'runs/video', 'Work directory of the trained model, or the name of one of mgjax.'
)
_PROMPT = command_line.define_required(
  'prompt',
  'the green digit 3 moves left',
  'What to show, to be heard, or to change.',
  commands=(_VIDEO, _IMAGE, _AUDIO, _EDIT, _PERSONALIZE),
  unless=('prompts', 'video'),
)
_PROMPTS = flag_values.define(
  'prompts', flag_values.file('prompts'), 'One prompt a line, or a .jsonl, with conditions.'
)
_ROWS = command_line.define_required(
  'suite', 'bench/MovieGenVideoBench.txt', 'The suite, of which all is made.', commands=(_SUITE,)
)
_PROCESS = flag_values.define('process', flag_values.share, '0/4 makes the first of four shares.')
_OUT = flag_values.define(
  'out',
  flag_values.output('.mp4', '.png', '.wav'),
  'An .mp4, .png or .wav or, for several, a directory; out.mp4 or what suits.',
)
_SEED = flag_values.seed('seed', 'Of the noise.')
_SAMPLES = flags.DEFINE_integer('samples', 1, 'Of each prompt.', lower_bound=1)
_ENLARGE = flag_values.define(
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
_BATCH = flag_values.least('batch_size', 1, 'Videos, or windows of a long one, at a time.')
_FRAMES = flag_values.least('frames', 1, 'Length, with that of --continue.')
_SIZE = flag_values.define('size', flag_values.size, 'Height,width in pixels.')
_FPS = flag_values.within('fps', 1, 240, "Frames a second; as the prompt begins, or training's.")
_SCALE = flag_values.least('scale', 1, "Repeats of each pixel in the files; 1 for the model's own.")
_FACTOR = flag_values.define('factor', flag_values.factor, 'Of height and width; 2 if not given.')
_NEGATIVE = flags.DEFINE_string(
  'negative', None, 'What no video should show; guidance leads away from it.'
)
_CONDITION = flag_values.define(
  'condition',
  flag_values.condition,
  'Beside the prompt, by name, for all: first_frame=picture.png.',
  many=True,
)
_SOURCE = flag_values.define(
  'video', flag_values.file('video'), 'What is edited, enlarged, or gets sound.'
)
_SOURCES = flag_values.define(
  'videos', flag_values.file('videos'), 'Folder of the videos of a suite that get sound.'
)
_CONTINUE = flag_values.define(
  'continue', flag_values.file('continue'), 'A video or sound to go on with; of sound, to fill.'
)
_SECONDS = flag_values.within('seconds', 0, None, 'Length of a sound without a video.')
_MUSIC = flags.DEFINE_string('music', None, 'Mood and genre of music that is wanted too.')
_KNOWN = flag_values.define(
  'known', flag_values.spans, 'Seconds of --continue that stay, as in 0-4,6-8; or all.'
)
_EXTEND = flags.DEFINE_enum(
  'extend',
  None,
  flag_values.WAYS,
  'How sound goes beyond the length of training; multi_diffusion if not given.',
)
_CANDIDATES = flag_values.least(
  'candidates', 1, 'Sounds of which the best is taken; 8 with a video or a scorer, else 1.'
)
_SCORER = flag_values.define(
  'scorer',
  flag_values.scorer,
  'A command that judges candidates; else their alignment with the pictures.',
)
_LOUDNESS = flag_values.within(
  'loudness', -60, 0, 'LUFS that a sound is brought to, -16; 0 leaves it.'
)
_GAIN = flag_values.within('gain_limit', 0, 60, 'dB that a soft sound is amplified by at most, 24.')
_COLOURS = flags.DEFINE_bool(
  'keep_colours', True, 'Those of the video; without, of a spoilt one the model mends them.'
)
_TASK = flags.DEFINE_string('task', None, 'Which kind of edit it is; guessed if not given.')
_REFERENCE = flag_values.define(
  'reference',
  flag_values.files('reference'),
  'A picture of the person, or several of one person: face.jpg,other.jpg.',
)
_DENY = flag_values.define(
  'deny_list',
  flag_values.file('deny_list'),
  'Embeddings (.npy) of people of whom no videos are made.',
)

_COMMON = (_WORKDIR, _OUT, _SEED, _MESH, _BATCH, *_SAMPLING)
_PICTURE = (_SIZE, _SCALE, _NEGATIVE, _CONDITION)
_MOTION = (_FRAMES, _FPS)
_AUDIBLE = (_MUSIC, _EXTEND, _CANDIDATES, _SCORER, _LOUDNESS, _GAIN)
_STILL = (*_COMMON, _PROMPT, _PROMPTS, _SAMPLES, _REWRITE, _ENLARGE, *_PICTURE)
_MOVING = (*_STILL, *_MOTION, _CONTINUE, _SOUNDTRACK)
_OF_SUITES = (_ROWS, _PROCESS, _SAMPLES, _SOURCES, _TASK, _STRENGTH, _REFERENCE, _DENY)
command_line.flags_of(
  {
    _VIDEO: _MOVING,
    _IMAGE: _STILL,
    _AUDIO: (*_COMMON, _PROMPT, _SOURCE, _SECONDS, _CONTINUE, _KNOWN, *_AUDIBLE, _CONDITION),
    _EDIT: (*_COMMON, _PROMPT, _SOURCE, _TASK, _STRENGTH),
    _UPSAMPLE: (*_COMMON, _PROMPT, _SOURCE, _FACTOR, _SIZE, _COLOURS),
    _PERSONALIZE: (*_MOVING, _REFERENCE, _DENY),
    _SUITE: (*_COMMON, *_OF_SUITES, *_PICTURE, *_MOTION, *_AUDIBLE),
  }
)
# The fields of requests that flags give, and those of another name than their flag.
_GIVEN = (_BATCH, _SOURCE, _SECONDS, _CONTINUE, _KNOWN, _FACTOR, _COLOURS, _TASK, _REFERENCE, _DENY)
_REQUESTED = (*_GIVEN, *_PICTURE, *_MOTION, *_AUDIBLE)
_FIELDS = {
  'condition': 'conditions',
  'known': 'spans',
  'extend': 'extension',
  'factor': 'scale',
}


def main(arguments) -> None:
  from mgjax.registry import feature, find_component
  from mgjax.training.checkpoints.workdir import read_config

  word = arguments[1]
  if _PROMPT.value is not None and _PROMPTS.value is not None:
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")
  if word == _SUITE and not _OUT.value:
    raise ConfigError('--out is missing: the folder of a suite, as in --out=videos/')
  component = read_config(_WORKDIR.value).component
  feature(component, 'request', 'can be sampled')
  described = find_component(component)
  task = described.sample_command
  sdedit = _STRENGTH.value is not None and task == _VIDEO
  if sdedit:
    component = 'editing'  # of a model of text to video
  elif word != _SUITE and task != (_VIDEO if word == _IMAGE else word):
    raise ConfigError(
      f'{os.fspath(_WORKDIR.value)!r} is {described.noun}: expected launch.sample {task}'
      + ', or --strength=0.6' * (word == _EDIT and task == _VIDEO)
    )
  fields = _fields_of(word)
  if _STRENGTH.value is not None:
    fields |= {'how': 'sdedit' if sdedit else 'edit', 'strength': _STRENGTH.value}
  changes = {flag.name: flag.value for flag in _SAMPLING if flag.present}
  if 'schedule' in changes:
    changes['schedule'] = {'name': changes['schedule']}
  loaded = changes | {'mesh': _MESH.value}
  if 'deny_list' in fields:
    loaded['deny_list'] = fields['deny_list']
  if word == _SUITE:
    _check_applies(component)
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
  if _ENLARGE.value is not None:
    upsampler = _load('upsampler', _ENLARGE.value, mesh=_MESH.value)
    request = dataclasses.replace(request, upsampler=upsampler)
  written = request.write(pipeline)
  print(*written, sep='\n')
  if _SOUNDTRACK.value is not None:
    from mgjax.sections.audio.files import write_soundtracks

    videos = (path for path in written if path.suffix == '.mp4')
    tracker = _load('audio', _SOUNDTRACK.value, mesh=_MESH.value)
    captions = dict(zip(videos, request.prompts, strict=True))
    print(*write_soundtracks(tracker, captions, seed=_SEED.value), sep='\n')


def _fields_of(word: str) -> dict[str, Any]:
  """Returns the fields of a request that flags give."""
  fields = {_FIELDS.get(flag.name, flag.name): flag.value for flag in _REQUESTED if flag.present}
  if 'continue' in fields:
    fields['given' if word == _AUDIO else 'video'] = fields.pop('continue')
  if 'conditions' in fields:
    fields['conditions'] = dict(fields['conditions'])
  if word == _IMAGE:
    fields['frames'] = 1
  return fields


def _load(component: str, workdir: str, **options: Any) -> Any:
  from mgjax.registry import feature

  return feature(component, 'load', 'can be loaded')(workdir, **options)


def _check_applies(component: str) -> None:
  """Raises ConfigError for a flag that says nothing to suites of a component."""
  from mgjax.registry import COMPONENTS

  def takes(name: str) -> set[str]:
    request = COMPONENTS[name].request  # imports its section
    return {field.name for field in dataclasses.fields(request.get())} if request else set()

  taken = takes(component)
  for flag in _REQUESTED:
    field = _FIELDS.get(flag.name, flag.name)
    if flag.present and field not in taken:
      able = ' or '.join(name for name in COMPONENTS if field in takes(name))
      raise ConfigError(
        f'--{flag.name} says nothing to {COMPONENTS[component].noun}; it is for a run of the '
        f'component {able}'
      )


def _read_prompts() -> tuple[list[str], dict[str, Any]]:
  """Returns each prompt once per sample, and the conditions of each."""
  from mgjax.sections.flow.requests import read_prompts

  prompts = [_PROMPT.value or '']
  conditions = {}
  if _PROMPTS.value is not None:
    prompts, conditions = read_prompts(_PROMPTS.value)

  def repeated(values: list) -> list:
    return [value for value in values for _ in range(_SAMPLES.value)]

  return repeated(prompts), {name: repeated(values) for name, values in conditions.items()}


def _rewritten(request: Any) -> Any:
  """Returns the request with prompts that a language model wrote, if there is to be one."""
  if _REWRITE.value is None:
    return request

  from mgjax.lab.language_models.rewriting import read_rewriter, rewrite_prompts

  folder = os.path.join(_WORKDIR.value, 'rewrites')
  prompts = rewrite_prompts(list(request.prompts), read_rewriter(_REWRITE.value), folder)
  return dataclasses.replace(request, prompts=prompts, typed=request.prompts)


def _make_suite(component: str, fields: dict[str, Any], loaded: dict[str, Any]) -> None:
  """Generates all videos of a suite with the flags' settings."""
  from mgjax.lab.evaluation.suites.make_videos import SuiteSettings, run_suite
  from mgjax.lab.evaluation.suites.suite import read_suite

  process, processes = _PROCESS.value or (0, 1)
  settings = SuiteSettings(
    seed=_SEED.value,
    samples=_SAMPLES.value,
    batch_size=fields.pop('batch_size', 16),
    videos=_SOURCES.value or '',
    process=process,
    processes=processes,
    request=fields,
  )
  suite = read_suite(_ROWS.value)
  result = run_suite(_WORKDIR.value, suite, _OUT.value, settings, component=component, **loaded)
  print(result, *result.paths, sep='\n')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
