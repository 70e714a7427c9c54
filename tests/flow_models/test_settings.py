"""What the configuration of a flow model says, checked where it is unpacked."""

import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings

TIME = {'name': 'uniform'}
SAMPLE = SampleSettings({'text': 7.5, 'video': 2.0}, {'name': 'linear'}, 'euler', 50)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      {'dropout': {'text': 1.5}},
      r'dropout\.text = 1\.5; expected a finite number from 0 to 1',
    ),
    ({'drop_all_probability': -0.1}, r'drop_all_probability = -0\.1; expected'),
    ({'prediction': {'name': 'x'}}, r"prediction\.name = 'x'; expected flow or v_prediction"),
    (
      {'prediction': {'name': 'v_prediction', 'first': 2.0}},
      r'objective\.prediction\.first = 2\.0; expected a finite number above 0 below 1',
    ),
  ],
)
def test_what_an_objective_cannot_be_is_refused_by_its_key(changes, said):
  with pytest.raises(ConfigError, match=said):
    ObjectiveSettings(**{'dropout': {'text': 0.1}, 'time': TIME} | changes)


def test_changes_of_sampling_keep_what_they_do_not_name():
  assert SAMPLE.changed({'solver': None, 'steps': None}) == SAMPLE
  assert SAMPLE.changed({'steps': 4}).steps == 4
  assert SAMPLE.changed({'guidance': 3.0}).guidance == {'text': 3.0, 'video': 3.0}
  assert SAMPLE.changed({'guidance': {'text': 1.0}}).guidance == {'text': 1.0}


def test_no_steps_are_refused():
  with pytest.raises(ConfigError, match=r'steps = 0; expected a whole number from 1'):
    SAMPLE.changed({'steps': 0})
