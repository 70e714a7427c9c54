r"""Says what people's votes about two or more models mean; launch.serve votes collects them.

python -m launch.compare analyse --study=votes/
python -m launch.compare analyse --study=votes/ --ours=sft --table=baselines --out=analysis/
python -m launch.compare analyse --study=votes/ --repeats=again_1/,again_2/,again_3/
python -m launch.compare power --prompts_seen=1003
python -m launch.compare power --difference=5 --study=votes/
python -m launch.compare export --study=votes/ --out=votes.csv
python -m launch.compare export --study=votes/ --out=preferences.jsonl
python -m launch.compare import --study=votes/ --csv=votes.csv
analyse prints the table of net win rates and writes analysis.csv, .html and .json into --out,
by default the study's folder. With more than two models it ranks them as well.
power says how wide the interval of so many prompts is, and how many prompts a difference needs.
export to a .jsonl writes pairs with a winner, to learn from (docs/tutorials/lora.md).
import adds votes that were made elsewhere; the columns are in docs/reference/votes.md.
"""

from absl import flags

from . import command_line, flag_values

COMMANDS = _ANALYSE, _POWER, _EXPORT, _IMPORT = 'analyse', 'power', 'export', 'import'

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
_OUT = flags.DEFINE_string('out', None, 'Folder of the analysis; .csv or .jsonl of export.')
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

command_line.flags_of(
  {
    _ANALYSE: (_LEAVE_OUT, _OURS, _OUT, _REPEATS, _STUDY, _TABLE),
    _POWER: (_DIFFERENCE, _PROMPTS_SEEN, _STUDY),
    _EXPORT: (_OUT, _STUDY),
    _IMPORT: (_CSV, _STUDY),
  }
)


def main(arguments) -> None:
  commands = {_ANALYSE: _analyse, _POWER: _power, _EXPORT: _export, _IMPORT: _import}
  commands[arguments[1]]()


def _analyse() -> None:
  from mgjax.lab.evaluation.human.report import analyse

  text, paths = analyse(
    _STUDY.value,
    _OUT.value,
    ours=_OURS.value or '',
    layout=_TABLE.value,
    repeats=_REPEATS.value,
    leave_out=_LEAVE_OUT.value,
  )
  print(text, *paths, sep='\n')


def _power() -> None:
  from mgjax.lab.evaluation.human.report import power

  print(power(_PROMPTS_SEEN.value, _DIFFERENCE.value, study=_STUDY.value))


def _export() -> None:
  from mgjax.lab.evaluation.human.preferred import write_preferences
  from mgjax.lab.evaluation.human.votes import export_votes

  out = _OUT.value or 'votes.csv'
  if out.endswith('.jsonl'):
    print(f'{write_preferences(_STUDY.value, out):,} pairs with a winner in {out}')
  else:
    print(export_votes(_STUDY.value, out))


def _import() -> None:
  from mgjax.lab.evaluation.human.votes import import_votes

  added, known = import_votes(_CSV.value, _STUDY.value)
  print(f'{added:,} votes added; {known:,} were there')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
