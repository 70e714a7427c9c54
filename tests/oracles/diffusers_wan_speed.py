"""Wan in diffusers, to be timed beside ours: the guided loop of a sampler, and decoding.

python -m launch.bench --config=configs/wan/text_to_video.py:1.3b --what=sample \\
  --baseline=tests/oracles/diffusers_wan_speed.py
python -m launch.bench --config=configs/wan/autoencoder.py --what=decode --video=1,81,480,832 \\
  --baseline=tests/oracles/diffusers_wan_speed.py
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import numpy as np
import torch

from tests.oracles.torch_backbone import waited

WHAT = ('sample', 'decode')
SHIFT = 5.0  # of the schedule; it costs nothing

Run = Callable[[], Any]


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Run]]:
  """Makes what `launch.bench` times: as it is, compiled, and on a GPU with cuDNN's attention."""
  torch.set_num_threads(task['threads'])
  device = 'cuda' if task['platform'] == 'gpu' else 'cpu'
  make = make_sampler if task['what'] == 'sample' else make_decoder
  model, programs = make(task, device)
  variants = {'': lambda module: module, ', compiled': torch.compile}
  if device == 'cuda' and task['what'] == 'sample':
    variants[', compiled, cuDNN'] = lambda module: torch.compile(_with_cudnn(module))
  return {
    f'diffusers {diffusers.__version__}{name}': {
      program: waited(run, device) for program, run in programs(wrap(model)).items()
    }
    for name, wrap in variants.items()
  }


def make_sampler(
  task: Mapping[str, Any], device: str
) -> tuple[torch.nn.Module, Callable[[torch.nn.Module], dict[str, Run]]]:
  """Returns a transformer with random weights, and what makes UniPC's loops of it.

  Each step asks for the prompt and for the negative one, in two passes, as `WanPipeline` does.
  """
  b, *sizes, channels = task['latents']
  dtype = getattr(torch, task['dtype'])
  with torch.device(device):
    model = diffusers.WanTransformer3DModel(
      num_attention_heads=task['heads'],
      attention_head_dim=task['dim'] // task['heads'],
      in_channels=channels,
      out_channels=channels,
      text_dim=task['text_dim'],
      ffn_dim=task['mlp_dim'],
      num_layers=task['depth'],
    ).to(dtype)
    noise = torch.randn(b, channels, *sizes)
    texts = torch.randn(2, b, task['context'], task['text_dim'], dtype=dtype)
  for name, parameter in model.named_parameters():  # as `from_pretrained` loads them
    if any(part in name for part in model._keep_in_fp32_modules):
      parameter.data = parameter.data.float()
  count, scale = len(task['times']) - 1, task['guidance']

  def programs(model: torch.nn.Module) -> dict[str, Run]:
    @torch.inference_mode()
    def sample(steps: int) -> torch.Tensor:
      scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=SHIFT
      )
      scheduler.set_timesteps(count, device=device)
      x = noise
      for time in scheduler.timesteps[:steps]:
        told = time.expand(b)
        answers = [model(x.to(dtype), told, text, return_dict=False)[0] for text in texts]
        answer = answers[1] + scale * (answers[0] - answers[1])
        x = scheduler.step(answer, time, x, return_dict=False)[0]
      return x

    return {'guided_step': lambda: sample(1), 'sample': lambda: sample(count)}

  return model.eval().requires_grad_(False), programs


def make_decoder(
  task: Mapping[str, Any], device: str
) -> tuple[torch.nn.Module, Callable[[torch.nn.Module], dict[str, Run]]]:
  """Returns an autoencoder with our weights, and what decodes with it."""
  from mgjax.models.foreign_weights.names import export_tensors
  from mgjax.models.tae.wan import WanAutoencoder
  from mgjax.models.tae.wan_files.weights import autoencoder_config
  from mgjax.models.tae.wan_names import autoencoder_rows

  fields = {name: task[name] for name in WanAutoencoder.__dataclass_fields__ if name in task}
  fields = {name: value for name, value in fields.items() if name not in ('parent', 'name')}
  rows = autoencoder_rows(WanAutoencoder(**{**fields, 'dtype': np.dtype('float32')}))
  z = task['latent_channels']
  config = autoencoder_config(fields, {'mean': [0.0] * z, 'std': [1.0] * z})
  config.pop('_class_name')
  dtype = getattr(torch, task['dtype'])
  model = diffusers.AutoencoderKLWan(**config)
  tensors = {
    name: torch.tensor(np.asarray(tensor, np.float32))
    for name, tensor in export_tensors(rows, task['params']).items()
  }
  model.load_state_dict(tensors)
  model = model.to(device, dtype).eval().requires_grad_(False)
  x = torch.tensor(np.asarray(task['x'], np.float32)).permute(0, 4, 1, 2, 3).to(device, dtype)

  def programs(model: torch.nn.Module) -> dict[str, Run]:
    @torch.inference_mode()
    def decode() -> np.ndarray:
      pixels = model.decode(x, return_dict=False)[0]
      return pixels.permute(0, 2, 3, 4, 1).float().cpu().numpy()

    return {'decode': decode}

  return model, programs


def _with_cudnn(model: torch.nn.Module) -> torch.nn.Module:
  model = copy.deepcopy(model)  # or all variants would have it
  model.set_attention_backend('_native_cudnn')
  return model
