r"""Compares models by people's votes: a page to vote on, what the votes say, CSV in and out.

python -m launch.compare serve --a=ours/ --b=theirs/ --prompts=prompts.txt --out=votes/ --raters=6
python -m launch.compare serve --models=sft=x/,base=y/,other=z/ --prompts=prompts.txt --out=votes/
python -m launch.compare serve --out=votes/
python -m launch.compare analyse --study=votes/
python -m launch.compare analyse --study=votes/ --ours=sft --table=baselines --out=analysis/
python -m launch.compare analyse --study=votes/ --repeats=again_1/,again_2/,again_3/
python -m launch.compare power --prompts_seen=1003
python -m launch.compare power --difference=5 --study=votes/
python -m launch.compare export --study=votes/ --out=votes.csv
python -m launch.compare import --study=votes/ --csv=votes.csv
serve shows raters two videos of a prompt at a time, 00000.mp4 of each folder for the first line of
--prompts and so on, and writes their votes and an invitation link for each of them into --out. The
same command, or --out alone, goes on with a study that was begun; see docs/evaluation.md.
analyse prints the table of net win rates and writes analysis.md, .csv, .html and .json into --out,
by default the study's folder. With more than two models it ranks them as well.
power says how wide the interval of so many prompts is, and how many prompts a difference needs.
import adds votes that were made elsewhere; the columns are in docs/evaluation_votes.md.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

COMMANDS = _SERVE, _ANALYSE, _POWER, _EXPORT, _IMPORT = (
  'serve', 'analyse', 'power', 'export', 'import'
)  # fmt: skip


def _models(text: str) -> dict[str, str]:
  pairs = [each.partition('=') for each in text.split(',')]
  if len({name for name, _, _ in pairs}) < len(pairs) or not all(all(pair) for pair in pairs):
    raise ConfigError(f'--models={text}: expected name=folder,name=folder, with names that differ')
  return {name: folder for name, _, folder in pairs}


def _raters(text: str) -> tuple[str, ...]:
  if text.isdecimal() and 0 < int(text) < 1000:
    return tuple(f'rater{number:02d}' for number in range(1, int(text) + 1))
  return tuple(text.split(','))


_STUDY = command_line.define_required(
  'study',
  'votes/',
  "Folder of a study with its votes; of power one whose votes' spread is taken.",
  commands=(_ANALYSE, _EXPORT, _IMPORT),
)
_CSV = command_line.define_required(
  'csv',
  'votes.csv',
  'A table of votes made elsewhere.',
  commands=(_IMPORT,),
  define=lambda name, _, help: flag_values.define(name, flag_values.file(name), help),
)
_OUT = command_line.define_required(
  'out',
  'votes/',
  'Folder of the study, of the analysis, or the .csv of export.',
  commands=(_SERVE,),
)
_OURS = flags.DEFINE_string(
  'ours', None, "The model that net win rates are of; the study's first one if not given."
)
_TABLE = flags.DEFINE_enum(
  'table',
  'questions',
  ('questions', 'baselines', 'win_rate'),
  'Rows are questions, as in Table 6, or baselines, as in Table 30; win_rate as in Table 18.',
)
_REPEATS = flags.DEFINE_list(
  'repeats', [], 'Folders of the same study made again by other raters: what sigma is from.'
)
_LEAVE_OUT = flags.DEFINE_list('leave_out', [], 'Raters whose votes do not count.')
_PROMPTS_SEEN = flags.DEFINE_integer(
  'prompts_seen', None, 'How many prompts raters would see.', lower_bound=2
)
_DIFFERENCE = flags.DEFINE_float(
  'difference', None, 'A net win rate to be found, in points.', lower_bound=0.1, upper_bound=99
)
_RATERS = flag_values.define(
  'raters',
  _raters,
  'Who is invited: how many, or all names; by default as many as the questions need. Of power: how '
  'many answer a question, by default 3.',
)
_A = flag_values.define('a', flag_values.file('a'), 'Folder of the first videos.')
_B = flag_values.define('b', flag_values.file('b'), 'Folder of the second videos.')
_MODELS = flag_values.define(
  'models',
  _models,
  'Folders of two or more, with names: ours=x/,theirs=y/; instead of --a and --b.',
)
_PROMPTS = flags.DEFINE_string(
  'prompts', None, 'The suite that the videos were made from; see docs/evaluation_suites.md.'
)
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
_EACH = flags.DEFINE_integer(
  'each', 0, 'Raters of every question; 0: as the questions say, 3 or 6.', lower_bound=0
)
_PAIRS = flags.DEFINE_integer(
  'pairs', 0, 'Pairs of models a prompt; 0: each model once.', lower_bound=0
)
_AGAIN = flags.DEFINE_float(
  'again', 0.05, "Share of a rater's pairs that come twice.", lower_bound=0, upper_bound=1
)
_TITLE = flags.DEFINE_string('title', '', 'Of the study, which raters read.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of all that is drawn.', lower_bound=0)
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at; 0.0.0.0 for all.')
_PORT = flags.DEFINE_integer('port', 8000, 'To listen at; 0: a free one.', 0, 65535)
_URL = flags.DEFINE_string('url', '', 'That raters reach the server by, where it is another one.')


def main(arguments) -> None:
  commands = {
    _SERVE: _serve, _ANALYSE: _analyse, _POWER: _power, _EXPORT: _export, _IMPORT: _import,
  }  # fmt: skip
  commands[arguments[1]]()


def _serve() -> None:
  from mgjax.evaluation.human.server import serve
  from mgjax.evaluation.human.study import begin

  sides = {name: flag.value for name, flag in (('a', _A), ('b', _B)) if flag.value}
  if sides and (_MODELS.value or len(sides) < 2):
    raise ConfigError('expected --a and --b, or --models alone')
  if models := sides or _MODELS.value:
    begin(
      _OUT.value, models, _PROMPTS.value, _QUESTIONS.value, _RATERS.value or (), each=_EACH.value,
      name=_TITLE.value, seed=_SEED.value, pairs=_PAIRS.value, repeats=_AGAIN.value,
      references=_REFERENCES.value or '', gold=_GOLD.value or '',
    )  # fmt: skip
  serve(_OUT.value, host=_HOST.value, port=_PORT.value, url=_URL.value)


def _analyse() -> None:
  from mgjax.evaluation.human.report import analyse

  text, paths = analyse(
    _STUDY.value, _OUT.value, ours=_OURS.value or '', layout=_TABLE.value, repeats=_REPEATS.value,
    leave_out=_LEAVE_OUT.value,
  )  # fmt: skip
  print(text, *paths, sep='\n')


def _power() -> None:
  from mgjax.evaluation.human.report import power

  print(
    power(
      _PROMPTS_SEEN.value,
      _DIFFERENCE.value,
      study=_STUDY.value,
      raters=len(_RATERS.value or range(3)),
    )
  )


def _export() -> None:
  from mgjax.evaluation.human.exchange import export_votes

  print(export_votes(_STUDY.value, _OUT.value or 'votes.csv'))


def _import() -> None:
  from mgjax.evaluation.human.exchange import import_votes

  added, known = import_votes(_CSV.value, _STUDY.value)
  print(f'{added:,} votes added; {known:,} were there')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
