"""Judges a text-to-video model that was trained on moving digits.

python -m launch.evaluate --workdir=runs/quickstart/video --samples=432
Samples captions that training never showed, reads digit, colour and direction back from the pixels
and prints the shares beside those of real clips. Writes evaluation.json into the work directory.
"""

import pathlib

from absl import flags

from launch import command_line
from mgjax.core.files import write_json
from mgjax.evaluation.alignment import judge_model
from mgjax.evaluation.quickstart import write_shown
from mgjax.train.sampling import Sampler

_WORKDIR = flags.DEFINE_string('workdir', '', 'Work directory of the trained video model.')
_SAMPLES = flags.DEFINE_integer('samples', 216, 'Videos that the judge reads.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.')
_STEPS = flags.DEFINE_integer('steps', None, 'Sampling steps; the run decides if not given.')
_GUIDANCE = flags.DEFINE_float('guidance', None, 'Guidance scale of the text.')


def main(_) -> None:
  workdir = pathlib.Path(command_line.required(_WORKDIR, 'runs/quickstart/video'))
  guidance = None if _GUIDANCE.value is None else {'text': _GUIDANCE.value}
  sampler = Sampler(workdir, steps=_STEPS.value, guidance=guidance)
  alignment, videos, prompts = judge_model(sampler, samples=_SAMPLES.value, seed=_SEED.value)
  sheet, _ = write_shown(workdir / 'evaluation', videos, prompts, sampler.config.data.fps)
  record = {'weights': sampler.provenance, 'settings': sampler.settings, 'seed': _SEED.value}
  write_json(workdir / 'evaluation.json', record | alignment.as_dict())
  print(alignment.table(), sheet, workdir / 'evaluation.json', sep='\n')


if __name__ == '__main__':
  command_line.run(main)
