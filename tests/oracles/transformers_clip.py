"""transformers' towers of CLIP, to be timed in turns with ours.

python -m launch.bench --config=configs/text/metaclip_text.py --what=encode \\
  --config.model.dtype=float32 --config.model.depth=12 --baseline=tests/oracles/transformers_clip.py
python -m launch.bench --config=configs/text/metaclip_vision.py --what=encode \\
  --config.model.dtype=float32 --config.model.depth=4 --baseline=tests/oracles/transformers_clip.py
It gets our weights, and its states are compared with ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import transformers

from mgjax.models.clip.towers import MEAN, STD
from mgjax.models.clip.weights import clip_config, clip_rows
from mgjax.models.foreign_weights.names import export_tensors
from tests.oracles.transformers_t5 import programs

WHAT = ('encode',)


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes what `launch.bench` times, with each of transformers' kernels of attention."""
  tower = task['component'].removeprefix('clip_')
  said = clip_config(tower, task)
  kind, family = said.pop('architectures')[0], said.pop('model_type')
  make = {
    'clip_text_model': transformers.CLIPTextConfig,
    'clip_vision_model': transformers.CLIPVisionConfig,
  }[family]
  if tower == 'text':
    inputs = {'input_ids': np.int64(task['tokens']), 'attention_mask': np.int64(task['mask'])}
  else:
    pixels = (task['images'] - np.float32(MEAN)) / np.float32(STD)
    inputs = {'pixel_values': np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
  state = export_tensors(clip_rows(tower, ()), task['params'])
  return programs(task, lambda: make(**said), kind, state, inputs)
