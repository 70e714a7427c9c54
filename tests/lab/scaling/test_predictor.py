"""What losses tell of a score: numbers, pictures, and what cannot be told."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from mgjax.lab.scaling.predictor import predict_score, write_prediction


def row(arm, validation_loss, loss, score, seed=0, **others):
  scores = None if score is None else {'all': score, 'digit': 0.5}
  found = {'validation_loss': validation_loss, 'loss': loss, 'scores': scores}
  return {'arm': arm, 'seed': seed, 'digest': arm, 'steps': 8, **found, **others}


def rows(count=9):
  generator = np.random.default_rng(0)
  validation, loss, score = generator.random((3, count))
  each = zip(validation, loss, score, strict=True)
  return [row(f'run_{index}', *map(float, numbers)) for index, numbers in enumerate(each)]


def write(workdir, runs):
  workdir.mkdir(exist_ok=True)
  (workdir / 'sweep.jsonl').write_text(''.join(json.dumps(each) + '\n' for each in runs))
  return workdir


def test_the_correlation_is_spearmans_of_both_losses_with_the_score():
  runs = rows()
  found = predict_score(runs)
  scores = [each['scores']['all'] for each in runs]
  for loss in ('validation_loss', 'loss'):
    expected = spearmanr([each[loss] for each in runs], scores).statistic
    assert found.ranks[loss].value == pytest.approx(expected, abs=1e-12)
    assert found.ranks[loss].count == 9
  losses = [each['validation_loss'] for each in found.runs.values()]
  assert losses == sorted(each['validation_loss'] for each in runs)


def test_a_lower_loss_that_always_is_a_better_run_has_a_correlation_of_minus_one():
  found = predict_score([row(f'r{n}', n, 1 / (n + 1), 1 / (n + 2)) for n in range(6)])
  assert found.ranks['validation_loss'].value == pytest.approx(-1)
  assert found.ranks['loss'].value == pytest.approx(1)


def test_runs_that_failed_are_named_and_left_out_and_seeds_are_runs():
  runs = [*rows(5), row('burst', None, None, None, error='loss is not finite')]
  runs += [row('run_0', 0.1, 0.2, 0.3, seed=1)]
  found = predict_score(runs)
  assert found.left_out == ['burst/0'] and len(found.runs) == 6 and 'run_0/1' in found.runs
  assert 'burst/0' in found.table()


def test_scores_that_are_all_alike_have_no_correlation():
  found = predict_score(rows(5), 'digit')
  assert np.isnan(found.ranks['loss'].value) and 'nan' in found.table()


def test_pictures_are_the_same_bytes_again_and_name_every_run(tmp_path):
  workdir = write(tmp_path / 'sweep', rows())
  _, paths = write_prediction(workdir)
  assert [path.name for path in paths] == ['predictor.png', 'predictor.svg', 'predictor.json']
  with Image.open(paths[0]) as picture:
    assert picture.width > picture.height > 300
  assert all(f'run_{index}' in paths[1].read_text() for index in range(9))
  assert json.loads(paths[2].read_text())['ranks']['loss']['count'] == 9
  before = [path.read_bytes() for path in paths]
  write_prediction(workdir)
  assert [path.read_bytes() for path in paths] == before
