"""Published laws in one unit: what their papers say of budgets of their own."""

import pytest

from mgjax.lab.scaling.published import EPOCH, HOFFMANN, PUBLISHED

BY_NAME = {law.name: law for law in PUBLISHED}


def test_llama_3_is_told_to_have_402_billion_parameters_and_16_55_trillion_tokens():
  law = BY_NAME['Llama 3, text']
  # With three digits of both constants 3.8e25^.0005 is 3% and .0005 / .299 is .2%.
  assert law.best_tokens(3.8e25) == pytest.approx(16.55e12, rel=0.035)
  assert law.best_size(3.8e25) == pytest.approx(402e9, rel=0.035)
  assert law.beyond(3.8e25) and not law.beyond(1e20)


@pytest.mark.parametrize(('name', 'compute'), (('images', 5.8e22), ('videos', 7.0e22)))
def test_hunyuan_videos_13_billion_parameters_agree_with_its_tokens(name, compute):
  law = BY_NAME[f'HunyuanVideo, {name}']
  size, tokens = law.best_size(compute), law.best_tokens(compute)
  assert size == pytest.approx(13e9, rel=0.01)
  # Units are right where 6 N D is the budget again: wrong ones are off by powers of a thousand.
  assert 6 * size * tokens == pytest.approx(compute, rel=0.05)


def test_liang_et_al_have_a_model_of_one_billion_at_their_largest_budget():
  law = BY_NAME['Liang et al., images']
  assert law.best_size(1.5e21) == pytest.approx(1e9, rel=0.05)
  assert law.best_size(1.0) == pytest.approx(0.0009, abs=0.00005)  # as printed


def test_yin_et_al_have_18_billion_parameters_where_movie_gen_has_30():
  law = BY_NAME['Yin et al., videos']
  assert law.best_size(1.8e24) == pytest.approx(18.05e9, rel=0.01)
  assert law.best_tokens(1.8e24) is None


def test_surfaces_are_those_of_the_parametric_fits():
  for name, surface in (('Chinchilla, text', HOFFMANN), ('Chinchilla again, text', EPOCH)):
    best = surface.optimum(5.76e23)
    assert BY_NAME[name].best_size(5.76e23) == pytest.approx(best.size)
    assert BY_NAME[name].best_tokens(5.76e23) == pytest.approx(best.tokens)
  assert HOFFMANN.exponent == pytest.approx(0.4565, abs=1e-4)
