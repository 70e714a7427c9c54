"""Synthetic captioned signs: coloured numbers of one to three handwritten digits.

'the green sign says "407"' is an image; a video adds how the sign moves, 'the green sign says "407"
and moves left'. A sign is one wide image of handwriting, so that it moves, bounces and falls as a
digit does (`clips.py`). Some numbers never appear in training: a model that writes
those on a sign has learned to spell.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range
from mgjax.core.typing import Sample
from mgjax.lab.worlds.digits.captions import described
from mgjax.lab.worlds.digits.clips import Digits, Side, one_of
from mgjax.lab.worlds.digits.handwriting import identities_of
from mgjax.lab.worlds.digits.render import PITCH
from mgjax.lab.worlds.digits.scene import MOTIONS, Scene

LONGEST = 3  # digits


def sign_caption(number: str, colour: str, motion: str, texture: str = 'soft') -> str:
  """Says what a sign shows; an image has no motion."""
  caption = f'the {described(colour, texture)} sign says "{number}"'
  return f'{caption} and {MOTIONS[motion]}' if motion else caption


def is_held_out_number(number: str) -> bool:
  """Whether a number is kept from training: it has two or three digits with a sum of 0 modulo 4.

  These are a quarter of all numbers. Whatever digits stand at all places but one, that place takes
  every remainder in training but one. So every digit is seen at every place, and every two digits
  of a number of three are seen together.
  """
  return len(number) > 1 and sum(map(int, number)) % 4 == 0


@functools.cache
def numbers(length: int, captions: str = 'all') -> tuple[str, ...]:
  """Lists the numbers of so many digits in order, those 'seen' in training, 'held_out' or 'all'."""
  keep = {'all': (False, True), 'seen': (False,), 'held_out': (True,)}[captions]
  first = 10 ** (length - 1) if length > 1 else 0
  return tuple(n for n in map(str, range(first, 10**length)) if is_held_out_number(n) in keep)


Length = Annotated[int, Range(least=1, most=LONGEST)]  # of a number, in digits


@dataclasses.dataclass(frozen=True)
class Signs(Digits):
  """A random-access source of captioned signs; a sample is a function of (seed, split, index).

  `source[index]` is {'video': uint8 (t h w 3), 'caption', 'number' (a string), 'colour', 'motion',
  'texture'}. Every length, colour and motion comes as often as any other. Fields are those of
  `Digits`; 'captions' says which numbers, in images too. Signs are silent. Raises ConfigError for
  unknown names, or signs that the frame has no room for.
  """

  size: tuple[Side, Side] = (32, 48)
  lengths: tuple[Length, ...] = (1, 2, 3)

  def __post_init__(self):
    super().__post_init__()
    if self.sound:
      raise ConfigError('signs make no sound; leave sound=True to digits')
    longest = max(self.lengths)
    width = self.digit_size * min(self.size) / 32 * (PITCH * longest + 1) / 8
    if width > self.size[1]:
      raise ConfigError(
        f'a sign of {longest} digits is {width:.1f} pixels wide, the frame {self.size[1]}; make '
        'the frame wider, or digit_size or lengths smaller'
      )

  @property
  def _choices(self) -> list[Any]:
    if not self.lengths:
      raise ConfigError(f'lengths = (); expected some, from 1 to {LONGEST} digits')
    return [choices for length in self.lengths if (choices := numbers(length, self.captions))]

  @classmethod
  def validation(cls, frames: int) -> JSON:
    """Other handwriting, and numbers that training never shows."""
    return super().validation(frames) | {'captions': 'held_out'}

  def every_caption(self) -> Iterator[Sample]:
    """Yields {'caption'} of everything that samples may show."""
    motions = self.motions if self.frames > 1 else ('',)
    written = itertools.chain(*self._choices)
    for words in itertools.product(written, self.colours, motions, self.textures):
      yield {'caption': sign_caption(*words)}

  def _draw(
    self, generator: np.random.Generator, written: Scene | None
  ) -> tuple[tuple[int, ...], str, str]:
    of_length = one_of(self._choices, generator)
    number = one_of(of_length, generator)
    colour = one_of(self.colours, generator)
    motion = one_of(self.motions, generator) if self.frames > 1 else ''
    if written is not None:
      return written.identities, colour, motion
    hands = [identities_of(self.split, int(digit)) for digit in number]
    return tuple(one_of(hand, generator) for hand in hands), colour, motion

  def _names(self, scene: Scene) -> JSON:
    labels = {'number': scene.number, 'colour': scene.colour, 'motion': scene.motion}
    return {'caption': sign_caption(**labels, texture=scene.texture), **labels}
