"""Imports and exports the T5 family by the names of transformers (Movie Gen §3.1.4).

UMT5 may also have the names that the original code of Wan gives it.
"""

import re
from collections.abc import Mapping, Sequence

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.safetensors_files import AnyTensor, check_agrees, listed
from mgjax.core.settings import Positive
from mgjax.models.foreign_weights.format import config_number
from mgjax.models.foreign_weights.names import TRANSPOSED, TensorName
from mgjax.models.text.t5 import make_t5, t5_inputs
from mgjax.models.text.weight_format import Epsilon, Family, make_encoder_format

EXPECTED = "those of transformers' T5 or UMT5 encoder, or of Wan's UMT5"
# model_type of config.json -> whether every layer has its own biases of distances.
FAMILIES = {'t5': False, 'mt5': False, 'byt5': False, 'umt5': True}
# Sizes that tensors show -> what config.json calls them.
_SIZES = {
  'vocabulary': 'vocab_size',
  'dim': 'd_model',
  'depth': 'num_layers',
  'heads': 'num_heads',
  'head_size': 'd_kv',
  'mlp_dim': 'd_ff',
  'buckets': 'relative_attention_num_buckets',
}
# feed_forward_proj of config.json -> activation, gated. transformers approximates 'gated-gelu' by
# tanh as well.
PROJECTIONS = {
  'relu': ('relu', False),
  'gelu_new': ('gelu', False),
  'gated-gelu': ('gelu', True),
  'gated-silu': ('silu', True),
}
_BLOCK, _WAN_BLOCK = 'encoder.block.{layer}.layer', 'blocks.{layer}'
_BIAS = 'layer.0.SelfAttention.relative_attention_bias.weight'
_BIASES = f'encoder.block.{{layer}}.{_BIAS}', f'{_WAN_BLOCK}.pos_embedding.embedding.weight'


def _in_layers(ours: str, theirs: str, wan: str, axes: tuple[int, ...] = ()) -> TensorName:
  return TensorName(f'layers/{ours}', (f'{_BLOCK}.{theirs}.weight', f'{_WAN_BLOCK}.{wan}'), axes)


_PLAIN = _in_layers('feed_forward/up/kernel', '1.DenseReluDense.wi', 'ffn.fc1.weight', TRANSPOSED)
# A published file of the whole model has a decoder as well.
ROWS = (
  TensorName(
    'tokens/kernel', ('shared.weight', 'encoder.embed_tokens.weight', 'token_embedding.weight')
  ),
  TensorName('position_bias', f'encoder.block.0.{_BIAS}'),
  TensorName('layers/position_bias', _BIASES),
  _in_layers('self_norm/scale', '0.layer_norm', 'norm1.weight'),
  _in_layers('attention/query/kernel', '0.SelfAttention.q', 'attn.q.weight', TRANSPOSED),
  _in_layers('attention/key/kernel', '0.SelfAttention.k', 'attn.k.weight', TRANSPOSED),
  _in_layers('attention/value/kernel', '0.SelfAttention.v', 'attn.v.weight', TRANSPOSED),
  _in_layers('attention/out/kernel', '0.SelfAttention.o', 'attn.o.weight', TRANSPOSED),
  _in_layers('feed_norm/scale', '1.layer_norm', 'norm2.weight'),
  _in_layers('feed_forward/gate/kernel', '1.DenseReluDense.wi_0', 'ffn.gate.0.weight', TRANSPOSED),
  _in_layers('feed_forward/up/kernel', '1.DenseReluDense.wi_1', 'ffn.fc1.weight', TRANSPOSED),
  _in_layers('feed_forward/down/kernel', '1.DenseReluDense.wo', 'ffn.fc2.weight', TRANSPOSED),
  TensorName('norm/scale', ('encoder.final_layer_norm.weight', 'norm.weight')),
  TensorName(None, 'decoder.*'),
  TensorName(None, 'lm_head.weight'),
)


def t5_rows(fields: Fields) -> Sequence[TensorName]:
  """Returns the table of names of an encoder; ConfigError where T5 has none with these fields."""
  activation, gated = fields['activation'], fields['gated']
  if (activation, gated) not in PROJECTIONS.values():
    known = sorted({name for name, gate in PROJECTIONS.values() if gate == gated})
    raise ConfigError(
      f'no encoder of the T5 family has model.activation = {activation!r} with model.gated = '
      f'{gated}; expected {" or ".join(known)}'
    )
  return ROWS if gated else [_PLAIN if row.ours == _PLAIN.ours else row for row in ROWS]


def t5_fields(tensors: Mapping[str, AnyTensor], config: Fields | None = None) -> JSON:
  """Reads the sizes of an encoder from its tensors, and from config.json what they do not show.

  Returns fields of `T5Encoder`; without `config` all but activation, distance and epsilon.
  Raises ConfigError if a tensor that is needed is missing, or `config` is of another model.
  """
  family = (config or {}).get('model_type', 't5')
  check_one_of(f'config.json is of a model {family!r:.100}', family, FAMILIES)
  named, wan_named = 'encoder.block.0.layer.{}.weight', 'blocks.0.{}.weight'
  vocabulary, dim = _shape(tensors, *ROWS[0].names)
  biases = [[name.format(layer=layer) for name in _BIASES] for layer in range(2)]
  buckets, heads = _shape(tensors, *biases[0])
  layers = {
    m[1] for name in tensors if (m := re.match(r'(?:encoder\.block|blocks)\.(\d+)\.', name))
  }
  query, _ = _shape(tensors, named.format('0.SelfAttention.q'), wan_named.format('attn.q'))
  gates = named.format('1.DenseReluDense.wi_0'), wan_named.format('ffn.gate.0')
  gated = any(name in tensors for name in gates)
  ups = gates if gated else (named.format('1.DenseReluDense.wi'), wan_named.format('ffn.fc1'))
  mlp_dim, _ = _shape(tensors, *ups)
  fields = {
    'vocabulary': vocabulary,
    'dim': dim,
    'depth': len(layers),
    'heads': heads,
    'head_size': query // heads,
    'mlp_dim': mlp_dim,
    'gated': gated,
    'buckets': buckets,
    'bias_in_every_layer': any(name in tensors for name in biases[1]),
  }
  return fields if config is None else fields | _from_config(config, fields)


def t5_config(fields: Fields) -> JSON:
  """Returns the config.json with which transformers reads an encoder with these fields."""
  in_every_layer = fields['bias_in_every_layer']
  projection_names = {answer: name for name, answer in PROJECTIONS.items()}
  return {
    'architectures': ['UMT5EncoderModel' if in_every_layer else 'T5EncoderModel'],
    'model_type': 'umt5' if in_every_layer else 't5',
    **{theirs: fields[ours] for ours, theirs in _SIZES.items()},
    'feed_forward_proj': projection_names[fields['activation'], fields['gated']],
    'relative_attention_max_distance': fields['distance'],
    'layer_norm_epsilon': fields['epsilon'],
  }


def _shape(tensors: Mapping[str, AnyTensor], *names: str) -> tuple[int, int]:
  for name in names:
    if name in tensors and tensors[name].ndim == 2:
      return tensors[name].shape
  there = listed({'tensors': tensors})
  raise ConfigError(f'there is no matrix {names[0]} among {there}; expected {EXPECTED}')


def _from_config(config: Fields, fields: JSON) -> JSON:
  family = config.get('model_type', 't5')
  projection = config.get('feed_forward_proj', 'relu')
  subject = f'config.json has feed_forward_proj = {projection!r:.100}'
  check_one_of(subject, projection, PROJECTIONS)
  activation, gated = PROJECTIONS[projection]
  # One layer alone does not show whose its biases are.
  own = FAMILIES[family] if fields['depth'] == 1 else fields['bias_in_every_layer']
  sizes = {ours: config.get(theirs) for ours, theirs in _SIZES.items()}
  family_fields = {'gated': gated, 'bias_in_every_layer': FAMILIES[family]}
  check_agrees(sizes | family_fields, fields | {'bias_in_every_layer': own})
  return {
    'activation': activation,
    'distance': config_number(config, 'relative_attention_max_distance', 128, Positive),
    'epsilon': config_number(config, 'layer_norm_epsilon', 1e-6, Epsilon),
    'bias_in_every_layer': own,
  }


T5_FORMAT = make_encoder_format(
  Family(
    make_t5,
    lambda _: t5_inputs(),
    t5_fields,
    lambda fields, _: t5_rows(fields),
    t5_config,
    EXPECTED,
  )
)
