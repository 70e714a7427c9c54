"""Exports both towers of a trained CLIP as a folder of transformers' CLIPModel.

From it `launch.weights import` makes a frozen encoder of either tower (`weights.py`).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from safetensors.numpy import save

from mgjax.clip.model import ClipModel, clip_model_inputs, make_clip_model
from mgjax.clip.weights import clip_config, clip_rows
from mgjax.core.files import write_bytes, write_json
from mgjax.core.typing import Tree
from mgjax.core.weights.format import WeightFormat
from mgjax.core.weights.names import TensorName, export_tensors


def _rows() -> Sequence[TensorName]:
  """The tables of both towers, by the names that transformers gives them side by side."""
  rows = [TensorName('log_scale', 'logit_scale')]
  for tower in ('text', 'vision'):
    rows += [
      row._replace(ours=f'{tower}/{row.ours}', theirs=row.names[0])
      for row in clip_rows(tower, ())
      if row.ours is not None
    ]
  return rows


def _init(model: ClipModel, _: Mapping[str, Any], key: jax.Array) -> Tree:
  return nn.unbox(model.init(key, *clip_model_inputs(model))['params'])


def _write(
  params: Tree, fields: Mapping[str, Any], notes: Mapping[str, Any], out: pathlib.Path
) -> str:
  del notes
  # CLIPModel has no head for identities.
  params = {name: each for name, each in params.items() if not name.startswith('identity_')}
  towers = {tower: clip_config(tower, fields[tower]) for tower in ('text', 'vision')}
  config = {
    'architectures': ['CLIPModel'],
    'model_type': 'clip',
    'projection_dim': fields['text']['projection'],
    **{f'{tower}_config': each for tower, each in towers.items()},
  }
  write_json(out / 'config.json', config)
  tensors = export_tensors(_rows(), params)
  write_bytes(out / 'model.safetensors', save(tensors, {'format': 'pt'}))
  return "both towers by transformers' names"


FORMAT = WeightFormat(
  make_clip_model, _init, form='transformers', folder=True, write=_write, noted=(), how=()
)
