"""Self-attention by PyTorch's `scaled_dot_product_attention`, to be timed in turns with ours.

python -m launch.bench --config=configs/bench/cpu.py --what=attention \\
  --baseline=tests/oracles/torch_attention.py
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

WHAT = ('attention',)
# On a GPU each is a program of its own: which one is faster depends on shapes and versions.
KERNELS = {'flash': SDPBackend.FLASH_ATTENTION, 'cudnn': SDPBackend.CUDNN_ATTENTION}


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes 'forward' and 'forward_backward' for each kernel, on random data (b n g k)."""
  device = 'cuda' if task['platform'] == 'gpu' else 'cpu'
  torch.set_num_threads(task['threads'])
  heads = task['heads']
  shape = (task['latents'][0], math.prod(task['grid']), heads, task['dim'] // heads)
  # PyTorch wants (b g n k); the memory lies as the projections of a layer would leave it.
  q, k, v, dy = (
    torch.randn(shape, dtype=getattr(torch, task['dtype']), device=device).transpose(1, 2)
    for _ in range(4)
  )
  inputs = [x.requires_grad_() for x in (q, k, v)]

  def run(kernel: SDPBackend | None, backward: bool):
    with torch.set_grad_enabled(backward):
      if kernel is None:
        y = F.scaled_dot_product_attention(*inputs)
      else:
        with sdpa_kernel(kernel):
          y = F.scaled_dot_product_attention(*inputs)
      results = (y, *torch.autograd.grad(y, inputs, dy)) if backward else (y,)
    if device == 'cuda':
      torch.cuda.synchronize()
    return results

  return {
    f'PyTorch {torch.__version__} {name}': {
      'forward': functools.partial(run, kernel, False),
      'forward_backward': functools.partial(run, kernel, True),
    }
    for name, kernel in (KERNELS if device == 'cuda' else {'SDPA': None}).items()
  }
