"""Makes t5.npz: what transformers' encoders of the T5 family answer with weights drawn by name.

python -m tests.oracles.t5
It was made with torch 2.13.0, transformers 5.23.0 and numpy 2.4.6, in double precision. Weights are
not in the file: both sides draw them.
"""

import json
import pathlib
import zlib

import numpy as np

from tests.oracles import codec

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
# Fields of `T5Encoder`; odd heads, widths that are not heads * head_size, one bias or one a layer.
MODELS = {
  't5_base': {
    'vocabulary': 61,
    'dim': 24,
    'depth': 2,
    'heads': 3,
    'head_size': 8,
    'mlp_dim': 40,
    'activation': 'relu',
    'gated': False,
  },
  't5_1_1': {
    'vocabulary': 61,
    'dim': 24,
    'depth': 3,
    'heads': 5,
    'head_size': 4,
    'mlp_dim': 40,
    'activation': 'gelu',
    'gated': True,
  },
  'ul2': {
    'vocabulary': 61,
    'dim': 16,
    'depth': 2,
    'heads': 2,
    'head_size': 16,
    'mlp_dim': 64,
    'activation': 'silu',
    'gated': True,
  },
  'byt5': {
    'vocabulary': 384,
    'dim': 20,
    'depth': 4,
    'heads': 7,
    'head_size': 6,
    'mlp_dim': 30,
    'activation': 'gelu',
    'gated': True,
  },
  'umt5': {
    'vocabulary': 61,
    'dim': 24,
    'depth': 2,
    'heads': 3,
    'head_size': 8,
    'mlp_dim': 40,
    'activation': 'gelu',
    'gated': True,
    'buckets': 16,
    'distance': 50,
    'bias_in_every_layer': True,
  },
}
LENGTHS = (1, 7, 256, 512)
SHOWN = 37  # every so many of the states, and the last, are in the file
_PROJECTIONS = {'relu': 'relu', 'gelu': 'gated-gelu', 'silu': 'gated-silu'}


def draw(name: str, shape: tuple[int, ...], head_size: int) -> np.ndarray:
  """Returns a tensor as training might leave it; queries are small, for scores are not divided."""
  name = 'shared.weight' if name == 'encoder.embed_tokens.weight' else name
  noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if len(shape) == 1:
    noise = 1 + noise / 10
  elif not name.endswith(('shared.weight', 'bias.weight')):
    noise = noise * shape[1] ** -0.5
  return (noise * (head_size**-0.5 if name.endswith('.q.weight') else 1)).astype(np.float32)


def draw_tokens(model: str, length: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns tokens and mask (b m): a full row, and padding at the right and at the left."""
  tokens = np.random.RandomState(length).randint(1, MODELS[model]['vocabulary'], (3, length))
  place = np.arange(length)
  mask = np.stack([place >= 0, place <= length // 2, place >= (length - 1) // 3])
  return np.where(mask, tokens, 0).astype(np.int32), mask


def shown(states: np.ndarray) -> np.ndarray:
  """Returns the states (b m e) that are compared."""
  return np.concatenate([states[:, ::SHOWN], states[:, -1:]], axis=1)


def make_config(model: str):
  """Makes transformers' configuration."""
  import transformers

  fields = {'buckets': 32, 'distance': 128} | MODELS[model]
  each = fields.get('bias_in_every_layer', False)
  return (transformers.UMT5Config if each else transformers.T5Config)(
    vocab_size=fields['vocabulary'],
    d_model=fields['dim'],
    d_kv=fields['head_size'],
    d_ff=fields['mlp_dim'],
    num_layers=fields['depth'],
    num_heads=fields['heads'],
    relative_attention_num_buckets=fields['buckets'],
    relative_attention_max_distance=fields['distance'],
    feed_forward_proj=_PROJECTIONS[fields['activation']],
  )


def make_model(model: str):
  """Makes transformers' encoder with drawn weights."""
  import torch
  import transformers

  config = make_config(model)
  each = config.model_type == 'umt5'
  made = (transformers.UMT5EncoderModel if each else transformers.T5EncoderModel)(config)
  size = MODELS[model]['head_size']
  drawn = {
    key: torch.tensor(draw(key, tuple(tensor.shape), size))
    for key, tensor in made.state_dict().items()
  }
  made.load_state_dict(drawn)
  return made.eval()


def answer(encoder, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Returns all states (b m e)."""
  import torch

  with torch.no_grad():
    found = encoder(torch.tensor(tokens), torch.tensor(mask).long())
  return found.last_hidden_state.numpy()


if __name__ == '__main__':
  found = {}
  for name in MODELS:
    encoder = make_model(name).double()
    shapes = {key: list(tensor.shape) for key, tensor in encoder.state_dict().items()}
    found[name] = {'shapes': np.array(json.dumps(shapes))}
    for length in LENGTHS:
      found[name][str(length)] = shown(answer(encoder, *draw_tokens(name, length)))
  codec.write_vectors(VECTORS, found)
