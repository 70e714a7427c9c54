"""Weights of CLIP's towers in and out, by transformers' names and by OpenAI's and OpenCLIP's own.

A file may hold both towers or one, with the prefix that says which or without: what belongs to the
other tower is left out.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.rename import LAYER, TRANSPOSED, Row

LARGEST = 2  # the eos_token_id of old configurations, by which they mean the largest token
_FROM_CONVOLUTION = (2, 3, 1, 0)  # (o i h w) to (h w i o)
# What transformers means where config.json is silent.
_HEADS = {'text': 8, 'vision': 12}
_EOS = 49407
_IN = ('query', 'key', 'value')

Rows = tuple[Row, ...]


def clip_rows(tower: str, names: Collection[str]) -> Rows:
  """Returns the table of a tower, 'text' or 'vision', in the layout that the names are of."""
  own = any('.resblocks.' in name for name in names)
  return (_OWN if own else _TRANSFORMERS)[tower]


def _both(ours: str, theirs: str, prefixes: tuple[str, ...], **how: Any) -> Rows:
  """Makes the rows of a layer's weight and bias."""
  norm = ours.endswith(('norm', 'norm_in'))
  weight = {} if norm else {'axes': TRANSPOSED}
  return (
    Row(
      f'{ours}/{"scale" if norm else "kernel"}', _of(f'{theirs}weight', prefixes), **weight, **how
    ),
    Row(f'{ours}/bias', _of(f'{theirs}bias', prefixes), **how),
  )


def _of(name: str, prefixes: tuple[str, ...]) -> tuple[str, ...]:
  return tuple(f'{prefix}{name}' for prefix in prefixes)


def _transformers_rows(*prefixes: str) -> Rows:
  layer = f'encoder.layers.{LAYER}'
  names = {'query': 'q_proj', 'key': 'k_proj', 'value': 'v_proj', 'out': 'out_proj'}
  places = {
    'self_norm': 'layer_norm1',
    **{f'self_attention/{ours}': f'self_attn.{theirs}' for ours, theirs in names.items()},
    'feed_norm': 'layer_norm2',
    'up': 'mlp.fc1',
    'down': 'mlp.fc2',
  }
  rows = [
    _both(f'layers/{ours}', f'{layer}.{theirs}.', prefixes) for ours, theirs in places.items()
  ]
  return (
    Row('places', _of('embeddings.position_embedding.weight', prefixes)),
    *sum(rows, ()),
    *(Row(None, f'{prefix}embeddings.position_ids') for prefix in prefixes),
  )


def _own_rows(*prefixes: str) -> Rows:
  layer = f'transformer.resblocks.{LAYER}'
  places = {
    'self_norm': 'ln_1',
    'self_attention/out': 'attn.out_proj',
    'feed_norm': 'ln_2',
    'up': 'mlp.c_fc',
    'down': 'mlp.c_proj',
  }
  rows = [
    _both(f'layers/{ours}', f'{layer}.{theirs}.', prefixes) for ours, theirs in places.items()
  ]
  for index, ours in enumerate(_IN):
    part = {'part': (index, len(_IN))}
    rows.append(_both(f'layers/self_attention/{ours}', f'{layer}.attn.in_proj_', prefixes, **part))
  return (Row('places', _of('positional_embedding', prefixes)), *sum(rows, ()))


_TEXT, _VISION = ('text_model.', ''), ('vision_model.', '')
_TRANSFORMERS = {
  'text': (
    Row('table', _of('embeddings.token_embedding.weight', _TEXT)),
    *_transformers_rows(*_TEXT),
    *_both('norm', 'final_layer_norm.', _TEXT),
    Row('project/kernel', 'text_projection.weight', TRANSPOSED),
    *(Row(None, name) for name in ('vision_model.*', 'visual_projection.weight', 'logit_scale')),
  ),
  'vision': (
    Row('patch_in/kernel', _of('embeddings.patch_embedding.weight', _VISION), _FROM_CONVOLUTION),
    Row('class_token', _of('embeddings.class_embedding', _VISION)),
    *_transformers_rows(*_VISION),
    *_both('norm_in', 'pre_layrnorm.', _VISION),
    *_both('norm', 'post_layernorm.', _VISION),
    Row('project/kernel', 'visual_projection.weight', TRANSPOSED),
    *(Row(None, name) for name in ('text_model.*', 'text_projection.weight', 'logit_scale')),
  ),
}
_OWN_TEXT = ('', 'text.')  # OpenCLIP's models of two classes have the second
_TRIFLES = ('logit_scale', 'logit_bias', 'input_resolution', 'context_length', 'vocab_size')
_OWN = {
  'text': (
    Row('table', _of('token_embedding.weight', _OWN_TEXT)),
    *_own_rows(*_OWN_TEXT),
    *_both('norm', 'ln_final.', _OWN_TEXT),
    Row('project/kernel', _of('text_projection', _OWN_TEXT)),
    *(Row(None, name) for name in ('visual.*', *_of('attn_mask', _OWN_TEXT), *_TRIFLES)),
  ),
  'vision': (
    Row('patch_in/kernel', 'visual.conv1.weight', _FROM_CONVOLUTION),
    Row('class_token', 'visual.class_embedding'),
    *_own_rows('visual.'),
    *_both('norm_in', 'visual.ln_pre.', ('',)),
    *_both('norm', 'visual.ln_post.', ('',)),
    Row('project/kernel', 'visual.proj'),
    *(
      Row(None, name)
      for name in ('transformer.*', 'text.*', 'token_embedding.*', 'positional_embedding',
                   'ln_final.*', 'text_projection', 'attn_mask', *_TRIFLES)
    ),
  ),
}  # fmt: skip


def clip_fields(
  tower: str, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads fields of `ClipText` or `ClipVision` from the tensors and from transformers' config.json.

  Sizes are those of the tensors, which do not tell heads, activation and end token.

  Args:
    tower: 'text' or 'vision'.
    tensors: by their names.
    about: what config.json says, of the tower or of both; {} where there is none.

  Raises:
    ConfigError: a tensor that tells a size is missing, or config.json is of another model.
  """
  rows = {row.ours: row for row in clip_rows(tower, tensors)}

  def shape(ours: str, layer: int = 0) -> tuple[int, ...] | None:
    names = rows[ours].theirs
    names = [
      name.replace(LAYER, str(layer)) for name in ([names] if isinstance(names, str) else names)
    ]
    found = [tensors[name].shape for name in names if name in tensors]
    if not found and ours != 'project/kernel' and not layer:
      raise ConfigError(
        f'there is no tensor {names[0]}; expected those of a {tower} tower of CLIP by the names of '
        'transformers, OpenAI or OpenCLIP'
      )
    return found[0] if found else None

  depth = 0
  while shape('layers/self_norm/scale', depth):
    depth += 1
  positions, dim = shape('places')
  projection = shape('project/kernel')
  across = rows['project/kernel'].axes == TRANSPOSED
  fields = {
    'dim': dim,
    'depth': depth,
    'hidden': shape('layers/up/bias')[0],
    'projection': projection and projection[0 if across else 1],
  }
  if tower == 'text':
    fields |= {'vocabulary': shape('table')[0], 'positions': positions}
  else:
    patch = shape('patch_in/kernel')[-1]
    fields |= {'patch': patch, 'size': patch * math.isqrt(positions - 1)}
  return fields | _told(tower, about)


def _told(tower: str, about: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what config.json says, or means where it is silent."""
  if not about:
    return {}
  about = about.get(f'{tower}_config') or about
  kind = about.get('model_type', 'clip')
  if kind not in ('clip', f'clip_{tower}_model'):
    raise ConfigError(
      f"config.json is of the model_type {kind!r}; expected 'clip' or 'clip_{tower}_model'"
    )
  fields = {
    'heads': about.get('num_attention_heads', _HEADS[tower]),
    'activation': about.get('hidden_act', 'quick_gelu'),
    'epsilon': about.get('layer_norm_eps', 1e-5),
  }
  if tower == 'text':
    eos = about.get('eos_token_id', _EOS)
    fields |= {'pooling': 'largest'} if eos == LARGEST else {'pooling': 'first_eos', 'eos': eos}
  return fields
