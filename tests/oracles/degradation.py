"""The second-order degradation once more: float64, loops, scipy's convolution. Slow and plain.

It follows the formulas of Real-ESRGAN (Wang et al., 2021) from a recipe's numbers on, without any
code of `mgjax.sections.upsampler`. Compression is what the caller gives it.
"""

import math

import numpy as np
from scipy import ndimage, special


def kernel(blur) -> np.ndarray:
  """The weights of a blur, one after another."""
  half = blur.size // 2
  weights = np.zeros((blur.size, blur.size))
  if blur.kind != 'sinc':
    turn = np.array(
      [[math.cos(blur.angle), -math.sin(blur.angle)], [math.sin(blur.angle), math.cos(blur.angle)]]
    )
    precision = np.linalg.inv(turn @ np.diag(np.square(blur.sigmas)) @ turn.T)
  for y in range(-half, half + 1):
    for x in range(-half, half + 1):
      if blur.kind == 'sinc':
        w, r = math.pi * blur.cutoff, math.sqrt(x * x + y * y)
        value = w * special.jv(1, w * r) / (2 * math.pi * r) if r else w * w / (4 * math.pi)
      else:
        point = np.array([x, y])
        q = point @ precision @ point
        value = {
          '': lambda q=q: math.exp(-0.5 * q),
          'generalized': lambda q=q: math.exp(-0.5 * q**blur.beta),
          'plateau': lambda q=q: 1 / (q**blur.beta + 1),
        }[blur.kind.rpartition('_')[0]]()
      weights[y + half, x + half] = value
  return weights / weights.sum()


def cubic(x):
  x = abs(x)
  if x < 1:
    return 1.5 * x**3 - 2.5 * x**2 + 1
  return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resample(line: np.ndarray, wanted: int, name: str) -> np.ndarray:
  """Resizes the first axis."""
  length, out = len(line), []
  step = length / wanted
  for i in range(wanted):
    if name == 'area':
      weights = [max(0.0, min((i + 1) * step, j + 1) - max(i * step, j)) for j in range(length)]
    else:
      curve = {'bilinear': lambda x: max(0.0, 1 - abs(x)), 'bicubic': cubic}[name]
      wide = max(1.0, step)
      weights = [curve((j + 0.5 - (i + 0.5) * step) / wide) for j in range(length)]
    out.append(np.tensordot(np.array(weights) / sum(weights), line, 1))
  return np.stack(out)


def resize(frames, size, name):
  rows = resample(np.moveaxis(frames, 1, 0), size[0], name)  # i t w c
  return np.moveaxis(resample(np.moveaxis(rows, 2, 0), size[1], name), (0, 1), (2, 1))


def blurred(frames, blur):
  if blur is None:
    return frames
  weights = kernel(blur)
  planes = [
    [ndimage.convolve(frame[..., channel], weights, mode='mirror') for channel in range(3)]
    for frame in frames
  ]
  return np.moveaxis(np.array(planes), 1, -1)


def noisy(frames, noise, seed):
  """Noise by the stream that the recipe's seed names."""
  if noise is None:
    return frames
  generator = np.random.default_rng(seed)
  if noise.kind == 'gaussian':
    shape = frames.shape[:3] + ((1,) if noise.grey else (3,))
    frames = frames + noise.level * generator.standard_normal(shape, np.float32)
  else:
    light = frames
    if noise.grey:
      light = frames @ np.array([[0.299], [0.587], [0.114]])
    light = np.clip(light, 0, 255)
    frames = frames + noise.level * (generator.poisson(light) - light)
  return np.minimum(np.maximum(frames, 0), 255)


def whole(frames):
  return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def degrade(video, size, recipe, jpeg, video_codec, fps):
  """The whole chain."""
  frames = video.astype(np.float64)

  def compress(frames, drawn):
    if drawn.quality is not None:
      frames = jpeg(whole(frames), drawn.quality).astype(np.float64)
    if drawn.codec is not None:
      frames = video_codec(whole(frames), drawn.codec[0], drawn.codec[1], fps).astype(np.float64)
    return frames

  def sized(side, drawn):
    return [max(1, round(length * drawn.scale)) for length in side]

  first, second = recipe.first, recipe.second
  frames = blurred(frames, first.blur)
  frames = resize(frames, sized(video.shape[1:3], first), first.kernel)
  frames = compress(noisy(frames, first.noise, (recipe.seed, 0)), first)
  frames = blurred(frames, second.blur)
  frames = resize(frames, sized(size, second), second.kernel)
  frames = noisy(frames, second.noise, (recipe.seed, 1))
  if recipe.compressed_last:
    frames = blurred(resize(frames, size, recipe.kernel), recipe.sinc)
    return whole(compress(frames, second))
  frames = compress(frames, second)
  return whole(blurred(resize(frames, size, recipe.kernel), recipe.sinc))
