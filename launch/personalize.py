r"""Generates videos of somebody from a picture of them, with a trained personalized model.

python -m launch.personalize --workdir=runs/personalization --reference=face.jpg \
  --prompt='a person plays the violin' --out=out.mp4
python -m launch.personalize --workdir=runs/personalization --reference=face.jpg,other.jpg \
  --prompts=file.txt --guidance=text=5,identity=3 --deny_list=denied.npy --out=videos/
python -m launch.personalize make_pairs --workdir=runs/personalized_images --input=data/people \
  --output=data/synthetic
python -m launch.personalize make_pairs --workdir=runs/personalization --input=data/digits \
  --output=data/synthetic --recogniser=runs/clip --threshold=0.6
Finds the face, and shows in out_reference.png what of the picture the model is given; of several
people it wants to know whom, by a picture of one. Writes what launch.sample writes; the json
beside the video has digests of the references, never their pixels. Ask the person first:
docs/personalization.md says what this must not be used for.
make_pairs makes synthetic cross pairs of records of launch.data references: pictures of the person
in a clip under other prompts, of which those that show the same person become its references. All
that was made is in pairs.html beside the records, with the reason why it was dropped. The same
command again goes on where it stopped.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

COMMANDS = USUAL, _PAIRS = ('generate', 'make_pairs')

_WORKDIR = command_line.define_required(
  'workdir', 'runs/personalization', 'Work directory of the trained personalized model.'
)
_REFERENCE = command_line.define_required(
  'reference',
  'face.jpg',
  'A picture of the person, or several of one person: face.jpg,other.jpg.',
  commands=(USUAL,),
  define=flags.DEFINE_list,
)
_PROMPT = command_line.define_required(
  'prompt',
  'a person plays the violin',
  'What to show.',
  commands=(USUAL,),
  unless=('prompts',),
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
_INPUT = command_line.define_required(
  'input', 'data/people', 'Records of clips with references.', commands=(_PAIRS,)
)
_OUTPUT = command_line.define_required(
  'output', 'data/synthetic', 'Folder of the records to make.', commands=(_PAIRS,)
)
_RECOGNISER = flag_values.define(
  'recogniser',
  flag_values.file('recogniser'),
  'make_pairs of moving digits: work directory of a CLIP with a head for identities.',
)
_THRESHOLD = flags.DEFINE_float(
  'threshold',
  None,
  "make_pairs: cosine from which on two pictures show one person; by default the embedder's.",
  lower_bound=-1,
  upper_bound=1,
)
_PROCESS = flags.DEFINE_integer('process', 0, 'Of the processes that make pairs, this one.')
_PROCESSES = flags.DEFINE_integer('processes', 1, 'How many make pairs at once.', lower_bound=1)


def main(arguments) -> None:
  if _PROMPT.value is not None and _PROMPTS.value is not None:
    raise ConfigError("give one of --prompt='what to show' and --prompts=file.txt")
  {USUAL: _generate, _PAIRS: _make_pairs}[arguments[1]]()


def _generate() -> None:
  references = tuple(flag_values.existing('--reference', path) for path in _REFERENCE.value)

  from mgjax.personalization.files import write_personalized
  from mgjax.personalization.pipeline import PersonalizationPipeline, ReferenceReader
  from mgjax.video.files import check_request, read_prompts

  prompts = read_prompts(_PROMPT.value, _PROMPTS.value)
  changes = {'steps': _STEPS.value, 'guidance': _GUIDANCE.value, 'solver': _SOLVER.value}
  shape = check_request(
    _WORKDIR.value, prompts, out=_OUT.value, frames=_FRAMES.value, size=_SIZE.value,
    changes=changes, pipeline=PersonalizationPipeline,
  )  # fmt: skip
  # Before the weights, which take longer to read.
  crops = ReferenceReader(_WORKDIR.value, _DENY_LIST.value).read(references)
  sampler = PersonalizationPipeline(_WORKDIR.value, mesh=_MESH.value, **changes)
  out = _OUT.value or ('samples' if len(prompts) > 1 else f'out.{"mp4" if shape[0] > 1 else "png"}')
  for path in write_personalized(
    sampler, prompts, crops, out, seed=_SEED.value, shape=shape, batch_size=_BATCH_SIZE.value
  ):
    print(path)


def _make_pairs() -> None:
  from mgjax.personalization.pipeline import PersonalizationPipeline
  from mgjax.video.files import read_prompts
  from mgjax.workflows.cross_pairs import cross_pairs
  from mgjax.workflows.make_pairs import PAGE

  given = _PROMPT.value is not None or _PROMPTS.value is not None
  prompts = read_prompts(_PROMPT.value, _PROMPTS.value) if given else None
  changes = {'steps': _STEPS.value, 'guidance': _GUIDANCE.value, 'solver': _SOLVER.value}
  sampler = PersonalizationPipeline(
    _WORKDIR.value, deny_list=_DENY_LIST.value, mesh=_MESH.value, **changes
  )
  made = cross_pairs(
    sampler,
    _INPUT.value,
    _OUTPUT.value,
    recogniser=_RECOGNISER.value,
    threshold=_THRESHOLD.value,
    prompts=prompts,
    seed=_SEED.value,
    size=_SIZE.value,
    batch_size=_BATCH_SIZE.value,
    process=_PROCESS.value,
    processes=_PROCESSES.value,
  )
  print(made)
  if made.finished:
    print(f'{_OUTPUT.value.rstrip("/")}/{PAGE}')
  else:
    print('the shards of other processes have yet to be written')


if __name__ == '__main__':
  command_line.run(main, COMMANDS, USUAL)
