"""What chance decides about a degraded clip: the settings that say how often, and what was drawn.

Movie Gen §3.1.5 degrades as Real-ESRGAN does and gives no numbers; the defaults are Real-ESRGAN's
for images (Wang et al., 2021) where it has them. `degradation.py` carries out what was drawn, and
resizes as Pillow does (`core/resize.py`): with antialiasing where it shrinks, and bicubic a = -1/2,
of which Real-ESRGAN's `F.interpolate` has neither (a = -3/4).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.resize import KERNELS
from mgjax.core.settings import Checked, Fraction, Magnitude, Positive, Range, check
from mgjax.sections.upsampler.blur import BLUR_KINDS, SINC, Blur

Above = Annotated[float, Range(above=0)]
Quality = Annotated[int, Range(least=1, most=100)]
RateFactor = Annotated[float, Range(least=0, most=51)]
Flatter = Annotated[float, Range(above=0, most=1)]
Steeper = Annotated[float, Range(least=1)]

_SMALL = (
  13  # kernels below this size have sinc cutoffs from _CUTOFFS[1] on, others from _CUTOFFS[0]
)
_CUTOFFS = (1 / 5, 1 / 3)


@dataclasses.dataclass(frozen=True)
class Order:
  """What may happen in one round of the degradation. Pairs are ranges, drawn from uniformly.

  Attributes:
    blur: the probability that there is one.
    sinc: that it is a sinc filter, of the blurs.
    kinds: how often each of the others comes, relative to each other.
    sizes: of kernels, in pixels; odd ones are drawn.
    sigmas: of Gaussians and plateaus, in pixels.
    generalized: exponents of generalised Gaussians, half of which are below 1.
    plateau: exponents of plateaus, drawn the same way.
    enlarge: the probability that the frames grow.
    shrink: that they shrink; otherwise they keep their size.
    scales: by how much they shrink (to 1) or grow (from 1).
    kernels: of `core/resize.py`, one of which is drawn.
    noise: the probability that there is some.
    gaussian: that it is Gaussian; the rest is Poisson noise.
    deviations: of Gaussian noise, in levels of 255.
    photons: how much stronger Poisson noise is than that of one photon a level.
    grey: the probability that noise is the same in all channels.
    jpeg: of JPEG compression.
    qualities: of JPEG.
    video: the probability of video compression.
    codecs: names of the codecs, one of which is drawn.
    rate_factors: constant rate factors, as x264 has them.
  """

  blur: Fraction = 1.0
  sinc: Fraction = 0.1
  kinds: Mapping[str, Magnitude] = dataclasses.field(
    default_factory=lambda: dict(zip(BLUR_KINDS, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), strict=True))
  )
  sizes: tuple[Positive, Positive] = (7, 21)
  sigmas: tuple[Above, Above] = (0.2, 3.0)
  generalized: tuple[Flatter, Steeper] = (0.5, 4.0)
  plateau: tuple[Flatter, Steeper] = (1.0, 2.0)
  enlarge: Fraction = 0.2
  shrink: Fraction = 0.7
  scales: tuple[Flatter, Steeper] = (0.15, 1.5)
  kernels: tuple[str, ...] = ('area', 'bilinear', 'bicubic')
  noise: Fraction = 1.0
  gaussian: Fraction = 0.5
  deviations: tuple[Magnitude, Magnitude] = (1.0, 30.0)
  photons: tuple[Magnitude, Magnitude] = (0.05, 3.0)
  grey: Fraction = 0.4
  jpeg: Fraction = 1.0
  qualities: tuple[Quality, Quality] = (30, 95)
  video: Fraction = 0.5  # not in public sources
  codecs: tuple[str, ...] = ('h264', 'mpeg4')  # not in public sources
  rate_factors: tuple[RateFactor, RateFactor] = (18.0, 35.0)  # not in public sources

  def __post_init__(self):
    check(self)
    for name in ('sizes', 'sigmas', 'deviations', 'photons', 'qualities', 'rate_factors'):
      low, high = getattr(self, name)
      if low > high:
        raise ConfigError(f'{name} = {(low, high)}; expected a range, the smaller number first')
    if self.enlarge + self.shrink > 1 + 1e-9:
      raise ConfigError(
        f'enlarge = {self.enlarge}, shrink = {self.shrink}; expected at most 1 in all'
      )
    if not self.kinds.keys() <= set(BLUR_KINDS) or not sum(self.kinds.values()):
      raise ConfigError(f'kinds = {dict(self.kinds)}; expected weights of {", ".join(BLUR_KINDS)}')
    if not self.kernels or not set(self.kernels) <= set(KERNELS):
      raise ConfigError(f'kernels = {self.kernels}; expected some of {", ".join(KERNELS)}')
    if self.video and not self.codecs:
      raise ConfigError(f'codecs = (), but video = {self.video}; expected names, or video = 0')


@dataclasses.dataclass(frozen=True)
class SecondOrder(Order):
  """The second round, weaker by default."""

  blur: Fraction = 0.8
  sigmas: tuple[Above, Above] = (0.2, 1.5)
  enlarge: Fraction = 0.3
  shrink: Fraction = 0.4
  scales: tuple[Flatter, Steeper] = (0.3, 1.2)
  deviations: tuple[Magnitude, Magnitude] = (1.0, 25.0)
  photons: tuple[Magnitude, Magnitude] = (0.05, 2.5)


@dataclasses.dataclass(frozen=True)
class Degradation(Checked):
  """`config.degradation`: what may happen to a clip.

  Attributes:
    first: the first round, which begins with the clip at full size.
    second: the second round, whose scales are relative to the size of the result.
    final_sinc: the probability of a sinc filter at the end.
    compressed_last: that the second round compresses after the last resizing and sinc filter, and
      not before.
    blur_scale: multiplies sizes of kernels, to 3 at least, and sigmas: below 1 for small frames.
  """

  first: Order = dataclasses.field(default_factory=Order)
  second: SecondOrder = dataclasses.field(default_factory=SecondOrder)
  final_sinc: Fraction = 0.8
  compressed_last: Fraction = 0.5
  blur_scale: Above = 1.0


@dataclasses.dataclass(frozen=True)
class Noise:
  """Noise: `level` is the deviation of 'gaussian' in levels, the `photons` of 'poisson'."""

  kind: str
  level: float
  grey: bool


@dataclasses.dataclass(frozen=True)
class Round:
  """One round as it was drawn; None is what does not happen."""

  blur: Blur | None
  scale: float
  kernel: str
  noise: Noise | None
  quality: int | None
  codec: tuple[str, float] | None


@dataclasses.dataclass(frozen=True)
class Recipe:
  """All that chance decides about a clip; `seed` is that of the noise, `kernel` the last resize."""

  first: Round
  second: Round
  sinc: Blur | None
  kernel: str
  compressed_last: bool
  seed: int


def draw_recipe(settings: Degradation, generator: np.random.Generator) -> Recipe:
  """Draws what happens to one clip."""
  first = _draw_round(settings.first, settings.blur_scale, generator)
  second = _draw_round(settings.second, settings.blur_scale, generator)
  sinc = _draw_sinc(_draw_size(settings.second, settings.blur_scale, generator), 1, generator)
  return Recipe(
    first=first,
    second=second,
    sinc=sinc if generator.random() < settings.final_sinc else None,
    kernel=str(generator.choice(settings.second.kernels)),
    compressed_last=bool(generator.random() < settings.compressed_last),
    seed=int(generator.integers(2**63)),
  )


def describe_degradation(recipe: Recipe) -> str:
  """Returns one line, as in `blur isotropic 1.2, down 0.60 area, gauss 12, jpeg 43 | ...`."""
  rounds = [
    ', '.join(filter(None, [_say_blur(drawn.blur), *_say_rest(drawn)]))
    for drawn in (recipe.first, recipe.second)
  ]
  last = [_say_blur(recipe.sinc), 'compressed last' if recipe.compressed_last else '']
  return ' | '.join(filter(None, [*rounds, ', '.join(filter(None, last))])) or 'clean'


def _draw_round(order: Order, blur_scale: float, generator: np.random.Generator) -> Round:
  """Draws one round; what does not happen is drawn too, so that one chance does not move others."""
  size = _draw_size(order, blur_scale, generator)
  sinc = _draw_sinc(size, 0 if size >= _SMALL else 1, generator)
  ellipse = _draw_ellipse(order, size, blur_scale, generator)
  blur = sinc if generator.random() < order.sinc else ellipse
  shift = generator.random()
  low, high = order.scales
  grown = generator.uniform(1, high)
  shrunk = generator.uniform(low, 1)
  scale = grown if shift < order.enlarge else shrunk
  gaussian = bool(generator.random() < order.gaussian)
  level = generator.uniform(*(order.deviations if gaussian else order.photons))
  noise = Noise(
    'gaussian' if gaussian else 'poisson', float(level), bool(generator.random() < order.grey)
  )
  quality = int(generator.integers(order.qualities[0], order.qualities[1] + 1))
  codec = str(generator.choice(order.codecs)) if order.codecs else ''
  rate_factor = float(generator.uniform(*order.rate_factors))
  return Round(
    blur=blur if generator.random() < order.blur else None,
    scale=float(scale) if shift < order.enlarge + order.shrink else 1.0,
    kernel=str(generator.choice(order.kernels)),
    noise=noise if generator.random() < order.noise else None,
    quality=quality if generator.random() < order.jpeg else None,
    codec=(codec, rate_factor) if generator.random() < order.video else None,
  )


def _draw_size(order: Order, blur_scale: float, generator: np.random.Generator) -> int:
  half = generator.integers(order.sizes[0] // 2, (order.sizes[1] - 1) // 2 + 1)
  return 2 * max(1, round(half * blur_scale)) + 1


def _draw_sinc(size: int, narrow: int, generator: np.random.Generator) -> Blur:
  return Blur(SINC, size, cutoff=float(generator.uniform(_CUTOFFS[narrow], 1)))


def _draw_ellipse(
  order: Order, size: int, blur_scale: float, generator: np.random.Generator
) -> Blur:
  weights = np.array([order.kinds.get(kind, 0) for kind in BLUR_KINDS])
  kind = str(generator.choice(BLUR_KINDS, p=weights / weights.sum()))
  sigmas = generator.uniform(*order.sigmas, size=2) * blur_scale
  angle = generator.uniform(-np.pi, np.pi)
  low = generator.random() < 0.5
  beta = 1.0
  if '_' in kind:
    flatter, steeper = order.plateau if kind.startswith('plateau') else order.generalized
    beta = float(generator.uniform(flatter, 1) if low else generator.uniform(1, steeper))
  if not kind.endswith('anisotropic'):
    sigmas = sigmas[[0, 0]]
    angle = 0.0
  return Blur(kind, size, (float(sigmas[0]), float(sigmas[1])), float(angle), beta)


def _say_blur(blur: Blur | None) -> str:
  if blur is None or blur.kind == SINC:
    return '' if blur is None else f'sinc {blur.cutoff:.2f}'
  low, high = sorted(blur.sigmas)
  return f'blur {blur.kind} {low:.1f}' + (f' x {high:.1f}' if low < high else '')


def _say_rest(drawn: Round) -> Iterator[str]:
  if drawn.scale != 1:
    yield f'{"up" if drawn.scale > 1 else "down"} {drawn.scale:.2f} {drawn.kernel}'
  if drawn.noise is not None:
    level = f'{drawn.noise.level:.2g}' if drawn.noise.level < 1 else f'{drawn.noise.level:.1f}'
    yield f'{"grey " if drawn.noise.grey else ""}{drawn.noise.kind} {level}'
  if drawn.quality is not None:
    yield f'jpeg {drawn.quality}'
  if drawn.codec is not None:
    yield f'{drawn.codec[0]} crf {drawn.codec[1]:.0f}'
