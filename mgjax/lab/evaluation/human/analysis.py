"""Analyses a study's votes: every question, pair of models, group of prompts (Movie Gen §3.5)."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json
from mgjax.lab.evaluation.human import win_rates as statistics
from mgjax.lab.evaluation.human.agreement import Agreement, Rater, agreement, raters
from mgjax.lab.evaluation.human.ranking import Rating, rank
from mgjax.lab.evaluation.human.votes import read_votes
from mgjax.lab.evaluation.human.win_rates import NetWinRate, Sigma, Tally, net_win_rate

STUDY = 'study.json'
_REPEATED = 381  # prompts of the comparison that the report's sigmas are from (Movie Gen §3.5)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What was found of one question about two models.

  Net win rates of `groups` are by (kind, name); `sigma` is the deviation of `rate` over repeats.
  """

  tally: Tally
  rate: NetWinRate
  groups: Mapping[tuple[str, str], NetWinRate]
  agreement: Agreement
  sigma: float | None

  @property
  def verdict(self) -> str:
    """What the net win rate means by its sigma; '' where that is not known."""
    return '' if self.sigma is None else statistics.verdict(self.rate.value, self.sigma)

  @property
  def unsure(self) -> bool:
    """Whether other prompts might say the opposite: the interval has 0, whatever sigma says."""
    return self.rate.low <= 0 <= self.rate.high


@dataclasses.dataclass(frozen=True)
class Analysis:
  """What the votes of a study say.

  Attributes:
    ours: the model whose comparisons come first, by question.
    rankings: question -> models, the strongest first; none of two models.
    sigmas: question -> sigma of repeats, where there are any.
    left_out: names of raters whose votes did not count; `votes` is how many counted.
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

  If its directory has a study.json, models are in its order, prompts in its groups, and questions
  have its sigmas, which are taken to be of 381 prompts: of n fewer ones they are sqrt(381 / n)
  times as large. Votes made elsewhere need none. Net win rates are of the model `ours`, by default
  the study's first one, or by name. `repeats` are directories of the same comparisons made again by
  other raters, which sigma is from; votes of raters in `leave_out` do not count.

  Raises DataError if there are no votes, or they are not of this study, ConfigError if there is no
  such model or rater.
  """
  votes, study = read_votes(directory), _study(directory)
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
  names = {each.question: None for each in tallies}
  asked = [name for name in study['sigmas'] if name in names]
  places = {name: place for place, name in enumerate(dict.fromkeys([*asked, *names]))}
  tallies.sort(key=lambda each: (places[each.question], each.ours != first))
  comparisons = []
  for each in tallies:
    if len(each.prompts):
      measured = sigmas.get(each.question)
      comparisons.append(_compare(each, study['prompts'], measured, study['sigmas']))
  if not comparisons:
    raise DataError(f'{directory}: all votes say that it cannot be judged')
  ranked: dict[str, list[Tally]] = {}
  for each in comparisons:
    ranked.setdefault(each.tally.question, []).append(each.tally)
  return Analysis(
    name=study['name'] or pathlib.Path(directory).resolve().name,
    ours=first,
    comparisons=comparisons,
    rankings={name: rank(each) for name, each in ranked.items() if len(present) > 2},
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
  """Sigma of each question, from the prompts that were judged each time."""
  again: dict[tuple[str, str, str], list[Tally]] = {}
  order = [*order, *sorted({name for each in tallies for name in (each.ours, each.theirs)})]
  for each in [tallies, *(statistics.tally(read_votes(path), order) for path in repeats)]:
    for tally in each:
      again.setdefault((tally.question, tally.ours, tally.theirs), []).append(tally)
  rates: dict[str, list[list[float]]] = {}
  for (question, *_), made in again.items():
    shared = set.intersection(*(set(each.prompts.tolist()) for each in made))
    if len(made) > 1 and shared:
      which = [np.isin(each.prompts, list(shared)) for each in made]
      rates.setdefault(question, []).append(
        [100 * float(each.verdicts[w].mean()) for each, w in zip(made, which, strict=True)]
      )
  if not rates:
    raise DataError(
      f'--repeats={",".join(map(str, repeats))}: nothing in them was compared in the study as '
      'well; expected the same questions, models and prompts, judged again'
    )
  return {question: statistics.sigma(rows) for question, rows in rates.items()}


def _study(directory: str | os.PathLike[str]) -> JSON:
  """What a study.json says that matters here, all of which may be missing."""
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
