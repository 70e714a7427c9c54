"""Makes wan_published.json: names and shapes of the tensors of published Wan models.

python -m tests.oracles.wan_published
It was made with diffusers 0.42.1, from modules of the published sizes. Of the layers of a
transformer, which are alike, the first one is there.
"""

import json
import pathlib
import re

LIKE = 'like'  # the model whose other shapes are the same
SHAPES = pathlib.Path(__file__).with_suffix('.json')
# Heads, layers and width of the feed-forward network.
TRANSFORMERS = {
  '1.3b': (12, 30, 8960),
  '14b': (40, 40, 13824),
  'image_14b': (40, 40, 13824),
  'image_both_ends': (40, 40, 13824),
  'image_a14b': (40, 40, 13824),
  'image_5b': (24, 30, 14336),
}
_PICTURES = {'in_channels': 36, 'image_dim': 1280, 'added_kv_proj_dim': 5120}
OPTIONS = {
  'image_14b': _PICTURES,
  'image_both_ends': _PICTURES | {'pos_embed_seq_len': 514},
  'image_a14b': {'in_channels': 36},
  'image_5b': {'in_channels': 48, 'out_channels': 48},
}
AUTOENCODERS = {
  '2.1': {},
  '2.2': {
    'base_dim': 160,
    'decoder_base_dim': 256,
    'z_dim': 48,
    'latents_mean': [0.0] * 48,
    'latents_std': [1.0] * 48,
    'is_residual': True,
    'in_channels': 12,
    'out_channels': 12,
    'patch_size': 2,
    'scale_factor_spatial': 16,
  },
}


def read() -> dict[str, dict[str, tuple[int, ...]]]:
  """Returns name -> shape of all tensors of each model."""
  models = {}
  stored = json.loads(SHAPES.read_text())
  for model, shapes in stored.items():
    shapes = stored.get(shapes.pop(LIKE, ''), {}) | shapes
    depth = TRANSFORMERS[model][1] if model in TRANSFORMERS else 1
    models[model] = {
      name.replace('blocks.0.', f'blocks.{layer}.', 1) if depth > 1 else name: tuple(shape)
      for layer in range(depth)
      for name, shape in shapes.items()
    }
  return models


def _shortened(model, found):
  if model not in OPTIONS:
    return found[model]
  return {LIKE: '14b'} | {
    name: shape for name, shape in found[model].items() if found['14b'].get(name) != shape
  }


def _shapes_of(module):
  return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


if __name__ == '__main__':
  import torch
  from diffusers import AutoencoderKLWan, WanTransformer3DModel

  found = {}
  with torch.device('meta'):
    for model, (heads, depth, mlp_dim) in TRANSFORMERS.items():
      module = WanTransformer3DModel(
        num_attention_heads=heads, num_layers=depth, ffn_dim=mlp_dim, **OPTIONS.get(model, {})
      )
      shapes = _shapes_of(module)
      found[model] = {
        name: shape for name, shape in shapes.items() if not re.match(r'blocks\.[1-9]', name)
      }
    for model, options in AUTOENCODERS.items():
      found[model] = _shapes_of(AutoencoderKLWan(**options))
  found = {model: _shortened(model, found) for model in found}
  SHAPES.write_text(json.dumps(found, indent=None, separators=(',', ':')) + '\n')
