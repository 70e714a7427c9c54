"""Analyses a study's votes: every question, pair of models, group of prompts (Movie Gen §3.5)."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json
from mgjax.lab.evaluation.human import win_rates as statistics
from mgjax.lab.evaluation.human.agreement import Agreement, Rater, agreement, raters
from mgjax.lab.evaluation.human.ranking import Rating, rank
from mgjax.lab.evaluation.human.votes import read_votes
from mgjax.lab.evaluation.human.win_rates import NetWinRate, Sigma, Tally, net_win_rate

STUDY = 'study.json'
_REPEATED = 381  # prompts of the comparison behind the paper's sigmas (Movie Gen §3.5)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The result of one question about two models.

  Net win rates of `groups` are by (kind, name); `sigma` is the deviation of `rate` over repeats.
  """

  tally: Tally
  rate: NetWinRate
  groups: Mapping[tuple[str, str], NetWinRate]
  agreement: Agreement
  sigma: float | None

  @property
  def verdict(self) -> str:
    """The verdict on the net win rate by its sigma; '' if sigma is unknown."""
    return '' if self.sigma is None else statistics.verdict(self.rate.value, self.sigma)

  @property
  def unsure(self) -> bool:
    """Whether the interval over prompts contains 0, whatever sigma is."""
    return self.rate.low <= 0 <= self.rate.high


@dataclasses.dataclass(frozen=True)
class Analysis:
  """The results of a study.

  Attributes:
    ours: the model whose comparisons come first, by question.
    rankings: question -> models, the strongest first; empty for two models.
    sigmas: question -> sigma of repeats, if there are any.
    left_out: names of raters whose votes did not count; `votes` is the number that counted.
  """

  name: str
  ours: str
  comparisons: Sequence[Comparison]
  rankings: Mapping[str, Sequence[Rating]]
  sigmas: Mapping[str, Sigma]
  raters: Sequence[Rater]
  left_out: Sequence[str]
  votes: int


def analyse_study(
  directory: str | os.PathLike[str],
  *,
  ours: str = '',
  repeats: Sequence[str | os.PathLike[str]] = (),
  leave_out: Sequence[str] = (),
) -> Analysis:
  """Analyses the votes of a study.

  If the directory has a study.json, it defines the order of models, the groups of prompts, and the
  sigmas of questions. The sigmas hold for 381 prompts; for n fewer prompts they are multiplied by
  sqrt(381 / n). Votes from elsewhere need no study.json. Net win rates are those of the model
  `ours`, by default the first one of the study, or by name. `repeats` are directories of the same
  comparisons by other raters, from which sigma is estimated. Votes of raters in `leave_out` do not
  count.

  Raises DataError if there are no votes, or they do not belong to this study, ConfigError if the
  model or a rater does not exist.
  """
  votes = read_votes(directory)
  study = _study(directory)
  for name in leave_out:
    _check_known(name, {vote.rater for vote in votes}, 'rater', 'leave_out')
  counted = [vote for vote in votes if vote.rater not in leave_out]
  present = {name for v in statistics.first_answers(counted) for name in (v.left, v.right)}
  if not present:
    raise DataError(f'{directory}: there are no votes to count; gold items do not')
  if ours:
    _check_known(ours, present, 'model', 'ours')
  order = [ours] * bool(ours) + [name for name in study['models'] if name != ours]
  tallies = statistics.tally(counted, order or sorted(present))
  first = next(name for name in [*order, *sorted(present)] if name in present)
  sigmas = _sigmas(tallies, order, repeats) if repeats else {}
  names = {tally.question: None for tally in tallies}
  known_questions = [name for name in study['sigmas'] if name in names]
  position_of = {
    name: position for position, name in enumerate(dict.fromkeys([*known_questions, *names]))
  }
  tallies.sort(key=lambda tally: (position_of[tally.question], tally.ours != first))
  comparisons = []
  for tally in tallies:
    if len(tally.prompts):
      measured = sigmas.get(tally.question)
      comparisons.append(_compare(tally, study['prompts'], measured, study['sigmas']))
  if not comparisons:
    raise DataError(f'{directory}: all votes say that it cannot be judged')
  ranked: dict[str, list[Tally]] = {}
  for comparison in comparisons:
    ranked.setdefault(comparison.tally.question, []).append(comparison.tally)
  return Analysis(
    name=study['name'] or pathlib.Path(directory).resolve().name,
    ours=first,
    comparisons=comparisons,
    rankings={
      name: rank(question_tallies) for name, question_tallies in ranked.items() if len(present) > 2
    },
    sigmas=sigmas,
    raters=raters(votes),
    left_out=[*leave_out],
    votes=sum(1 for _ in statistics.first_answers(counted)),
  )


def _compare(
  tally: Tally,
  prompts: Sequence[Fields],
  measured: Sigma | None,
  known: Mapping[str, float | None],
) -> Comparison:
  groups = statistics.groups(prompts, tally.prompts) if prompts else ()
  verdicts = tally.verdicts
  sigma = known.get(tally.question)
  if sigma is not None:
    sigma *= math.sqrt(max(_REPEATED / len(verdicts), 1))
  return Comparison(
    tally,
    net_win_rate(verdicts),
    {(kind, name): net_win_rate(verdicts[which]) for kind, name, which in groups},
    agreement(tally.counts),
    measured.value if measured else sigma,
  )


def _sigmas(
  tallies: Sequence[Tally], order: Sequence[str], repeats: Sequence[str | os.PathLike[str]]
) -> dict[str, Sigma]:
  """Returns the sigma of each question, from the prompts that all repeats have judged."""
  again: dict[tuple[str, str, str], list[Tally]] = {}
  order = [*order, *sorted({name for tally in tallies for name in (tally.ours, tally.theirs)})]
  for repeat in [tallies, *(statistics.tally(read_votes(path), order) for path in repeats)]:
    for tally in repeat:
      again.setdefault((tally.question, tally.ours, tally.theirs), []).append(tally)
  rates: dict[str, list[list[float]]] = {}
  for (question, *_), matching in again.items():
    shared = set.intersection(*(set(tally.prompts.tolist()) for tally in matching))
    if len(matching) > 1 and shared:
      which = [np.isin(tally.prompts, list(shared)) for tally in matching]
      rates.setdefault(question, []).append(
        [100 * float(tally.verdicts[w].mean()) for tally, w in zip(matching, which, strict=True)]
      )
  if not rates:
    raise DataError(
      f'--repeats={",".join(map(str, repeats))}: nothing in them was compared in the study as '
      'well; expected the same questions, models and prompts, judged again'
    )
  return {question: statistics.sigma(rows) for question, rows in rates.items()}


def _study(directory: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the fields of study.json that the analysis needs; all are optional."""
  path = pathlib.Path(directory) / STUDY
  fields = {}
  if path.is_file():
    fields = read_json(path, error=DataError, mend='put back a whole copy')
  try:
    return {
      'name': str(fields.get('name', '')),
      'models': [*fields.get('models', ())],
      'prompts': [{**row} for row in fields.get('prompts', ())],
      'sigmas': {row['name']: row.get('sigma') for row in fields.get('questions', ())},
    }
  except (TypeError, KeyError, ValueError) as error:
    raise DataError(f'{path}: is no study ({error!r}); put back a whole copy') from error


def _check_known(name: str, known: set[str], what: str, flag: str) -> None:
  if name not in known:
    raise ConfigError(
      f'--{flag}={name}: no votes of such a {what}; expected {", ".join(sorted(known)):.200}'
    )
