"""Judges clips of moving digits: reads digit, colour and motion back from the pixels.

Every clip is brought to 32 pixels on its shorter side, or more if the judge shall see more. The
median of its pixels, a plain background, is subtracted. What is brighter than a threshold after a
slight blur is the digit. The path of its centroid is the motion, and its mean colour the colour.
Its mean image, motion taken out, goes to a support vector classifier that has seen the handwriting
of the training split. From 64 pixels on, textures are read as well (`texture_judge.py`).

The score is a proxy: a model that copies one template a digit scores high, so report `diversity`
beside it, and `ceiling` and `floor` to say what the score can be.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.resize import averaging
from mgjax.core.typing import Bool, Float, Sample, UInt8
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.texture import FINE, read_texture
from mgjax.lab.worlds.digits.scene import COLOURS, TEXTURES

SIDE = 32  # shorter side at which the judge looks by default; lengths here are its pixels
CROP = 20  # side of the window around the centroid
_BLUR = 0.7  # averages noise, keeps strokes
THRESHOLD = 0.3  # of full brightness above the background
_STILL = 0.15 * SIDE  # a shorter way than this is no movement
_LANDINGS = np.linspace(0.2, 0.9, 36)  # of a clip, when something may come to rest
_BEND = 0.04  # of its height: a fall leaves at least 0.075, root mean square, to a line
_BOUNCE = 0.08 * SIDE  # a straight path leaves less than this, root mean square, to a line
_ASIDE = 0.025 * SIDE  # and less than this to one of the axes; a slow bounce leaves 0.04 to both


class DigitReading(NamedTuple):
  """What a clip shows; -1 and '' if nothing stands out, motion '' for a single frame."""

  digit: int
  colour: str
  motion: str
  texture: str = ''  # its word in captions, if it has one


def labels_of(samples: Iterable[Sample]) -> list[DigitReading]:
  """Takes the labels out of samples of `mgjax.lab.worlds.digits.clips.Digits`."""
  return [
    DigitReading(sample['digit'], sample['colour'], sample['motion'], TEXTURES[sample['texture']])
    for sample in samples
  ]


class Sight(NamedTuple):
  """The object that stands out of a clip; '' and zeros if nothing does."""

  colour: str
  motion: str
  picture: Float[np.ndarray, 'h w']  # its mean over time, motion taken out, around its centroid
  texture: str = ''
  # Its mean place (y, x) from the middle of the frame, pixels of one of 32.
  centre: tuple[float, float] = (math.nan, math.nan)
  # The same frame by frame, NaN where nothing stands out.
  path: Float[np.ndarray, 't 2'] = np.zeros((0, 2), np.float32)
  # Its mean colour, the brightest channel 1.
  tint: Float[np.ndarray, '3'] = np.zeros(3, np.float32)

  @property
  def crop(self) -> Float[np.ndarray, 'd']:
    """The picture as one row of unit length."""
    return unit(self.picture)


def unit(picture: Float[np.ndarray, 'h w']) -> Float[np.ndarray, 'd']:
  """Returns a picture as one row of unit length; zeros stay zeros."""
  return picture.ravel() / max(float(np.linalg.norm(picture)), 1e-12)


@functools.cache
def blurring(length: int, scale: float = 1.0) -> Float[np.ndarray, 'h h']:
  """Returns the weights of a slight blur of so many pixels, `scale` times as wide."""
  distance = np.subtract.outer(np.arange(length), np.arange(length))
  weights = np.exp(-0.5 * (distance / (_BLUR * scale)) ** 2)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def window(
  centre: Float[np.ndarray, 't'], length: int, size: int = CROP
) -> Float[np.ndarray, 't i h']:
  """Weights of the linear interpolation at `size` of `length` pixels around a sub-pixel centre."""
  position = centre[:, None] + np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
  return np.maximum(1 - np.abs(position[..., None] - np.arange(length, dtype=np.float32)), 0)


def _motion(centroids: Float[np.ndarray, 't 2'], visible: np.ndarray, frames: int) -> str:
  if frames == 1:
    return ''
  time = (visible - visible.mean())[:, None]
  away = centroids - centroids.mean(0, keepdims=True)
  slope = (time * away).sum(0, keepdims=True) / max(float((time**2).sum()), 1.0)
  beside = float(((away - time * slope) ** 2).sum(1).mean())  # mean square distance from a line
  height, beside_fall = _as_fall(away, visible / (frames - 1))
  if height > _STILL and max(2 * beside_fall, (_BEND * height) ** 2) < beside:
    return 'fall'
  if np.sqrt(beside) > _BOUNCE or away.std(0).min() > _ASIDE:
    return 'bounce'
  down, right = slope[0] * (frames - 1)
  if np.hypot(down, right) < _STILL:
    return 'still'
  if abs(right) > abs(down):
    return 'right' if right > 0 else 'left'
  return 'down' if down > 0 else 'up'


def _as_fall(away: Float[np.ndarray, 't 2'], time: Float[np.ndarray, 't']) -> tuple[float, float]:
  """Fits a fall that lands at one of many times: its height and the mean square of what it leaves.

  `away` are (y, x) less their means, `time` is in [0, 1].
  """
  course = np.minimum(time / _LANDINGS[:, None], 1) ** 2
  course -= course.mean(1, keepdims=True)
  height = course @ away[:, 0] / np.maximum((course**2).sum(1), 1e-6)
  beside = ((away[:, 0] - height[:, None] * course) ** 2).mean(1) + (away[:, 1] ** 2).mean()
  best = int(beside.argmin())
  return float(height[best]), float(beside[best])


def find_digit(video: np.ndarray, size: tuple[int, int] = (CROP, CROP), side: int = SIDE) -> Sight:
  """Finds what stands out of a clip, uint8 (t h w 3), brought to `side` pixels on its shorter side.

  `size` is that of the picture, at 32 pixels on the shorter side. Raises DataError if the video is
  something else.
  """
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
    raise DataError(
      f'the judge got {video.dtype} {video.shape}, expected uint8 (frames, height, width, 3); '
      'scale to 0..255 and round, and give a single image a leading axis of one frame'
    )
  frames, height, width = video.shape[:3]
  scale = side / SIDE
  sides = [round(side * length / min(height, width)) for length in (height, width)]
  size = (round(scale * size[0]), round(scale * size[1]))
  planes = np.moveaxis(video, -1, 1).astype(np.float32) / 255  # t c h w
  planes = averaging(height, sides[0]) @ planes @ averaging(width, sides[1]).T
  background = np.median(planes, axis=(0, 2, 3), keepdims=True)
  above = planes - background
  strength = np.abs(blurring(sides[0], scale) @ above @ blurring(sides[1], scale).T).max(1)  # t h w
  strength = np.where(strength > THRESHOLD, strength, 0)
  visible = np.flatnonzero(strength.any((1, 2)))  # frames with a digit in sight
  if not visible.size:
    return Sight('', '', np.zeros(size, np.float32), path=np.full((frames, 2), math.nan))
  strength, above = strength[visible], above[visible]

  rows, columns = middles(strength).T
  centroids = np.stack([rows, columns], 1) / np.float32(scale)
  motion = _motion(centroids, visible, frames)

  mean = np.einsum('thw,tchw->c', strength, planes[visible])
  colour = min(COLOURS, key=lambda name: float(np.sum((_tint(COLOURS[name]) - _tint(mean)) ** 2)))

  # Signed, along the digit's own colour: what is noise then averages away over the frames.
  direction = np.einsum('thw,tchw->c', strength, above)
  digit = np.einsum('tchw,c->thw', above, direction)
  across = window(columns, sides[1], size[1]).transpose(0, 2, 1)
  crops = window(rows, sides[0], size[0]) @ digit @ across
  texture = read_texture(video) if side >= FINE else ''
  places = centroids - (np.array(sides) / scale - 1) / 2
  path = np.full((frames, 2), math.nan)
  path[visible] = places
  centre = tuple(places.mean(0).tolist())
  return Sight(colour, motion, np.maximum(crops.mean(0), 0), texture, centre, path, _tint(mean))


def middles(strength: Float[np.ndarray, 't h w']) -> Float[np.ndarray, 't 2']:
  """Returns the centroids (y, x) of pictures that are not empty."""
  mass = strength.sum((1, 2))
  rows, columns = (
    strength.sum(axis) @ np.arange(strength.shape[3 - axis], dtype=np.float32) / mass
    for axis in (2, 1)
  )
  return np.stack([rows, columns], 1)


def _tint(colour: Any) -> Float[np.ndarray, '3']:
  return np.asarray(colour, np.float32) / max(float(np.max(colour)), 1e-6)


@dataclasses.dataclass(frozen=True)
class DigitJudge:
  """Reads clips of any size and frame count; made by `train_judge`."""

  classify: Callable[[Float[np.ndarray, 'b d']], np.ndarray]  # crops -> digits
  spread: Float[np.ndarray, '10']  # variance of the crops of each digit in real handwriting
  side: int = SIDE  # shorter side at which it looks

  def read(self, video: np.ndarray) -> DigitReading:
    """Says what one clip shows. Raises DataError unless it is uint8 (t h w 3)."""
    return self._readings([video])[0]

  def score(self, videos: Iterable[np.ndarray], labels: Sequence[tuple]) -> dict[str, float]:
    """The share of clips that show the digit, colour and direction asked for, and all of it.

    A label starts with (digit, colour, motion), as `labels_of` and `all_captions` give them. Where
    labels of `labels_of` have textures, these count as well.
    """
    return {name: float(right.mean()) for name, right in self.right(videos, labels).items()}

  def right(
    self, videos: Iterable[np.ndarray], labels: Sequence[tuple]
  ) -> dict[str, Bool[np.ndarray, 'b']]:
    """Returns per clip which factors are right; `score` takes their shares."""
    readings = self._readings(videos)
    if len(readings) != len(labels) or not readings:
      raise DataError(f'{len(readings)} videos and {len(labels)} labels: give one label a video')
    expected = [DigitReading(*label[:3], texture=getattr(label, 'texture', '')) for label in labels]
    names = ['digit', 'colour', 'direction', 'texture']
    right = np.array(
      [
        [mine == theirs for mine, theirs in zip(*pair, strict=True)]
        for pair in zip(readings, expected, strict=True)
      ]
    )
    if not any(label.texture for label in expected):
      names = names[:3]
      right = right[:, :3]
    return {**dict(zip(names, right.T, strict=True)), 'all': right.all(1)}

  def _readings(self, videos: Iterable[np.ndarray]) -> list[DigitReading]:
    sights = [find_digit(np.asarray(video), side=self.side) for video in videos]
    digits = self.classify(np.stack([sight.crop for sight in sights])) if sights else []
    return [
      DigitReading(int(digit), sight.colour, sight.motion, sight.texture)
      if sight.colour
      else DigitReading(-1, '', '')
      for digit, sight in zip(digits, sights, strict=True)
    ]


def _spread(crops: Float[np.ndarray, 'b d']) -> float:
  return float(crops.var(0, ddof=1).sum()) if len(crops) > 1 else float('nan')


def worn(
  video: UInt8[np.ndarray, 't h w 3'], generator: np.random.Generator, scale: float = 1.0
) -> np.ndarray:
  """Returns a clip with noise and a blur of up to `scale` pixels, as decoders' artefacts."""
  from scipy.ndimage import gaussian_filter

  blur = scale * generator.uniform(0, 1)
  noise = generator.uniform(0, 30)
  soft = gaussian_filter(video.astype(np.float32), (0, blur, blur, 0))
  rough = soft + noise * generator.standard_normal(video.shape, np.float32)
  return np.clip(np.rint(rough), 0, 255).astype(np.uint8)


def train_judge(
  *,
  size: tuple[int, int] = (32, 32),
  frames: int = 16,
  clips: int = 3000,
  seed: int = 0,
  side: int = SIDE,
  **world: Any,
) -> DigitJudge:
  """Trains a judge on generated clips: in seconds, for one that looks at 32 pixels.

  Half of the clips are blurred and noisy, so that a decoder's softness is no obstacle. `world` are
  further fields of `Digits` (background, digit_size, ...); with `split` the judge learns from other
  handwriting than that of training. Only the proportions of `size` matter: the judge looks at
  `side` pixels on the shorter side, so there it trains.
  """
  from sklearn.svm import SVC

  small = tuple(round(side * length / min(size)) for length in size)
  source = Digits(captions='all', frames=frames, size=small, length=clips, seed=seed, **world)
  generator = np.random.default_rng((seed, clips))
  crops = []
  digits = []
  for index in range(clips):
    sample = source[index]
    video = sample['video']
    if index % 2:
      video = worn(video, generator, side / SIDE)
    crops.append(find_digit(video, side=side).crop)
    digits.append(sample['digit'])
  crops, digits = np.stack(crops), np.array(digits)
  clean = np.arange(clips) % 2 == 0
  return DigitJudge(
    classify=SVC(C=10).fit(crops, digits).predict,
    spread=np.array([_spread(crops[clean & (digits == digit)]) for digit in range(10)]),
    side=side,
  )


def _unseen(clips: int, **world: object) -> tuple[list[np.ndarray], list[DigitReading]]:
  source = Digits(**{'split': 'test', 'captions': 'all', 'length': clips, **world})
  samples = [source[index] for index in range(clips)]
  return [sample['video'] for sample in samples], labels_of(samples)


def judge_ceiling(judge: DigitJudge, *, clips: int = 500, **world: object) -> dict[str, float]:
  """Scores real clips of held-out handwriting; `world` are fields of `Digits` (size, frames...)."""
  return judge.score(*_unseen(clips, **world))


def judge_floor(judge: DigitJudge, *, clips: int = 500, **world: object) -> dict[str, float]:
  """Scores the same clips with each one's label taken from the next: the score of chance."""
  videos, labels = _unseen(clips, **world)
  return judge.score(videos, labels[1:] + labels[:1])


def diversity(judge: DigitJudge, videos: Iterable[np.ndarray], labels: Sequence[tuple]) -> float:
  """How much the digits of one class differ, relative to real handwriting: 0 copies, 1 is real.

  The root of the mean over digits of (mean squared pairwise distance / that of real ones), each
  digit seen with its motion taken out and unit length. Digits with fewer than two clips do not
  count, nan if there are none. Noise and broken shapes differ too: read it beside the score.
  """
  crops = np.stack([find_digit(np.asarray(video), side=judge.side).crop for video in videos])
  digits = np.array([label[0] for label in labels])
  ratios = [
    _spread(crops[digits == digit]) / judge.spread[digit]
    for digit in range(10)
    if (digits == digit).sum() > 1
  ]
  return float(np.sqrt(np.mean(ratios))) if ratios else float('nan')
