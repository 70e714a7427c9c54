"""Judges a trained model: text to video on moving digits, or an autoencoder's reconstructions.

python -m launch.evaluate --workdir=runs/quickstart/video --samples=432
Samples captions that training never showed, reads digit, colour and direction back from the pixels
and prints the shares beside those of real clips. Writes evaluation.json into the work directory.

python -m launch.evaluate --workdir=runs/tae --clips=my_clips/ --frames=17 --size=128,128
Encodes and decodes clips and prints PSNR, SSIM, flicker and the norms of latents, and with
--perceptual=lpips.safetensors LPIPS and a Frechet distance. Writes reconstruction.json, videos of
original, reconstruction and difference, and a contact sheet into the folder evaluation/ of the work
directory.
"""

import hashlib
import os
import pathlib

from absl import flags
from ml_collections import ConfigDict

from launch import command_line
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.evaluation.alignment import judge_model
from mgjax.evaluation.quickstart import write_shown
from mgjax.evaluation.reconstruction import (
  SHOWN,
  evaluate_reconstruction,
  evenly,
  sample_clips,
  write_pictures,
)
from mgjax.evaluation.similarity import make_perceive
from mgjax.train.checkpoint import Checkpoints
from mgjax.train.restore import load_codec, read_config
from mgjax.train.sampling import Sampler

_WORKDIR = flags.DEFINE_string('workdir', '', 'Work directory of the trained model.')
_SAMPLES = flags.DEFINE_integer(
  'samples', None, 'Videos to judge; 216 of a video model, 64 of an autoencoder.', lower_bound=1
)
_SEED = flags.DEFINE_integer('seed', 0, 'Video model: of the noise.')
_STEPS = flags.DEFINE_integer(
  'steps', None, 'Video model: sampling steps; the run decides if not given.'
)
_GUIDANCE = flags.DEFINE_float('guidance', None, 'Video model: guidance scale of the text.')
_CLIPS = flags.DEFINE_string(
  'clips', '', "Autoencoder: a folder or manifest of clips; the run's validation data if not given."
)
_FRAMES = flags.DEFINE_integer(
  'frames', None, 'Autoencoder: of a clip, 1 for images; the run decides.', lower_bound=1
)
_SIZE = flags.DEFINE_list('size', None, 'Autoencoder: height,width of a clip; the run decides.')
_PERCEPTUAL = flags.DEFINE_string(
  'perceptual', '', 'Autoencoder: weights of LPIPS; those that the run was trained with.'
)
_OF_VIDEO_MODELS = (_SEED, _STEPS, _GUIDANCE)
_OF_AUTOENCODERS = (_CLIPS, _FRAMES, _SIZE, _PERCEPTUAL)


def main(_) -> None:
  workdir = pathlib.Path(command_line.required(_WORKDIR, 'runs/quickstart/video'))
  config = read_config(workdir)
  reconstructs = config.part == 'autoencoder'
  for flag in _OF_VIDEO_MODELS if reconstructs else _OF_AUTOENCODERS:
    if flag.present:
      raise ConfigError(
        f'--{flag.name} says nothing to the part {config.part!r} of {os.fspath(workdir)!r}; '
        'leave it out, or mend the path'
      )
  if reconstructs:
    judge_reconstruction(workdir, config)
  else:
    judge_alignment(workdir)


def judge_alignment(workdir: pathlib.Path) -> None:
  guidance = None if _GUIDANCE.value is None else {'text': _GUIDANCE.value}
  sampler = Sampler(workdir, steps=_STEPS.value, guidance=guidance)
  samples = _SAMPLES.value or 216
  alignment, videos, prompts = judge_model(sampler, samples=samples, seed=_SEED.value)
  sheet, _ = write_shown(workdir / 'evaluation', videos, prompts, sampler.config.data.fps)
  record = {'weights': sampler.provenance, 'settings': sampler.settings, 'seed': _SEED.value}
  write_json(workdir / 'evaluation.json', record | alignment.as_dict())
  print(alignment.table(), sheet, workdir / 'evaluation.json', sep='\n')


def judge_reconstruction(workdir: pathlib.Path, config: ConfigDict) -> None:
  codec = load_codec(workdir)
  step = Checkpoints(workdir / 'checkpoints').steps()[-1]
  record = {'weights': {'workdir': os.fspath(workdir), 'step': step}, 'perceptual': None}
  weights = pathlib.Path(_PERCEPTUAL.value or config.get('perceptual_weights', ''))
  perceive = None
  if _PERCEPTUAL.value or weights.is_file():
    perceive = make_perceive(weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    record['perceptual'] = {'path': os.fspath(weights), 'sha256': digest}
  size = None if _SIZE.value is None else command_line.size(_SIZE.value)
  videos, record['settings'] = sample_clips(
    config, _SAMPLES.value or 64, clips=_CLIPS.value, frames=_FRAMES.value, size=size
  )
  shown = evenly(len(record['settings']['chosen']), SHOWN)
  found = evaluate_reconstruction(codec, videos, perceive=perceive, shown=shown)
  paths = write_pictures(workdir / 'evaluation', found.shown, config.data.fps)
  paths.append(workdir / 'evaluation' / 'reconstruction.json')
  write_json(paths[-1], record | found.as_dict())
  print(found.table(), *paths, sep='\n')


if __name__ == '__main__':
  command_line.run(main)
