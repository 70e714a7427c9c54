"""Imports and exports the T5 family by the names of transformers (Movie Gen §3.1.4)."""

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

EXPECTED = "those of transformers' T5 or UMT5 encoder"
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
_BLOCK = 'encoder.block.{layer}.layer'
_BIAS = 'layer.0.SelfAttention.relative_attention_bias.weight'

# A published file of the whole model has a decoder as well.
ROWS = (
  TensorName('tokens/kernel', ('shared.weight', 'encoder.embed_tokens.weight')),
  TensorName('position_bias', f'encoder.block.0.{_BIAS}'),
  TensorName('layers/position_bias', f'encoder.block.{{layer}}.{_BIAS}'),
  TensorName('layers/self_norm/scale', f'{_BLOCK}.0.layer_norm.weight'),
  TensorName('layers/attention/query/kernel', f'{_BLOCK}.0.SelfAttention.q.weight', TRANSPOSED),
  TensorName('layers/attention/key/kernel', f'{_BLOCK}.0.SelfAttention.k.weight', TRANSPOSED),
  TensorName('layers/attention/value/kernel', f'{_BLOCK}.0.SelfAttention.v.weight', TRANSPOSED),
  TensorName('layers/attention/out/kernel', f'{_BLOCK}.0.SelfAttention.o.weight', TRANSPOSED),
  TensorName('layers/feed_norm/scale', f'{_BLOCK}.1.layer_norm.weight'),
  TensorName(
    'layers/feed_forward/gate/kernel', f'{_BLOCK}.1.DenseReluDense.wi_0.weight', TRANSPOSED
  ),
  TensorName('layers/feed_forward/up/kernel', f'{_BLOCK}.1.DenseReluDense.wi_1.weight', TRANSPOSED),
  TensorName('layers/feed_forward/down/kernel', f'{_BLOCK}.1.DenseReluDense.wo.weight', TRANSPOSED),
  TensorName('norm/scale', 'encoder.final_layer_norm.weight'),
  TensorName(None, 'decoder.*'),
  TensorName(None, 'lm_head.weight'),
)
_UP = 'layers/feed_forward/up/kernel'
_PLAIN = TensorName(_UP, f'{_BLOCK}.1.DenseReluDense.wi.weight', TRANSPOSED)


def t5_rows(fields: Fields) -> Sequence[TensorName]:
  """Returns the table of names of an encoder; ConfigError where T5 has none with these fields."""
  activation, gated = fields['activation'], fields['gated']
  if (activation, gated) not in PROJECTIONS.values():
    known = sorted({name for name, gate in PROJECTIONS.values() if gate == gated})
    raise ConfigError(
      f'no encoder of the T5 family has model.activation = {activation!r} with model.gated = '
      f'{gated}; expected {" or ".join(known)}'
    )
  return ROWS if gated else [_PLAIN if row.ours == _UP else row for row in ROWS]


def t5_fields(tensors: Mapping[str, AnyTensor], config: Fields | None = None) -> JSON:
  """Reads the sizes of an encoder from its tensors, and from config.json what they do not show.

  Returns fields of `T5Encoder`; without `config` all but activation, distance and epsilon.
  Raises ConfigError if a tensor that is needed is missing, or `config` is of another model.
  """
  family = (config or {}).get('model_type', 't5')
  check_one_of(f'config.json is of a model {family!r:.100}', family, FAMILIES)
  named = 'encoder.block.0.layer.{}.weight'
  vocabulary, dim = _shape(tensors, 'shared.weight', 'encoder.embed_tokens.weight')
  buckets, heads = _shape(tensors, f'encoder.block.0.{_BIAS}')
  layers = {m[1] for name in tensors if (m := re.match(r'encoder\.block\.(\d+)\.', name))}
  query, _ = _shape(tensors, named.format('0.SelfAttention.q'))
  gated = named.format('1.DenseReluDense.wi_0') in tensors
  mlp_dim, _ = _shape(tensors, named.format(f'1.DenseReluDense.{"wi_0" if gated else "wi"}'))
  fields = {
    'vocabulary': vocabulary,
    'dim': dim,
    'depth': len(layers),
    'heads': heads,
    'head_size': query // heads,
    'mlp_dim': mlp_dim,
    'gated': gated,
    'buckets': buckets,
    'bias_in_every_layer': f'encoder.block.1.{_BIAS}' in tensors,
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
