"""Evaluates a trained model of any kind, or videos of a prompt suite by any model.

python -m launch.evaluate --workdir=runs/quickstart/video --samples=432
python -m launch.evaluate --workdir=runs/mine/video --clips=my_clips/
python -m launch.evaluate --workdir=runs/video --evaluator=quick
Text to video: for moving digits, how many samples show the digit, colour and direction of the
prompt. For your own clips, how near samples are to them; for signs, how many numbers can be read.
Personalization and editing of a synthetic dataset: how many show the identity of the reference, or
the edit. --classifier adds which words of captions a model of such data reads, long before samples
show it.

python -m launch.evaluate --workdir=runs/tae --clips=my_clips/ --frames=17 --size=128,128
python -m launch.evaluate --workdir=runs/codec --sounds=my_sounds/ --seconds=4
Autoencoders and codecs: what comes back of clips and audio, as reconstruction.json.
--perceptual=lpips.safetensors adds LPIPS and a Frechet distance to an autoencoder's; --judged has
the judge of the dataset that it was trained on read what comes back.

python -m launch.evaluate --workdir=runs/sound/audio --samples=128 --long=4
python -m launch.evaluate --workdir=runs/upsampler/model --baseline=runs/upsampler/regression
Audio and upsampling: onsets and tones, PSNR and Frechet distance, beside what comes from no model.
With --long=4, clips are four times as long as in training, and their seams are measured.
--scorer='/other/python score.py' has a network judge audio too
(mgjax/lab/evaluation/external_scorers.py).

python -m launch.evaluate --workdir=runs/clip
CLIP on moving digits: how often captions and images of the same handwriting find each other.

python -m launch.evaluate --videos=videos/ --suite=bench/MovieGenVideoBench.txt --clip=runs/clip
Videos by any model, called by the index of their prompt (00000.mp4, ...): how much they flicker and
move. --clip adds how near they are to the prompt, --reference how far from true videos, and
--judge=solids how many show what captions of that dataset say.

python -m launch.evaluate --videos=videos/ --vbench=vbench/
python -m launch.evaluate --vbench=evaluation_results/
VBench, in an environment of its own: with --videos writes vbench/videos and vbench/prompts.json for
it; alone reads its *_eval_results.json and writes a table, vbench.md and vbench.json, beside them.

python -m launch.evaluate --workdir=runs/quickstart/video --guidance=3 --against=runs/older/video
Any of these beside an earlier evaluation.json, or the folder of one: the differences and their
intervals, paired where both have numbers of the same prompts.

All write evaluation.json, evaluation.html with numbers, intervals and samples, and samples into
evaluation/ of the work directory or beside the videos (docs/how_to/evaluate.md).
"""

import os
import pathlib
import shlex

from absl import flags

from mgjax.core.errors import ConfigError
from mgjax.data.synthetic_datasets import with_prompts

from . import command_line, flag_values

_WORKDIR = command_line.define_required(
  'workdir',
  'runs/quickstart/video',
  'Work directory of the trained model.',
  unless=('videos', 'vbench'),
)
_VIDEOS = flag_values.define(
  'videos', flag_values.file('videos'), 'A folder of videos to judge without a work directory.'
)
_SUITE = flags.DEFINE_string('suite', None, 'Of --videos: the suite that they are of.')
_VBENCH = flags.DEFINE_string(
  'vbench', None, "A folder to write --videos into for VBench, or of VBench's results."
)
_OF_VIDEOS = (
  flag_values.define(
    'clip',
    flag_values.run('clip'),
    'Of --videos: a CLIP that compares; of a personalized model: one whose head knows identities.',
  ),
  flags.DEFINE_enum(
    'judge', None, with_prompts(), 'Of --videos: the world whose judge reads them.'
  ),
  flag_values.define(
    'reference',
    flag_values.file('reference'),
    'Of --videos: a folder of true videos, or a .npy of their vectors, to compare with by --clip.',
  ),
)
_AGAINST = flag_values.define(
  'against', flag_values.file('against'), 'An earlier evaluation.json, or its folder.'
)
_EVALUATOR = flags.DEFINE_string(
  'evaluator', None, "A name in the run's config.evaluators: with its options, but for flags given."
)
_OPTIONS = (
  flag_values.least('samples', 1, 'How many are judged; digits 216, CLIP 4096, others 64.'),
  flag_values.seed('seed', 'Models of video and sound: of the noise.'),
  *flag_values.define_sampling('steps', 'guidance', 'reuse', 'shifts', 'weights'),
  flag_values.within('strength', 0, 1, 'Editing: as far as clips are noised to begin with.'),
  flag_values.define_mesh(),
  flags.DEFINE_bool(
    'classifier',
    False,
    'Text to video on a world: which words of captions it reads, by its likelihoods.',
  ),
  flag_values.define(
    'clips',
    flag_values.file('clips'),
    'A folder or manifest of clips; those of the run if not given.',
  ),
  flag_values.least('frames', 1, 'Autoencoder: of a clip, 1 for images; the run decides.'),
  flag_values.define('size', flag_values.size, 'Autoencoder: height,width; the run decides.'),
  flag_values.define(
    'perceptual',
    flag_values.file('perceptual'),
    'Autoencoder: weights of LPIPS; those that the run was trained with.',
  ),
  flags.DEFINE_bool('judged', False, "Autoencoder: what its world's judge reads of outputs."),
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
  flag_values.within('seconds', 0.4, None, 'Codec: of a sound; 2 if not given.'),
  flag_values.least('long', 2, 'Sound, upsampler: times the length of training, for seams.'),
  flag_values.least('candidates', 1, 'Model of sound: of each; the best by onsets counts.'),
  flag_values.define('scorer', shlex.split, 'Model of sound: a command that judges it as well.'),
)


def main(_) -> None:
  import mgjax
  from mgjax.lab.evaluation.evaluate import evaluator_of
  from mgjax.lab.evaluation.in_training import evaluator_options
  from mgjax.training.checkpoints.workdir import read_config

  options = {flag.name: flag.value for flag in _OPTIONS if flag.present}
  of_videos = {flag.name: flag.value for flag in (_SUITE, *_OF_VIDEOS) if flag.present}
  against = _AGAINST.value or ''
  if _VIDEOS.value is not None or _VBENCH.value is not None:
    if wrong := [name for name in ('workdir', *options) if flags.FLAGS[name].present]:
      raise ConfigError(f'--{wrong[0]} is for a model, and --videos for videos; leave one out')
  if _VBENCH.value is not None:
    return _exchange_with_vbench()
  if _VIDEOS.value is not None:
    if 'suite' not in of_videos:
      raise ConfigError('--suite is missing: the prompts that the videos are of')
    suite = of_videos.pop('suite')
    findings = mgjax.evaluate(videos=_VIDEOS.value, prompts=suite, against=against, **of_videos)
  else:
    options |= {name: of_videos.pop(name) for name in ('clip',) if name in of_videos}
    if of_videos:
      raise ConfigError(f'--{min(of_videos)} is of --videos=folder/; give that, or leave it out')
    workdir = pathlib.Path(_WORKDIR.value)
    component = read_config(workdir).component
    evaluate = evaluator_of(component)
    if _EVALUATOR.value is not None:
      fields = read_config(workdir).to_dict()
      options = evaluator_options(workdir, _EVALUATOR.value, fields) | options
    for name in options:
      if name not in evaluate.options:
        raise ConfigError(
          f'--{name} says nothing to the component {component!r} of {os.fspath(workdir)!r}; leave '
          'it out, or mend the path'
        )
    findings = mgjax.evaluate(workdir, against=against, **options)
  print(findings.table, *findings.paths, sep='\n')


def _exchange_with_vbench() -> None:
  from mgjax.lab.evaluation.suites.make_videos import export_vbench, import_vbench
  from mgjax.lab.evaluation.suites.suite import read_suite

  if _VIDEOS.value is None:
    path = pathlib.Path(_VBENCH.value)
    table, paths = import_vbench(path, path if path.is_dir() else path.parent)
    print(table, *paths, sep='\n')
    return
  suite = None if _SUITE.value is None else read_suite(_SUITE.value)
  count, too_long = export_vbench(_VIDEOS.value, _VBENCH.value, suite)
  print(f'{_VBENCH.value}: {count} videos')
  if too_long:
    print(f'{len(too_long)} prompts do not fit into names of files: give VBench prompts.json')


if __name__ == '__main__':
  command_line.run(main)
