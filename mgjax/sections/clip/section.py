"""Trains both towers of CLIP on images and their captions."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import arguments, fields_of
from mgjax.core.typing import Batch
from mgjax.data.buckets import Shape
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.data.sources import make_sources, make_transform
from mgjax.models.clip.model import ClipModel, clip_model_inputs, make_clip_model
from mgjax.models.clip.objective import clip_objective
from mgjax.models.text.tokenizers import Tokenizer, encode_texts
from mgjax.sections.text.tokenizer_folder import make_tokenizer
from mgjax.training.checkpoints.warm_start import make_start
from mgjax.training.settings import BucketSettings, bucket_settings
from mgjax.training.spec import Outline, TrainSpec, make_buckets


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """What the training of a CLIP reads of a configuration beside `train` and `optimizer`."""

  component: str
  start_from: object
  model: ClipModel
  tokenizer: Tokenizer
  data: DataSettings
  shapes: Mapping[str, Shape]
  buckets: Mapping[str, BucketSettings]
  objective: Fields

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> 'ClipSettings':
    """Reads a configuration without reading data. Raises ConfigError if it is inconsistent."""
    described, buckets = fields_of(fields, 'model'), fields_of(fields, 'buckets')
    model = make_clip_model(described)
    data = data_settings(fields_of(fields, 'data'))
    shapes = video_shapes(buckets, data.fps)
    objective_fields = fields_of(fields, 'objective')
    positional = ('predict', 'batch', 'key')
    objective = arguments(clip_objective, objective_fields, 'objective', positional)
    _check_pictures(model, data, shapes)
    return cls(
      component=fields['component'],
      start_from=fields.get('start_from'),
      model=model,
      tokenizer=make_tokenizer(fields['tokenizer'], described['text']),
      data=data,
      shapes=shapes,
      buckets=bucket_settings(buckets),
      objective=objective,
    )


class ClipSection:
  """Single frames and their captions, compared with each other."""

  def __init__(self, config: ConfigDict):
    """Reads a configuration; see `mgjax.training.spec.Section`."""
    self.settings = ClipSettings.of(config.to_dict())
    views = self.settings.model.identity
    self._images = ('video', 'view') if views else ('video',)
    self._captions = ('caption', 'view_caption') if views else ('caption',)

  def outline(self) -> Outline:
    """Returns the model with the smallest inputs that it takes."""
    return Outline(self.settings.model, clip_model_inputs(self.settings.model))

  def training(self, workdir: pathlib.Path) -> TrainSpec:
    """Returns what is trained; see `mgjax.training.spec.Section`."""
    settings = self.settings
    model = settings.model
    length = model.text.positions
    tokenize = functools.partial(_tokenize, settings.tokenizer, length, self._captions)
    keep = (*self._images, 'identity') if model.identity else self._images
    buckets, validation = make_buckets(
      settings.buckets,
      workdir,
      functools.partial(make_sources, settings.data, settings.shapes),
      make_transform((tokenize,), keep),
      share=settings.data.share,
    )
    objective = functools.partial(clip_objective, **settings.objective)
    return TrainSpec(
      model=model,
      inputs=clip_model_inputs(model),
      objective=objective,
      validate=objective,
      buckets=buckets,
      validation=validation,
      prepare=self._prepare,
      start=make_start(settings.start_from, settings.component),
    )

  def _prepare(self, batch: Batch) -> Batch:
    images = jnp.stack([batch[name][:, 0] for name in self._images], axis=1)
    views = {
      'images': images.astype(jnp.float32) / 255,
      'tokens': batch['tokens'],
      'tokens_mask': batch['tokens_mask'],
    }
    # The views of a sample become adjacent rows, on one device.
    rows = {name: view.reshape(-1, *view.shape[2:]) for name, view in views.items()}
    if 'identity' in batch:
      rows['identity'] = jnp.repeat(batch['identity'], len(self._images))
    return rows


def _tokenize(
  tokenizer: Tokenizer, length: int, names: Sequence[str], sample: Fields
) -> dict[str, np.ndarray]:
  tokens, mask = encode_texts(tokenizer, [sample[name] for name in names], length)
  return {'tokens': tokens, 'tokens_mask': mask}


def _check_pictures(model: ClipModel, data: DataSettings, shapes: Mapping[str, Shape]) -> None:
  views = 'view' in data.world.get('extras', ())
  if model.identity and not views:
    raise ConfigError(
      f'model.identity = {model.identity}, and samples have no other view of what they show; '
      f"expected data.{data.kind}.extras = ('view',) of a synthetic dataset, or model.identity = 0"
    )
  for name, shape in shapes.items():
    if (shape.frames, *shape.size) != (1, model.vision.size, model.vision.size):
      raise ConfigError(
        f'buckets.{name} has {shape.frames} frames of {shape.size[0]} x {shape.size[1]}; expected '
        f'frames = 1, for the caption of a video tells of motion that no frame shows, and '
        f'height = width = model.vision.size = {model.vision.size}'
      )
