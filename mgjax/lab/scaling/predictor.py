"""Whether a loss tells which run is better: its rank correlation with scores (Movie Gen, Fig. 15).

The paper sets the validation losses of pairs of checkpoints beside what people preferred. Here a
run of a sweep is a point, and ranks are correlated, for a score need not be a straight line of the
loss. Two losses are looked at: that of training, and that of validation, whose clips, captions,
noise and times are the same for all runs.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.files import write_json
from mgjax.lab.report.tables import aligned
from mgjax.lab.scaling.plots import draw_points
from mgjax.lab.scaling.sweep import Row, read_rows
from mgjax.lab.statistics.correlations import Correlation, correlate_ranks

LOSSES = ('validation_loss', 'loss')
FEWEST = 4  # runs, of which the interval has a number


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What losses tell of a score, run by run.

  Attributes:
    runs: name -> its losses and its score; the best by validation loss first.
    ranks: loss -> Spearman's r with the score: -1 where a lower loss always is a better run.
    left_out: runs that have none of them, such as those whose numbers were not finite.
  """

  score: str
  runs: dict[str, dict[str, float]]
  ranks: dict[str, Correlation]
  left_out: list[str]

  def table(self) -> str:
    """Formats runs and correlations, for people."""
    rows = [('', *LOSSES, self.score)]
    rows += [
      (name, *(f'{numbers[key]:.4f}' for key in rows[0][1:])) for name, numbers in self.runs.items()
    ]
    rows += [('rank correlation', *(str(self.ranks[loss]) for loss in LOSSES), '')]
    chance = max(self.ranks[loss].chance for loss in LOSSES)
    note = f'{len(self.runs)} runs; of runs at random 19 of 20 stay below {chance:.2f}'
    out = [f'left out, without these numbers: {", ".join(self.left_out)}'] if self.left_out else []
    return '\n'.join([*aligned(rows), note, *out])

  def as_dict(self) -> JSON:
    """Returns plain JSON values."""
    return dataclasses.asdict(self)


def predict_score(rows: Sequence[Row], score: str = 'all') -> Prediction:
  """Correlates the losses of a sweep's runs with one of their scores; each seed is a run.

  Raises:
    ConfigError: no run has such a score.
    DataError: fewer than four runs have all three.
  """
  names = sorted({name for row in rows for name in row['scores'] or {}})
  if score not in names:
    hint = ', '.join(names) or 'none: this sweep has no scores'
    raise ConfigError(f'score = {printable(score)!r:.80}: no run has it; expected one of {hint}')
  runs = {}
  left_out = []
  for row in rows:
    name = row['arm'] if len({run['seed'] for run in rows}) == 1 else f'{row["arm"]}/{row["seed"]}'
    numbers = {**{loss: row[loss] for loss in LOSSES}, score: (row['scores'] or {}).get(score)}
    if all(
      isinstance(number, int | float) and math.isfinite(number) for number in numbers.values()
    ):
      runs[name] = {key: float(number) for key, number in numbers.items()}
    else:
      left_out.append(name)
  if len(runs) < FEWEST:
    raise DataError(
      f'{len(runs)} of {len(rows)} runs have losses and the score {score!r}; expected {FEWEST} at '
      'least: let the sweep come to its end'
    )
  runs = dict(sorted(runs.items(), key=lambda item: item[1][LOSSES[0]]))
  scores = [run[score] for run in runs.values()]
  ranks = {loss: correlate_ranks([run[loss] for run in runs.values()], scores) for loss in LOSSES}
  return Prediction(score, runs, ranks, left_out)


def write_prediction(
  workdir: str | os.PathLike[str], score: str = 'all'
) -> tuple[Prediction, list[pathlib.Path]]:
  """Correlates the runs of a sweep; writes predictor.png, .svg and .json beside them."""
  workdir = pathlib.Path(workdir)
  rows = read_rows(workdir)
  if not rows:
    raise ConfigError(
      f'{printable(os.fspath(workdir))} has no runs that came to their end; '
      'python -m launch.scaling run makes some'
    )
  prediction = predict_score(rows, score)
  panels = {
    f'{loss.replace("_", " ")}, r = {prediction.ranks[loss]}': {
      name: (run[loss], run[score]) for name, run in prediction.runs.items()
    }
    for loss in LOSSES
  }
  paths = draw_points(panels, f'score {score!r}', workdir / 'predictor')
  write_json(workdir / 'predictor.json', prediction.as_dict())
  return prediction, [*paths, workdir / 'predictor.json']
