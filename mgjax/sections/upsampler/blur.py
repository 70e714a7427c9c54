"""Blur kernels of Real-ESRGAN's degradation (Movie Gen §3.1.5), and frames filtered with them."""

import dataclasses

import numpy as np
from scipy import fft, special

from mgjax.core.typing import Float

BLUR_KINDS = (
  'isotropic',
  'anisotropic',
  'generalized_isotropic',
  'generalized_anisotropic',
  'plateau_isotropic',
  'plateau_anisotropic',
)
SINC = 'sinc'


@dataclasses.dataclass(frozen=True)
class Blur:
  """A blur kernel, as numbers.

  Attributes:
    kind: one of `BLUR_KINDS`, or `SINC`.
    size: of the kernel, odd, in pixels.
    sigmas: along both axes of the ellipse, in pixels; not of `SINC`.
    angle: from the x axis to the first of them, in radians.
    beta: the exponent of generalised Gaussians and plateaus.
    cutoff: of `SINC`, as a part of the Nyquist frequency.
  """

  kind: str
  size: int
  sigmas: tuple[float, float] = (0.0, 0.0)
  angle: float = 0.0
  beta: float = 1.0
  cutoff: float = 1.0

  def kernel(self) -> Float[np.ndarray, 'k k']:
    """Returns the weights, which sum to one.

    With q = x^T S^-1 x and S the covariance, a Gaussian is exp(-q / 2), a generalised one
    exp(-q^beta / 2), and a plateau 1 / (1 + q^beta). `SINC` is the ideal round low-pass filter of
    cutoff w = pi x `cutoff`, w J1(w r) / (2 pi r), which rings.
    """
    offsets = np.arange(self.size) - self.size // 2
    y, x = np.meshgrid(offsets, offsets, indexing='ij')
    if self.kind == SINC:
      w = np.pi * self.cutoff
      r = np.hypot(x, y)
      # J1(z) / z is 1/2 at 0.
      weights = w * np.where(r, special.j1(w * r) / np.maximum(r, 1), w / 2) / (2 * np.pi)
    else:
      along = (np.cos(self.angle) * x + np.sin(self.angle) * y) / self.sigmas[0]
      across = (np.cos(self.angle) * y - np.sin(self.angle) * x) / self.sigmas[1]
      q = (along**2 + across**2) ** (self.beta if '_' in self.kind else 1)
      weights = 1 / (1 + q) if self.kind.startswith('plateau') else np.exp(-q / 2)
    return weights / weights.sum()


def filtered(
  frames: Float[np.ndarray, 't h w c'], kernel: Float[np.ndarray, 'k k']
) -> Float[np.ndarray, 't h w c']:
  """Convolves each frame with a kernel; frames are mirrored at their edges, which are not repeated.

  It uses the FFT: for 21 x 21 weights that is faster than two convolutions of a separable kernel.
  Frames go one by one, so that the processor's caches hold them.
  """
  height, width = frames.shape[1:3]
  margin = len(kernel) // 2
  rows, columns = (np.pad(np.arange(side), margin, mode='reflect') for side in (height, width))
  # What wraps around lands in the margins, which are left out.
  sides = [fft.next_fast_len(side + 2 * margin, real=True) for side in (height, width)]
  inner = slice(2 * margin, 2 * margin + height), slice(2 * margin, 2 * margin + width)
  response = fft.rfft2(kernel.astype(frames.dtype), sides)[..., None]
  out = np.empty_like(frames)
  for result, frame in zip(out, frames, strict=True):
    spectrum = fft.rfft2(frame[rows[:, None], columns], sides, axes=(0, 1))
    spectrum *= response
    result[...] = fft.irfft2(spectrum, sides, axes=(0, 1), overwrite_x=True)[inner]
  return out
