"""A first look: a prompt becomes a video, a larger one with its sound, an edited one, and a page.

All is made by the models of one synthetic dataset that ship with mgjax. The page shows the files
beside it, so that their folder can be kept or moved as one.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError, StorageError
from mgjax.core.files import write_bytes, write_json
from mgjax.data.media.viewing import write_animation, write_clip
from mgjax.lab.report.page import render
from mgjax.sections.audio.files import write_soundtracks
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.sections.editing.pipeline import Editor
from mgjax.sections.upsampler.pipeline import Upsampler
from mgjax.sections.video.pipeline import VideoPipeline

PAGE = 'index.html'
_LARGE = 2  # times as large is the larger video
_WIDTH = 256  # pixels of a video on the page
_MODELS = ('video', 'upsampler', 'audio', 'editor')  # fields of `Models` that name one


class Models(NamedTuple):
  """The models of one world by their names, and what to say if nothing is said."""

  video: str
  steps: int
  upsampler: str
  audio: str
  editor: str
  prompt: str
  edit: str


WORLDS = {
  'digits': Models(
    'digits/few_steps',
    4,
    'digits/upsampler',
    'digits/audio',
    'digits/editing',
    'the red digit 7 bounces',
    'make the digit blue',
  ),
  'solids': Models(
    'solids/few_steps',
    4,
    'solids/upsampler',
    'solids/audio',
    'solids/editing',
    'a red metal ball rolls left and hits a blue wooden cube',
    'make it look like night',
  ),
}


def make_demo(
  directory: str | os.PathLike[str],
  *,
  world: str = 'solids',
  prompt: str = '',
  edit: str = '',
  seed: int = 0,
) -> list[pathlib.Path]:
  """Generates all media of a prompt, and a page that shows them.

  Args:
    directory: of all files; those of an earlier demo are written over.
    world: whose models, of `WORLDS`.
    prompt: what to show; by default the dataset's example.
    edit: the instruction that the video is edited by; by default the dataset's example.
    seed: of the noise of all models.

  Returns:
    What was written, the page first.

  Raises:
    ConfigError: there is no such world, or a model cannot read what is asked.
    StorageError: nothing can be written there.
  """
  if world not in WORLDS:
    known = ' or '.join(WORLDS)
    raise ConfigError(f'no demo of {world!r}; expected {known}, whose models ship with mgjax')
  models = WORLDS[world]
  prompt, edit = prompt or models.prompt, edit or models.edit
  folder = pathlib.Path(directory)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise StorageError(f'{folder}: cannot be made: {error.strerror}; choose another') from error
  pipeline = VideoPipeline(models.video, steps=models.steps)
  fps = pipeline.config.data.fps
  videos = {'small': pipeline.generate([prompt], seed=seed)[0]}
  edited = Editor(models.editor).generate([edit], video=videos['small'][None], seed=seed)
  videos['edited'] = np.asarray(edited[0])
  larger = Upsampler(models.upsampler)
  # Nobody says what the edited video shows: an instruction is no caption.
  for name, prompts, of in (('large', [prompt], 'small'), ('edited_large', None, 'edited')):
    enlarged = larger.generate(prompts, video=videos[of][None], scale=_LARGE, seed=seed)
    videos[name] = np.asarray(enlarged[0])
  written = []
  for name, video in videos.items():
    written.append(folder / f'{name}.mp4')
    write_clip(written[-1], video, fps, scale=1)
  written.append(folder / 'demo.webp')
  write_animation(written[-1], [videos['large'], videos['edited_large']], [prompt, edit], fps)
  tracker = AudioPipeline(models.audio)
  written += write_soundtracks(tracker, {folder / 'large.mp4': prompt}, seed=seed)
  about = {'world': world, 'prompt': prompt, 'edit': edit, 'seed': seed, 'steps': models.steps}
  about['models'] = {name: getattr(models, name) for name in _MODELS}
  write_json(folder / 'demo.json', about)
  write_bytes(folder / PAGE, _page(prompt, edit, [path.name for path in written]).encode())
  return [folder / PAGE, *written, folder / 'demo.json']


def _page(prompt: str, edit: str, names: Sequence[str]) -> str:
  """Returns the HTML of a demo; its videos are in the order of generation."""
  titles = {
    'small.mp4': ('As the model made it', ''),
    'large.mp4': (f'Enlarged {_LARGE} times', ''),
    'large_sound.mp4': ('With its sound', ''),
    'edited.mp4': ('Edited', edit),
    'edited_large.mp4': (f'Edited, enlarged {_LARGE} times', edit),
  }
  videos = [
    {'file': name, 'title': title, 'text': text, 'has_sound': 'sound' in name}
    for name, (title, text) in titles.items()
    if name in names
  ]
  waveforms = [name for name in names if name.endswith('_sound.png')]
  return render('demo.html', prompt, videos=videos, waveforms=waveforms, width=_WIDTH)
