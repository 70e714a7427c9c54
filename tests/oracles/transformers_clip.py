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
import torch
import transformers

from mgjax.clip.towers import MEAN, STD
from mgjax.clip.weights import clip_config, clip_rows
from mgjax.core.weights.names import export_tensors

WHAT = ('encode',)
ATTENTION = ('eager', 'sdpa')


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes what `launch.bench` times, with each of transformers' kernels of attention."""
  torch.set_num_threads(task['threads'])
  device = 'cuda' if task['platform'] == 'gpu' else 'cpu'
  tower, dtype = task['component'].removeprefix('clip_'), getattr(torch, task['dtype'])
  said = clip_config(tower, task)
  kind, family = said.pop('architectures')[0], said.pop('model_type')
  make = {'clip_text_model': transformers.CLIPTextConfig,
          'clip_vision_model': transformers.CLIPVisionConfig}[family]  # fmt: skip
  tensors = export_tensors(clip_rows(tower, ()), task['params'])
  state = {name: torch.tensor(np.asarray(x, np.float32)) for name, x in tensors.items()}
  if tower == 'text':
    inputs = {
      'input_ids': torch.tensor(task['tokens'], device=device, dtype=torch.long),
      'attention_mask': torch.tensor(task['mask'], device=device, dtype=torch.long),
    }
  else:
    pixels = (task['images'] - np.float32(MEAN)) / np.float32(STD)
    pixels = torch.tensor(pixels, device=device, dtype=dtype).permute(0, 3, 1, 2)
    inputs = {'pixel_values': pixels.contiguous()}

  def program(attention: str) -> Callable[[], Any]:
    config = make(**said)
    config._attn_implementation = attention
    model = getattr(transformers, kind)(config)
    model.load_state_dict(state)
    model = model.to(device, dtype).eval()

    def run() -> np.ndarray:
      with torch.inference_mode():
        return model(**inputs).last_hidden_state.float().cpu().numpy()

    return run

  name = f'transformers {transformers.__version__}, PyTorch {torch.__version__}'
  return {f'{name}, {attention}': {'encode': program(attention)} for attention in ATTENTION}
