"""Learning from preferences: of two samples of one prompt the better one, against a frozen model,
checked by tests/flow/distillation/test_preference.py. Not in the paper.

  L = E softplus(-beta / 2 p [(e_l - e_l') - (e_w - e_w')]) + s E e_w
  e = || u(X_t, P, t) - V_t ||^2 a number of the latents, of the chosen (w) and the rejected (l)
      sample; e' the same of the reference, the model that training starts from

The first term raises the likelihood of the chosen sample over that of the rejected one, as far as
the reference allows. Such objectives are Flow-DPO (Liu et al. 2025, arXiv 2501.13918) and
Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908).

Both samples get one noise and one time. It is best to make both from one clip that was noised to a
middle time (DenseDPO: Wu et al. 2025, arXiv 2506.03517). They then differ in what the vote is
about, and not in how much they move.

p is the vote. It is 1, or one number for every latent frame: -1 if the other sample is better, 0
for no vote, 1 if this one is. L is then the mean over votes. The second term is plain flow matching
of the chosen sample. Without it both samples may become unlikely, and quality decays (Reg-DPO: Du
et al. 2025, arXiv 2511.01450).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mgjax.core.errors import DataError
from mgjax.core.settings import Checked, Magnitude
from mgjax.core.typing import Array, Batch, Key, Metrics, Predict, Tree
from mgjax.flow.objective import draw_drop
from mgjax.flow.prediction import Prediction
from mgjax.flow.times import SampleTime

# of a batch: latents (b t h w c), and p of frames (b t)
REJECTED_KEY = 'rejected'
VOTES = 'votes'


@dataclasses.dataclass(frozen=True)
class Preference(Checked):
  """`config.objective.preference`: how strongly votes count.

  Attributes:
    beta: how far a vote may lead away from the reference; the larger, the less.
    supervised: s, the weight of flow matching of what was chosen.

  Raises:
    ConfigError: a number is negative.
  """

  beta: Magnitude = 500.0
  supervised: Magnitude = 0.1


def make_preference(
  preference: Preference,
  teach: Callable[[Tree], Predict],
  *,
  dropout: Mapping[str, float],
  sample_time: SampleTime,
  prediction: Prediction,
):
  """Makes `objective(predict, batch, key, teacher) -> (loss, metrics)` of pairs.

  A batch has the chosen sample as `latents`, the other one as `rejected`, and optionally `votes`.
  The metric `accuracy` is the share of votes with which the model agrees more than the reference
  does. `margin` is the term in the brackets above, as a mean over votes.

  Args:
    teach: parameters of the reference, -> its `predict`.
    dropout: as of `make_objective`; a pair is dropped together.

  The objective raises DataError for a batch without `rejected`, or of another shape.
  """

  def objective(predict: Predict, batch: Batch, key: Key, teacher: Tree) -> tuple[Array, Metrics]:
    chosen = batch['latents'].astype(jnp.float32)
    rejected = batch.get(REJECTED_KEY)
    if rejected is None or rejected.shape != chosen.shape:
      actual = 'nothing' if rejected is None else rejected.shape
      raise DataError(
        f'a pair of latents {chosen.shape} and {REJECTED_KEY} {actual}; expected two of one shape'
      )
    count = len(chosen)
    time_key, noise_key, drop_key = jax.random.split(key, 3)
    time = sample_time(time_key, (count,))
    noise = jax.random.normal(noise_key, chosen.shape, jnp.float32)
    drop = draw_drop(drop_key, dropout, count)

    both = jnp.concatenate((chosen, rejected.astype(jnp.float32)))
    # Both samples of a pair get the same times, noise and conditions.
    inputs = (time, noise, dict(batch), drop)
    time, noise, conditions, drop = jax.tree.map(lambda x: jnp.concatenate((x, x)), inputs)
    x, target = prediction.train(both, noise, time)
    weight = prediction.weight(time)[:, None]

    def errors(answer: Array) -> Array:
      squares = jnp.square(answer.astype(jnp.float32) - target)
      return weight * jnp.mean(squares, axis=tuple(range(2, squares.ndim)))

    ours = errors(predict(x, time, conditions, drop))
    theirs = jax.lax.stop_gradient(errors(teach(teacher)(x, time, conditions, drop)))
    better, worse = jnp.split(ours - theirs, 2)
    margin = worse - better  # (b t)
    if VOTES in batch:
      votes = batch[VOTES].astype(jnp.float32)
    else:
      margin = jnp.mean(margin, axis=1)
      votes = jnp.ones(count)
    total_votes = jnp.maximum(jnp.sum(jnp.abs(votes)), 1e-6)
    losses = jnp.abs(votes) * jax.nn.softplus(-preference.beta / 2 * jnp.sign(votes) * margin)
    agreed = jnp.sum(jnp.abs(votes) * (jnp.sign(votes) * margin > 0)) / total_votes
    supervised = jnp.mean(ours[:count])
    loss = jnp.sum(losses) / total_votes + preference.supervised * supervised
    metrics = {
      'accuracy': agreed,
      'margin': jnp.sum(votes * margin) / total_votes,
      'supervised': supervised,
    }
    return loss, {'loss': loss, **metrics}

  return objective
