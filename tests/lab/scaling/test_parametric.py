"""The law fitted to runs: surfaces that are known, noise, outliers, published data."""

import csv
import io
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgjax.lab.scaling.law import Law
from mgjax.lab.scaling.parametric import Runs, fit_law, fit_laws, resample_fits

SURFACES = {
  'hoffmann': Law(1.69, 406.4, 410.7, 0.34, 0.28),
  'epoch': Law(1.82, 482.0, 2085.0, 0.348, 0.366),
  'uneven': Law(1.5, 1e4, 30.0, 0.5, 0.2),
  'of footage': Law(0.1, 20.0, 60.0, 0.25, 0.3),
}
EPOCH = os.environ.get('MGJAX_EPOCH_CSV', '')


def runs(law, budgets=(1e18, 1e21, 5), sizes=9, width=1.2, off=0.2):
  """Sizes, tokens and losses without noise, `sizes` a budget, `off` decades from the best one."""
  compute = np.logspace(np.log10(budgets[0]), np.log10(budgets[1]), budgets[2]).repeat(sizes)
  best = np.array([law.optimum(each).size for each in compute])
  size = best * 10 ** np.tile(np.linspace(-width / 2, width / 2, sizes) + off, budgets[2])
  tokens = compute / (6 * size)
  return Runs(size, tokens, law.loss(size, tokens))


def noisy(law, generator=0, noise=0.003, **grid):
  """The same with noise on the losses, by a generator or the seed of one."""
  size, tokens, loss = runs(law, **grid)
  draws = np.random.default_rng(generator).standard_normal(len(loss))
  return Runs(size, tokens, loss * np.exp(noise * draws))


def constants(law):
  return np.array([law.e, law.a, law.b, law.alpha, law.beta])


@pytest.mark.parametrize('name', SURFACES)
def test_a_surface_without_noise_gives_all_constants_back(name):
  law = SURFACES[name]
  found = fit_law(runs(law))
  assert constants(found.law) == pytest.approx(constants(law), rel=1e-6)
  assert not found.at_edge and np.abs(found.residuals).max() < 1e-9


def test_arms_share_the_loss_that_nothing_takes_away():
  laws = [SURFACES['hoffmann'], Law(1.69, 300.0, 500.0, 0.34, 0.3)]
  found = fit_laws([runs(law) for law in laws])
  for fit, law in zip(found, laws, strict=True):
    assert constants(fit.law) == pytest.approx(constants(law), rel=1e-6)
  assert found[0].law.e == found[1].law.e


def test_single_bad_runs_weigh_little():
  law = SURFACES['hoffmann']
  size, tokens, loss = runs(law)
  loss[[3, 20, 40]] *= (1.3, 1.2, 1.25)
  found = fit_law(Runs(size, tokens, loss))
  assert abs(found.law.exponent - law.exponent) < 1e-3
  assert np.argsort(np.abs(found.residuals))[-3:].tolist() == [20, 40, 3]


def test_noise_moves_the_exponent_by_as_much_as_was_measured():
  """Of 45 runs with a noise of .5% the parametric exponent has an error of .011."""
  law, generator = SURFACES['hoffmann'], np.random.default_rng(0)
  found = [fit_law(noisy(law, generator, 0.005)).law.exponent for _ in range(24)]
  # Three standard errors of a spread of 24, .011 / sqrt(48) each, beside that of the mean.
  assert abs(np.mean(found) - law.exponent) < 3 * 0.011 / 24**0.5 + 0.003
  assert 0.006 < np.std(found) < 0.016


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('how', ('case', 'residual'))
def test_intervals_of_80_percent_have_the_truth_in_80_percent_of_sets(how):
  law, generator, covered = SURFACES['hoffmann'], np.random.default_rng(1), []
  budgets = np.repeat(np.arange(5), 9)
  for number in range(200):
    given = noisy(law, generator)
    again = resample_fits(fit_law(given), given, how=how, groups=budgets, resamples=60, seed=number)
    low, high = np.quantile([each.law.exponent for each in again], [0.1, 0.9])
    covered.append(low <= law.exponent <= high)
  # Two standard errors of 200 sets are .057.
  assert 0.74 <= np.mean(covered) <= 0.86


def test_resampled_fits_stay_within_budgets_and_repeat_by_seed():
  given = noisy(SURFACES['epoch'])
  fit = fit_law(given)
  first, second = (
    [each.law for each in resample_fits(fit, given, resamples=3, seed=7)] for _ in range(2)
  )
  assert first == second and len(set(map(str, first))) == 3
  alone = resample_fits(fit, given, groups=np.arange(len(given.loss)), resamples=2)
  assert constants(alone[0].law) == pytest.approx(constants(fit.law), rel=1e-5)


def test_draws_of_few_runs_are_enough_for_a_law():
  law, compute = SURFACES['hoffmann'], np.repeat([1e18, 1e19], 4)
  size = np.concatenate([law.optimum(c).size * np.array([0.5, 0.8, 1.25, 2]) for c in (1e18, 1e19)])
  few = Runs(size, compute / (6 * size), law.loss(size, compute / (6 * size)))
  groups = np.repeat([0, 1], 4)  # of which a draw has six different runs or more half of the time
  assert len(resample_fits(fit_law(few), few, groups=groups, resamples=12)) == 12


@pytest.mark.skipif(not EPOCH, reason="MGJAX_EPOCH_CSV names no file of Epoch's replication")
def test_epochs_replication_of_chinchilla_is_reproduced():
  rows = list(csv.DictReader(io.StringIO(pathlib.Path(EPOCH).read_text())))
  size, compute, loss = (
    np.array([float(row[name]) for row in rows]) for name in ('Model Size', 'Training FLOP', 'loss')
  )
  kept = loss < np.sort(loss)[-5]  # without the five largest losses
  found = fit_law(Runs(size[kept], (compute / (6 * size))[kept], loss[kept]))
  assert found.objective < 1.01828e-3
  assert (found.law.alpha, found.law.beta) == pytest.approx((0.347310, 0.367172), abs=5e-4)
  assert found.law.e == pytest.approx(1.817218, abs=1e-3)
  assert (found.law.a, found.law.b) == pytest.approx((477.826, 2143.417), rel=0.01)


def by_lbfgs(given, steps=600):
  """The constants by gradients alone, from one point: log E, A, B and both exponents in float64."""
  size, tokens, loss = (np.log(each) for each in given)
  n, d = size.mean(), tokens.mean()

  def objective(point):
    e, a, b, alpha, beta = point
    parts = jnp.stack([e + 0 * size, a - alpha * (size - n), b - beta * (tokens - d)])
    return 1e3 * optax.huber_loss(jax.nn.logsumexp(parts, 0), loss, delta=1e-3).sum()

  solver = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(objective)

  def step(carry, _):
    point, state = carry
    value, gradient = value_and_grad(point, state=state)
    updates, state = solver.update(
      gradient, state, point, value=value, grad=gradient, value_fn=objective
    )
    return (optax.apply_updates(point, updates), state), None

  with jax.enable_x64(True):
    point = jnp.array([0.0, -1.0, -1.0, 0.5, 0.5])
    solve = jax.jit(lambda point: jax.lax.scan(step, (point, solver.init(point)), None, steps)[0])
    point, _ = solve(point)
    least = float(objective(point)) / 1e3
  e, a, b, alpha, beta = map(float, point)
  return Law(np.exp(e), np.exp(a + alpha * n), np.exp(b + beta * d), alpha, beta), least


@pytest.mark.parametrize('noise', (0.0, 0.004), ids=('without noise', 'with noise'))
def test_a_second_route_finds_the_same_law(noise):
  """optax.lbfgs, which knows neither the grid of exponents nor the Jacobian."""
  given = noisy(SURFACES['epoch'], 4, noise)
  found, (law, least) = fit_law(given), by_lbfgs(given)
  # A minimum is flat: an objective to 1e-9 knows its place to 1e-4 or so.
  assert found.objective <= least * (1 + 1e-9) + 1e-12
  assert constants(law) == pytest.approx(constants(found.law), rel=2e-3)
