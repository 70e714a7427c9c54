"""Imports and exports CLIP by the names of transformers, OpenAI, OpenCLIP (Movie Gen §3.1.4).

A file may hold both towers or one, with the prefix that says which or without: what belongs to the
other tower is left out.
"""

import functools
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.files import write_json
from mgjax.core.safetensors_files import AnyTensor, check_agrees, listed, write_tensors
from mgjax.core.settings import Range
from mgjax.core.typing import Tree
from mgjax.models.clip.model import ClipModel, clip_model_inputs, make_clip_model
from mgjax.models.clip.towers import clip_inputs, make_clip_text, make_clip_vision
from mgjax.models.foreign_weights.format import WeightFormat, config_number
from mgjax.models.foreign_weights.names import (
  LAYER,
  TRANSPOSED,
  TensorName,
  export_tensors,
  import_tensors,
)
from mgjax.models.text.weight_format import Epsilon, Family, make_encoder_format

_LARGEST = 2  # the eos_token_id of old configurations, by which they mean the largest token
_FROM_CONVOLUTION = (2, 3, 1, 0)  # (o i h w) to (h w i o)
# hidden_act of config.json -> ours; of two that are one the last is written.
_ACTIVATIONS = {
  'gelu_pytorch_tanh': 'gelu',
  'gelu_new': 'gelu',
  'gelu': 'exact_gelu',
  'quick_gelu': 'quick_gelu',
}
# Sizes that tensors show -> what config.json calls them.
_SIZES = {
  'dim': 'hidden_size',
  'mlp_dim': 'intermediate_size',
  'depth': 'num_hidden_layers',
  'vocabulary': 'vocab_size',
  'positions': 'max_position_embeddings',
  'size': 'image_size',
  'patch': 'patch_size',
}
# What transformers means where config.json is silent.
_HEADS = {'text': 8, 'vision': 12}
_EOS = 49407
_IN = ('query', 'key', 'value')

_Rows = tuple[TensorName, ...]


def clip_rows(tower: str, names: Collection[str]) -> _Rows:
  """Returns the table of a tower, 'text' or 'vision', in the layout that the names are of."""
  own = any('.resblocks.' in name for name in names)
  return (_OWN if own else _TRANSFORMERS)[tower]


def _both(ours: str, theirs: str, prefixes: tuple[str, ...], **how: Any) -> _Rows:
  """Makes the rows of a layer's weight and bias."""
  norm = ours.endswith(('norm', 'norm_in'))
  weight = {} if norm else {'axes': TRANSPOSED}
  return (
    TensorName(
      f'{ours}/{"scale" if norm else "kernel"}', _of(f'{theirs}weight', prefixes), **weight, **how
    ),
    TensorName(f'{ours}/bias', _of(f'{theirs}bias', prefixes), **how),
  )


def _of(name: str, prefixes: tuple[str, ...]) -> tuple[str, ...]:
  return tuple(f'{prefix}{name}' for prefix in prefixes)


def _layer_rows(
  layer_names: Mapping[str, str], layer: str, prefixes: tuple[str, ...]
) -> list[_Rows]:
  return [
    _both(f'layers/{ours}', f'{layer}.{theirs}.', prefixes) for ours, theirs in layer_names.items()
  ]


def _transformers_rows(*prefixes: str) -> _Rows:
  names = {'query': 'q_proj', 'key': 'k_proj', 'value': 'v_proj', 'out': 'out_proj'}
  places = {
    'self_norm': 'layer_norm1',
    **{f'self_attention/{ours}': f'self_attn.{theirs}' for ours, theirs in names.items()},
    'feed_norm': 'layer_norm2',
    'feed_forward/up': 'mlp.fc1',
    'feed_forward/down': 'mlp.fc2',
  }
  rows = _layer_rows(places, f'encoder.layers.{LAYER}', prefixes)
  return (
    TensorName('places', _of('embeddings.position_embedding.weight', prefixes)),
    *sum(rows, ()),
    *(TensorName(None, f'{prefix}embeddings.position_ids') for prefix in prefixes),
  )


def _own_rows(*prefixes: str) -> _Rows:
  layer = f'transformer.resblocks.{LAYER}'
  places = {
    'self_norm': 'ln_1',
    'self_attention/out': 'attn.out_proj',
    'feed_norm': 'ln_2',
    'feed_forward/up': 'mlp.c_fc',
    'feed_forward/down': 'mlp.c_proj',
  }
  rows = _layer_rows(places, layer, prefixes)
  for index, ours in enumerate(_IN):
    part = {'part': (index, len(_IN))}
    rows.append(_both(f'layers/self_attention/{ours}', f'{layer}.attn.in_proj_', prefixes, **part))
  return (TensorName('places', _of('positional_embedding', prefixes)), *sum(rows, ()))


_TEXT, _VISION = ('text_model.', ''), ('vision_model.', '')
_TRANSFORMERS = {
  'text': (
    TensorName('table', _of('embeddings.token_embedding.weight', _TEXT)),
    *_transformers_rows(*_TEXT),
    *_both('norm', 'final_layer_norm.', _TEXT),
    TensorName('project/kernel', 'text_projection.weight', TRANSPOSED),
    *(
      TensorName(None, name)
      for name in ('vision_model.*', 'visual_projection.weight', 'logit_scale')
    ),
  ),
  'vision': (
    TensorName(
      'patch_in/kernel', _of('embeddings.patch_embedding.weight', _VISION), _FROM_CONVOLUTION
    ),
    TensorName('class_token', _of('embeddings.class_embedding', _VISION)),
    *_transformers_rows(*_VISION),
    *_both('norm_in', 'pre_layrnorm.', _VISION),
    *_both('norm', 'post_layernorm.', _VISION),
    TensorName('project/kernel', 'visual_projection.weight', TRANSPOSED),
    *(TensorName(None, name) for name in ('text_model.*', 'text_projection.weight', 'logit_scale')),
  ),
}
_OWN_TEXT = ('', 'text.')  # OpenCLIP's models of two classes have the second
_TRIFLES = ('logit_scale', 'logit_bias', 'input_resolution', 'context_length', 'vocab_size')
_OWN = {
  'text': (
    TensorName('table', _of('token_embedding.weight', _OWN_TEXT)),
    *_own_rows(*_OWN_TEXT),
    *_both('norm', 'ln_final.', _OWN_TEXT),
    TensorName('project/kernel', _of('text_projection', _OWN_TEXT)),
    *(TensorName(None, name) for name in ('visual.*', *_of('attn_mask', _OWN_TEXT), *_TRIFLES)),
  ),
  'vision': (
    TensorName('patch_in/kernel', 'visual.conv1.weight', _FROM_CONVOLUTION),
    TensorName('class_token', 'visual.class_embedding'),
    *_own_rows('visual.'),
    *_both('norm_in', 'visual.ln_pre.', ('',)),
    *_both('norm', 'visual.ln_post.', ('',)),
    TensorName('project/kernel', 'visual.proj'),
    *(
      TensorName(None, name)
      for name in (
        'transformer.*',
        'text.*',
        'token_embedding.*',
        'positional_embedding',
        'ln_final.*',
        'text_projection',
        'attn_mask',
        *_TRIFLES,
      )
    ),
  ),
}


def _wan_rows() -> _Rows:
  """Rows of the vision tower that Wan 2.1 publishes beside its models of pictures."""
  layer = f'visual.transformer.{LAYER}'
  places = {
    'self_norm': 'norm1',
    'self_attention/out': 'attn.proj',
    'feed_norm': 'norm2',
    'feed_forward/up': 'mlp.0',
    'feed_forward/down': 'mlp.2',
  }
  rows = _layer_rows(places, layer, ('',))
  for index, ours in enumerate(_IN):
    part = {'part': (index, len(_IN))}
    rows.append(_both(f'layers/self_attention/{ours}', f'{layer}.attn.to_qkv.', ('',), **part))
  return (
    TensorName('patch_in/kernel', 'visual.patch_embedding.weight', _FROM_CONVOLUTION),
    TensorName('class_token', 'visual.cls_embedding', fold=(1, 1)),
    TensorName('places', 'visual.pos_embedding', fold=(1,)),
    *sum(rows, ()),
    *_both('norm_in', 'visual.pre_norm.', ('',)),
    *_both('norm', 'visual.post_norm.', ('',)),
    *(TensorName(None, name) for name in ('textual.*', 'visual.head', 'log_scale')),
  )


_WAN = _wan_rows()


def vision_params(tensors: Mapping[str, AnyTensor], fields: Fields) -> Tree:
  """Fills a vision tower without a projection, of as many layers as `fields` say.

  Tensors of further layers are left out. They may also have the names that Wan 2.1 gives them.
  Raises ConfigError as `import_tensors`.
  """
  model = make_clip_vision(fields)
  known = _WAN if 'visual.cls_embedding' in tensors else clip_rows('vision', tensors)
  rows = [row._replace(ours=None) if row.ours == 'project/kernel' else row for row in known]
  # Of layers that the tower does not have.
  further = [name.replace(LAYER, '*') for row in known for name in row.names if LAYER in name]
  rows += [TensorName(None, name) for name in further]
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *clip_inputs(model)))['params']
  return import_tensors(rows, tensors, shapes, expected=expected('vision'))[0]


def clip_fields(tower: str, tensors: Mapping[str, AnyTensor], config: Fields | None = None) -> JSON:
  """Reads fields of `ClipText` or `ClipVision` ('text', 'vision') from the tensors and from
  config.json.

  `config` is the object in transformers' config.json, of the tower or of both, or None where there
  is none: then heads, activation, epsilon and the end token are not among the fields. Raises
  ConfigError if a tensor that tells a size is missing, or `config` is of another model.
  """
  rows = {row.ours: row for row in clip_rows(tower, tensors)}
  tower_config = None if config is None else _of_tower(tower, config)

  def shape(ours: str, rank: int, layer: int = 0) -> tuple[int, ...]:
    names = rows[ours].names
    for name in names:
      tensor = tensors.get(name.replace(LAYER, str(layer)))
      if tensor is not None and tensor.ndim == rank:
        return tensor.shape
    if ours == 'project/kernel' or layer:
      return ()
    name = names[0].replace(LAYER, '0')
    tensor_names = listed({'tensors': tensors})
    raise ConfigError(
      f'there is no tensor {name} of rank {rank} among {tensor_names}; expected {expected(tower)}'
    )

  depth = 0
  while shape('layers/self_norm/scale', 1, depth):
    depth += 1
  positions, dim = shape('places', 2)
  projection = shape('project/kernel', 2)
  outputs = 0 if rows['project/kernel'].axes == TRANSPOSED else 1
  fields = {
    'dim': dim,
    'depth': depth,
    'mlp_dim': shape('layers/feed_forward/up/bias', 1)[0],
    'projection': projection[outputs] if projection else None,
  }
  if tower == 'text':
    fields |= {'vocabulary': shape('table', 2)[0], 'positions': positions}
  else:
    patch = shape('patch_in/kernel', 4)[-1]
    fields |= {'patch': patch, 'size': patch * math.isqrt(positions - 1)}
  return fields if tower_config is None else fields | _from_config(tower, tower_config, fields)


def expected(tower: str) -> str:
  """Says whose tensors those of a tower should be, for messages."""
  return f"those of CLIP's {tower} tower by the names of transformers, OpenAI or OpenCLIP"


def _of_tower(tower: str, config: Fields) -> Fields:
  """Returns what config.json says of one tower."""
  config = config.get(f'{tower}_config') or config
  kind = config.get('model_type', 'clip') if isinstance(config, Mapping) else config
  if kind not in ('clip', f'clip_{tower}_model'):
    raise ConfigError(
      f"config.json is of a model {kind!r:.100}; expected 'clip' or 'clip_{tower}_model'"
    )
  return config


def _from_config(tower: str, config: Fields, sizes: Fields) -> JSON:
  """Returns what config.json says beside sizes, or means where it is silent."""
  check_agrees({ours: config.get(_SIZES[ours]) for ours in _SIZES if ours in sizes}, sizes)
  activation = config.get('hidden_act', 'quick_gelu')
  check_one_of(f'config.json has hidden_act = {activation!r:.100}', activation, _ACTIVATIONS)
  some_heads = Annotated[int, Range(least=1, most=sizes['dim'])]
  fields = {
    'heads': config_number(config, 'num_attention_heads', _HEADS[tower], some_heads),
    'activation': _ACTIVATIONS[activation],
    'epsilon': config_number(config, 'layer_norm_eps', 1e-5, Epsilon),
  }
  if tower == 'text':
    most = max(sizes['vocabulary'] - 1, _LARGEST)
    eos = config_number(config, 'eos_token_id', _EOS, Annotated[int, Range(least=0, most=most)])
    fields |= {'pooling': 'largest'} if eos == _LARGEST else {'pooling': 'first_eos', 'eos': eos}
  return fields


def clip_config(tower: str, fields: Fields) -> JSON:
  """Returns the config.json with which transformers reads a tower with these fields.

  By OpenAI's and OpenCLIP's own names only `clip_fields` understands it.
  """
  projected = 'WithProjection' * (fields['projection'] is not None)
  config = {
    'architectures': [f'CLIP{tower.capitalize()}Model{projected}'],
    'model_type': f'clip_{tower}_model',
    **{theirs: fields[ours] for ours, theirs in _SIZES.items() if ours in fields},
    'num_attention_heads': fields['heads'],
    'hidden_act': {ours: theirs for theirs, ours in _ACTIVATIONS.items()}[fields['activation']],
    'layer_norm_eps': fields['epsilon'],
  }
  if projected:
    config['projection_dim'] = fields['projection']
  if tower == 'text':
    config['eos_token_id'] = _LARGEST if fields['pooling'] == 'largest' else fields['eos']
  return config


def _format(tower: str, make: Callable[[Fields], nn.Module]) -> WeightFormat:
  return make_encoder_format(
    Family(
      make,
      clip_inputs,
      functools.partial(clip_fields, tower),
      lambda _, names: clip_rows(tower, names),
      functools.partial(clip_config, tower),
      expected(tower),
    )
  )


TEXT_FORMAT = _format('text', make_clip_text)
VISION_FORMAT = _format('vision', make_clip_vision)


def _pair_rows() -> Sequence[TensorName]:
  """The tables of both towers, by the names that transformers gives them side by side."""
  rows = [TensorName('log_scale', 'logit_scale')]
  for tower in ('text', 'vision'):
    rows += [
      row._replace(ours=f'{tower}/{row.ours}', theirs=row.names[0])
      for row in clip_rows(tower, ())
      if row.ours is not None
    ]
  return rows


def _init_pair(model: ClipModel, _: Fields, key: jax.Array) -> Tree:
  return nn.unbox(model.init(key, *clip_model_inputs(model))['params'])


def _write_pair(params: Tree, fields: Fields, notes: Fields, out: pathlib.Path) -> str:
  """Writes both towers of a trained CLIP as a folder of transformers' CLIPModel.

  From it `launch.weights import` makes a frozen encoder of either tower.
  """
  del notes
  # CLIPModel has no head for identities.
  params = {name: value for name, value in params.items() if not name.startswith('identity_')}
  towers = {tower: clip_config(tower, fields[tower]) for tower in ('text', 'vision')}
  config = {
    'architectures': ['CLIPModel'],
    'model_type': 'clip',
    'projection_dim': fields['text']['projection'],
    **{f'{tower}_config': tower_config for tower, tower_config in towers.items()},
  }
  write_json(out / 'config.json', config)
  tensors = export_tensors(_pair_rows(), params)
  write_tensors(out / 'model.safetensors', tensors, {'format': 'pt'})
  return "both towers by transformers' names"


PAIR_FORMAT = WeightFormat(
  make_clip_model,
  _init_pair,
  writers={'transformers': _write_pair},
  folder=True,
  noted=(),
  how=(),
  rows=lambda _: _pair_rows(),
)
