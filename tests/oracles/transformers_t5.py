"""transformers' encoders of the T5 family, to be timed in turns with ours.

python -m launch.bench --config=configs/text/t5_base.py --what=encode \\
  --config.model.dtype=float32 --config.length=128 --baseline=tests/oracles/transformers_t5.py
It gets our weights, and its states are compared with ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers

from mgjax.models.foreign_weights.names import export_tensors
from mgjax.models.text.t5_weights import t5_config, t5_rows

WHAT = ('encode',)
ATTENTION = ('eager', 'sdpa')


def programs(task: Mapping[str, Any], make: Callable, kind: str, state: Mapping, inputs: Mapping):
  """Makes a model of `make()`'s configuration with each of transformers' kernels of attention."""
  torch.set_num_threads(task['threads'])
  device = 'cuda' if task['platform'] == 'gpu' else 'cpu'
  inputs = {name: torch.tensor(array, device=device) for name, array in inputs.items()}

  def program(attention: str) -> Callable[[], Any]:
    config = make()
    config._attn_implementation = attention
    model = getattr(transformers, kind)(config)
    model.load_state_dict(
      {name: torch.tensor(np.asarray(x, np.float32)) for name, x in state.items()}
    )
    model = model.to(device, getattr(torch, task['dtype'])).eval()

    def run() -> np.ndarray:
      with torch.inference_mode():
        return model(**inputs).last_hidden_state.float().cpu().numpy()

    return run

  name = f'transformers {transformers.__version__}, PyTorch {torch.__version__}'
  return {f'{name}, {attention}': {'encode': program(attention)} for attention in ATTENTION}


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes what `launch.bench` times."""
  said = t5_config(task)
  kind, family = said.pop('architectures')[0], said.pop('model_type')
  make = transformers.UMT5Config if family == 'umt5' else transformers.T5Config
  state = export_tensors(t5_rows(task), task['params'])
  state = {**state, 'encoder.embed_tokens.weight': state['shared.weight']}
  inputs = {'input_ids': np.int64(task['tokens']), 'attention_mask': np.int64(task['mask'])}
  return programs(task, lambda: make(**said), kind, state, inputs)
