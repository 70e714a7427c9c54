"""Votes on pairs of videos: a log of JSON lines, and import and export of tables (§3.5)."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterator

from mgjax.core.errors import ConfigError, DataError, MgjaxError, check_one_of
from mgjax.core.files import end_line, read_json_lines, synchronise, write_bytes
from mgjax.core.settings import Count, check
from mgjax.lab.report.tables import csv_text

FILE = 'votes.jsonl'
CHOICES = ('left', 'right', 'tie', 'cannot_judge')
TIE = 'tie'


@dataclasses.dataclass(frozen=True)
class Vote:
  """The answer of one rater to one question about one pair.

  Attributes:
    id: issued by the server before the answer; a vote with a known id is ignored.
    item: of the study; a rater may see an item twice under different ids.
    prompt: its index in the study's prompts; answers about one prompt are not independent.
    left, right: names of the models whose videos were on that side.
    choice: of CHOICES: the better side, a tie, or that the rater cannot judge.
    milliseconds: from when both videos were ready until the answer.
    time: of the server, UTC, as in '2026-11-22T18:30:00Z'.
    gold: name of the model that certainly wins, '' if unknown.
  """

  id: str
  item: str
  prompt: Count
  question: str
  rater: str
  left: str
  right: str
  choice: str
  milliseconds: Count = 0
  time: str = ''
  gold: str = ''

  def __post_init__(self):
    check(self)
    check_one_of(f'choice = {self.choice!r}', self.choice, CHOICES)

  @property
  def winner(self) -> str | None:
    """Name of the preferred model, 'tie', or None if the rater could not judge."""
    return {'left': self.left, 'right': self.right, TIE: TIE}.get(self.choice)


COLUMNS = tuple(field.name for field in dataclasses.fields(Vote))
NEEDED = ('prompt', 'question', 'rater', 'left', 'right', 'choice')


def append_votes(path: str | os.PathLike[str], votes: list[Vote]) -> None:
  """Appends votes in one write, and syncs them to disk before it returns."""
  lines = [json.dumps(dataclasses.asdict(vote), ensure_ascii=False) + '\n' for vote in votes]
  end_line(path)
  with open(path, 'ab') as file:
    file.write(''.join(lines).encode())
  synchronise(path)


def read_votes(path: str | os.PathLike[str]) -> list[Vote]:
  """Reads the votes of a log, or of a study's directory, in order and each id once.

  Lines that a crash truncated are skipped with a warning. Raises DataError for a line that is no
  vote.
  """
  path = pathlib.Path(path)
  path = path / FILE if path.is_dir() else path
  if not path.is_file():
    raise DataError(f'{path}: No such file; expected votes as launch.serve votes writes them')
  votes: dict[str, Vote] = {}
  for number, (fields, _) in enumerate(read_json_lines(path, dict), 1):
    try:
      vote = Vote(**fields)
    except (TypeError, MgjaxError) as e:
      raise DataError(f'{path}, line {number}: {e}; expected the fields of a vote') from e
    votes.setdefault(vote.id, vote)
  return list(votes.values())


def export_votes(study: str | os.PathLike[str], out: str | os.PathLike[str]) -> pathlib.Path:
  """Writes the votes of a study as a table of COLUMNS; ConfigError if `out` is no .csv."""
  out = pathlib.Path(out)
  if out.suffix != '.csv':
    raise ConfigError(f'--out={out}; expected a .csv of votes, or a .jsonl of what they prefer')
  votes = map(dataclasses.asdict, read_votes(study))
  write_bytes(out, csv_text(COLUMNS, votes).encode())
  return out


def import_votes(table: str | os.PathLike[str], study: str | os.PathLike[str]) -> tuple[int, int]:
  """Adds the votes of a table to a study, all or none; the same table again adds nothing.

  The table is a UTF-8 CSV with a header: the columns of NEEDED and any others of COLUMNS, in any
  order. `prompt` is an index from 0, `choice` one of CHOICES or the name of the winning model. A
  missing `id` is a hash of the vote, a missing `item` is its prompt. `study` is a folder, which is
  created if missing; a study.json in it is not changed.

  Returns the number of votes added, and of votes that were there before. Raises DataError if the
  table is invalid.
  """
  votes = list(_read(pathlib.Path(table)))
  study = pathlib.Path(study)
  path = study / FILE
  known = {vote.id for vote in read_votes(path)} if path.exists() else set()
  study.mkdir(parents=True, exist_ok=True)
  if new := [vote for vote in votes if vote.id not in known]:
    append_votes(path, new)
  return len(new), len(votes) - len(new)


def _read(path: pathlib.Path) -> Iterator[Vote]:
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except OSError as error:
    raise DataError(f'{path}: {error.strerror}; expected a table of votes') from error
  except UnicodeDecodeError as error:
    raise DataError(f'{path}: byte {error.start} is not UTF-8; save the table as UTF-8') from error
  rows = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  seen: Counter[str] = Counter()
  try:
    columns = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = columns
    missing = [name for name in NEEDED if name not in columns]
    unknown = [name for name in columns if name not in COLUMNS]
    if missing or unknown:
      wrong = f'lacks {", ".join(missing)}' if missing else f'has {", ".join(unknown)}'
      raise DataError(
        f'{path}: the table {wrong}; expected columns separated by commas: {", ".join(NEEDED)}, '
        f'and if known {", ".join(name for name in COLUMNS if name not in NEEDED)}'
      )
    for row in rows:
      yield _vote(row, f'{path}, line {rows.line_num}', seen)
  except csv.Error as error:
    raise DataError(f'{path}, line {rows.line_num}: {error}; expected a CSV') from error


def _vote(row: dict[str | None, str], where: str, seen: Counter[str]) -> Vote:
  if None in row or None in row.values():
    raise DataError(f'{where}: more or fewer cells than the header has; quote those with commas')
  fields = {str(name): value.strip() for name, value in row.items()}
  vote_fields: dict[str, object] = {name: value for name, value in fields.items() if value}
  for name in ('prompt', 'milliseconds'):
    if name in vote_fields:
      if not fields[name].isascii() or not fields[name].isdigit():
        raise DataError(f'{where}: {name} is {fields[name]!r}; expected a whole number from 0')
      vote_fields[name] = int(fields[name])
  for name in NEEDED:
    if name not in vote_fields:
      raise DataError(f'{where}: {name} is empty; fill it in')
  sides = {fields['left']: 'left', fields['right']: 'right'}
  if fields['left'] == fields['right']:
    raise DataError(f'{where}: left and right are both {fields["left"]!r}; name two models')
  if taken := {*CHOICES} & {*sides}:
    raise DataError(f'{where}: a model is called {min(taken)!r}, which is a choice; rename it')
  vote_fields['choice'] = sides.get(fields['choice'], fields['choice'])
  content = '\0'.join(f'{name}={fields.get(name, "")}' for name in COLUMNS)
  seen[content] += 1
  digest = hashlib.sha256(f'{content}\0{seen[content]}'.encode()).hexdigest()
  try:
    return Vote(**{'id': f'csv-{digest[:24]}', 'item': str(vote_fields['prompt']), **vote_fields})
  except (TypeError, MgjaxError) as error:
    raise DataError(f'{where}: {error}, or the name of a model') from error
