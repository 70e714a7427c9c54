"""Makes clip.npz: what transformers' CLIP towers answer with weights drawn by name.

python -m tests.oracles.clip
It was made with transformers 5.23.0, torch 2.13.0 and numpy 2.4.6. Weights are not in the file:
both sides draw them, from numpy's RandomState, whose numbers never change.
"""

import json
import pathlib
import zlib

import numpy as np

from tests.oracles import codec

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
# Between them: both conventions of the end token, both activations, an odd number of heads, with a
# projection and without, 77 positions and the 256 of long prompts.
TEXTS = {
  'openai': {
    'vocab_size': 40,
    'hidden_size': 24,
    'intermediate_size': 96,
    'num_hidden_layers': 2,
    'num_attention_heads': 3,
    'max_position_embeddings': 77,
    'projection_dim': 10,
    'hidden_act': 'quick_gelu',
    'eos_token_id': 2,
  },
  'metaclip': {
    'vocab_size': 40,
    'hidden_size': 32,
    'intermediate_size': 80,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'max_position_embeddings': 256,
    'projection_dim': 16,
    'hidden_act': 'quick_gelu',
    'eos_token_id': 37,
  },
  'openclip': {
    'vocab_size': 40,
    'hidden_size': 40,
    'intermediate_size': 64,
    'num_hidden_layers': 2,
    'num_attention_heads': 5,
    'max_position_embeddings': 77,
    'projection_dim': None,
    'hidden_act': 'gelu',
    'eos_token_id': 39,
  },
}
IMAGES = {
  'metaclip': {
    'hidden_size': 24,
    'intermediate_size': 96,
    'num_hidden_layers': 3,
    'num_attention_heads': 3,
    'image_size': 28,
    'patch_size': 7,
    'projection_dim': 16,
    'hidden_act': 'quick_gelu',
  },
  'openclip': {
    'hidden_size': 40,
    'intermediate_size': 64,
    'num_hidden_layers': 2,
    'num_attention_heads': 5,
    'image_size': 24,
    'patch_size': 8,
    'projection_dim': None,
    'hidden_act': 'gelu',
  },
}
SHOWN = 9
BEGIN, PAD = 38, 0  # of 'metaclip' the end is not the largest token
MEAN = np.float32([0.48145466, 0.4578275, 0.40821073])
STD = np.float32([0.26862954, 0.26130258, 0.27577711])


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a tensor as training might leave it: of sensible size, nowhere zero."""
  noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if 'embedding' in name and 'patch' not in name:
    noise = noise / 2
  elif len(shape) > 1:
    noise = noise * np.prod(shape[1:]) ** -0.5
  else:
    noise = noise / 10 + (('norm' in name or 'ln_' in name) and name.endswith('weight'))
  return np.asarray(noise, np.float32)


def end(name: str) -> int:
  """Returns the token that ends a prompt: where the convention is the old one, the largest."""
  eos = TEXTS[name]['eos_token_id']
  return TEXTS[name]['vocab_size'] - 1 if eos == 2 else eos


def make_clip(folder):
  """A CLIPModel with random weights of both towers, which it has saved in a folder."""
  import torch
  import transformers

  parts = {tower: make_model(tower, 'metaclip').config for tower in ('text', 'vision')}
  config = transformers.CLIPConfig(
    text_config=parts['text'].to_dict(), vision_config=parts['vision'].to_dict(), projection_dim=16
  )
  torch.manual_seed(1)
  theirs = transformers.CLIPModel(config).eval()
  theirs.save_pretrained(folder)
  return theirs


def draw_prompts(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns tokens and masks (b m): padded on the right, on the left, of length 1, and all three.

  The last, 'full', have as many tokens as there are positions. What is padded on the right ends in
  further end tokens, as transformers' tokenizer does it.
  """
  random, most = np.random.RandomState(0), TEXTS[name]['max_position_embeddings']
  prompts = {}
  for side in ('right', 'left'):
    tokens, mask = np.full((3, 9), PAD), np.zeros((3, 9), bool)
    for row, length in enumerate((9, 6, 2)):
      part = slice(0, length) if side == 'right' else slice(9 - length, 9)
      words = random.randint(3, 37, length - 2)
      tokens[row, part], mask[row, part] = [BEGIN, *words, end(name)], True
    if side == 'right':
      tokens[~mask] = end(name)
    prompts[side] = (tokens.astype(np.int32), mask)
  prompts['one'] = (np.full((2, 1), end(name), np.int32), np.ones((2, 1), bool))
  place, last = np.arange(most), np.array([[most - 1], [most // 2], [most - 1]])
  full = np.where(place < last, random.randint(3, 37, (3, most)), end(name))
  full[2, : most // 3] = PAD
  mask = (place <= last) & (full != PAD)
  prompts['full'] = (full.astype(np.int32), mask)
  return prompts


def shown(states: np.ndarray) -> np.ndarray:
  """Returns the states (b m e) of at most some ten tokens, the last among them."""
  count = states.shape[1]
  return states[:, sorted({*range(0, count, max(1, count // SHOWN)), count - 1})]


def draw_images(name: str) -> np.ndarray:
  """Returns three images (b h w 3) in [0, 1]."""
  side = IMAGES[name]['image_size']
  return np.random.RandomState(1).uniform(size=(3, side, side, 3)).astype(np.float32)


def make_model(tower: str, name: str):
  """Makes transformers' tower, 'text' or 'vision', with drawn weights."""
  import torch
  from transformers.models.clip import configuration_clip, modeling_clip

  kind, fields = tower.capitalize(), dict((TEXTS if tower == 'text' else IMAGES)[name])
  projected = 'WithProjection' * (fields['projection_dim'] is not None)
  if not projected:
    del fields['projection_dim']
  special = {'bos_token_id': BEGIN, 'pad_token_id': PAD} if tower == 'text' else {}
  config = getattr(configuration_clip, f'CLIP{kind}Config')(**fields, **special)
  model = getattr(modeling_clip, f'CLIP{kind}Model{projected}')(config)
  state = {key: torch.tensor(draw(key, tuple(t.shape))) for key, t in model.state_dict().items()}
  model.load_state_dict(state)
  return model.eval()


def text_answers(name: str, model) -> dict[str, np.ndarray]:
  """Returns the model's states and vector of every set of prompts."""
  import torch

  found = {}
  for case, (tokens, mask) in draw_prompts(name).items():
    with torch.no_grad():
      output = model(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
    found[f'{case}/states'] = output.last_hidden_state.numpy()
    found[f'{case}/pooled'] = output['text_embeds' if 'text_embeds' in output else 1].numpy()
  return found


def vision_answers(name: str, model) -> dict[str, np.ndarray]:
  """Returns the model's states and vector of drawn images."""
  import torch

  pixels = torch.tensor((draw_images(name) - MEAN) / STD).permute(0, 3, 1, 2)
  with torch.no_grad():
    output = model(pixels.to(model.dtype))
  pooled = output['image_embeds' if 'image_embeds' in output else 1]
  return {'states': output.last_hidden_state.numpy(), 'pooled': pooled.numpy()}


def _about(model) -> np.ndarray:
  shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
  return np.array(json.dumps({'config': model.config.to_diff_dict(), 'shapes': shapes}))


if __name__ == '__main__':
  found = {}
  for tower, names, answers in (('text', TEXTS, text_answers), ('vision', IMAGES, vision_answers)):
    for name in names:
      model = make_model(tower, name).double()
      arrays = found[f'{tower}/{name}'] = {'about': _about(model)}
      for key, array in answers(name, model).items():
        arrays[key] = shown(array) if tower == 'text' and key.endswith('states') else array
  codec.write_vectors(VECTORS, found)
