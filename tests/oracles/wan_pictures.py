"""Makes wan_pictures.npz: what Wan's models of pictures answer in diffusers, with drawn weights.

python -m tests.oracles.wan_pictures
It was made with torch 2.13.0, diffusers 0.42.1, transformers 5.24.0 and numpy 2.4.6. Weights are
not in the file: both sides draw them.
"""

import pathlib

import numpy as np

from tests.oracles import codec, wan

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
# Fields of `WanTransformer`, then: `beside`, further channels of what it reads; `width` and
# `tokens` of the states of pictures.
TRANSFORMERS = {
  'picture': {'channels_out': 4, 'beside': 8, 'width': 32, 'tokens': 5},  # 2.1
  'both_ends': {'channels_out': 4, 'beside': 8, 'width': 32, 'tokens': 10, 'positions': 10},
  'channels': {'channels_out': 4, 'beside': 8},  # A14B
  'known': {'channels_out': 6},  # 5B
}
SIZES = {'dim': 48, 'depth': 2, 'heads': 2, 'mlp_dim': 96}
LATENTS = (2, 3, 4, 6)  # (b t h w)
# Fields of `ClipVision`; the file has one layer more.
TOWER = {
  'size': 16,
  'patch': 8,
  'dim': 32,
  'depth': 1,
  'heads': 2,
  'mlp_dim': 64,
  'activation': 'exact_gelu',
}
LENGTH = 512  # of text, by which diffusers tells it from pictures
FRAMES, STEPS, SHIFT = 9, 4, 5.0
# Pipelines: the transformer, the autoencoder of wan.py, the scales of both experts.
PIPELINES = {
  'picture': ('wan_2_1', (4.0,)),
  'channels': ('wan_2_1', (3.5, 3.0)),
  'known': ('wan_2_2', (5.0,)),
}
BOUNDARY = 0.9  # of noise levels


def draw_inputs(name: str) -> dict[str, np.ndarray]:
  """Returns latents (b t h w c), text (b m e), channels, states of pictures, known latents."""
  fields = TRANSFORMERS[name]
  numbers = np.random.RandomState(2)
  shapes = {
    'latents': (*LATENTS, fields['channels_out']),
    'text': (LATENTS[0], LENGTH, wan.TEXT),
    'channels': (*LATENTS, fields.get('beside', 0)),
    'picture': (LATENTS[0], fields.get('tokens', 0), fields.get('width', 0)),
    'known': (LATENTS[0], 1, *LATENTS[2:], fields['channels_out']),
  }
  return {key: numbers.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def draw_picture(name: str) -> np.ndarray:
  """Returns a picture of bytes (h w 3) as large as the tower's, so that nobody resizes it."""
  side = 16 if PIPELINES[name][0] == 'wan_2_1' else 32
  return np.random.RandomState(3).randint(0, 256, (side, side, 3)).astype(np.uint8)


def draw_pipeline(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns noise (b t h w c) and states (2 m e) of a prompt and of a negative one."""
  numbers = np.random.RandomState(4)
  noise = numbers.standard_normal((1, 3, 2, 2, TRANSFORMERS[name]['channels_out']))
  text = numbers.standard_normal((2, LENGTH, wan.TEXT))
  text[0, 5:] = text[1, 2:] = 0
  return noise.astype(np.float32), text.astype(np.float32)


def make_transformer(name: str, suffix: str = ''):
  """Makes the transformer of diffusers with weights that are drawn by name, behind a suffix."""
  import torch
  from diffusers import WanTransformer3DModel

  fields = TRANSFORMERS[name]
  width = fields.get('width')
  module = WanTransformer3DModel(
    num_attention_heads=SIZES['heads'],
    attention_head_dim=SIZES['dim'] // SIZES['heads'],
    in_channels=fields['channels_out'] + fields.get('beside', 0),
    out_channels=fields['channels_out'],
    text_dim=wan.TEXT,
    ffn_dim=SIZES['mlp_dim'],
    num_layers=SIZES['depth'],
    rope_max_seq_len=16,
    image_dim=width,
    added_kv_proj_dim=width and SIZES['dim'],
    pos_embed_seq_len=fields.get('positions'),
  )
  tensors = {
    key: torch.tensor(wan.draw(key + suffix, tuple(tensor.shape)))
    for key, tensor in module.state_dict().items()
  }
  module.load_state_dict(tensors)
  return module.eval()


def make_tower():
  """Makes CLIP's vision tower of transformers with drawn weights."""
  import torch
  from transformers import CLIPVisionConfig, CLIPVisionModel

  module = CLIPVisionModel(
    CLIPVisionConfig(
      hidden_size=TOWER['dim'],
      intermediate_size=TOWER['mlp_dim'],
      num_hidden_layers=TOWER['depth'] + 1,
      num_attention_heads=TOWER['heads'],
      image_size=TOWER['size'],
      patch_size=TOWER['patch'],
      hidden_act='gelu',
    )
  )
  tensors = {
    key: torch.tensor(wan.draw(key, tuple(tensor.shape)))
    for key, tensor in module.state_dict().items()
    if tensor.is_floating_point()
  }
  module.load_state_dict(tensors, strict=False)
  return module.eval()


def answer(name: str) -> np.ndarray:
  """Returns the velocity (b t h w c) of diffusers' answer; of 5B not where latents are known."""
  import torch

  module = make_transformer(name).double()
  inputs = {key: torch.tensor(array).double() for key, array in draw_inputs(name).items()}
  x = torch.cat([inputs['latents'], inputs['channels']], dim=-1)
  times = 1000 * (1 - torch.tensor(wan.TIMES, dtype=torch.float64))
  if name == 'known':
    x = torch.cat([inputs['known'], x[:, 1:]], dim=1)
    tokens = LATENTS[2] * LATENTS[3] // 4
    times = times[:, None].repeat(1, LATENTS[1] * tokens)
    times[:, :tokens] = 0
  states = inputs['picture'] if inputs['picture'].numel() else None
  if name == 'both_ends':  # diffusers has a row for each of the two pictures
    states = states.reshape(-1, states.shape[1] // 2, states.shape[2])
  with torch.no_grad():
    found = module(
      x.permute(0, 4, 1, 2, 3), times, inputs['text'], encoder_hidden_states_image=states
    ).sample
  return -found.permute(0, 2, 3, 4, 1).numpy()


def states_of(picture: np.ndarray) -> np.ndarray:
  """Returns the states (1 n i) behind the last layer but one."""
  import torch
  from transformers import CLIPImageProcessor

  processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
  pixels = processor(images=[picture], return_tensors='pt')['pixel_values']
  with torch.no_grad():
    return make_tower()(pixels, output_hidden_states=True).hidden_states[-2].numpy()


def sample(name: str) -> np.ndarray:
  """Returns every 35th number of the pixels of a clip by diffusers."""
  import diffusers
  import torch
  from PIL import Image

  autoencoder, scales = PIPELINES[name]
  schedule = diffusers.UniPCMultistepScheduler(
    prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=SHIFT
  )
  pipeline = diffusers.WanImageToVideoPipeline(
    tokenizer=None,
    text_encoder=None,
    vae=wan.make_autoencoder(autoencoder),
    scheduler=schedule,
    transformer=make_transformer(name),
    transformer_2=make_transformer(name, 'late') if len(scales) > 1 else None,
    boundary_ratio=BOUNDARY if len(scales) > 1 else None,
    expand_timesteps=name == 'known',
  )
  picture = draw_picture(name)
  pipeline.encode_image = lambda *_, **__: torch.tensor(states_of(picture))
  pipeline.set_progress_bar_config(disable=True)
  noise, text = draw_pipeline(name)
  found = pipeline(
    image=Image.fromarray(picture),
    prompt_embeds=torch.tensor(text[:1]),
    negative_prompt_embeds=torch.tensor(text[1:]),
    latents=torch.tensor(noise).permute(0, 4, 1, 2, 3),
    num_inference_steps=STEPS,
    guidance_scale=scales[0],
    height=picture.shape[0],
    width=picture.shape[1],
    num_frames=FRAMES,
    output_type='np',
    **({'guidance_scale_2': scales[1]} if len(scales) > 1 else {}),
  )
  return found.frames.reshape(-1)[::35]


if __name__ == '__main__':
  vectors = {
    'tower': {'shapes': wan.shapes_of(make_tower()), 'states': states_of(draw_picture('picture'))}
  }
  for model in TRANSFORMERS:
    vectors[model] = {'shapes': wan.shapes_of(make_transformer(model)), 'velocity': answer(model)}
  for model in PIPELINES:
    vectors[model]['pixels'] = sample(model)
  codec.write_vectors(VECTORS, vectors)
