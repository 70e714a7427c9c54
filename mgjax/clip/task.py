"""Trains both towers of CLIP on images and their captions."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.checkpoints.warm_start import make_start
from mgjax.clip.model import ClipModel, clip_model_inputs, make_clip_model
from mgjax.clip.objective import clip_objective
from mgjax.core.errors import ConfigError
from mgjax.core.settings import arguments, fields_of
from mgjax.core.typing import Batch
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import make_sources, make_transform
from mgjax.text.tokenizer_folder import check_tokenizer
from mgjax.text.tokenizers import Tokenizer, encode_texts, load_tokenizer
from mgjax.training.settings import bucket_settings
from mgjax.training.spec import Outline, TrainSpec, make_buckets


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: single frames and their captions, compared with each other."""
  model, data, shapes, objective = _settings(config)
  tokenizer, length = make_tokenizer(config), model.text.positions
  sources = functools.partial(make_sources, data, shapes)
  if not model.identity:
    images, captions, keep = ('video',), ('caption',), ('video',)
  else:
    images, captions = ('video', 'view'), ('caption', 'view_caption')
    keep = (*images, 'identity')
  tokenize = functools.partial(_tokenize, tokenizer, length, captions)
  transform = make_transform((tokenize,), keep)
  settings = bucket_settings(fields_of(config, 'buckets'))
  buckets, validation = make_buckets(settings, workdir, sources, transform, share=data.share)

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
    start=make_start(config.start_from, config.component),
  )


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration with the smallest inputs that it takes."""
  model, *_ = _settings(config)
  make_tokenizer(config)
  return Outline(model, clip_model_inputs(model))


def make_tokenizer(config: ConfigDict) -> Tokenizer:
  """Makes the tokenizer that `config.tokenizer` names: 'bytes', or a file or folder.

  Raises:
    ConfigError: it is not there, or makes tokens that `config.model.text` does not have.
  """
  tokenizer = load_tokenizer(config.tokenizer)
  check_tokenizer(tokenizer, fields_of(config, 'model')['text'], config.tokenizer)
  return tokenizer


def _tokenize(
  tokenizer: Tokenizer, length: int, names: Sequence[str], sample: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  tokens, mask = encode_texts(tokenizer, [sample[name] for name in names], length)
  return {'tokens': tokens, 'tokens_mask': mask}


def _settings(config: ConfigDict):
  """The model and the data, checked before any are read."""
  model: ClipModel = make_clip_model(fields_of(config, 'model'))
  data = data_settings(fields_of(config, 'data'))
  shapes = video_shapes(fields_of(config, 'buckets'), data.fps)
  bucket_settings(fields_of(config, 'buckets'))
  objective = functools.partial(
    clip_objective,
    **arguments(
      clip_objective, fields_of(config, 'objective'), 'objective', ('predict', 'batch', 'key')
    ),
  )
  views = data.kind == 'digits' and 'view' in data.digits.get('extras', ())
  if model.identity and not views:
    raise ConfigError(
      f'model.identity = {model.identity}, and samples have no other view of what they show; '
      "expected data.kind = 'digits' with data.digits.extras = ('view',), or model.identity = 0"
    )
  for name, shape in shapes.items():
    if (shape.frames, *shape.size) != (1, model.vision.size, model.vision.size):
      raise ConfigError(
        f'buckets.{name} has {shape.frames} frames of {shape.size[0]} x {shape.size[1]}; expected '
        f'frames = 1, for the caption of a video tells of motion that no frame shows, and '
        f'height = width = model.vision.size = {model.vision.size}'
      )
  return model, data, shapes, objective
