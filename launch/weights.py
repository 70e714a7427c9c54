r"""Imports and exports weights: of any run, and of published autoencoders, codecs and encoders.

python -m launch.weights import --input=vae/ --config=configs/tae/tae.py --workdir=runs/inflated
python -m launch.weights import --input=tae.safetensors --config=configs/tae/tae.py \
  --workdir=runs/imported
python -m launch.weights import --input=weights.pth --config=configs/audio/codec.py \
  --workdir=runs/codec
python -m launch.weights import --input=ul2/ --config=configs/text/ul2.py --workdir=runs/ul2
python -m launch.weights import --input=clip/ --config=configs/text/metaclip_text.py \
  --workdir=runs/metaclip --tokenizer=bpe_simple_vocab_16e6.txt.gz
python -m launch.weights export --workdir=runs/video --out=video.safetensors
python -m launch.weights export --workdir=runs/video --out=int8.safetensors --weights=int8
python -m launch.weights export --workdir=runs/video --out=out/video --format=workdir --weights=int8
python -m launch.weights import --input=video.safetensors --workdir=runs/imported \
  --config=configs/video/t2iv_256.py --config.autoencoder=runs/tae
python -m launch.weights export --workdir=runs/tae --out=tae.safetensors
python -m launch.weights export --workdir=runs/tae --out=vae/ --format=diffusers
python -m launch.weights export --workdir=runs/codec --out=codec.safetensors --format=dacvae
python -m launch.weights export --workdir=runs/ul2 --out=ul2/ --format=transformers
The input is an exported file of any part, which holds its model's description; or, of images, a
folder of diffusers' AutoencoderKL (Stable Diffusion 1, 2, 3, XL, FLUX: config.json and
diffusion_pytorch_model.safetensors) or its .safetensors file alone; or, of sound, a .pth or
.safetensors file of DAC-VAE, or of the encoder or decoder of DAC as transformers has it; or, of
encoders, a folder of T5, UL2, ByT5, UMT5 or CLIP as transformers has them, in one file or several
with their index, or a file of CLIP by OpenCLIP's own names. What it fixes of config.model replaces
what stands there. The work directory then serves launch.encode and launch.sample as the run it
came from, and launch.train with --config.start_from. The image model alone goes back to diffusers,
a codec to DAC-VAE's names, an encoder to its own names and types. Tokenizer files beside an
encoder's weights, or those that --tokenizer names, go along both ways.
With --weights=int8 the kernels of a flow model are written in one byte a number and a scale of each
output, and come back as they are: to be sampled, or to start training from. With --format=workdir
a folder is written that serves as a work directory at once, in a fraction of a checkpoint's bytes;
the small models in `mgjax/weights` are such folders.
"""

from absl import flags

from . import command_line, flag_values

COMMANDS = ('import', 'export')

_CONFIG = command_line.define_config('configs/tae/tae.py', commands=('import',))
_INPUT = command_line.define_required(
  'input', 'vae/', 'import: folder, .safetensors, .pth or index file.', commands=('import',)
)
_WORKDIR = command_line.define_required(
  'workdir', 'runs/tae', 'Work directory, made by import, read by export.'
)
_OUT = command_line.define_required(
  'out',
  'tae.safetensors',
  'export: .safetensors file; for diffusers and transformers a folder.',
  commands=('export',),
)
_TOKENIZER = flags.DEFINE_string(
  'tokenizer',
  None,
  'import: file or folder of the tokenizer; by default what lies beside the weights.',
)
_FORMAT = flags.DEFINE_string(
  'format',
  'mgjax',
  'export: mgjax, any component as one file; diffusers, the image model; dacvae, a codec, or '
  'transformers, an encoder, by the published names.',
)
_WEIGHTS = flag_values.define_weights(
  'export: type of the kernels of a flow model; as saved if not given.'
)


def main(arguments) -> None:
  from mgjax.workflows.weights import export_weights, import_weights

  if arguments[1] == 'export':
    export_weights(_WORKDIR.value, _OUT.value, _FORMAT.value, weights=_WEIGHTS.value or '')
    return
  config = _CONFIG.value
  if command_line.print_config(config):
    return
  import_weights(config, _INPUT.value, _WORKDIR.value, _TOKENIZER.value)


if __name__ == '__main__':
  command_line.run(main, commands=COMMANDS)
