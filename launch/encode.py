r"""Encodes clips into latent records; training on them need not run the autoencoder.

python -m launch.encode --config=configs/digits/video.py --workdir=runs/latents \
  --config.autoencoder=runs/autoencoder
Then train with --config.data.latents=runs/latents. The same command again goes on where it stopped.
With --config.text a model's frozen text encoders also encode the prompts of all clips, into stores
beside the latents, and with --config.vision a tower of CLIP sees the frames that belong to sounds.
With --prompts=file.txt the encoders of text encode the prompts of a file, one a line, and nothing
else is done. Several processes share the work, on one host or on many that see the same directory:
give each its own --process of --processes, or start them as those of a training run
(launch/recipes/).
"""

from absl import flags

from . import command_line, flag_values

_CONFIG = command_line.define_config('configs/digits/video.py')
_WORKDIR = command_line.define_required('workdir', 'runs/latents', 'Directory for the records.')
_PROMPTS = flag_values.define(
  'prompts', flag_values.file('prompts'), 'Encode the prompts of this text file alone.'
)
_PROCESS = flags.DEFINE_integer(
  'process', None, 'Which of the processes this is, from 0 on.', lower_bound=0
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'How many processes share the work.', lower_bound=1
)


def main(_) -> None:
  from mgjax.flow_models.requests import read_prompts
  from mgjax.parallel import distributed
  from mgjax.workflows.encode import encode, encode_prompts

  config = _CONFIG.value
  if command_line.print_config(config):
    return
  distributed.initialize()
  workdir = _WORKDIR.value
  stripe = {'process': _PROCESS.value, 'processes': _PROCESSES.value}
  if _PROMPTS.value is None:
    encode(config, workdir, **stripe)
  else:
    encode_prompts(config, workdir, read_prompts(_PROMPTS.value)[0], **stripe)


if __name__ == '__main__':
  command_line.run(main)
