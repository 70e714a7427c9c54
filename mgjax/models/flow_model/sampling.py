"""Samples latents: guidance and ODE solver in one compiled program (Movie Gen §3.4.2)."""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Batch, Drop, Float, Predict, Tree
from mgjax.flow.guidance import Guidance, MakeVelocity, Scales, make_guided
from mgjax.flow.path import FlowMatching
from mgjax.flow.prediction import Prediction
from mgjax.flow.sample import sample
from mgjax.flow.solvers import STEPPED, Velocity, make_steps
from mgjax.models.conditioning.pictures.first_latent import FirstLatent
from mgjax.models.flow_model.model import FlowModel
from mgjax.nn.multihead import READ
from mgjax.parallel.compiler import DeviceProgram

_FLOW = FlowMatching()
NEGATIVE = 'negative_'  # before the name of an array of a batch: what guidance leads away from


def negatives(model: FlowModel, batch: Batch, latents: tuple[int, ...]) -> dict[str, Batch]:
  """Returns the negative arrays of a batch, by the name of their conditioning."""
  negative_batches: dict[str, Batch] = {}
  for conditioning in model.conditionings:
    keys = {
      name: NEGATIVE + name for name in conditioning.requires(latents) if NEGATIVE + name in batch
    }
    if keys:
      negative_batches[conditioning.name] = {name: batch[key] for name, key in keys.items()}
  return negative_batches


@flax.struct.dataclass
class Experts:
  """Parameters of two models that share the path of a sample (Wan 2.2): a step asks one of them.

  Attributes:
    early: of the one that is asked at flow times below `since`, where there is more noise.
    late: of the one that is asked from there on.
  """

  early: Tree
  late: Tree
  since: float = flax.struct.field(pytree_node=False)


def make_predict(model: FlowModel, params: Tree | Experts) -> Predict:
  """Makes `predict(x, time, batch, drop) -> answer` of a batch, or of what `make_read` made."""
  if isinstance(params, Experts):
    experts = [make_predict(model, expert_params) for expert_params in (params.early, params.late)]

    def by_time(x: Array, time: Array, batch: Batch, drop: Drop) -> Array:
      batches = [{READ: cached} for cached in batch[READ]] if READ in batch else [batch, batch]
      early = time < params.since
      answers = [
        jax.lax.cond(
          rows.any(), functools.partial(expert, drop=drop), _nothing, x, time, expert_batch
        )
        for expert, rows, expert_batch in zip(experts, (early, ~early), batches, strict=True)
      ]
      return jnp.where(early.reshape(-1, *[1] * (x.ndim - 1)), *answers)

    return by_time

  def predict(x: Array, time: Array, batch: Batch, drop: Drop) -> Array:
    if READ not in batch:
      return model.apply({'params': params}, x, time, batch, drop)
    ports, cache = batch[READ]
    return model.apply({'params': params, READ: cache}, x, time, ports, method='velocity')

  return predict


def _nothing(x: Array, time: Array, batch: Batch) -> Array:
  return jnp.zeros_like(x)


def make_read(
  model: FlowModel, params: Tree | Experts, latents: tuple[int, ...]
) -> Callable[[Batch, Drop], Batch]:
  """Makes `read(batch, drop)`: the ports of the conditions, with keys and values of every layer.

  Args:
    model: with the parameters `params`.
    latents: (t, h, w, c) of what is sampled.
  """
  if isinstance(params, Experts):
    reads = [
      make_read(model, expert_params, latents) for expert_params in (params.early, params.late)
    ]
    return lambda batch, drop: {READ: tuple(read(batch, drop)[READ] for read in reads)}

  def read(batch: Batch, drop: Drop) -> Batch:
    rows = len(jax.tree.leaves(batch)[0])
    ports = model.apply({'params': params}, batch, drop, rows, latents, method='read')
    x = jnp.zeros((rows, *latents))
    # Of the layers only keys and values are used; XLA removes the rest.
    _, variables = model.apply(
      {'params': params}, x, jnp.zeros(rows), ports, method='velocity', mutable=[READ]
    )
    return {READ: (ports, variables.get(READ, {}))}

  return read


def make_generate(
  model: FlowModel,
  *,
  times: np.ndarray,
  solver: str,
  guidance: Guidance,
  widen: Callable[[MakeVelocity], MakeVelocity] | None = None,
  prediction: Prediction = _FLOW,
  told: Mapping[str, float | tuple[float, ...]] = {},
  reuse: float = 0.0,
) -> Callable[[Tree, Batch, Float[Array, 'b t h w c']], Float[Array, 'b t h w c']]:
  """Makes `generate(params, batch, noise) -> latents`, compiled once a shape.

  Args:
    times: the schedule, from `flow.schedules.make_time_grid`.
    solver: a name in `flow.solvers.STEPPED`, or 'dormand_prince'.
    guidance: pairs of a conditioning's name and scale; the paper's scale for text is 7.5.
    widen: makes of `batch -> velocity` one that goes beyond what the model sees at once, such as
      multi-diffusion.
    told: arrays of the batch that are the same in all rows, by name: what a student is conditioned
      on (`flow/distillation/`).
    reuse: as of `flow.sample.sample`.
  """

  @DeviceProgram
  def generate(params: Tree, batch: Batch, noise: Array) -> Array:
    predict = prediction.as_velocity(make_predict(model, params))
    batch = _told(batch, told, len(noise))

    def make_velocity(batch: Batch) -> Velocity:
      away = negatives(model, batch, noise.shape[1:])
      # What goes beyond a window asks for other conditions at every step.
      once = {} if widen else {'read': make_read(model, params, noise.shape[1:])}
      return make_guided(predict, batch, guidance, away, **once)

    velocity = (widen(make_velocity) if widen else make_velocity)(batch)
    latents = sample(velocity, noise, times, solver, reuse)
    return latents if widen else _with_known(model, params, batch, latents)

  return generate


# Called after every step with its number from 1 on, how many there are, and of each sample what it
# would become if its velocity did not change any more (b t h w c). What it raises ends the samples.
Watch = Callable[[int, int, Float[Array, 'b t h w c']], None]


class Stepwise:
  """`generate` of `make_generate`, as a program of one step that the host calls again and again.

  Its samples are those of the whole loop but for rounding. It can be watched and stopped after
  every step. It is compiled once for any number of steps and any scales of guidance, except that
  equal scales, which may save a function evaluation, are another program than different ones.
  """

  def __init__(
    self,
    model: FlowModel,
    *,
    solver: str,
    guidance: Guidance,
    prediction: Prediction = _FLOW,
    told: Mapping[str, float | tuple[float, ...]] = {},
    reuse: float = 0.0,
  ):
    """Makes the programs; see `make_generate`.
    Raises ConfigError for a solver that takes no steps of a schedule, or reuses velocities.
    """
    if solver not in STEPPED or reuse:
      raise ConfigError(
        f'solver {solver!r}, reuse {reuse:g}: only {", ".join(STEPPED)} without reuse go step by '
        'step; choose one of them'
      )
    # Which terms there are is a part of the program; how much each weighs is not.
    scale_indices = {scale: index for index, scale in enumerate(_free(guidance))}
    guidance_key = tuple(
      (name, scale_indices.get(s), None if s in scale_indices else s) for name, s in guidance
    )
    self.key = (solver, guidance_key, tuple(sorted(told.items())))

    def guided(params, batch, shape, scales, read) -> Velocity:
      predict = prediction.as_velocity(make_predict(model, params))
      batch = _told(batch, told, shape[0])
      free = [jnp.broadcast_to(scale, shape[:1]) for scale in scales]
      scaled_guidance: Scales = tuple(
        (name, free[scale_indices[s]] if s in scale_indices else s) for name, s in guidance
      )
      return make_guided(predict, batch, scaled_guidance, negatives(model, batch, shape[1:]), read)

    @DeviceProgram
    def begin(params: Tree, batch: Batch, noise: Array, scales: Array) -> list[Batch]:
      read_batches = []
      read = make_read(model, params, noise.shape[1:])

      def keep(batch: Batch, drop: Drop) -> Batch:
        read_batches.append(read(batch, drop))
        return read_batches[-1]

      guided(params, batch, noise.shape, scales, keep)
      return read_batches

    steps = make_steps(solver)

    @DeviceProgram
    def advance(params, batch, read, scales, state, row, left) -> tuple[tuple[Array, ...], Array]:
      remaining = iter(read)  # in the order of the calls in `begin`
      x = state[0]
      velocity = guided(params, batch, x.shape, scales, lambda batch, drop: next(remaining))
      after = steps.step(velocity, state, row)
      return after, after[0] + left * (after[0] - x)

    self._begin, self._advance, self._steps = begin, advance, steps
    self._end = DeviceProgram(functools.partial(_with_known, model)) if _may_know(model) else None

  def __call__(
    self,
    params: Tree,
    batch: Batch,
    noise: Float[Array, 'b t h w c'],
    times: np.ndarray,
    guidance: Guidance,
    watch: Watch,
  ) -> Float[Array, 'b t h w c']:
    """Takes all steps of a schedule, from noise to latents."""
    scales = np.array(_free(guidance), np.float32)
    state = self._steps.begin(noise)
    rows = self._steps.rows(times)
    # The rest of the path, in units of a step.
    left = np.float32((1 - times[1:]) / np.diff(times))
    read = self._begin(params, batch, noise, scales)
    for number, row in enumerate(rows, 1):
      row = jax.tree.map(np.float32, row)
      state, ahead = self._advance(params, batch, read, scales, state, row, left[number - 1])
      watch(number, len(rows), ahead)
    return state[0] if self._end is None else self._end(params, batch, state[0])


def _may_know(model: FlowModel) -> bool:
  return any(isinstance(conditioning, FirstLatent) for conditioning in model.conditionings)


def _with_known(
  model: FlowModel, params: Tree | Experts, batch: Batch, latents: Float[Array, 'b t h w c']
) -> Float[Array, 'b t h w c']:
  """Returns latents with those that are known.

  Velocities lead there, but not to the last digit where a solver tells the model rounded times.
  """
  if not _may_know(model):
    return latents
  params = params.early if isinstance(params, Experts) else params
  ports = model.apply({'params': params}, batch, {}, len(latents), latents.shape[1:], method='read')
  if ports.known is None:
    return latents
  mask = ports.known.mask[..., None, None, None]
  return jnp.where(mask, ports.known.latents.astype(latents.dtype), latents)


def _free(guidance: Guidance) -> list[float]:
  """Returns the scales that a program need not know, those that are equal once."""
  numbers = (scale for _, scale in guidance if not isinstance(scale, tuple))
  return [scale for scale in dict.fromkeys(numbers) if scale not in (0, 1)]


def _told(batch: Batch, told: Mapping[str, float | tuple[float, ...]], rows: int) -> Batch:
  arrays = {n: jnp.tile(jnp.float32(v), (rows, *[1] * np.ndim(v))) for n, v in told.items()}
  return {**batch, **arrays}
