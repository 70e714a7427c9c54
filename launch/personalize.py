r"""Generates videos of somebody from a picture of them, with a trained personalized model.

python -m launch.personalize --workdir=runs/personalization --reference=face.jpg \
  --prompt='a person plays the violin' --out=out.mp4
python -m launch.personalize --workdir=runs/personalization --reference=face.jpg,other.jpg \
  --prompts=file.txt --guidance=text=5,identity=3 --deny_list=denied.npy --out=videos/
Finds the face, and shows in out_reference.png what of the picture the model is given; of several
people it wants to know whom, by a picture of one. Writes what launch.sample writes; the json
beside the video has digests of the references, never their pixels. Ask the person first:
docs/personalization.md says what this must not be used for.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

_WORKDIR = command_line.define_required(
  'workdir', 'runs/personalization', 'Work directory of the trained personalized model.'
)
_REFERENCE = command_line.define_required(
  'reference',
  'face.jpg',
  'A picture of the person, or several of one person: face.jpg,other.jpg.',
  define=flags.DEFINE_list,
)
_PROMPT = command_line.define_required(
  'prompt', 'a person plays the violin', 'What to show.', unless=('prompts',)
)
_PROMPTS = flag_values.define('prompts', flag_values.file('prompts'), 'One prompt a line.')
_OUT = flag_values.define(
  'out',
  flag_values.output('.mp4', '.png'),
  'An .mp4 (image: .png) or, for several, a directory; out.mp4, out.png or samples/.',
)
_DENY_LIST = flag_values.define(
  'deny_list',
  flag_values.file('deny_list'),
  'Embeddings (.npy) of people of whom no videos are made.',
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_STEPS = flag_values.define_steps()
_GUIDANCE = flag_values.define_guidance()
_SOLVER = flag_values.define_solver()
_FRAMES = flags.DEFINE_integer('frames', None, 'Length; 1 makes an image.', lower_bound=1)
_SIZE = flag_values.define('size', flag_values.size, 'Height,width in pixels.')
_MESH = flag_values.define_mesh()
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Videos at a time.', lower_bound=1)


def main(_) -> None:
  if _PROMPT.value is not None and _PROMPTS.value is not None:
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")
  references = tuple(flag_values.existing('--reference', path) for path in _REFERENCE.value)

  from mgjax.personalization.files import write_personalized
  from mgjax.personalization.pipeline import PersonalizationPipeline
  from mgjax.video.files import check_request, read_prompts

  prompts = read_prompts(_PROMPT.value, _PROMPTS.value)
  changes = {'steps': _STEPS.value, 'guidance': _GUIDANCE.value, 'solver': _SOLVER.value}
  shape = check_request(
    _WORKDIR.value, prompts, out=_OUT.value, frames=_FRAMES.value, size=_SIZE.value,
    changes=changes, pipeline=PersonalizationPipeline,
  )  # fmt: skip
  sampler = PersonalizationPipeline(
    _WORKDIR.value, deny_list=_DENY_LIST.value, mesh=_MESH.value, **changes
  )
  out = _OUT.value or ('samples' if len(prompts) > 1 else f'out.{"mp4" if shape[0] > 1 else "png"}')
  for path in write_personalized(
    sampler, prompts, references, out, seed=_SEED.value, shape=shape, batch_size=_BATCH_SIZE.value
  ):
    print(path)


if __name__ == '__main__':
  command_line.run(main)
