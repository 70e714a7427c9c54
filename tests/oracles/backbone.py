"""Makes backbone.npz: what the whole backbone answers, written a second time in float64 numpy.

JAX_PLATFORMS=cpu python -m tests.oracles.backbone
It was made with numpy 2.4.6. The twin shares no code with `mgjax.models.backbone`, is written from
Movie Gen §3.1.3 and §6, and takes parameters by their names; both sides draw them
(tests/random_parameters.py). Norms have an epsilon that is seen, and every port carries something.
"""

import math
import pathlib

import numpy as np

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
ROWS, CHANNELS, CONTEXT = 2, 3, 5
COMMON = {'dim': 32, 'depth': 2, 'heads': 4, 'mlp_dim': 48, 'epsilon': 0.1}
# Of the video model, whose tables are longer than the grid, of small audio models, and of DiTs: the
# one of Table 9, without weights of its norms, and the audio model's with them.
VIDEO = {**COMMON, 'positions': (4, 3, 5), 'patch': (1, 2, 2)}
AUDIO = {**COMMON, 'positions': (9, 1, 1), 'patch': (1, 1, 1)}
DIT = {'norm': 'layer', 'bias': True}
MODELS = {
  'video': {**VIDEO, 'feed_forward': 'swiglu'},
  'audio': {**AUDIO, 'feed_forward': 'gelu'},
  'depthwise': {**VIDEO, 'feed_forward': 'swiglu', 'depthwise': True},
  'dit': {**VIDEO, **DIT, 'feed_forward': 'silu', 'affine': False},
  'audio_dit': {**AUDIO, **DIT, 'feed_forward': 'gelu'},
}
LATENTS = {
  'video': (2, 4, 8),
  'audio': (7, 1, 1),
  'depthwise': (2, 4, 8),
  'dit': (2, 4, 8),
  'audio_dit': (7, 1, 1),
}
TIMES = (0.03125, 0.5)
MASK = ((1, 1, 1, 1, 1), (1, 1, 0, 1, 0))


def inputs(name: str) -> dict[str, np.ndarray]:
  """Returns latents, times and what the three ports carry."""
  rng = np.random.default_rng(1)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  dim, sizes = COMMON['dim'], LATENTS[name]
  patches = math.prod(sizes) // math.prod(MODELS[name]['patch'])
  return {
    'x': draw(ROWS, *sizes, CHANNELS),
    'time': np.array(TIMES, np.float32),
    'tokens': draw(ROWS, patches, dim),
    'context': draw(ROWS, CONTEXT, dim),
    'context_mask': np.array(MASK, bool),
    'vector': draw(ROWS, dim),
  }


def silu(x):
  return x / (1 + np.exp(-x))


def gelu(x):
  """As DiT has it, by tanh."""
  return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(p, name, x, fields):
  """RMSNorm, or LayerNorm, with the weights that there are."""
  own = p.get(name, {})
  x = x - np.mean(x, axis=-1, keepdims=True) if fields.get('norm') == 'layer' else x
  x = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + fields['epsilon'])
  return x * own.get('scale', 1) + own.get('bias', 0)


def linear(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def attention(p, y, source, mask, heads):
  """Reads `source`, of which `mask` (b m) is there."""
  split = lambda name, a: np.stack(np.split(linear(p[name], a), heads, axis=-1), axis=1)  # noqa: E731
  query, key, value = split('query', y), split('key', source), split('value', source)
  scores = query @ np.swapaxes(key, -1, -2) / math.sqrt(query.shape[-1])
  weights = np.exp(scores) * mask[:, None, None]
  read = weights / weights.sum(axis=-1, keepdims=True) @ value
  return linear(p['out'], np.concatenate(list(np.moveaxis(read, 1, 0)), axis=-1))


def depthwise(taps, y, sizes):
  """Sums neighbours on the grid of tokens, each channel with weights of its own."""
  places = {place: number for number, place in enumerate(np.ndindex(*sizes))}
  total = np.zeros_like(y)
  for place, number in places.items():
    for offset in np.ndindex(3, 3, 3):
      near = places.get(tuple(a + b - 1 for a, b in zip(place, offset, strict=True)))
      if near is not None:
        total[:, number] += y[:, near] * taps[offset]
  return total


def feed_forward(p, y, kind):
  """SwiGLU, or the two matrices of a DiT."""
  up = linear(p['up'], y)
  hidden = (
    silu(linear(p['gate'], y)) * up if kind == 'swiglu' else {'gelu': gelu, 'silu': silu}[kind](up)
  )
  return linear(p['down'], hidden)


def cross_attention(p, y, context, mask, gated, heads):
  """Reads the context, and groups (tokens, mask, gate) as far as their gates are open."""
  one = lambda tokens, mask: attention(p, y, tokens, mask, heads)  # noqa: E731
  alone = 0 if context is None else one(context, mask)
  total = alone
  for tokens, there, gate in gated:
    if context is not None:
      tokens, there = np.concatenate([context, tokens], 1), np.concatenate([mask, there], 1)
    total = total + gate[:, None] * (one(tokens, there) - alone)
  return total


def layer(p, x, modulation, positions, context, context_mask, fields, gated=(), sizes=()):
  """One layer of a model of some fields; `modulation` (b 6 d) is what all layers share."""
  heads = fields['heads']
  shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
    (modulation[:, i] + p['modulation'][i])[:, None] for i in range(6)
  )
  near = lambda name, y: depthwise(p[name]['taps'], y, sizes) if fields.get('depthwise') else y  # noqa: E731
  x = x + positions
  y = norm(p, 'self_norm', x, fields) * (1 + scale_a) + shift_a
  y = near('self_depthwise', y)
  x = x + gate_a * attention(p['self_attention'], y, y, np.ones(y.shape[:2]), heads)
  if context is not None or gated:
    y = norm(p, 'cross_norm', x, fields)
    x = x + cross_attention(p['cross_attention'], y, context, context_mask, gated, heads)
  y = norm(p, 'feed_norm', x, fields) * (1 + scale_f) + shift_f
  y = near('feed_depthwise', y)
  return x + gate_f * feed_forward(p['feed_forward'], y, fields.get('feed_forward', 'swiglu'))


def embed_time(p, time, vector):
  """Returns the embedding (b d) of the time, and the modulation (b 6 d) that all layers share."""
  angles = 1000 * time[:, None] * 10000 ** (-np.arange(128) / 128)
  waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
  embedding = silu(waves @ p['into']['kernel']) @ p['out']['kernel'] + vector
  shared = silu(embedding) @ p['shared']['kernel']
  return embedding, shared.reshape(len(time), 6, -1)


def answer(name: str, params) -> np.ndarray:
  """Returns the velocity (b t h w c) that the backbone answers with these parameters."""
  fields = MODELS[name]
  p, data = _doubled(params), _doubled(inputs(name))
  (t, h, w), (dt, dh, dw) = LATENTS[name], fields['patch']
  places = [
    (slice(i, i + dt), slice(j, j + dh), slice(k, k + dw))
    for i in range(0, t, dt)
    for j in range(0, h, dh)
    for k in range(0, w, dw)
  ]
  patches = np.stack([data['x'][:, *place].reshape(ROWS, -1) for place in places], axis=1)
  x = patches @ p['patch_in']['kernel'] + data['tokens']
  tables = p['positions']
  positions = np.stack(
    [
      tables['time'][i.start // dt]
      + tables['height'][j.start // dh]
      + tables['width'][k.start // dw]
      for i, j, k in places
    ]
  )
  embedding, modulation = embed_time(p['time'], data['time'], data['vector'])
  for number in range(fields['depth']):
    own = _map(lambda leaf, number=number: leaf[number], p['layers'])
    context, sizes = (data['context'], data['context_mask']), (t // dt, h // dh, w // dw)
    x = layer(own, x, modulation, positions, *context, fields, sizes=sizes)
  shift, scale = ((embedding + p['modulation'][i])[:, None] for i in range(2))
  y = norm(p, 'norm', x, fields) * (1 + scale) + shift
  y = y @ p['patch_out']['kernel']
  velocity = np.zeros_like(data['x'])
  for number, place in enumerate(places):
    velocity[:, *place] = y[:, number].reshape(velocity[:, *place].shape)
  return velocity


def _map(change, tree):
  return {k: _map(change, v) for k, v in tree.items()} if isinstance(tree, dict) else change(tree)


def _doubled(tree):
  return _map(lambda leaf: np.asarray(leaf, np.float64), tree)


if __name__ == '__main__':
  from tests.models.backbone.test_frozen import parameters

  answers = {name: answer(name, parameters(name)).astype(np.float32) for name in MODELS}
  np.savez_compressed(VECTORS, **answers)
