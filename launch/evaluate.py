"""Evaluates a trained model of any kind.

python -m launch.evaluate --workdir=runs/quickstart/video --samples=432
Text to video on moving digits: samples captions that training never showed, reads digit, colour and
direction back from the pixels and prints the shares beside those of real clips. Writes
evaluation.json into the work directory.

python -m launch.evaluate --workdir=runs/mine/video
Text to video on your own clips: samples their captions and prints how many samples are nearest to
their own clip, how near, and how well the autoencoder keeps the clips. Writes evaluation.json, and
videos and a picture of each sample below the clip nearest to it into evaluation/. If the clips have
moved since training, --clips=my_clips/ says where they are.

python -m launch.evaluate --workdir=runs/signs/words
Text to image or video on signs: reads the quoted numbers back and prints the accuracy of characters
and the share of whole numbers, for numbers that training showed and for those that it never did.

python -m launch.evaluate --workdir=runs/personalization/model
Personalization on moving digits: makes videos of handwriting that training never saw, from a turned
and recoloured picture of it each, and prints how many show it, as the caption says, and how far
their poses follow the picture's, beside the picture pasted, real clips and no picture at all.
Writes evaluation.json, and a sheet of pictures, videos and real clips into evaluation/.

python -m launch.evaluate --workdir=runs/editing/model --samples=216
Editing of moving digits: edits clips that training never saw in every task and prints in how many
all is as asked and all else is kept, beside the source as it is, the truth and the autoencoder.
Writes evaluation.json, and a sheet of sources, edits and true clips into evaluation/.

python -m launch.evaluate --workdir=runs/tae --clips=my_clips/ --frames=17 --size=128,128
An autoencoder: encodes and decodes clips and prints PSNR, SSIM, flicker and the norms of latents,
and with --perceptual=lpips.safetensors LPIPS and a Frechet distance. Writes reconstruction.json,
videos of original, reconstruction and difference, and a contact sheet into the folder evaluation/
of the work directory.

python -m launch.evaluate --workdir=runs/codec --sounds=my_sounds/ --seconds=4
A codec of sound: encodes and decodes sounds and prints distances of spectra and waveforms, changes
of loudness, how well onsets are kept and what the latents are like, beside a transform (MDCT) of as
many numbers a second. Writes reconstruction.json, wavs of the originals and of what came back, and
a sheet of their spectra into evaluation/.

python -m launch.evaluate --workdir=runs/sound/audio --samples=128
Sound for moving digits: makes sounds for clips that training never showed, hears when something
begins and in which tone, and prints the scores beside those of the real sounds through the codec.
With --long=4 it makes clips four times as long as in training, by multi-diffusion, window by window
and side by side, and compares seams and onsets.
With --scorer='/other/python score.py' a network judges them as well (mgjax/evaluation/scorers.py).
Writes evaluation.json, and wavs, videos and a sheet into evaluation/.

python -m launch.evaluate --workdir=runs/upsampler/model --baseline=runs/upsampler/regression
An upsampler: degrades clips that training never showed, or --clips=my_clips/, enlarges them and
prints PSNR, SSIM, a Frechet distance and flicker beside bicubic enlarging, the autoencoder alone
and, with --baseline, a regression net; of moving digits also how many digits and textures can be
read. Writes evaluation.json, and a sheet into evaluation/. With --long=4 it makes clips four times
as long and as wide, and says how much the seams of windows and tiles show.

python -m launch.evaluate --workdir=runs/clip
CLIP on moving digits: retrieves captions and images of handwriting that training never saw, and the
same handwriting in another colour, and prints the shares beside chance. Writes evaluation.json and
a sheet of what was nearest to some captions into evaluation/.

python -m launch.evaluate --videos=videos/ --prompts=bench/MovieGenVideoBench.txt --clip=runs/clip
Videos that anybody made, called by the index of their prompt (00000.mp4, ...): prints how much they
flicker and move, with --clip how near their frames are to the prompt, with --reference how far all
are from true videos, and with --judge=digits of captions of the small world how many show what they
say; with intervals over prompts, by concept and motion level. --prompts is any suite of
launch.suite. Writes evaluation.json into the folder.

python -m launch.evaluate --workdir=runs/quickstart/video --guidance=3 --against=runs/older/video
Any of these beside an earlier evaluation.json, or the folder of one: the differences and their
intervals, paired where both have numbers of the same prompts.

All write evaluation.html too, one file with the numbers, their intervals and samples, of each
metric the best and the worst (docs/evaluation.md).
"""

import inspect
import os
import pathlib
import shlex

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

_WORKDIR = command_line.define_required(
  'workdir', 'runs/quickstart/video', 'Work directory of the trained model.', unless=('videos',)
)
_VIDEOS = flag_values.define(
  'videos', flag_values.file('videos'), 'A folder of videos to judge without a work directory.'
)
_OF_VIDEOS = (
  flags.DEFINE_string('prompts', None, 'Of --videos: the suite that they are of.'),
  flag_values.define(
    'clip', flag_values.run('clip'), 'Of --videos: work directory of a CLIP that compares.'
  ),
  flags.DEFINE_enum('judge', None, ('digits',), 'Of --videos: who reads them.'),
  flag_values.define(
    'reference',
    flag_values.file('reference'),
    'Of --videos: a folder of true videos to compare with by --clip, or a .npy of their vectors.',
  ),
)
_AGAINST = flag_values.define(
  'against',
  flag_values.file('against'),
  'An earlier evaluation.json, or its folder, to compare with.',
)
_OPTIONS = (
  flags.DEFINE_integer(
    'samples', None, 'How many are judged; digits 216, CLIP 4096, others 64.', lower_bound=1
  ),
  flags.DEFINE_integer('seed', 0, 'Models of video and sound: of the noise.', lower_bound=0),
  flag_values.define_steps(),
  flag_values.define_guidance(),
  flag_values.define_reuse(),
  flag_values.define_weights('Video: type of the kernels, as int8; as saved if not given.'),
  flag_values.define_mesh(),
  flag_values.define(
    'clips',
    flag_values.file('clips'),
    'A folder or manifest of clips; those of the run if not given.',
  ),
  flags.DEFINE_integer(
    'frames', None, 'Autoencoder: of a clip, 1 for images; the run decides.', lower_bound=1
  ),
  flag_values.define(
    'size', flag_values.size, 'Autoencoder: height,width of a clip; the run decides.'
  ),
  flag_values.define(
    'perceptual',
    flag_values.file('perceptual'),
    'Autoencoder: weights of LPIPS; those that the run was trained with.',
  ),
  flag_values.define(
    'sounds',
    flag_values.file('sounds'),
    "Codec: a folder of sounds; the run's validation data if not given.",
  ),
  flag_values.define(
    'baseline',
    flag_values.file('baseline'),
    'Upsampler: the work directory of a regression net to compare with.',
  ),
  flags.DEFINE_float('seconds', None, 'Codec: of a sound; 2 if not given.', lower_bound=0.4),
  flags.DEFINE_integer(
    'long',
    None,
    'Sound, upsampler: times the length of training, to look for seams.',
    lower_bound=2,
  ),
  flag_values.define(
    'scorer', shlex.split, 'Model of sound: a command that judges its sounds as well.'
  ),
)


def main(_) -> None:
  import mgjax
  from mgjax.checkpoints.workdir import read_config
  from mgjax.registry import feature

  options = {flag.name: flag.value for flag in _OPTIONS if flag.present}
  of_videos = {flag.name: flag.value for flag in _OF_VIDEOS if flag.present}
  against = _AGAINST.value or ''
  if _VIDEOS.value is not None:
    if wrong := [name for name in ('workdir', *options) if flags.FLAGS[name].present]:
      raise ConfigError(f'--{wrong[0]} is for a model, and --videos for videos; leave one out')
    if 'prompts' not in of_videos:
      raise ConfigError('--prompts is missing: the suite that the videos are of')
    found = mgjax.evaluate(videos=_VIDEOS.value, against=against, **of_videos)
    print(found.table, *found.paths, sep='\n')
    return
  if of_videos:
    raise ConfigError(f'--{min(of_videos)} is of --videos=folder/; give that, or leave it out')
  workdir = pathlib.Path(_WORKDIR.value)
  component = read_config(workdir).component
  evaluate = feature(component, 'evaluate', 'has an evaluation').get()
  for name in options:
    if name not in inspect.signature(evaluate).parameters:
      raise ConfigError(
        f'--{name} says nothing to the component {component!r} of {os.fspath(workdir)!r}; leave it '
        'out, or mend the path'
      )
  found = mgjax.evaluate(workdir, against=against, **options)
  print(found.table, *found.paths, sep='\n')


if __name__ == '__main__':
  command_line.run(main)
