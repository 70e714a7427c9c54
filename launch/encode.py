r"""Encodes clips into latent records; training on them need not run the autoencoder.

python -m launch.encode --config=configs/digits/video.py --workdir=runs/latents \
  --config.autoencoder=runs/autoencoder
Then train with --config.data.latents=runs/latents. The same command again goes on where it stopped.
"""

from absl import flags

from launch import command_line
from mgjax.train.encode import encode

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string('workdir', '', 'Directory for the records.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/digits/video.py')
  if command_line.print_config(config):
    return
  encode(config, command_line.required(_WORKDIR, 'runs/latents'))


if __name__ == '__main__':
  command_line.run(main)
