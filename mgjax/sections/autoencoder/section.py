"""Trains the temporal autoencoder (Movie Gen §3.1.1)."""

import functools
import logging
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.core.typing import Array, Batch, Tree
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.loader import validation_batches
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.settings import video_shapes
from mgjax.data.source import Source
from mgjax.data.sources import make_sources, make_transform
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.discriminator import Discriminator
from mgjax.models.tae.inflate import without_time
from mgjax.models.tae.latents import Statistics, estimate_statistics, to_bytes, to_unit
from mgjax.models.tae.objective import (
  LossWeights,
  make_adversarial_objective,
  make_discriminator_objective,
  make_objective,
)
from mgjax.models.tae.perceptual import Perceptual, read_perceptual, widths_of
from mgjax.models.tae.shortcut import blocks, components
from mgjax.models.tae.tiling import Tiling
from mgjax.parallel.distributed import fetch
from mgjax.parallel.shard import Place, on_every_device
from mgjax.sections.autoencoder.pipeline import KEPT, load_codec
from mgjax.sections.autoencoder.settings import ReconstructionSettings
from mgjax.training.checkpoints.warm_start import make_start, parse_sources
from mgjax.training.optimizers.rates import factor_of
from mgjax.training.spec import (
  Adversary,
  Callbacks,
  Outline,
  TrainSpec,
  longest_of,
  make_buckets,
)

_SHOWN = 4  # clips in a picture
_STATISTICS_BATCHES = 8  # per bucket
SHORTCUT_SAMPLES, SHORTCUT_BLOCKS = 256, 64  # whose components a shortcut starts as; of a sample

_log = logging.getLogger(__name__)


class AutoencoderSection:
  """Pixels in and out, latent statistics kept with the weights."""

  def __init__(self, config: ConfigDict):
    """Reads a configuration; see `mgjax.training.spec.Section`."""
    fields = config.to_dict()
    Tiling.of(fields.get('tiling', {}))  # for users of the weights
    self.settings = ReconstructionSettings.of(
      fields,
      make_model=make_autoencoder,
      shapes=video_shapes,
      weights=LossWeights,
      discriminator=Discriminator,
    )
    if not isinstance(self.settings.model, Autoencoder):
      raise ConfigError(
        f'model.kind = {fields["model"]["kind"]!r}: mgjax trains the autoencoder of the paper, and '
        'flow models on the latents of others'
      )
    self.perceptual_weights = fields.get('perceptual_weights')

  def outline(self) -> Outline:
    """Returns the model with the smallest video that it takes."""
    model = self.settings.model
    return Outline(model, (jnp.zeros((1, *model.compression, 3)), jax.random.key(0)))

  def training(self, workdir: pathlib.Path) -> TrainSpec:
    """Returns what is trained; see `mgjax.training.spec.Section`."""
    settings = self.settings
    model = settings.model
    perceptual, frozen = _read_perceptual(settings, self.perceptual_weights)
    buckets, validation = make_buckets(
      settings.buckets,
      workdir,
      functools.partial(make_sources, settings.data, settings.shapes),
      make_transform((), ('video',)),
      share=settings.data.share,
    )
    longest = longest_of(validation, settings.buckets)
    trained = longest_of(buckets, settings.buckets)
    shape = settings.shapes[longest.name]
    example = jnp.zeros((1, shape.frames, shape.height, shape.width, 3))
    objective = make_objective(settings.weights, perceptual)
    return TrainSpec(
      model=model,
      inputs=(example, jax.random.key(0)),
      objective=objective,
      validate=objective,
      buckets=buckets,
      validation=validation,
      prepare=lambda batch: {'video': to_unit(batch['video'])},
      callbacks=_Reconstructions(settings, buckets, longest.source),
      start=make_start(settings.start_from, settings.component, self._fit)
      or (_make_shortcut_start(model, trained.source) if model.shortcut else None),
      discriminator=_make_adversary(settings, perceptual),
      frozen={} if frozen is None else {'lpips': frozen},
    )

  def _fit(self, params: Tree) -> Tree:
    """Lets an image model start from the spatial layers of a video model."""
    return params if self.settings.model.temporal else without_time(params)


class _Reconstructions(Callbacks):
  """Clips beside their reconstructions, and the statistics of latents."""

  def __init__(
    self, settings: ReconstructionSettings, buckets: Sequence[ShapeBucket], source: Source
  ):
    """Binds the buckets of training and the clips of validation that are shown."""
    self._settings, self._buckets, self._source = settings, buckets, source
    model = settings.model

    @jax.jit
    def encode(params: Tree, video: jax.Array) -> jax.Array:
      return model.apply({'params': params}, to_unit(video), method='encode').mean

    @jax.jit
    def reconstruct(params: Tree, video: jax.Array) -> jax.Array:
      mean = encode(params, video)
      return to_bytes(model.apply({'params': params}, mean, video.shape[1], method='decode'))

    self._encode, self._reconstruct = encode, reconstruct

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    source = self._source
    video = np.stack([source[i]['video'] for i in range(min(_SHOWN, len(source)))])
    again = fetch(self._reconstruct(params, video))
    rows = [row for pair in zip(video, again, strict=True) for row in pair]
    path = directory / 'reconstruction.png'
    if jax.process_index() == 0:
      contact_sheet(path, rows, ['original', 'reconstruction'] * len(video))
    return path

  def notes(self, get_params: Callable[[], Tree]) -> dict[str, Any]:
    params = get_params()
    if encoder_notes := _kept_encoder(self._settings, params):
      return encoder_notes
    run = lambda batch: self._encode(params, batch['video'])  # noqa: E731
    statistics = latent_statistics(self._buckets, run)
    # Channels of a shortcut are of rising frequency and falling power. Made equal, what is fine
    # would be most of what a flow model learns; left as they are, it is drawn out of noise last.
    statistics = statistics.tempered() if self._settings.model.shortcut else statistics
    return {'latents': statistics.as_dict()}


def _make_shortcut_start(model: Autoencoder, source: Source) -> Callable[[Place], Tree]:
  """Makes the initialiser of a shortcut: principal components of blocks of the first samples."""

  def start(sharding_of: Place) -> Tree:
    rows = []
    size = 3 * math.prod(model.compression)
    for index in range(min(SHORTCUT_SAMPLES, len(source))):
      video = to_unit(jnp.asarray(source[index]['video'][None]))
      flat_blocks = np.asarray(blocks(video, model.compression)).reshape(-1, size)
      rows.append(flat_blocks[:: max(1, len(flat_blocks) // SHORTCUT_BLOCKS)])
    basis = components(np.concatenate(rows), model.latent_channels)
    basis = multihost_utils.broadcast_one_to_all(basis) if jax.process_count() > 1 else basis
    params = {
      'shortcut_in': {'kernel': basis.T, 'bias': np.zeros(len(basis), np.float32)},
      'shortcut_out': {'kernel': basis, 'bias': np.zeros(basis.shape[1], np.float32)},
    }
    named = {n: jax.device_put(x, sharding_of(n, x.shape)) for n, x in named_leaves(params).items()}
    return nest(named)

  return start


def _kept_encoder(settings: ReconstructionSettings, params: Tree) -> JSON | None:
  """Notes on the run whose encoder this one has, frozen: models of its latents take this one."""
  source = parse_sources(settings.start_from).get('')
  encoder = [name for name in named_leaves(params) if name.startswith(('encoder/', 'shortcut_in/'))]
  learns = any(factor_of(name, settings.rates) for name in encoder)
  if source is None or source.subtree or learns:
    return None
  codec = load_codec(source.workdir)
  return {'latents': codec.statistics.as_dict(), KEPT: list(codec.fingerprints[:-1])}


def _read_perceptual(
  settings: ReconstructionSettings, path: str | None
) -> tuple[Perceptual | None, Tree]:
  if not settings.weights.perceptual:
    return None, None
  if not path:
    _log.warning(
      'objective.perceptual = %g, but config.perceptual_weights names no file: training goes on '
      'without LPIPS; mgjax/models/tae/perceptual.py says how to make the file',
      settings.weights.perceptual,
    )
    return None, None
  params = read_perceptual(path)
  sharding_of = on_every_device()
  params = jax.tree.map(
    lambda leaf: jax.device_put(leaf, sharding_of and sharding_of('', leaf.shape)), params
  )
  return Perceptual(widths_of(params), settings.model.dtype), params


def _make_adversary(
  settings: ReconstructionSettings, perceptual: Perceptual | None = None
) -> Adversary | None:
  """Makes the discriminator that `config.discriminator` describes; None where it has no weight."""
  if not settings.weights.adversarial:
    return None
  side = 2 ** len(settings.discriminator.widths)
  return settings.opponent(
    jnp.zeros((1, 1, side, side, 3)),
    make_adversarial_objective(settings.weights, perceptual),
    make_discriminator_objective(settings.weights),
  )


def latent_statistics(
  buckets: Sequence[ShapeBucket],
  encode: Callable[[Batch], Array],
  batches: int = _STATISTICS_BATCHES,
) -> Statistics:
  """Estimates mean and deviation of each channel over the first batches of every bucket.

  Training data, because a flow model will see the latents of those. Where a bucket has fewer
  samples than a batch, all of them are taken.
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
