"""Makes wan.npz: what the Wan modules of diffusers answer with weights that are drawn by name.

python -m tests.oracles.wan
It was made with torch 2.13.0, diffusers 0.42.1 and numpy 2.4.6, in double precision. Weights are
not in the file: both sides draw them.
"""

import json
import pathlib
import zlib

import numpy as np

from tests.oracles import codec

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
TEXT = 32  # width of the states of text
# Fields of `WanTransformer`; heads of 24 features are not cut into equal parts by t, h, w.
TRANSFORMERS = {
  'text_to_video': {'dim': 48, 'depth': 3, 'heads': 2, 'mlp_dim': 100, 'channels_out': 16},
  'heads_of_16': {'dim': 64, 'depth': 2, 'heads': 4, 'mlp_dim': 96, 'channels_out': 48},
}
# A whole pipeline: latents (b t h w c), steps and shift; text is drawn as above.
PIPELINE = {
  'transformer': {'dim': 48, 'depth': 2, 'heads': 2, 'mlp_dim': 96, 'channels_out': 4},
  'latents': (1, 2, 4, 6, 4),
  'steps': 6,
  'shift': 5.0,
  'guidance': 4.0,
}
SCHEDULERS = ('unipc', 'euler')
LATENTS = (2, 3, 4, 6)  # (b t h w)
TIMES = (0.75, 0.001)  # flow times of the rows
# Fields of `WanAutoencoder`.
AUTOENCODERS = {
  'wan_2_1': {'encoder_width': 8, 'decoder_width': 8, 'latent_channels': 4},
  'wan_2_2': {
    'encoder_width': 8,
    'decoder_width': 12,
    'latent_channels': 6,
    'patch': 2,
    'shortcuts': True,
  },
}
FRAMES = (1, 5, 13)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a tensor as training might leave it: of sensible size, nowhere zero."""
  noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if name.endswith('gamma') or ('norm' in name and name.endswith('weight')):
    noise = 1 + noise / 10
  elif name.endswith('weight'):
    noise = noise * np.prod(shape[1:]) ** -0.5
  else:
    noise = noise / 10
  return noise.astype(np.float32)


def draw_inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns latents (b t h w c) and states of text (b m e), of which the last ones are zeros."""
  numbers = np.random.RandomState(0)
  latents = numbers.standard_normal((*LATENTS, TRANSFORMERS[name]['channels_out']))
  text = numbers.standard_normal((LATENTS[0], 7, TEXT))
  text[:, 5:] = 0
  return latents.astype(np.float32), text.astype(np.float32)


def draw_video(name: str, frames: int) -> np.ndarray:
  """Returns two clips (b t h w 3) in [-1, 1]."""
  side = 8 * AUTOENCODERS[name].get('patch', 1)
  shape = (2, frames, 2 * side, 3 * side, 3)
  return np.random.RandomState(frames).uniform(-1, 1, shape).astype(np.float32)


def draw_latents(name: str, frames: int) -> np.ndarray:
  """Returns latents of two clips of so many frames (b u i j z)."""
  shape = (2, 1 + frames // 4, 2, 3, AUTOENCODERS[name]['latent_channels'])
  return np.random.RandomState(frames).standard_normal(shape).astype(np.float32) / 2


def draw_pipeline() -> tuple[np.ndarray, np.ndarray]:
  """Returns noise (b t h w c) and states (2 m e) of a prompt and of a negative one."""
  numbers = np.random.RandomState(1)
  noise = numbers.standard_normal(PIPELINE['latents'])
  text = numbers.standard_normal((2, 7, TEXT))
  text[0, 5:] = text[1, 2:] = 0
  return noise.astype(np.float32), text.astype(np.float32)


def make_transformer(fields: dict):
  """Makes the transformer of diffusers with drawn weights."""
  from diffusers import WanTransformer3DModel

  return _drawn(
    WanTransformer3DModel(
      num_attention_heads=fields['heads'],
      attention_head_dim=fields['dim'] // fields['heads'],
      in_channels=fields['channels_out'],
      out_channels=fields['channels_out'],
      text_dim=TEXT,
      ffn_dim=fields['mlp_dim'],
      num_layers=fields['depth'],
      rope_max_seq_len=16,
    )
  )


def make_autoencoder(name: str):
  """Makes the autoencoder of diffusers with drawn weights."""
  from diffusers import AutoencoderKLWan

  fields = AUTOENCODERS[name]
  channels = fields['latent_channels']
  options = {}
  if fields.get('shortcuts'):
    options = {
      'is_residual': True,
      'in_channels': 12,
      'out_channels': 12,
      'patch_size': fields['patch'],
      'scale_factor_spatial': 16,
    }
  return _drawn(
    AutoencoderKLWan(
      base_dim=fields['encoder_width'],
      decoder_base_dim=fields['decoder_width'],
      z_dim=channels,
      latents_mean=[0.0] * channels,
      latents_std=[1.0] * channels,
      **options,
    )
  )


def _drawn(module):
  import torch

  tensors = {
    key: torch.tensor(draw(key, tuple(tensor.shape))) for key, tensor in module.state_dict().items()
  }
  module.load_state_dict(tensors)
  return module.eval()


def answer(transformer, latents: np.ndarray, text: np.ndarray) -> np.ndarray:
  """Returns the velocity (b t h w c) of diffusers' answer, which is noise - data."""
  import torch

  like = next(transformer.parameters())
  times = 1000 * (1 - torch.tensor(TIMES, dtype=like.dtype))
  x = torch.tensor(latents, dtype=like.dtype).permute(0, 4, 1, 2, 3)
  with torch.no_grad():
    found = transformer(x, times, torch.tensor(text, dtype=like.dtype)).sample
  return -found.permute(0, 2, 3, 4, 1).numpy()


def code(autoencoder, method: str, x: np.ndarray) -> np.ndarray:
  """Returns latents (the means) of 'encode', or pixels of 'decode'."""
  import torch

  like = next(autoencoder.parameters())
  with torch.no_grad():
    found = getattr(autoencoder, method)(torch.tensor(x, dtype=like.dtype).permute(0, 4, 1, 2, 3))
  y = found.latent_dist.mean if method == 'encode' else found.sample
  return y.permute(0, 2, 3, 4, 1).numpy()


def sample(scheduler: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns every 35th number of the pixels of a clip by diffusers, and its noise levels."""
  import diffusers
  import torch

  if scheduler == 'unipc':
    steps = diffusers.UniPCMultistepScheduler(
      prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=PIPELINE['shift']
    )
  else:
    steps = diffusers.FlowMatchEulerDiscreteScheduler(shift=PIPELINE['shift'])
  pipeline = diffusers.WanPipeline(
    tokenizer=None,
    text_encoder=None,
    vae=make_autoencoder('wan_2_1'),
    scheduler=steps,
    transformer=make_transformer(PIPELINE['transformer']),
  )
  pipeline.set_progress_bar_config(disable=True)
  noise, text = draw_pipeline()
  height, width = (8 * size for size in noise.shape[2:4])
  found = pipeline(
    prompt_embeds=torch.tensor(text[:1]),
    negative_prompt_embeds=torch.tensor(text[1:]),
    latents=torch.tensor(noise).permute(0, 4, 1, 2, 3),
    num_inference_steps=PIPELINE['steps'],
    guidance_scale=PIPELINE['guidance'],
    height=height,
    width=width,
    num_frames=4 * noise.shape[1] - 3,
    output_type='np',
  )
  return found.frames.reshape(-1)[::35], pipeline.scheduler.sigmas.numpy()


def shapes_of(module) -> np.ndarray:
  """Returns names and shapes of all tensors, as JSON."""
  return np.array(
    json.dumps({key: list(tensor.shape) for key, tensor in module.state_dict().items()})
  )


if __name__ == '__main__':
  vectors = {}
  for model in TRANSFORMERS:
    module = make_transformer(TRANSFORMERS[model]).double()
    velocity = answer(module, *draw_inputs(model))
    vectors[model] = {'shapes': shapes_of(module), 'velocity': velocity}
  for model in AUTOENCODERS:
    module = make_autoencoder(model).double()
    vectors[model] = {'shapes': shapes_of(module)}
    for count in FRAMES:
      # Every 35th number of pixels: a file stays small.
      pixels = code(module, 'decode', draw_latents(model, count)).reshape(-1)[::35]
      latents = code(module, 'encode', draw_video(model, count))
      vectors[model] |= {f'encode_{count}': latents, f'decode_{count}': pixels}
  vectors['pipeline'] = {}
  for name in SCHEDULERS:
    pixels, levels = sample(name)
    vectors['pipeline'] |= {f'{name}_pixels': pixels, f'{name}_levels': levels}
  vectors['pipeline']['shapes'] = shapes_of(make_transformer(PIPELINE['transformer']))
  codec.write_vectors(VECTORS, vectors)
