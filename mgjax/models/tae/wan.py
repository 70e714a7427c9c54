"""The causal video autoencoders of Wan 2.1 and 2.2 (Wan Team 2025, arXiv 2503.20314).

A clip is encoded and decoded in chunks of time: the first frame by itself, then any number of
further ones. Each causal convolution keeps the last two frames that it read in the variable
collection `FRAMES`, so that the result does not depend on the chunks. `encode` and `decode` scan
over the smallest chunks, in the memory of one.
"""

import math
from typing import ClassVar

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.errors import DataError
from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Float, Tree
from mgjax.nn.linear import FAN_IN, ONES, ZEROS, parameter, weight

# Variable collection of the frames that causal convolutions read last.
FRAMES = 'frames'
_WINDOW = ('window', 'window', 'window', 'channels_in', 'channels')


class VideoConv(nn.Module):
  """A 3D convolution with bias; zeros are around h and w, and time has no padding.

  Attributes:
    window: sizes of the kernel along t, h, w.
    stride: along t alone.
  """

  features: int
  window: tuple[int, int, int] = (3, 3, 3)
  stride: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u h w o']:
    kernel = weight(self, FAN_IN, _WINDOW, (*self.window, x.shape[-1], self.features))
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    height, width = ((size // 2, size // 2) for size in self.window[1:])
    return _convolved(x, kernel, bias, (self.stride, 1, 1), (height, width), self.dtype)


class CausalConv(VideoConv):
  """A `VideoConv` that reads the last frames of the previous chunk too, zeros before the first."""

  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w o']:
    return super().__call__(_after(self, x, self.window[0] - 1))


def _after(module: nn.Module, x: Array, count: int) -> Array:
  """Returns x behind the last `count` frames of the previous chunk, and keeps its own last ones."""
  if not count:
    return x
  before = jnp.zeros((x.shape[0], count, *x.shape[2:]), x.dtype)
  if module.has_variable(FRAMES, 'last'):
    before = module.get_variable(FRAMES, 'last')
  x = jnp.concatenate([before, x], axis=1)
  _keep(module, x[:, -count:])
  return x


def _keep(module: nn.Module, frames: Array) -> None:
  if module.is_mutable_collection(FRAMES) and not module.is_initializing():
    module.put_variable(FRAMES, 'last', frames)


def _convolved(
  x: Array,
  kernel: Array,
  bias: Array,
  strides: tuple[int, int, int],
  padding: tuple[tuple[int, int], tuple[int, int]],
  dtype: jnp.dtype,
) -> Array:
  y = lax.conv_general_dilated(
    x.astype(dtype),
    kernel.astype(dtype),
    strides,
    ((0, 0), *padding),
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )
  return y + bias[None, None, None, None].astype(dtype)


class FrameConv(nn.Module):
  """A 2D convolution of every frame by itself; with stride 2 zeros are at the far ends alone."""

  features: int
  window: int = 3
  stride: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t i j o']:
    shape = (self.window, self.window, x.shape[-1], self.features)
    kernel = weight(self, FAN_IN, _WINDOW[1:], shape)
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    edge = self.window // 2
    padding = (0, 1) if self.stride == 2 else (edge, edge)
    strides = (1, self.stride, self.stride)
    return _convolved(x, kernel[None], bias, strides, (padding, padding), self.dtype)


class LengthNorm(nn.Module):
  """y = w sqrt(c) x / max(|x|, 1e-12) over channels, in float32."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... c']) -> Float[Array, '... c']:
    scale = parameter(self, 'scale', ONES, ('channels',), x.shape[-1:])
    x = x.astype(jnp.float32)
    length = jnp.maximum(jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)), 1e-12)
    y = x / length * math.sqrt(x.shape[-1]) * jnp.broadcast_to(scale, x.shape)
    return y.astype(self.dtype)


class ResidualBlock(nn.Module):
  """x + conv(silu(norm(conv(silu(norm(x)))))), with a map of x where the channels change."""

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w o']:
    y = jax.nn.silu(LengthNorm(self.dtype, name='norm1')(x))
    y = CausalConv(self.features, dtype=self.dtype, name='conv1')(y)
    y = jax.nn.silu(LengthNorm(self.dtype, name='norm2')(y))
    y = CausalConv(self.features, dtype=self.dtype, name='conv2')(y)
    if x.shape[-1] != self.features:
      x = CausalConv(self.features, (1, 1, 1), dtype=self.dtype, name='shortcut')(x)
    return x + y


class FrameAttention(nn.Module):
  """x + self-attention of one head over the positions of each frame."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w c']:
    b, t, h, w, c = x.shape
    y = FrameConv(3 * c, 1, dtype=self.dtype, name='qkv')(LengthNorm(self.dtype, name='norm')(x))
    q, k, v = jnp.split(y.reshape(b * t, h * w, 3 * c), 3, axis=-1)
    scores = jnp.einsum('bnc,bmc->bnm', q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores / math.sqrt(c), axis=-1).astype(v.dtype)
    y = jnp.einsum('bnm,bmc->bnc', weights, v).reshape(x.shape)
    return x + FrameConv(c, 1, dtype=self.dtype, name='proj')(y)


class Middle(nn.Module):
  """Residual block, attention, residual block."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w c']:
    x = ResidualBlock(x.shape[-1], self.dtype, name='resnet_0')(x)
    x = FrameAttention(self.dtype, name='attention')(x)
    return ResidualBlock(x.shape[-1], self.dtype, name='resnet_1')(x)


class Downsample(nn.Module):
  """Halves h and w, and with `in_time` the frames, of which the first of a clip stays as it is."""

  in_time: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c'], is_first: bool) -> Float[Array, 'b u i j c']:
    x = FrameConv(x.shape[-1], stride=2, dtype=self.dtype, name='conv')(x)
    if not self.in_time:
      return x
    if is_first:
      _keep(self, x[:, -1:])  # the next frames are convolved together with it
      return x
    halve = VideoConv(x.shape[-1], (3, 1, 1), stride=2, dtype=self.dtype, name='time_conv')
    return halve(_after(self, x, 1))


class Upsample(nn.Module):
  """Doubles h and w, and with `in_time` the frames after the first one of a clip.

  Attributes:
    features: channels of the result.
  """

  features: int
  in_time: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c'], is_first: bool) -> Float[Array, 'b u i j o']:
    if self.in_time and is_first:
      # The convolution in time never reads the first frame: zeros are before the second one.
      _keep(self, jnp.zeros((x.shape[0], 2, *x.shape[2:]), x.dtype))
    elif self.in_time:
      c = x.shape[-1]
      y = VideoConv(2 * c, (3, 1, 1), dtype=self.dtype, name='time_conv')(_after(self, x, 2))
      x = einops.rearrange(y, 'b t h w (two c) -> b (t two) h w c', two=2)
    x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
    return FrameConv(self.features, dtype=self.dtype, name='conv')(x)


def _means(
  x: Float[Array, 'b t h w c'], features: int, time: int, space: int
) -> Float[Array, 'b u i j o']:
  """Moves blocks of t, h, w into channels, and returns means of neighbouring ones.

  Zero frames before x fill up the first block.
  """
  x = jnp.pad(x, ((0, 0), (-x.shape[1] % time, 0), (0, 0), (0, 0), (0, 0)))
  x = einops.rearrange(
    x, 'b (t dt) (h dh) (w dw) c -> b t h w (c dt dh dw)', dt=time, dh=space, dw=space
  )
  return x.reshape(*x.shape[:-1], features, -1).mean(axis=-1)


def _copies(
  x: Float[Array, 'b t h w c'], features: int, time: int, space: int
) -> Float[Array, 'b u i j o']:
  """Repeats channels, and moves them into blocks of t, h, w."""
  x = jnp.repeat(x, features * time * space**2 // x.shape[-1], axis=-1)
  return einops.rearrange(
    x, 'b t h w (c dt dh dw) -> b (t dt) (h dh) (w dw) c', dt=time, dh=space, dw=space
  )


class _Levels(nn.Module):
  width: int
  features: int  # channels of the result
  widths: tuple[int, ...]
  depth: int
  halves_time: tuple[bool, ...]
  patch: int
  shortcuts: bool
  dtype: jnp.dtype


class Encoder(_Levels):
  """Pixels to means and log variances of latents, chunk by chunk."""

  @nn.compact
  def __call__(self, video: Float[Array, 'b t h w 3'], is_first: bool) -> Array:
    x = einops.rearrange(
      video, 'b t (h dh) (w dw) c -> b t h w (c dw dh)', dh=self.patch, dw=self.patch
    )
    x = CausalConv(self.width, dtype=self.dtype, name='conv_in')(x)
    for level, factor in enumerate(self.widths):
      before = x
      is_last = level == len(self.widths) - 1
      in_time = not is_last and self.halves_time[level]
      for index in range(self.depth):
        name = f'down_{level}_resnet_{index}'
        x = ResidualBlock(self.width * factor, self.dtype, name=name)(x)
      if not is_last:
        x = Downsample(in_time, self.dtype, name=f'down_{level}_resample')(x, is_first)
      if self.shortcuts:
        x = x + _means(before, self.width * factor, 1 + in_time, 1 if is_last else 2)
    x = Middle(self.dtype, name='middle')(x)
    x = jax.nn.silu(LengthNorm(self.dtype, name='norm_out')(x))
    return CausalConv(self.features, dtype=self.dtype, name='conv_out')(x)


class Decoder(_Levels):
  """Latents to pixels in [-1, 1], chunk by chunk."""

  @nn.compact
  def __call__(self, latents: Float[Array, 'b t i j z'], is_first: bool) -> Array:
    x = CausalConv(self.width * self.widths[-1], dtype=self.dtype, name='conv_in')(latents)
    x = Middle(self.dtype, name='middle')(x)
    for level, factor in enumerate(reversed(self.widths)):
      before = x
      features = self.width * factor
      is_last = level == len(self.widths) - 1
      for index in range(self.depth + 1):
        x = ResidualBlock(features, self.dtype, name=f'up_{level}_resnet_{index}')(x)
      if is_last:
        break
      in_time = self.halves_time[-1 - level]
      narrower = features if self.shortcuts else features // 2
      x = Upsample(narrower, in_time, self.dtype, name=f'up_{level}_resample')(x, is_first)
      if self.shortcuts:
        copies = _copies(before, features, 1 + in_time, 2)
        x = x + (copies[:, -1:] if is_first else copies)
    x = jax.nn.silu(LengthNorm(self.dtype, name='norm_out')(x))
    x = CausalConv(self.features, dtype=self.dtype, name='conv_out')(x)
    video = einops.rearrange(
      x, 'b t h w (c dw dh) -> b t (h dh) (w dw) c', dh=self.patch, dw=self.patch
    )
    return jnp.clip(video.astype(jnp.float32), -1, 1)


class WanAutoencoder(nn.Module):
  """Pixels (b t h w 3) in [-1, 1] to latents (b u i j z) and back, u = 1 + (t - 1) / 4.

  Attributes:
    encoder_width: channels of the first level of the encoder.
    decoder_width: the same of the decoder.
    latent_channels: z.
    widths: of each level, in units of the first one's.
    depth: residual blocks of a level of the encoder; the decoder has one more.
    halves_time: whether a level but the last halves the frames.
    patch: pixels along h and w that are one position of the first level.
    shortcuts: whether levels have a parameter-free shortcut around them, as in Wan 2.2.
    dtype: compute type.
  """

  encoder_width: Positive = 96
  decoder_width: Positive = 96
  latent_channels: Positive = 16
  widths: tuple[Positive, ...] = (1, 2, 4, 4)
  depth: Positive = 2
  halves_time: tuple[bool, ...] = (False, True, True)
  patch: Positive = 1
  shortcuts: bool = False
  dtype: jnp.dtype = jnp.float32

  temporal: ClassVar[bool] = True

  @property
  def compression(self) -> tuple[int, int, int]:
    """Frames, rows and columns of a latent; the first latent has one frame."""
    space = self.patch * 2 ** (len(self.widths) - 1)
    return 2 ** sum(self.halves_time), space, space

  def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Returns the shape of latents of a clip (t h w).

    Raises DataError for another number of frames than 1 + 4 k.
    """
    time, height, width = self.compression
    t, h, w = shape
    if t % time != 1:
      raise DataError(
        f'{t} frames; expected 1 + {time} k, as {t - (t - 1) % time} or {t + (1 - t) % time}'
      )
    return 1 + t // time, -(-h // height), -(-w // width), self.latent_channels

  def setup(self):
    levels = (self.widths, self.depth, self.halves_time, self.patch, self.shortcuts, self.dtype)
    self.encoder = Encoder(self.encoder_width, 2 * self.latent_channels, *levels)
    self.decoder = Decoder(self.decoder_width, 3 * self.patch**2, *levels)
    self.quant_conv = CausalConv(2 * self.latent_channels, (1, 1, 1), dtype=self.dtype)
    self.post_quant_conv = CausalConv(self.latent_channels, (1, 1, 1), dtype=self.dtype)

  def __call__(self, video: Float[Array, 'b t h w 3']) -> Float[Array, 'b t h w 3']:
    """Encodes and decodes a clip as two chunks; it is for making parameters."""
    latents = [self.encode_chunk(video[:, :1], True), self.encode_chunk(video[:, 1:], False)]
    frames = [self.decode_chunk(latents[0], True), self.decode_chunk(latents[1], False)]
    return jnp.concatenate(frames, axis=1)

  def encode_chunk(self, video: Float[Array, 'b t h w 3'], is_first: bool) -> Array:
    """Returns means of latents of the first frame of a clip, or of a multiple of 4 next frames."""
    moments = self.quant_conv(self.encoder(video.astype(self.dtype), is_first))
    return jnp.split(moments.astype(jnp.float32), 2, axis=-1)[0]

  def decode_chunk(self, latents: Float[Array, 'b t i j z'], is_first: bool) -> Array:
    """Returns the frame of the first latent of a clip, or 4 frames of each next one."""
    return self.decoder(self.post_quant_conv(latents.astype(self.dtype)), is_first)


def encode(
  model: WanAutoencoder, params: Tree, video: Float[Array, 'b t h w 3']
) -> Float[Array, 'b u i j z']:
  """Encodes a clip, a latent frame at a time. Raises DataError as `WanAutoencoder.latent_shape`."""
  model.latent_shape(video.shape[1:4])
  return _scanned(model, params, 'encode_chunk', video, model.compression[0])


def decode(
  model: WanAutoencoder, params: Tree, latents: Float[Array, 'b u i j z']
) -> Float[Array, 'b t h w 3']:
  """Decodes a clip, a latent frame at a time."""
  return _scanned(model, params, 'decode_chunk', latents, 1)


def _scanned(model: WanAutoencoder, params: Tree, method: str, x: Array, frames: int) -> Array:
  """Applies a method to the first frame, and then to `frames` at a time."""

  def chunk(memory: Tree, x: Array, is_first: bool) -> tuple[Array, Tree]:
    variables = {'params': params, **memory}
    return model.apply(variables, x, is_first, method=method, mutable=[FRAMES])

  first, memory = chunk({}, x[:, :1], True)
  if x.shape[1] == 1:
    return first
  chunks = einops.rearrange(x[:, 1:], 'b (n t) h w c -> n b t h w c', t=frames)

  def step(memory: Tree, x: Array) -> tuple[Tree, Array]:
    y, memory = chunk(memory, x, False)
    return memory, y

  _, rest = lax.scan(step, memory, chunks)
  return jnp.concatenate([first, einops.rearrange(rest, 'n b t h w c -> b (n t) h w c')], axis=1)
