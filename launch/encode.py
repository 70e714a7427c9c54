r"""Encodes clips into latent records; training on them need not run the autoencoder.

python -m launch.encode --config=configs/digits/video.py --workdir=runs/latents \
  --config.autoencoder=runs/autoencoder
Then train with --config.data.latents=runs/latents. The same command again goes on where it stopped.
Several processes share the work, on one host or on many that see the same directory: give each its
own --process of --processes, or start them as those of a training run (launch/recipes/).
"""

from absl import flags

from launch import command_line
from mgjax.parallel import distributed
from mgjax.train.encode import encode

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string('workdir', '', 'Directory for the records.')
_PROCESS = flags.DEFINE_integer('process', None, 'Which of the processes this is, from 0 on.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes share the work.')


def main(_) -> None:
  config = command_line.required(_CONFIG, 'configs/digits/video.py')
  if command_line.print_config(config):
    return
  distributed.initialize()
  workdir = command_line.required(_WORKDIR, 'runs/latents')
  encode(config, workdir, process=_PROCESS.value, processes=_PROCESSES.value)


if __name__ == '__main__':
  command_line.run(main)
