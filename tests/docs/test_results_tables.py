"""Tables of docs/results that state what a record in docs/records has.

tests/apps/weights/test_cards.py compares the tables of models.md with the cards,
tests/lab/scaling/test_claims.py claims.md with its records, and
tests/lab/planning/test_published.py published steps with the planner.
"""

import json
import pathlib
import re
import statistics

import pytest

DOCS = pathlib.Path(__file__).parent.parent.parent / 'docs'
ROW = re.compile(r'^\|(.*)\| \[json\]\(\.\./records/([\w.]+)\) \|$', re.MULTILINE)
ROWS = ROW.findall((DOCS / 'results/speedrun.md').read_text())


@pytest.mark.parametrize(('cells', 'record'), ROWS, ids=[record for _, record in ROWS])
def test_a_row_of_the_speedrun_has_the_means_of_its_record(cells, record):
  seeds = json.loads((DOCS / 'records' / record).read_text())['seeds']
  *_, count, seconds, score = cells.replace('*', '').replace(',', '').split('|')
  assert int(count) == len(seeds)
  mean = statistics.mean(seed['processor_seconds'] for seed in seeds)
  assert float(seconds) == pytest.approx(mean, abs=0.5)
  assert float(score) == pytest.approx(statistics.mean(s['score'] for s in seeds), abs=5e-4)


def test_every_row_of_the_speedrun_of_digits_has_its_record():
  assert len(ROWS) == 3
