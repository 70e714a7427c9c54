"""Trains the temporal autoencoder (Movie Gen §3.1.1)."""

import functools
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.checkpoints.warm_start import make_start, parse_sources
from mgjax.checkpoints.workdir import open_checkpoints
from mgjax.core.precision import compute_type
from mgjax.core.settings import fields_of, unpack
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Batch, Tree
from mgjax.data.loader import validation_batches
from mgjax.data.mixture import ShapeBucket
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import make_sources, make_transform
from mgjax.media.contact_sheet import contact_sheet
from mgjax.parallel.distributed import fetch
from mgjax.parallel.shard import on_every_device
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.discriminator import Discriminator
from mgjax.tae.inflate import without_time
from mgjax.tae.latents import Statistics, estimate_statistics, to_bytes, to_unit
from mgjax.tae.objective import (
  LossWeights,
  make_adversarial_objective,
  make_discriminator_objective,
  make_objective,
)
from mgjax.tae.perceptual import Perceptual, read_perceptual, widths_of
from mgjax.tae.tiling import Tiling
from mgjax.training.rates import factor_of
from mgjax.training.settings import adversary_settings, bucket_settings
from mgjax.training.spec import Adversary, Outline, TrainSpec, longest_of, make_buckets

SHOWN = 4  # clips in a picture
STATISTICS_BATCHES = 8  # per bucket

_log = logging.getLogger(__name__)


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: pixels in and out, latent statistics kept with the weights."""
  model = make_autoencoder(fields_of(config, 'model'))
  data, shapes, settings, weights = _settings(config)
  perceptual, frozen = _perceptual(config)
  adversary = make_adversary(config, weights, perceptual)
  transform = make_transform((), ('video',))
  sources = functools.partial(make_sources, data, shapes)
  buckets, validation = make_buckets(settings, workdir, sources, transform, share=data.share)

  def prepare(batch: Batch) -> Batch:
    return {'video': to_unit(batch['video'])}

  longest = longest_of(validation, settings)
  shape = shapes[longest.name]
  example = jnp.zeros((1, shape.frames, shape.height, shape.width, 3))

  @jax.jit
  def encode(params: Tree, video: jax.Array) -> jax.Array:
    return model.apply({'params': params}, to_unit(video), method='encode').mean

  @jax.jit
  def reconstruct(params: Tree, video: jax.Array) -> jax.Array:
    mean = encode(params, video)
    return to_bytes(model.apply({'params': params}, mean, video.shape[1], method='decode'))

  def notes(params: Tree) -> dict[str, Any]:
    if kept := _kept_statistics(config, params):
      return {'latents': kept}
    run = lambda batch: encode(params, batch['video'])  # noqa: E731
    return {'latents': latent_statistics(buckets, run).as_dict()}

  def show(params: Tree, directory: pathlib.Path) -> pathlib.Path:
    source = longest.source
    video = np.stack([source[i]['video'] for i in range(min(SHOWN, len(source)))])
    again = fetch(reconstruct(params, video))
    rows = [row for pair in zip(video, again, strict=True) for row in pair]
    path = directory / 'reconstruction.png'
    if jax.process_index() == 0:
      contact_sheet(path, rows, ['original', 'reconstruction'] * len(video))
    return path

  def fit(params: Tree) -> Tree:
    """An image model may start from a video model's spatial layers."""
    return params if model.temporal else without_time(params)

  objective = make_objective(weights, perceptual)
  return TrainSpec(
    model=model,
    inputs=(example, jax.random.key(0)),
    objective=objective,
    validate=objective,
    buckets=buckets,
    validation=validation,
    prepare=prepare,
    show=show,
    notes=notes,
    start=make_start(config.start_from, config.component, fit),
    discriminator=adversary,
    frozen={} if frozen is None else {'lpips': frozen},
  )


def _kept_statistics(config: ConfigDict, params: Tree) -> dict[str, Any] | None:
  """Of the run whose encoder this one has, frozen: models of its latents take the new decoder."""
  source = parse_sources(config.start_from).get('')
  rates = config.optimizer.rates
  encoder = [name for name in named_leaves(params) if name.startswith('encoder/')]
  if source is None or source.subtree or any(factor_of(name, rates) for name in encoder):
    return None
  return open_checkpoints(source.workdir).restore_record()['meta']['notes'].get('latents')


def _settings(config: ConfigDict):
  """Everything beside the networks, checked before any data are read."""
  Tiling.of(dict(config.get('tiling', {})))  # of whoever uses the weights
  data = data_settings(fields_of(config, 'data'))
  shapes = video_shapes(fields_of(config, 'buckets'), data.fps)
  weights = LossWeights.of(fields_of(config, 'objective'))
  return data, shapes, bucket_settings(fields_of(config, 'buckets'), data), weights


def _perceptual(config: ConfigDict) -> tuple[Perceptual | None, Tree]:
  if not config.objective.perceptual:
    return None, None
  if not config.perceptual_weights:
    _log.warning(
      'objective.perceptual = %g, but config.perceptual_weights names no file: training goes on '
      'without LPIPS; mgjax/tae/perceptual.py says how to make the file',
      config.objective.perceptual,
    )
    return None, None
  params = read_perceptual(config.perceptual_weights)
  place = on_every_device()
  params = jax.tree.map(lambda leaf: jax.device_put(leaf, place and place('', leaf.shape)), params)
  return Perceptual(widths_of(params), compute_type(config.model.dtype)), params


def make_adversary(
  config: ConfigDict, weights: LossWeights, perceptual: Perceptual | None
) -> Adversary | None:
  """Makes the discriminator that `config.discriminator` describes; None where it has no weight."""
  settings, fields = adversary_settings(fields_of(config, 'discriminator'))
  fields['dtype'] = config.model.dtype
  discriminator = unpack(Discriminator, fields, 'discriminator')
  if not weights.adversarial:
    return None
  side = 2 ** len(discriminator.widths)
  return Adversary(
    model=discriminator,
    inputs=(jnp.zeros((1, 1, side, side, 3)),),
    generator_objective=make_adversarial_objective(weights, perceptual),
    objective=make_discriminator_objective(weights),
    optimizer=settings.optimizer,
    start=settings.start,
  )


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration with the smallest video that it takes."""
  model = make_autoencoder(fields_of(config, 'model'))
  *_, weights = _settings(config)
  make_adversary(config, weights, None)
  return Outline(model, (jnp.zeros((1, *model.compression, 3)), jax.random.key(0)))


def latent_statistics(
  buckets: Sequence[ShapeBucket],
  encode: Callable[[Batch], Array],
  batches: int = STATISTICS_BATCHES,
) -> Statistics:
  """Estimates mean and deviation of each channel over the first batches of every bucket.

  Training data, because a flow model will see the latents of those.

  Args:
    buckets: with samples that `encode` reads.
    encode: a batch to latents (... c).
    batches: of a bucket; where there are fewer samples than a batch has, all of them.
  """
  arrays = []
  for bucket in buckets:
    count = min(batches, len(bucket.source) // bucket.batch_size)
    if count:
      arrays += [fetch(encode(batch)) for batch in validation_batches(bucket, count)]
    else:
      samples = [bucket.source[index] for index in range(len(bucket.source))]
      transform = bucket.transform or dict
      rows = [transform(sample) for sample in samples]
      arrays.append(
        fetch(encode({name: np.stack([row[name] for row in rows]) for name in rows[0]}))
      )
  return estimate_statistics(arrays)
