"""diffusers' image autoencoder on every frame, to be timed in turns with ours.

python -m launch.bench --config=configs/bench/tae_cpu.py --what=encode \\
  --baseline=tests/oracles/diffusers_autoencoder.py
It gets our spatial weights and answers one frame as ours does before the temporal layers are
trained (`test_torch_autoencoder.py`).
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import numpy as np
import torch

from mgjax.core.tree import named_leaves
from mgjax.models.tae.inflate import deflate

WHAT = ('encode', 'decode')
DIFFERS = (
  'every frame by itself, without temporal layers and without compression of time, so that it '
  'decodes as many latent frames as there are frames'
)
FORMATS = {'': torch.contiguous_format, ' channels last': torch.channels_last}


def make_model(task: Mapping[str, Any]) -> diffusers.AutoencoderKL:
  """Makes the model with the spatial weights of ours."""
  levels = len(task['widths'])
  model = diffusers.AutoencoderKL(
    block_out_channels=tuple(task['widths']),
    down_block_types=('DownEncoderBlock2D',) * levels,
    up_block_types=('UpDecoderBlock2D',) * levels,
    layers_per_block=task['blocks'],
    latent_channels=task['latent_channels'],
    norm_num_groups=task['groups'],
    use_quant_conv=False,
    use_post_quant_conv=False,
  )
  tensors, _ = deflate(named_leaves(task['params']))
  model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
  return model.eval()


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes what `launch.bench` times, all frames one batch, in each of PyTorch's memory formats."""
  torch.set_num_threads(task['threads'])
  model, what = make_model(task), task['what']
  x = task['x'].reshape(-1, *task['x'].shape[2:])
  if what == 'decode':  # latents of every frame, not of every few
    x = np.resize(x, (task['x'].shape[0] * task['frames'], *x.shape[1:]))
  x = torch.from_numpy(x.copy()).permute(0, 3, 1, 2)

  def run(model: diffusers.AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
      y = model.encode(x).latent_dist.mean if what == 'encode' else model.decode(x).sample
    return y.permute(0, 2, 3, 1)

  return {
    f'diffusers {diffusers.__version__}{name}': {
      what: functools.partial(
        run, copy.deepcopy(model).to(memory_format=form), x.contiguous(memory_format=form)
      )
    }
    for name, form in FORMATS.items()
  }
