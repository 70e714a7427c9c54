"""Movie Gen in one file: learns from captioned clips, then makes an animation of prompts.

python examples/movie_gen_in_one_file.py --out=one_file.webp
python examples/movie_gen_in_one_file.py --prompt='a large red rubber ball rolls left'
JAX_NUM_CPU_DEVICES=8 python examples/movie_gen_in_one_file.py --mesh=2x4

The report (arXiv 2410.13720; § are its sections) makes videos in four steps, parts of this file:
1. An autoencoder learns to write 8 x 8 x 8 pixels of a clip as one vector of latents (§3.1.1).
2. A transformer learns how noise flows to latents, given the time and a caption (§3.1.2 to §3.1.4).
3. One loop trains both, with arrays that lie on a mesh of devices (§3.1.6).
4. A sampler follows the flow from noise to new latents, which are decoded (§3.4.2).
The data are lit solids that roll and slide, 16 frames of 32 x 32 pixels. All takes five minutes of
a core; at the end a classifier that was trained before says whether clips show what they should.

The report's model has 30 billion parameters, not 3 million, and pretrained text encoders. It learns
from images first, each a video of one frame, then from batches of images and of videos in turns.
All that, and tokens cut over many hosts, is in mgjax/, in the same mathematics (tests/examples/).
Letters: b batch, t h w frames height width, c channels, n tokens or words, d width, g heads.
"""

import functools
import time
import zlib

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mgjax.data.media.viewing import write_animation
from mgjax.data.synthetic_datasets import judge_of, open_world

FLAGS = flags.FLAGS
flags.DEFINE_integer('clips', 512, 'Clips to train on.')
flags.DEFINE_integer('codec_steps', 150, 'Training steps of the autoencoder.')
flags.DEFINE_integer('steps', 500, 'Training steps of the flow model.')
flags.DEFINE_string('mesh', '', 'Devices along data x fsdp, as in 2x4; by default all along data.')
flags.DEFINE_float('guidance', 4.0, 'Scale of guidance; 1 is none, the report has 7.5.')
flags.DEFINE_multi_string('prompt', [], 'What to show, as often as you like.')
flags.DEFINE_string('out', 'one_file.webp', 'Where to write the animation.')

COLOURS, MOVES = ('red', 'green', 'blue', 'yellow'), ('ball rolls left', 'cube slides right')
PROMPTS = [f'a large {colour} rubber {moves}' for moves in MOVES for colour in COLOURS]
WORLD = {
  'frames': 16,
  'size': (32, 32),
  'fps': 8,
  'solids': (1, 1),
  'shapes': ('ball', 'cube'),
  'colours': COLOURS,
  'materials': ('rubber',),
  'cameras': ('stands still',),
  'wording': 'plain',
  'motions': ('rolls left', 'rolls right', 'slides left', 'slides right'),
}
# The autoencoder makes 4 x 4 pixels channels; then levels with these strides in space halve time.
# That is 8 x along t, h and w, with so many channels of latents: (16 32 32 3) -> (2 4 4 48).
LATENT, WIDTH, STRIDES = 48, 32, (2, 1, 1)
PIXELS, CUBE = {'dt': 1, 'dh': 4, 'dw': 4}, {'dt': 8, 'dh': 8, 'dw': 8}
# Width, layers, heads, width of SwiGLU, patches (the report: 6144, 48, 48, 16384, 1 x 2 x 2).
DIM, DEPTH, HEADS, HIDDEN, PATCH = 192, 4, 6, 512, {'dt': 1, 'dh': 1, 'dw': 1}
TEXT, VOCABULARY, WORDS = 64, 4096, 12  # width, different words, words of a caption
SIGMA_MIN = 1e-5  # noise that is left at t = 1: data are points, X_1 a narrow bell (§3.1.2)

zeros, normal, fan_in = nn.initializers.zeros, nn.initializers.normal, nn.initializers.lecun_normal
small = nn.initializers.variance_scaling(0.01, 'fan_in', 'truncated_normal')
Linear = functools.partial(nn.Dense, use_bias=False)  # Llama 3 has no biases
RMSNorm = functools.partial(nn.RMSNorm, epsilon=1e-5)
FrameNorm = functools.partial(nn.GroupNorm, 8, reduction_axes=(-3, -2, -1))  # frame by frame
FOLDED = 'b (t dt) (h dh) (w dw) c -> b t h w (dt dh dw c)'  # patches become channels ...
UNFOLDED = 'b t h w (dt dh dw c) -> b (t dt) (h dh) (w dw) c'  # ... and channels patches

# Part 1. The temporal autoencoder (§3.1.1) has layers of one for images, and after each one over
# time: a convolution after a convolution, attention after attention. '2.5D' costs less than 3D.


class TemporalConv(nn.Module):
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    t, c = x.shape[1], x.shape[-1]
    identity = jnp.zeros((3, c, c)).at[1].set(jnp.eye(c))  # at first each frame is an image
    kernel, bias = self.param('kernel', lambda _: identity), self.param('bias', zeros, (c,))
    x = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)], 'edge')  # not causal: reads both ways
    return sum(x[:, i : i + t : self.stride] @ kernel[i] for i in range(3)) + bias[(None,) * 4]


class Conv(nn.Module):  # repeats along t, h, w, then convolves over frames, then over time
  features: int
  up: tuple[int, int, int] = (1, 1, 1)
  init: nn.initializers.Initializer = fan_in()

  @nn.compact
  def __call__(self, x):
    for axis, times in enumerate(self.up, 1):
      x = jnp.repeat(x, times, axis)
    x = nn.Conv(self.features, (3, 3), padding=1, kernel_init=self.init, name='spatial')(x)
    return TemporalConv(name='temporal')(x)


class ResidualBlock(nn.Module):
  @nn.compact
  def __call__(self, x):
    y = Conv(WIDTH, name='conv_1')(nn.silu(FrameNorm(name='norm_1')(x)))
    return x + Conv(WIDTH, name='conv_2')(nn.silu(FrameNorm(name='norm_2')(y)))


class Attention(nn.Module):  # softmax(Q K^T / sqrt(d / g)) V: x reads itself, or a context
  heads: int
  bias: bool = False
  out_init: nn.initializers.Initializer = fan_in()

  @nn.compact
  def __call__(self, x, context=None, mask=None):
    linear = functools.partial(nn.Dense, x.shape[-1], use_bias=self.bias)
    context = x if context is None else context
    q, k, v = linear(name='query')(x), linear(name='key')(context), linear(name='value')(context)
    q, k, v = (einops.rearrange(y, 'b n (g k) -> b g n k', g=self.heads) for y in (q, k, v))
    scores = q @ jnp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
      scores = jnp.where(mask[:, None, None], scores, -1e30)
    y = einops.rearrange(nn.softmax(scores) @ v, 'b g n k -> b n (g k)')
    return linear(kernel_init=self.out_init, name='out')(y)


class Middle(nn.Module):  # at the smallest size: attention over each frame, then over time
  @nn.compact
  def __call__(self, x):
    b, _, h, w, _ = x.shape
    x = ResidualBlock(name='block_0')(x)
    y = einops.rearrange(FrameNorm(name='spatial_norm')(x), 'b t h w c -> (b t) (h w) c')
    x = x + Attention(1, True, name='spatial')(y).reshape(x.shape)
    y = einops.rearrange(FrameNorm(name='temporal_norm')(x), 'b t h w c -> (b h w) t c')
    y = Attention(1, True, zeros, name='temporal')(y)
    x = x + einops.rearrange(y, '(b h w) t c -> b t h w c', b=b, h=h, w=w)
    return ResidualBlock(name='block_1')(x)


class Encoder(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = Conv(WIDTH, name='conv_in')(x)
    for level, stride in enumerate(STRIDES):
      if stride == 2:
        x = nn.Conv(WIDTH, (3, 3), 2, ((0, 1), (0, 1)), name=f'level_{level}_down_spatial')(x)
      x = TemporalConv(2, name=f'level_{level}_down_temporal')(x)
    x = nn.silu(FrameNorm(name='norm_out')(Middle(name='middle')(x)))
    return Conv(2 * LATENT, init=small, name='conv_out')(x)


class Decoder(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = Middle(name='middle')(Conv(WIDTH, name='conv_in')(x))
    for level, stride in reversed([*enumerate(STRIDES)]):
      x = Conv(WIDTH, (2, stride, stride), name=f'level_{level}_up')(x)
      x = ResidualBlock(name=f'level_{level}_block_0')(x)
    x = nn.silu(FrameNorm(name='norm_out')(x))
    return nn.Conv(3 * 4 * 4, (3, 3), padding=1, kernel_init=small, name='conv_out')(x)


# A linear way around both networks, the principal components of clips at first, spares a CPU many
# steps. The report has none: its images become one latent, and of the 8 frames decoded 1 is kept.
class Autoencoder(nn.Module):
  def setup(self):
    self.encoder, self.decoder = Encoder(), Decoder()
    self.shortcut_in, self.shortcut_out = nn.Dense(LATENT), nn.Dense(3 * 8 * 8 * 8)

  def encode(self, video):
    patches = einops.rearrange(video, FOLDED, **PIXELS)
    mean, log_variance = jnp.split(self.encoder(patches), 2, axis=-1)
    return mean + self.shortcut_in(einops.rearrange(video, FOLDED, **CUBE)), log_variance - 6

  def decode(self, latents):
    video = einops.rearrange(self.shortcut_out(latents), UNFOLDED, **CUBE)
    return video + einops.rearrange(self.decoder(latents), UNFOLDED, **PIXELS)

  def __call__(self, video, key):
    mean, log_variance = self.encode(video)
    sample = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    return self.decode(sample), mean, log_variance


def reconstruction_loss(made, mean, log_variance, video):
  """L1, MSE and some KL to N(0, 1); the report adds LPIPS, a critic and an outlier penalty."""
  kl = 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - log_variance - 1)
  return jnp.mean(jnp.abs(made - video)) + 10 * jnp.mean((made - video) ** 2) + 1e-6 * kl


# Part 2. The flow model: the transformer of Llama 3 with changes (§3.1.3). It reads text by cross-
# attention, the flow time modulates its norms, every token reads all others, and places are learnt.


class SwiGLU(nn.Module):
  hidden: int

  @nn.compact
  def __call__(self, x):
    gated = nn.silu(Linear(self.hidden, name='gate')(x)) * Linear(self.hidden, name='up')(x)
    return Linear(x.shape[-1], name='down')(gated)


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, modulation, positions, words, mask):
    # Each layer adds a table: a network in each would add 10.9 billion parameters to the report's.
    modulation = modulation + self.param('modulation', zeros, (6, DIM))[None]
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = jnp.split(modulation, 6, axis=1)
    x = x + positions  # in every layer, which the report found to reduce distortions
    y = RMSNorm(name='self_norm')(x) * (1 + scale_a) + shift_a
    x = x + gate_a * Attention(HEADS, name='self_attention')(y)
    y = RMSNorm(name='cross_norm')(x)
    x = x + Attention(HEADS, name='cross_attention')(y, words, mask)
    y = RMSNorm(name='feed_norm')(x) * (1 + scale_f) + shift_f
    return x + gate_f * SwiGLU(HIDDEN, name='feed_forward')(y), None


# Words (b m) -> what cross-attention reads (b m d). The report has UL2, MetaCLIP and ByT5 here, all
# frozen, each before what ends this one too: a linear map and a LayerNorm (§3.1.4).
class TextEncoder(nn.Module):
  @nn.compact
  def __call__(self, tokens, mask):
    table = self.param('table', normal(1.0), (3 + VOCABULARY, TEXT))
    positions = self.param('places', normal(0.1), (WORDS, TEXT))
    x = table[tokens] * mask[..., None] + positions[None]
    x = x + Attention(4, name='self')(RMSNorm(name='self_norm')(x), mask=mask)
    x = x + SwiGLU(3 * TEXT, name='feed_forward')(RMSNorm(name='feed_norm')(x))
    x = Linear(DIM, name='project')(RMSNorm(name='norm')(x))
    return nn.LayerNorm(epsilon=1e-5, name='project_norm')(x)


def read_words(text):
  """Makes of each word its hash; 1 is the end, 0 nothing, and 2 is kept free."""
  numbers = [3 + zlib.crc32(word.encode()) % VOCABULARY for word in text.split()][: WORDS - 1]
  return np.array([*numbers, 1] + [0] * (WORDS - 1 - len(numbers)), np.int32)


# u(X_t, words, t): a velocity of the shape of X_t. Rows to `drop` (b) read the empty caption.
class FlowModel(nn.Module):
  @nn.compact
  def __call__(self, x, flow_time, tokens, drop):
    tokens = jnp.where(drop[:, None], jnp.zeros_like(tokens).at[:, 0].set(1), tokens)
    words = TextEncoder(name='text')(tokens, tokens != 0)
    # The flow time as waves, then as shift, scale and gate of self-attention and of SwiGLU. These
    # start at zero, so that both add nothing in a new model (adaLN-Zero).
    angles = 1000 * flow_time[:, None] * (10_000 ** (-jnp.arange(128.0) / 128))[None]
    waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    embedding = Linear(DIM, name='time_out')(nn.silu(Linear(DIM, name='time_into')(waves)))
    modulation = Linear(6 * DIM, kernel_init=zeros, name='time_shared')(nn.silu(embedding))
    x = einops.rearrange(x, FOLDED, **PATCH)
    b, t, h, w, c = x.shape
    tables = {'time': (t, 1, 1), 'height': (1, h, 1), 'width': (1, 1, w)}  # learnt, summed
    positions = sum(
      self.param(f'positions_{name}', normal(0.02), (max(size), DIM)).reshape(*size, DIM)
      for name, size in tables.items()
    )
    layers = nn.scan(  # compiles one layer, whatever the depth
      Block, {'params': 0}, split_rngs={'params': True}, in_axes=nn.broadcast, length=DEPTH
    )(name='layers')
    shared = modulation.reshape(b, 6, DIM), positions.reshape(1, -1, DIM), words, tokens != 0
    x, _ = layers(Linear(DIM, name='patch_in')(x.reshape(b, -1, c)), *shared)
    last = embedding[:, None] + self.param('modulation', zeros, (2, DIM))[None]
    x = RMSNorm(name='norm')(x) * (1 + last[:, 1:]) + last[:, :1]
    x = Linear(c, kernel_init=zeros, name='patch_out')(x).reshape(b, t, h, w, c)
    return einops.rearrange(x, UNFOLDED, **PATCH)


def flow_loss(predict, latents, tokens, key, dropout=0.1):
  """Flow matching (§3.1.2): the squared distance from the velocity of straight paths.

  X_t = t X_1 + (1 - (1 - sigma_min) t) X_0 goes from noise X_0 at t = 0 to data X_1 at t = 1, with
  velocity V_t = X_1 - (1 - sigma_min) X_0. Many paths cross at a point: the model learns their mean
  velocity there, whose flow carries noise to data. Captions are hidden at times, for guidance.
  """
  time_key, noise_key, drop_key = jax.random.split(key, 3)
  # Logit-normal times: near 0 and 1 the mean velocity is easily told, so most lie in the middle.
  flow_time = nn.sigmoid(jax.random.normal(time_key, latents.shape[:1]))
  noise = jax.random.normal(noise_key, latents.shape)
  drop = jax.random.bernoulli(drop_key, dropout, latents.shape[:1])
  t = flow_time[:, None, None, None, None]
  x = t * latents + (1 - (1 - SIGMA_MIN) * t) * noise
  target = latents - (1 - SIGMA_MIN) * noise
  return jnp.mean((predict(x, flow_time, tokens, drop) - target) ** 2)


# Part 3. Training, on one device or many by the same code (§3.1.6).


def sharding_of(mesh, leaf):
  """Cuts the longest axis that `fsdp` divides; XLA gathers weights and sums gradients."""
  fitting = [size for size in leaf.shape if size % mesh.shape['fsdp'] == 0] if leaf.ndim > 1 else []
  axes = [None] * leaf.shape.index(max(fitting)) + ['fsdp'] if fitting else []
  return NamedSharding(mesh, PartitionSpec(*axes))


def train(name, init, loss, data, rows, steps, rate, mesh):
  """Trains parameters on random rows of arrays; what is random is a function of the step alone."""
  schedule = optax.cosine_decay_schedule(rate, steps)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.95))

  def init_state(key):
    return (params := init(key)), optimizer.init(params)

  def step(params, moments, batch, key):
    value, gradients = jax.value_and_grad(loss)(params, *batch, key)
    updates, moments = optimizer.update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments, value

  key, began, values, every = jax.random.key(0), time.time(), [], max(1, steps // 10)
  shardings = jax.tree.map(functools.partial(sharding_of, mesh), jax.eval_shape(init_state, key))
  state = jax.jit(init_state, out_shardings=shardings)(key)
  step = jax.jit(step, donate_argnums=(0, 1), out_shardings=(*shardings, None))
  for number in range(steps):
    chosen = np.random.default_rng(number).integers(len(data[0]), size=rows)
    split = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))  # all devices share the rows
    batch = [jax.device_put(array[chosen], split) for array in data]
    *state, value = step(*state, batch, jax.random.fold_in(key, number))
    values.append(value)
    if (number + 1) % every == 0:
      mean = np.mean(jax.device_get(values[-every:]))
      began, left = time.time(), (time.time() - began) / every * (steps - number - 1)
      print(f'{name}: step {number + 1} of {steps}, loss {mean:.4f}, {left:.0f} s left', flush=True)
  return state[0]


# Part 4. Sampling by the linear-quadratic schedule (§3.4.2), and all of it in order.


def linear_quadratic(steps, emulated=1000):
  """Half of the steps are small, as `emulated` equal ones: small t settle what is shown."""
  index, half = np.arange(steps + 1), steps // 2
  quadratic = (np.maximum(index - half, 0) / (steps - half)) ** 2
  return index / emulated + (1 - steps / emulated) * quadratic


def sample(predict, tokens, noise, guidance, times):
  """Euler's method. Guidance goes from the velocity without a caption past the one with it."""
  drop = jnp.arange(2 * len(noise)) >= len(noise)

  def advance(x, interval):
    t, later = interval
    both = predict(jnp.concatenate([x, x]), jnp.full(len(drop), t), tokens, drop)
    with_caption, without = jnp.split(both, 2)
    return x + (later - t) * (without + guidance * (with_caption - without)), None

  tokens, times = jnp.concatenate([tokens, tokens]), jnp.asarray(times, jnp.float32)
  return jax.lax.scan(advance, noise, (times[:-1], times[1:]))[0]


def main(_):
  began, codec, model = time.time(), Autoencoder(), FlowModel()
  sizes = [int(size) for size in FLAGS.mesh.split('x')] if FLAGS.mesh else [jax.device_count(), 1]
  mesh = jax.make_mesh(sizes, ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)
  world = open_world('solids', WORLD, 'train', length=FLAGS.clips)
  rows = [world[number] for number in range(FLAGS.clips)]
  video = np.stack([row['video'] for row in rows]).astype(np.float32) / 127.5 - 1
  tokens = np.stack([read_words(row['caption']) for row in rows])
  blocks = einops.rearrange(video[:32], FOLDED, **CUBE)
  components = np.linalg.svd(blocks.reshape(-1, 3 * 8 * 8 * 8), full_matrices=False)[2][:LATENT]

  def init_codec(key):
    params = codec.init(key, video[:1], key)['params']
    params['shortcut_in']['kernel'] = jnp.asarray(components.T)
    params['shortcut_out']['kernel'] = jnp.asarray(components)
    return params

  def codec_loss(params, video, key):
    return reconstruction_loss(*codec.apply({'params': params}, video, key), video)

  weights = train('autoencoder', init_codec, codec_loss, [video], 8, FLAGS.codec_steps, 1e-3, mesh)
  encode = jax.jit(functools.partial(codec.apply, {'params': weights}, method='encode'))
  latents = np.concatenate([encode(x)[0] for x in np.array_split(video, 1 + len(video) // 16)])
  mean, scale = latents.mean((0, 1, 2, 3), keepdims=True), latents.std()
  latents = (latents - mean) / scale  # as large as the noise

  def init_model(key):
    return model.init(key, latents[:1], jnp.zeros(1), tokens[:1], jnp.zeros(1, bool))['params']

  def loss(params, latents, tokens, key):
    return flow_loss(functools.partial(model.apply, {'params': params}), latents, tokens, key)

  params = train('flow model', init_model, loss, [latents, tokens], 32, FLAGS.steps, 2e-3, mesh)
  velocity = jax.jit(functools.partial(model.apply, {'params': params}))

  def make_videos(prompts):
    asked = np.stack([read_words(prompt) for prompt in prompts])
    noise = jax.random.normal(jax.random.key(1), (len(prompts), *latents.shape[1:]))
    made = sample(velocity, asked, noise, FLAGS.guidance, linear_quadratic(50))
    made = codec.apply({'params': weights}, made * scale + mean, method='decode')
    return list(np.asarray(jnp.clip((made + 1) * 127.5, 0, 255).astype(jnp.uint8)))

  prompts = FLAGS.prompt or PROMPTS
  write_animation(FLAGS.out, make_videos(prompts), prompts, WORLD['fps'])
  judge = judge_of('solids', 'video')(world)
  asked = judge.asks(64)['in distribution']  # captions of scenes that training did not show
  right = judge.right(make_videos([each.caption for each in asked]), asked)
  scores = np.round([np.nanmean(right[name]) for name in ('colour', 'shape', 'motion')], 2)
  print(f'{FLAGS.out} after {time.time() - began:.0f} s; colour, shape, motion right: {scores}')


if __name__ == '__main__':
  app.run(main)
