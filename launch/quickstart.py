"""Trains an autoencoder and a text-to-video model from nothing, samples and judges.

python -m launch.quickstart --workdir=runs/quickstart
python -m launch.quickstart --clips=my_clips/ --workdir=runs/mine
python -m launch.quickstart --sound --workdir=runs/sound
Without --clips the data are moving digits, made on the fly. With it they are your own: a folder of
videos with captions (clip.mp4 and clip.txt), or a .csv or .jsonl with the columns video and
caption. With --sound: a codec, and a model that makes the sound of moving digits. The same command
again goes on where it stopped.
"""

import textwrap

from absl import flags

from mgjax.core.config_files import load_config
from mgjax.core.errors import ConfigError

from . import command_line

_WORKDIR = flags.DEFINE_string('workdir', 'runs/quickstart', 'Directory for everything made.')
_CLIPS = command_line.define(
  'clips', command_line.file('clips'), 'Folder or manifest of your own clips.'
)
_SOUND = flags.DEFINE_bool('sound', False, 'Sound for moving digits instead of videos of them.')
_SAMPLES = flags.DEFINE_integer(
  'samples', None, 'Videos or sounds that the judge reads; 216 or 64.', lower_bound=1
)


def main(_) -> None:
  if _CLIPS.value and _SOUND.value:
    raise ConfigError('--sound is for moving digits, not yet for clips; leave one of the two out')

  from mgjax.workflows import quickstart

  workdir = _WORKDIR.value
  if _CLIPS.value:
    names = [f'clips/autoencoder:{_CLIPS.value}', f'clips/video:{_CLIPS.value}']
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
  binary = 'soundtrack --video=clip.mp4' if _SOUND.value else 'sample'
  print(
    f"\nMake your own: python -m launch.{binary} --workdir={place} --prompt='...' --out=out.mp4"
  )


if __name__ == '__main__':
  command_line.run(main)
