"""Checks what is asked of a video model by its configuration alone, before weights are read."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.checkpoints.workdir import places_of, read_config, read_config_of
from mgjax.core.settings import fields_of, unpack
from mgjax.data.settings import video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.flow_models.build import make_flow_model, make_sampler_of
from mgjax.flow_models.conditions import condition_fields
from mgjax.flow_models.files import spread_conditions
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.text.prompts import frame_rate_of
from mgjax.video.files import check_out
from mgjax.video.shape import check_shape


def check_request(
  workdir: str | os.PathLike[str],
  prompts: Sequence[str],
  *,
  out: str | None = None,
  frames: int | None = None,
  size: tuple[int, int] | None = None,
  fps: float | None = None,
  conditions: Mapping[str, Any] = {},
  changes: Mapping[str, Any] = {},
) -> tuple[int, int, int]:
  """Returns frames, height and width of the videos, if the model can make what is asked for.

  Args:
    workdir: of a run of the component 'video'.
    prompts: one a video.
    out: where they will be written, if that is known.
    frames: of a video; by default as in training.
    size: height and width; by default as in training.
    fps: frames a second, if they are given.
    conditions: as of `VideoPipeline.stream`.
    changes: as of `VideoPipeline`.

  Raises:
    ConfigError: it cannot.
    DataError: the file of a condition is not there.
  """
  config = read_config_of(workdir, 'video', 'a video model')
  model = make_flow_model(fields_of(config, 'model'))
  settings = unpack(SampleSettings, fields_of(config, 'sample'), 'sample').changed(changes)
  objective = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  make_sampler_of(settings, objective, model)
  for prompt in prompts:
    frame_rate_of(prompt, fps, config.data.fps)
  _, usual = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  shape = (frames or usual.frames, *(size or usual.size))
  if out is not None:
    check_out(pathlib.Path(out), len(prompts), shape[0])
  for place in places_of(workdir, config.autoencoder):
    if place.exists():
      codec = make_autoencoder(fields_of(read_config(place), 'model'))
      check_shape(model.backbone, codec, shape)
      fields = condition_fields(model.conditionings, shape, codec.latent_shape(shape))
      spread_conditions(conditions, fields, len(prompts))
      break
  return shape
