"""Trains an autoencoder and a text-to-video model from nothing, samples and judges.

python -m launch.quickstart --workdir=runs/quickstart
python -m launch.quickstart --clips=my_clips/ --workdir=runs/mine
python -m launch.quickstart --clips=my_clips/ --fast --workdir=runs/first
python -m launch.quickstart --sound --workdir=runs/sound
Without --clips the data are moving digits, made on the fly. With it they are your own: a folder of
videos with captions (clip.mp4 and clip.txt), or a .csv or .jsonl with the columns video and
caption. With --fast too, a first picture of them comes in two minutes on two free cores. With
--sound: a codec, and a model that makes the sound of moving digits. The same command again goes on
where it stopped.
"""

import os
import pathlib
import shlex
import sys
import textwrap

from absl import flags

from mgjax.core.config_files import load_config
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json

from . import command_line, flag_values

_WORKDIR = flags.DEFINE_string('workdir', 'runs/quickstart', 'Directory for everything made.')
_CLIPS = flag_values.define(
  'clips', flag_values.file('clips'), 'Folder or manifest of your own clips.'
)
_SOUND = flags.DEFINE_bool('sound', False, 'Sound for moving digits instead of videos of them.')
_FAST = flags.DEFINE_bool('fast', False, 'Own clips: a first picture in two minutes.')
_SAMPLES = flags.DEFINE_integer(
  'samples', None, 'Videos or sounds that the judge reads; 216 or 64.', lower_bound=1
)


def main(_) -> None:
  if _CLIPS.value and _SOUND.value:
    raise ConfigError('--sound is for moving digits, not yet for clips; leave one of the two out')
  if _FAST.value and not _CLIPS.value:
    raise ConfigError('--fast is for your own clips; add --clips=my_clips/, or leave --fast out')

  from mgjax.workflows import quickstart

  workdir = _WORKDIR.value
  if _CLIPS.value:
    folder = 'clips/fast' if _FAST.value else 'clips'
    names = [f'{folder}/autoencoder:{_CLIPS.value}', f'{folder}/video:{_CLIPS.value}']
  else:
    names = (
      ['digits/codec', 'digits/audio'] if _SOUND.value else ['digits/autoencoder', 'digits/video']
    )
  autoencoder, model = map(load_config, names)
  trained = quickstart.train_both(autoencoder, model, workdir)
  if trained is None:
    return  # stopped by a signal, as the log says
  stages, place = trained
  if _CLIPS.value:
    text, paths = quickstart.report_clips(stages, place, workdir)
  elif _SOUND.value:
    text, paths = quickstart.report_audio(stages, place, workdir, samples=_SAMPLES.value or 64)
  else:
    text, paths = quickstart.report_digits(stages, place, workdir, samples=_SAMPLES.value or 216)
  print(f'\n{text}\n', *paths, sep='\n')
  if words := quickstart.known_words(place):
    print('', *textwrap.wrap(words, 100), sep='\n')
  _tell_more(place, paths)


def _tell_more(model: pathlib.Path, paths: list[pathlib.Path]) -> None:
  """Prints commands that can be run as they stand."""
  binary, prompt, more = 'sample', 'the green digit 3 moves left', ()
  if _SOUND.value:
    film = next(path for path in paths if path.suffix == '.mp4')
    binary, prompt, more = 'sample', 'the red digit 3 bounces', (f'--video={film}',)
  elif _CLIPS.value:
    prompt = read_json(paths[-1], mend='remove it')['captions'][0]
  made = _command(binary, f'--workdir={model}', *more, f'--prompt={prompt}', '--out=out.mp4')
  print(f'\nMake your own:\n{made}')
  if _FAST.value:
    slow = _command('quickstart', f'--clips={_CLIPS.value}', f'--workdir={_WORKDIR.value}_better')
    print(f'A better model, in some ten times the time:\n{slow}')


def _command(binary: str, *words: str) -> str:
  """A command for the Python that runs, whether or not its environment is activated."""
  python = os.path.relpath(sys.executable)
  python = sys.executable if python.startswith('..') else python
  return shlex.join([python, '-m', f'{__package__}.{binary}', *words])


if __name__ == '__main__':
  command_line.run(main)
