"""Synthetic captioned clips of moving handwritten digits, made on the fly.

'the green digit 3 moves left': a coloured digit crosses the frame, bounces, falls or stands still.
The handwriting is the 1,797 images that ship inside scikit-learn; nothing is downloaded or stored.
Where the digit hits a wall or the floor, it can be heard (`sounds.py`).
Lengths (digit size, jitter) are pixels of a frame whose shorter side is 32 and scale with it, so
the same index at another `size` or number of frames shows the same clip at another resolution.
"""

import dataclasses
import functools
import operator
from typing import Annotated, Any, NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Magnitude, Positive, Range, check
from mgjax.core.typing import Float, UInt8
from mgjax.digits import sounds

COLOURS = {
  'red': (1.0, 0.1, 0.1),
  'green': (0.1, 0.9, 0.1),
  'blue': (0.2, 0.3, 1.0),
  'yellow': (1.0, 0.9, 0.1),
  'white': (1.0, 1.0, 1.0),
  'purple': (0.8, 0.1, 0.9),
}
MOTIONS = {
  'left': 'moves left',
  'right': 'moves right',
  'up': 'moves up',
  'down': 'moves down',
  'still': 'stands still',
  'bounce': 'bounces',
  'fall': 'falls and lands',
}
AUDIBLE = ('bounce', 'fall')  # motions with something to hear
BACKGROUNDS = ('black', 'coloured', 'gradient')
SPLITS = ('train', 'test')
_BOUNCES = np.array([2.5, 1.25])  # vertical and horizontal crossings of the frame in one lap
_LANDING = (0.3, 0.8)  # of a clip, when what falls comes to rest


def digit_caption(digit: int, colour: str, motion: str) -> str:
  """Says what a clip shows; without a motion it says what an image shows."""
  if not motion:
    return f'a photo of the {colour} digit {digit}'
  return f'the {colour} digit {digit} {MOTIONS[motion]}'


def all_captions(
  colours: tuple[str, ...] = ('red', 'green', 'blue', 'yellow'),
  motions: tuple[str, ...] = ('left', 'right', 'up', 'down'),
) -> list[tuple[int, str, str, str]]:
  """Lists every (digit, colour, motion, caption); `motions=('',)` lists the image captions."""
  return [
    (digit, colour, motion, digit_caption(digit, colour, motion))
    for digit in range(10)
    for colour in colours
    for motion in motions
  ]


def is_held_out(digit: int, colour: str, motion: str) -> bool:
  """Whether a combination is kept from training, though every pair of its words is seen there.

  A Latin rule, (digit + colour + motion) mod 6 = 0: 27 of the 160 default captions. Of the clips
  that share two words at most one in four is held out by default, and no image ever is.
  """
  if not motion:
    return False
  return (digit + list(COLOURS).index(colour) + list(MOTIONS).index(motion)) % 6 == 0


@functools.cache
def _all_handwriting() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  from sklearn.datasets import load_digits  # a second of import that most programs do not need

  images, labels = load_digits(return_X_y=True)
  rank = np.zeros(len(labels), np.int64)  # of an image among those of its digit
  for digit in range(10):
    rank[labels == digit] = np.arange((labels == digit).sum())
  return images.reshape(-1, 8, 8).astype(np.float32) / 16, labels, rank % 5 == 4


def handwriting(split: str) -> tuple[Float[np.ndarray, 'b 8 8'], np.ndarray]:
  """Returns the images (in [0, 1]) and digits of a split: every fifth image of a digit is 'test'.

  The images come in the order of their writers, whom scikit-learn does not name; a writer may
  therefore have images in both splits, an image never.
  """
  images, labels, is_test = _all_handwriting()
  keep = is_test == (split == 'test')
  return images[keep], labels[keep]


@functools.cache
def images_of(split: str, digit: int) -> Float[np.ndarray, 'b 8 8']:
  """Returns the images of one digit, see `handwriting`."""
  images, labels = handwriting(split)
  return images[labels == digit]


@functools.cache
def identities_of(split: str, digit: int) -> np.ndarray:
  """Returns the identities of `images_of` the same: indices of images in scikit-learn's data."""
  _, labels, is_test = _all_handwriting()
  return np.flatnonzero((is_test == (split == 'test')) & (labels == digit))


@functools.cache
def _choices(captions: str, colours: tuple[str, ...], motions: tuple[str, ...]) -> list:
  keep = {'all': (False, True), 'seen': (False,), 'held_out': (True,)}[captions]
  return [choice for choice in all_captions(colours, motions) if is_held_out(*choice[:3]) in keep]


class _Course(NamedTuple):
  """What chance decides about a motion."""

  offset: Float[np.ndarray, '2']  # of the line or place from the centre, in [-1, 1] of the jitter
  phase: Float[
    np.ndarray, '2'
  ]  # in [0, 2): where a bouncing digit begins, when a falling one lands

  @property
  def landing(self) -> float:
    return _LANDING[0] + (_LANDING[1] - _LANDING[0]) * float(self.phase[0]) / 2


def _path(
  motion: str, course: _Course, frames: int, room: np.ndarray, jitter: float, laps: float
) -> Float[np.ndarray, 't 2']:
  """The digit's upper left corner (y, x) in each frame; it never leaves the frame."""
  time = np.linspace(0, 1, frames)
  path = np.tile(np.clip(room / 2 + jitter * course.offset, 0, room), (frames, 1))
  if motion in ('left', 'right'):
    path[:, 1] = room[1] * (time if motion == 'right' else 1 - time)
  elif motion in ('up', 'down'):
    path[:, 0] = room[0] * (time if motion == 'down' else 1 - time)
  elif motion == 'bounce':
    travelled = course.phase + np.outer(time, laps * _BOUNCES)
    path = room * (1 - np.abs(1 - travelled % 2))
  elif motion == 'fall':
    path[:, 0] = room[0] * np.minimum(time / course.landing, 1) ** 2
  return path


def _events(motion: str, course: _Course, laps: float) -> Float[np.ndarray, '_']:
  """When the path of `_path` hits a wall or comes to rest, in order; 0 is its start, 1 its end."""
  if motion == 'fall':
    return np.array([course.landing])
  if motion != 'bounce':
    return np.zeros(0)
  hits = [
    (np.arange(np.ceil(phase), np.floor(phase + crossings) + 1) - phase) / crossings
    for phase, crossings in zip(course.phase, laps * _BOUNCES, strict=True)
  ]
  return np.sort(np.concatenate(hits))


def _resampling(
  start: Float[np.ndarray, 't'], length: int, digit_size: float, count: int = 8
) -> Float[np.ndarray, 't h c']:
  """Weights that place samples, 8 of them stretched to `digit_size` pixels, at a sub-pixel place.

  Args:
    start: of the first sample.
    length: pixels.
    digit_size: pixels that a digit takes.
    count: samples; 8 make a digit.
  """
  centres = np.arange(length, dtype=np.float32) + np.float32(0.5)
  position = (centres - start[:, None].astype(np.float32)) * np.float32(8 / digit_size)
  samples = np.arange(count, dtype=np.float32) + np.float32(0.5)
  return np.maximum(1 - np.abs(position[..., None] - samples), 0)


def _background(
  kind: str, size: tuple[int, int], generator: np.random.Generator
) -> Float[np.ndarray, '...']:
  """Dark enough that the digit stays the brightest thing in sight."""
  first, second = generator.uniform(0, 0.25, (2, 3)).astype(np.float32)
  if kind == 'black':
    return np.zeros(3, np.float32)
  if kind == 'coloured':
    return first
  slope = np.linspace(0, 1, size[1], dtype=np.float32)[:, None]
  return np.broadcast_to(first + slope * (second - first), (*size, 3))


Side = Annotated[int, Range(least=8)]  # pixels


@dataclasses.dataclass(frozen=True)
class Digits:
  """A random-access source of captioned clips; a sample is a function of (seed, split, index).

  `source[index]` is {'video': uint8 (t h w 3), 'caption', 'digit', 'identity', 'colour', 'motion'}:
  an identity is one image of handwriting, by its index in scikit-learn's data. One frame makes
  images: 'a photo of the green digit 3', motion ''. Raises ConfigError for unknown names.

  With `sound` a sample has also 'audio', float32 (s 1) of frames / fps seconds at 48 kHz, and
  'events', the seconds at which the digit hits something: between frames as a rule, not on one.
  """

  split: str = 'train'  # handwriting: 'train' or 'test', see `handwriting`
  captions: str = 'seen'  # 'seen', 'held_out' or 'all', see `is_held_out`
  frames: Positive = 16
  size: tuple[Side, Side] = (32, 32)  # height, width
  length: Count = 50_000  # samples
  colours: tuple[str, ...] = ('red', 'green', 'blue', 'yellow')
  motions: tuple[str, ...] = ('left', 'right', 'up', 'down')
  background: str = 'black'
  laps: Magnitude = 1.0  # how far a bouncing digit goes: more in longer clips
  jitter: Magnitude = 3.0  # distance from the centre line, at most
  digit_size: Annotated[float, Range(least=8, most=32)] = 14.0
  fps: Positive = 8  # frames a second, for whoever plays or writes the clips
  seed: Count = 0
  sound: bool = False

  def __post_init__(self):
    check(self)
    for name, given, known in (
      ('split', (self.split,), SPLITS),
      ('captions', (self.captions,), ('seen', 'held_out', 'all')),
      ('background', (self.background,), BACKGROUNDS),
      ('colours', self.colours, tuple(COLOURS)),
      ('motions', self.motions, tuple(MOTIONS)),
    ):
      unknown = [value for value in given if value not in known]
      if unknown or not given:
        raise ConfigError(f'{name}: got {unknown or "nothing"}, choose from {", ".join(known)}')
    if self.sound and self.frames * sounds.RATE % self.fps:
      raise ConfigError(
        f'frames={self.frames}, fps={self.fps}: their sound is not a whole number of samples; '
        f'choose frames a second that divide {sounds.RATE}, such as 8, 24 or 25'
      )
    if not self._choices:
      raise ConfigError(
        f'captions={self.captions!r} leaves nothing to show with frames={self.frames}, '
        f"colours={self.colours}, motions={self.motions}; use captions='all' or more names"
      )

  @property
  def _choices(self) -> list[Any]:
    motions = tuple(self.motions) if self.frames > 1 else ('',)
    return _choices(self.captions, tuple(self.colours), motions)

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._sample(operator.index(index), pictures=True)

  def listen(self, index: int) -> dict[str, Any]:
    """Returns `self[index]` without its 'video', which takes most of the time to make."""
    return self._sample(operator.index(index), pictures=False)

  def _sample(self, index: int, pictures: bool) -> dict[str, Any]:
    if not 0 <= index < self.length:
      raise IndexError(f'index {index} of a source of {self.length} samples')
    generator = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
    sample, image = self._draw(generator)
    course = _Course(generator.uniform(-1, 1, 2), generator.uniform(0, 2, 2))
    if self.sound:
      events = _events(sample['motion'], course, self.laps) * (self.frames - 1) / self.fps
      samples = self.frames * sounds.RATE // self.fps
      sound = sounds.digit_sound(sample['digit'], events, samples)
      sample |= {'audio': sound, 'events': events}
    if pictures:
      sample['video'] = self._render(image, sample['colour'], sample['motion'], course, generator)
    return sample

  def _draw(
    self, generator: np.random.Generator
  ) -> tuple[dict[str, Any], Float[np.ndarray, '8 c']]:
    """Chooses what to show: the labels and the caption, and the handwriting."""
    choices = self._choices
    digit, colour, motion, caption = choices[generator.integers(len(choices))]
    place = generator.integers(len(images_of(self.split, digit)))
    labels = {'caption': caption, 'digit': digit, 'colour': colour, 'motion': motion}
    labels |= {'identity': int(identities_of(self.split, digit)[place])}
    return labels, images_of(self.split, digit)[place]

  def _write(self, digit: int, generator: np.random.Generator) -> Float[np.ndarray, '8 8']:
    images = images_of(self.split, digit)
    return images[generator.integers(len(images))]

  def _render(
    self,
    image: Float[np.ndarray, '8 c'],
    colour: str,
    motion: str,
    course: _Course,
    generator: np.random.Generator,
  ) -> UInt8[np.ndarray, 't h w 3']:
    height, width = self.size
    scale = min(self.size) / 32
    digit_size = self.digit_size * scale
    room = np.array(self.size, np.float64) - digit_size * np.array([1, image.shape[1] / 8])
    path = _path(motion, course, self.frames, room, self.jitter * scale, self.laps)
    rows = _resampling(path[:, 0], height, digit_size)
    columns = _resampling(path[:, 1], width, digit_size, image.shape[1])
    opacity = rows @ image @ columns.transpose(0, 2, 1)
    behind = _background(self.background, self.size, generator)
    video = np.empty((*opacity.shape, 3), np.uint8)
    for channel, brightness in enumerate(
      COLOURS[colour]
    ):  # by plane: twice as fast as broadcasting
      plane = behind[..., channel]
      mixed = opacity * (np.float32(brightness) - plane) + plane
      video[..., channel] = mixed * np.float32(255) + np.float32(0.5)
    return video
