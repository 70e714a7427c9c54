"""A run that begins with the parameters of another one says which ones are its own."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.checkpoints.warm_start import start_from
from mgjax.core.errors import ConfigError

THERE = {'backbone': {'kernel': jnp.full((2, 3), 5.0)}, 'text': {'bias': jnp.full(4, 6.0)}}


def here(**more):
  params = {'backbone': {'kernel': jnp.zeros((2, 3))}, 'text': {'bias': jnp.zeros(4)}}
  return {**params, **more}


def test_leaves_that_are_missing_begin_as_initialised_and_are_listed(caplog):
  face = {'in': {'kernel': jnp.full((2, 2), 7.0)}, 'scale': jnp.full(3, 8.0)}
  with caplog.at_level(logging.INFO):
    params = start_from(THERE, here(face=face))
  assert np.all(params['backbone']['kernel'] == 5) and np.all(params['text']['bias'] == 6)
  assert np.all(params['face']['in']['kernel'] == 7) and np.all(params['face']['scale'] == 8)
  assert 'start_from has no face/in/kernel (2, 2): it begins as initialised' in caplog.text
  assert 'start_from has no face/scale (3,): it begins as initialised' in caplog.text
  assert '7 new parameters in 2 leaves, of 17 in all' in caplog.text
  assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_new_leaves_in_a_module_that_was_there_are_warned_of(caplog):
  params = here()
  params['backbone'] = params['backbone'] | {'norm': jnp.ones(3)}
  assert np.all(start_from(THERE, params)['backbone']['norm'] == 1)
  (warning,) = [record for record in caplog.records if record.levelno > logging.INFO]
  assert 'no backbone/norm (3,)' in warning.getMessage()


def test_types_become_those_of_the_model():
  there = {'backbone': {'kernel': THERE['backbone']['kernel'].astype(jnp.bfloat16)}}
  params = start_from(there | {'text': THERE['text']}, here())
  assert params['backbone']['kernel'].dtype == jnp.float32


@pytest.mark.parametrize(
  ('there', 'said'),
  [
    ({**THERE, 'lora': {'down': jnp.zeros(2)}}, r'lora/down is \(2,\) there and absent here'),
    ({**THERE, 'text': {'bias': jnp.zeros(5)}}, r'text/bias is \(5,\) there and \(4,\) here'),
  ],
)
def test_what_does_not_fit_is_an_error(there, said):
  with pytest.raises(ConfigError, match=said):
    start_from(there, here())
