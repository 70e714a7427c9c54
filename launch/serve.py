r"""Serves models as an API of videos, or pages on which people vote about videos or review clips.

python -m launch.serve --model=digits/few_steps --model=digits/editing --out=served/
python -m launch.serve --model=runs/video --token_file=tokens.txt --host=0.0.0.0
python -m launch.serve --model=runs/video --database=postgresql://jobs@db/jobs --out=s3://bucket/x
OpenAI's videos API at /v1/videos, as its client and SGLang, vLLM-Omni and FastVideo use it. Jobs
resume after a stop or a crash and have a preview while they run, and there is a page at /. See
docs/how_to/serve_videos.md.

python -m launch.serve votes --a=ours/ --b=theirs/ --prompts=prompts.txt --out=votes/ --raters=6
python -m launch.serve votes --models=sft=x/,base=y/,other=z/ --prompts=prompts.txt --out=votes/
python -m launch.serve votes --out=votes/
python -m launch.serve review --input=raw/ --output=data/curated --people=ann,ben
votes shows raters two videos of a prompt at a time, 00000.mp4 of each folder for the first line of
--prompts and so on. review shows people the clips that launch.curate left, to keep, drop, trim,
caption and label them. The next launch.curate does what they decided. Both write a link for each
person into invitations.txt and every answer into a log. The same command, or votes with --out
alone, resumes. See docs/how_to/collect_votes.md and docs/how_to/curate.md.
"""

import functools
import os
from collections.abc import Callable

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

COMMANDS = _VIDEOS, _VOTES, _REVIEW = 'videos', 'votes', 'review'
USUAL = _VIDEOS


def _models(text: str) -> dict[str, str]:
  pairs = [entry.partition('=') for entry in text.split(',')]
  if len({name for name, _, _ in pairs}) < len(pairs) or not all(all(pair) for pair in pairs):
    raise ConfigError(f'--models={text}: expected name=folder,name=folder, with names that differ')
  return {name: folder for name, _, folder in pairs}


def _raters(text: str) -> tuple[str, ...]:
  if text.isdecimal() and 0 < int(text) < 1000:
    return tuple(f'rater{number:02d}' for number in range(1, int(text) + 1))
  return tuple(text.split(','))


def _named(flag: str) -> Callable[[str], tuple[str, str]]:
  def read(text: str) -> tuple[str, str]:
    name, equals, path = text.partition('=')
    if not (equals and path and name.replace('_', '').isalnum()):
      raise ConfigError(f'--{flag}={text}: expected NAME=PLACE, as in style=style.safetensors')
    return name, path

  return read


_OUT = command_line.define_required(
  'out', 'votes/', 'Folder of the study; of videos folder or URL of results.', commands=(_VOTES,)
)
_MODEL = command_line.define_required(
  'model',
  'digits/few_steps',
  'A work directory, or a name of mgjax; once for each model.',
  commands=(_VIDEOS,),
  define=flags.DEFINE_multi_string,
)
_LORA = flag_values.define(
  'lora', _named('lora'), 'Adapters that requests may name: style=style.safetensors:0.8.', many=True
)
_EXPERT_LORA = flag_values.define(
  'expert_lora',
  _named('expert_lora'),
  'Adapters of the expert, for the same names: style=low.safetensors:0.5.',
  many=True,
)
_DATABASE = flags.DEFINE_string(
  'database', '', 'Of jobs, for several machines: postgresql://user@host/name; else in --out.'
)
_WORKER = flags.DEFINE_string(
  'worker', '', "A name of this process among those of a --database: gpu7; else the host's."
)
_TOKENS = flags.DEFINE_string(
  'token_file', '', 'Tokens of those who may use it, one a line: tokens.txt; else all may.'
)
_LIMITS = command_line.define_fields(
  'limits',
  'What is allowed: queue=1000,rate=120,batch=4,memory=60; see docs/how_to/serve_videos.md.',
  queue=(int, 1, 100_000),
  rate=(float, 1, 1e6),
  prompt=(int, 1, 4096),
  steps=(int, 1, 1000),
  upload=(float, 0, 256),
  batch=(int, 1, 256),
  memory=(float, 0, 1e5),
  days=(float, 1e-4, 3650),
  grace=(float, 1, 3600),
)
_ORIGINS = flags.DEFINE_multi_string(
  'cors_origin', [], 'A site whose pages may use it, https://example.org; once for each.'
)
_LOG_IDS = flags.DEFINE_bool('log_ids', False, 'Name jobs in the log, as --log_ids.')
_INPUT = command_line.define_required(
  'input', 'raw/', 'Videos, as launch.curate had them.', commands=(_REVIEW,)
)
_OUTPUT = command_line.define_required(
  'output', 'data/curated', 'Folder that launch.curate wrote.', commands=(_REVIEW,)
)
_A = flag_values.define('a', flag_values.file('a'), 'Folder of the first videos.')
_B = flag_values.define('b', flag_values.file('b'), 'Folder of the second videos.')
_MODELS = flag_values.define(
  'models', _models, 'Folders of two or more, with names: ours=x/,theirs=y/; not --a and --b.'
)
_PROMPTS = flags.DEFINE_string('prompts', None, 'The suite that the videos were made from.')
_REFERENCES = flag_values.define(
  'references',
  flag_values.file('references'),
  'Folder of what the models were given: clips to edit, pictures of people.',
)
_GOLD = flag_values.define(
  'gold',
  flag_values.file('gold'),
  "Folder of spoilt videos of some prompts, which lose against the first model's for certain.",
)
_QUESTIONS = flags.DEFINE_string(
  'questions',
  'video',
  'video, sound, editing or personalization, some of one (video:overall,realness), or a .json.',
)
_RATERS = flag_values.define(
  'raters', _raters, 'How many, or all names; by default as many as the questions need.'
)
_EACH = flags.DEFINE_integer(
  'each', 0, 'Raters of every question; 0: as the questions say, 3 or 6.', lower_bound=0
)
_PAIRS = flags.DEFINE_integer(
  'pairs', 0, 'Pairs of models a prompt; 0: each model once.', lower_bound=0
)
_PEOPLE = flags.DEFINE_list('people', [], 'Who looks at clips: names, beside those before.')
_LAYOUT = flags.DEFINE_enum(
  'layout', 'auto', ['auto', 'files', 'tar', 'parquet'], 'How the videos lie.'
)
_MEDIA = flags.DEFINE_string('media_column', '', 'Of a list or parquet: the column of videos.')
_CAPTION = flags.DEFINE_string(
  'caption_column', '', 'Of a list or parquet: the column of captions.'
)
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at; 0.0.0.0 for all.')
_PORT = flags.DEFINE_integer('port', 8000, 'To listen at; 0: a free one.', 0, 65535)
_URL = flags.DEFINE_string('url', '', 'That people reach it by, where it is another address.')

_STUDY = (_OUT, _A, _B, _MODELS, _PROMPTS, _REFERENCES, _GOLD, _QUESTIONS, _RATERS, _EACH, _PAIRS)
_LORAS = (_LORA, _EXPERT_LORA)
_RULES = (_TOKENS, _LIMITS, _ORIGINS, _LOG_IDS)
command_line.flags_of(
  {
    _VIDEOS: (_MODEL, *_LORAS, _OUT, _DATABASE, _WORKER, *_RULES, _HOST, _PORT),
    _VOTES: (*_STUDY, _HOST, _PORT, _URL),
    _REVIEW: (_INPUT, _OUTPUT, _PEOPLE, _LAYOUT, _MEDIA, _CAPTION, _HOST, _PORT, _URL),
  }
)


def main(arguments) -> None:
  from mgjax.apps.serving.annotation import serve

  if arguments[1] == _VIDEOS:
    _videos()
    return
  makers = {_VOTES: _votes, _REVIEW: _review}
  folder, make_queue = makers[arguments[1]]()
  serve(folder, make_queue, host=_HOST.value, port=_PORT.value, url=_URL.value)


def _videos():
  from mgjax.apps.serving.videos.schema import Limits
  from mgjax.apps.serving.videos.server import Access, Storage, serve_videos

  serve_videos(
    _MODEL.value,
    loras=dict(_LORA.value or ()),
    expert_loras=dict(_EXPERT_LORA.value or ()),
    storage=Storage(_OUT.value or 'served', _DATABASE.value, _WORKER.value),
    access=Access(_HOST.value, _PORT.value, _TOKENS.value, _ORIGINS.value),
    limits=Limits(**_LIMITS.value or {}),
    log_ids=_LOG_IDS.value,
  )


def _votes():
  from mgjax.apps.serving.votes import Votes
  from mgjax.lab.evaluation.human.study import Design, Folders, begin

  sides = {name: flag.value for name, flag in (('a', _A), ('b', _B)) if flag.value}
  if sides and (_MODELS.value or len(sides) < 2):
    raise ConfigError('expected --a and --b, or --models alone')
  if models := sides or _MODELS.value:
    begin(
      _OUT.value,
      Folders(models, _REFERENCES.value or '', _GOLD.value or ''),
      _PROMPTS.value,
      _QUESTIONS.value,
      _RATERS.value or (),
      design=Design(_EACH.value, _PAIRS.value),
    )
  return _OUT.value, Votes


def _review():
  from mgjax.apps.serving.review import Review
  from mgjax.data.ingest.open_inputs import open_inputs
  from mgjax.lab.curation.curate import REVIEW

  inputs = open_inputs(
    _INPUT.value, _LAYOUT.value, media_column=_MEDIA.value, caption_column=_CAPTION.value
  )
  folder = os.path.join(_OUTPUT.value, REVIEW)
  return folder, functools.partial(Review, inputs=inputs, people=_PEOPLE.value)


if __name__ == '__main__':
  command_line.run(main, COMMANDS, USUAL)
