"""Masked audio prediction shows what it should, hides the rest, and leaves the loss alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.flow.objective import make_objective
from mgjax.sections.audio.masking import draw_known, make_masked_objective

ROWS, FRAMES = 4000, 40
PAPER = {'full_mask_probability': 0.5, 'min_masked_fraction': 0.75, 'extension_probability': 0.5}


def known(**changes):
  return np.asarray(draw_known(jax.random.key(0), ROWS, FRAMES, **PAPER | changes))


def test_half_of_the_rows_know_nothing():
  """And those of a share above 1 - 1/(2 frames): 0.5 + 0.5 * 0.05."""
  empty = (~known()).all(1).mean()
  expected = 0.5 + 0.5 * (0.5 / FRAMES) / 0.25
  assert empty == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / ROWS))


def test_otherwise_75_to_100_percent_are_masked_evenly():
  shares = 1 - known(full_mask_probability=0.0).mean(1)
  assert shares.min() >= 0.75 and shares.max() <= 1
  # A uniform share has the mean 0.875 and the deviation 0.25 / sqrt(12).
  assert shares.mean() == pytest.approx(0.875, abs=4 * 0.25 / np.sqrt(12 * ROWS))


def test_what_is_masked_is_one_piece():
  masked = ~known(full_mask_probability=0.0)
  starts = np.diff(np.pad(masked, ((0, 0), (1, 0))).astype(int)) == 1
  assert (starts.sum(1) == 1).all()


def test_an_extension_knows_what_came_before_alone():
  rows = known(full_mask_probability=0.0, extension_probability=1.0)
  assert not rows[:, -1].any()
  assert (rows == (np.arange(FRAMES) < rows.sum(1, keepdims=True))).all()


def test_infilling_knows_both_sides():
  rows = known(full_mask_probability=0.0, extension_probability=0.0)
  both = rows[:, 0] & rows[:, -1]
  assert both.mean() > 0.5
  assert rows[:, -1].mean() == pytest.approx(rows[:, 0].mean(), abs=0.05)


def test_the_model_sees_known_latents_and_zeros_for_the_others():
  latents = 1 + jax.random.uniform(jax.random.key(1), (64, FRAMES, 1, 1, 3))
  seen = {}

  def predict(x, time, batch, drop):
    seen.update(batch)
    return jnp.zeros_like(x)

  objective = make_masked_objective(make_objective(dropout={}), **PAPER)
  objective(predict, {'latents': latents}, jax.random.key(2))
  context = np.asarray(seen['context'])
  shown = context != 0
  np.testing.assert_array_equal(context, np.where(shown, latents, 0))
  assert 0 < shown.any((1, 2, 3, 4)).mean() < 1
  assert (shown.all((2, 3, 4)) == shown.any((2, 3, 4))).all()
