r"""Images of signs with numbers: words against bytes as text, in minutes of one CPU core each.

python -m launch.train --config=configs/digits/signs.py:autoencoder --workdir=runs/signs/autoencoder
python -m launch.data encode --config=configs/digits/signs.py:words --output=runs/signs/latents
python -m launch.train --config=configs/digits/signs.py:words --workdir=runs/signs/words
python -m launch.train --config=configs/digits/signs.py:words_and_characters \
  --workdir=runs/signs/words_and_characters
python -m launch.train --config=configs/digits/signs.py:characters --workdir=runs/signs/characters
python -m launch.evaluate --workdir=runs/signs/words

These are images. With --config.buckets.sign.frames=16 in all but the last command signs move.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from . import autoencoder, video

SMALL = {'width': 64, 'depth': 2, 'heads': 2}
WORDS = SMALL | {
  'kind': 'word_text',
  'vocabulary': 8192,
  'length': 16,
}
BYTES = SMALL | {'kind': 'byte_text'}
ENCODERS = {
  'words': {'text': WORDS},
  # The report's arrangement: what the prompt means from one encoder, what it quotes from another.
  'words_and_characters': {
    'text': WORDS,
    'characters': BYTES | {'length': 8, 'reads': 'visual_text'},
  },
  'characters': {'text': BYTES | {'length': 56}},
}


def get_config(part: str = 'words') -> ConfigDict:
  if part == 'autoencoder':
    config = autoencoder.get_config()
    config.train.steps = 3000
  elif part in ENCODERS:
    config = video.get_config()
    config.autoencoder = 'runs/signs/autoencoder'
    config.model.positions = (4, 4, 6)
    config.model.conditionings = ConfigDict(ENCODERS[part])
    config.objective.dropout = ConfigDict(dict.fromkeys(ENCODERS[part], 0.05))
    config.objective.drop_all_probability = 0.1
    config.sample.guidance = tuple((name, 4.0) for name in sorted(ENCODERS[part]))
    config.encode.train = 16_384
    config.optimizer.learning_rate = 2e-3
    config.train.ema_decay = 0.998
    config.train.evaluate_every = 1500
    config.train.save_every = 1500
  else:
    raise ConfigError(f'part {part!r}: expected autoencoder, {", ".join(ENCODERS)}')
  batch_size = 16 if part == 'autoencoder' else 32
  shape = {'frames': 1, 'height': 32, 'width': 48}
  config.buckets = ConfigDict({'sign': {**shape, 'batch_size': batch_size, 'weight': 1}})
  latents = '' if part == 'autoencoder' else 'runs/signs/latents'
  config.data = ConfigDict(
    {
      'kind': 'signs',
      'signs': {
        'lengths': (1, 2, 3),  # digits of a number
        'colours': ('red', 'green', 'blue', 'yellow'),
        'motions': ('left', 'right', 'still'),
        'background': 'black',
        'jitter': 3.0,
      },
      'latents': latents,
      'fps': 8,
      'threads': 2,
    }
  )
  return config
