"""Scenes of synthetic clips: all that a clip shows, whatever its size and number of frames.

A scene is plain data. With a field replaced it shows the same clip in another colour, in another
handwriting, before another background; `render.py` draws it. Lengths are pixels of a frame whose
shorter side is 32, and scale with the frame.
"""

import dataclasses
from typing import Annotated

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Magnitude, Range, checked
from mgjax.core.typing import Float
from mgjax.lab.worlds.digits.handwriting import image_of
from mgjax.lab.worlds.source import check_names

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
BACKGROUNDS = ('black', 'coloured', 'gradient', 'mosaic', 'tinted')
# Walls of 'tinted' clips, mosaics of a colour that captions name.
TINTS = {
  'grey': (0.3, 0.3, 0.3),
  'red': (0.55, 0.05, 0.05),
  'green': (0.05, 0.45, 0.05),
  'blue': (0.08, 0.1, 0.6),
}
PLAYS = ('forward', 'backward', 'frozen')
# Texture -> its word in captions. All but 'soft' have sharp edges.
TEXTURES = {'soft': '', 'sharp': '', 'striped': 'striped', 'barred': 'barred', 'checked': 'checked'}
GRID = 0.5  # width of a stripe; a digit with sharp edges moves by as much at a time
_BOUNCES = np.array([2.5, 1.25])  # vertical and horizontal crossings of the frame in one lap
_LANDING = (0.3, 0.8)  # of a clip, when what falls comes to rest

DigitSize = Annotated[float, Range(least=8, most=32)]
_Shade = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Scene:
  """All that a clip shows. Raises ConfigError for unknown names, numbers or images."""

  # Images of the handwriting, from left to right, see `handwriting.image_of`; one of a digit, up to
  # three of a sign.
  identities: tuple[int, ...]
  colour: str
  motion: str
  # (y, x) of the line or place from the centre, in [-1, 1] of the jitter.
  offset: tuple[float, float] = (0.0, 0.0)
  # (y, x) in [0, 2): where a bouncing digit begins, in crossings of the frame; the first also says
  # when a falling one lands.
  phase: tuple[float, float] = (0.0, 0.0)
  background: str = 'black'
  # Two dark colours (red, green, blue in [0, 1]) that it is made of.
  shades: tuple[_Shade, _Shade] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
  tiles: int = 0  # the seed of a mosaic
  texture: str = 'soft'
  parity: tuple[int, int] = (0, 0)  # (y, x), 0 or 1: whether textures begin with a dark stripe
  digit_size: DigitSize = 14.0
  jitter: Magnitude = 3.0  # distance from the centre line, at most
  laps: Magnitude = 1.0  # how far a bouncing digit goes
  turn: float = 0.0  # of the handwriting, degrees, clockwise
  # Of its strokes: ink a in [0, 1] becomes a^(2^-weight), so that 1 is bold, -1 thin.
  weight: float = 0.0
  tint: str = 'grey'
  hidden: bool = False  # whether the digit is away and the background alone is seen
  mark: str = ''
  play: str = 'forward'  # one of `PLAYS`; what is frozen stays as the clip begins

  def __post_init__(self):
    # A source makes a scene for every sample: what it draws itself is not looked at again.
    for name, hint in (('digit_size', DigitSize), ('jitter', Magnitude), ('laps', Magnitude)):
      checked(hint, getattr(self, name), name)
    check_names('colour', (self.colour,), COLOURS)
    check_names('motion', (self.motion,), ('', *MOTIONS))
    check_names('background', (self.background,), BACKGROUNDS)
    check_names('texture', (self.texture,), TEXTURES)
    check_names('tint', (self.tint,), TINTS)
    check_names('mark', (self.mark,), ('', *COLOURS))
    check_names('play', (self.play,), PLAYS)
    if not self.identities:
      raise ConfigError('identities = (); expected an image of handwriting or more')

  @property
  def number(self) -> str:
    """The digits, from left to right."""
    return ''.join(str(image_of(identity)[1]) for identity in self.identities)


def corners(scene: Scene, frames: int, room: Float[np.ndarray, '2'], scale: float) -> np.ndarray:
  """Returns the digit's upper left corner (y, x) in each frame, (t 2); it never leaves the frame.

  `room` is height and width of the frame less those of the digit, in pixels, `scale` the pixels
  that one of a frame of 32 takes.
  """
  time = np.linspace(0, 1, frames)
  if scene.play != 'forward':
    time = time[::-1] if scene.play == 'backward' else np.zeros(frames)
  start = room / 2 + scale * scene.jitter * np.array(scene.offset)
  path = np.tile(np.clip(start, 0, room), (frames, 1))
  if scene.motion in ('left', 'right'):
    path[:, 1] = room[1] * (time if scene.motion == 'right' else 1 - time)
  elif scene.motion in ('up', 'down'):
    path[:, 0] = room[0] * (time if scene.motion == 'down' else 1 - time)
  elif scene.motion == 'bounce':
    travelled = np.array(scene.phase) + np.outer(time, scene.laps * _BOUNCES)
    path = room * (1 - np.abs(1 - travelled % 2))
  elif scene.motion == 'fall':
    path[:, 0] = room[0] * np.minimum(time / _landing(scene), 1) ** 2
  if scene.texture == 'soft':
    return path
  # Moves by multiples of a stripe: at 64 pixels a stripe of one pixel would fade otherwise.
  return np.floor(path / scale / GRID + 1e-6) * GRID * scale


def events(scene: Scene) -> Float[np.ndarray, '_']:
  """When the digit hits a wall or comes to rest, in order; 0 is the clip's start, 1 its end."""
  if scene.motion == 'fall':
    return np.array([_landing(scene)])
  if scene.motion != 'bounce':
    return np.zeros(0)
  hits = [
    (np.arange(np.ceil(phase), np.floor(phase + crossings) + 1) - phase) / crossings
    for phase, crossings in zip(scene.phase, scene.laps * _BOUNCES, strict=True)
  ]
  return np.sort(np.concatenate(hits))


def _landing(scene: Scene) -> float:
  return _LANDING[0] + (_LANDING[1] - _LANDING[0]) * scene.phase[0] / 2
