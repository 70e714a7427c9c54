"""Trains both towers of CLIP on images and their captions."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import arguments, fields_of
from mgjax.core.typing import Batch
from mgjax.data.buckets import Shape
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.data.sources import make_sources, make_transform
from mgjax.models.clip.model import ClipModel, clip_model_inputs, make_clip_model
from mgjax.models.clip.objective import clip_objective
from mgjax.models.text.tokenizers import Tokenizer, encode_texts, load_tokenizer
from mgjax.sections.text.tokenizer_folder import check_tokenizer
from mgjax.training.checkpoints.warm_start import make_start
from mgjax.training.settings import BucketSettings, bucket_settings
from mgjax.training.spec import Outline, TrainSpec, make_buckets


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """What the training of a CLIP reads of a configuration beside `train` and `optimizer`."""

  component: str
  start_from: Any
  model: ClipModel
  tokenizer: Tokenizer
  data: DataSettings
  shapes: Mapping[str, Shape]
  buckets: Mapping[str, BucketSettings]
  objective: Mapping[str, Any]

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> 'ClipSettings':
    """Reads a configuration, before any data are read. Raises ConfigError for what does not fit."""
    described, buckets = fields_of(fields, 'model'), fields_of(fields, 'buckets')
    model = make_clip_model(described)
    data = data_settings(fields_of(fields, 'data'))
    shapes = video_shapes(buckets, data.fps)
    given = fields_of(fields, 'objective')
    place = ('predict', 'batch', 'key')
    objective = arguments(clip_objective, given, 'objective', place)
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


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: single frames and their captions, compared with each other."""
  settings = ClipSettings.of(config.to_dict())
  model = settings.model
  data = settings.data
  length = settings.model.text.positions
  sources = functools.partial(make_sources, data, settings.shapes)
  if not model.identity:
    images, captions, keep = ('video',), ('caption',), ('video',)
  else:
    images, captions = ('video', 'view'), ('caption', 'view_caption')
    keep = (*images, 'identity')
  tokenize = functools.partial(_tokenize, settings.tokenizer, length, captions)
  transform = make_transform((tokenize,), keep)
  buckets, validation = make_buckets(
    settings.buckets, workdir, sources, transform, share=data.share
  )
  objective = functools.partial(clip_objective, **settings.objective)

  def prepare(batch: Batch) -> Batch:
    shown = jnp.stack([batch[name][:, 0] for name in images], axis=1)
    views = {
      'images': shown.astype(jnp.float32) / 255,
      'tokens': batch['tokens'],
      'tokens_mask': batch['tokens_mask'],
    }
    # Those of a sample become rows beside each other, on one device.
    rows = {name: each.reshape(-1, *each.shape[2:]) for name, each in views.items()}
    if 'identity' in batch:
      rows['identity'] = jnp.repeat(batch['identity'], len(images))
    return rows

  return TrainSpec(
    model=model,
    inputs=clip_model_inputs(model),
    objective=objective,
    validate=objective,
    buckets=buckets,
    validation=validation,
    prepare=prepare,
    start=make_start(settings.start_from, settings.component),
  )


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration with the smallest inputs that it takes."""
  model = ClipSettings.of(config.to_dict()).model
  return Outline(model, clip_model_inputs(model))


def make_tokenizer(name: str, text: Mapping[str, Any]) -> Tokenizer:
  """Makes the tokenizer that `config.tokenizer` names: 'bytes', or a file or folder.

  Raises ConfigError if it is not there, or makes tokens that `text`, which is `config.model.text`,
  does not have.
  """
  tokenizer = load_tokenizer(name)
  check_tokenizer(tokenizer, text, name)
  return tokenizer


def _tokenize(
  tokenizer: Tokenizer, length: int, names: Sequence[str], sample: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  tokens, mask = encode_texts(tokenizer, [sample[name] for name in names], length)
  return {'tokens': tokens, 'tokens_mask': mask}


def _check_pictures(model: ClipModel, data: DataSettings, shapes: Mapping[str, Shape]) -> None:
  views = 'view' in data.world.get('extras', ())
  if model.identity and not views:
    raise ConfigError(
      f'model.identity = {model.identity}, and samples have no other view of what they show; '
      f"expected data.{data.kind}.extras = ('view',) of a world, or model.identity = 0"
    )
  for name, shape in shapes.items():
    if (shape.frames, *shape.size) != (1, model.vision.size, model.vision.size):
      raise ConfigError(
        f'buckets.{name} has {shape.frames} frames of {shape.size[0]} x {shape.size[1]}; expected '
        f'frames = 1, for the caption of a video tells of motion that no frame shows, and '
        f'height = width = model.vision.size = {model.vision.size}'
      )
