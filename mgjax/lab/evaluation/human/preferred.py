"""Votes as preference pairs for training: rows {'prompt', 'chosen', 'rejected'}, TRL's format."""

import collections
import json
import os
import pathlib

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import write_bytes
from mgjax.lab.evaluation.human.study import read_study, videos_of
from mgjax.lab.evaluation.human.votes import TIE, read_votes


def write_preferences(study: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
  """Writes a row for each pair of videos with a majority for one, and returns the number of rows.

  The majority is that of the study's first question. Ties and gold pairs, whose winner is known
  beforehand, are left out. `launch.data pairs` makes training data from the rows
  (`mgjax.apps.pairs.preferences`).

  Args:
    study: the folder of `launch.serve votes`.
    out: a .jsonl; paths of videos in it are absolute.

  Raises:
    ConfigError: `out` has another suffix.
    DataError: there is no study, or no pair has a winner.
  """
  out = pathlib.Path(out)
  loaded = read_study(study)
  if out.suffix != '.jsonl':
    raise ConfigError(f'--out={out}; expected a .jsonl')
  question = loaded.questions[0].name
  counts: dict[tuple[int, frozenset[str]], collections.Counter] = {}
  for vote in read_votes(study):
    if vote.question == question and not vote.gold and vote.winner not in (None, TIE):
      pair = vote.prompt, frozenset((vote.left, vote.right))
      counts.setdefault(pair, collections.Counter())[vote.winner] += 1
  videos = {name: videos_of(folder) for name, folder in loaded.models.items()}
  rows = []
  for (prompt, models), won in sorted(counts.items(), key=lambda item: (item[0][0], *item[0][1])):
    chosen, rejected = sorted(models, key=lambda name: -won[name])
    if won[chosen] > won[rejected]:
      try:
        paths = {'chosen': videos[chosen][prompt], 'rejected': videos[rejected][prompt]}
      except KeyError as error:
        raise DataError(
          f'{os.fspath(study)!r} has votes of prompt {prompt} of {chosen!r} and {rejected!r}, but '
          'no such video of one of them; put it back, or take the votes out'
        ) from error
      named = {name: os.fspath(path.resolve()) for name, path in paths.items()}
      rows.append({'prompt': loaded.prompts[prompt]['prompt'], **named})
  if not rows:
    raise DataError(f'{os.fspath(study)!r}: no pair has a winner yet by the question {question!r}')
  write_bytes(out, ''.join(json.dumps(row) + '\n' for row in rows).encode())
  return len(rows)
