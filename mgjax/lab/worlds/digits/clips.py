"""Synthetic captioned clips of moving handwritten digits, made on the fly.

'the green digit 3 moves left': a coloured digit crosses the frame, bounces, falls or stands still.
The handwriting is the 1,797 images that ship inside scikit-learn; nothing is downloaded or stored.
Where the digit hits a wall or the floor, it can be heard (`sounds.py`). What an index shows is a
scene (`scene.py`), which `render.py` draws at any size and number of frames: the same index at
another `size` is the same clip at another resolution.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Fraction, Magnitude, Positive, Range, check
from mgjax.core.typing import Sample, UInt8
from mgjax.data.synthetic_datasets import RATE
from mgjax.lab.worlds.digits import render, sounds
from mgjax.lab.worlds.digits.captions import NOTHING, digit_caption, scene_caption, wall_words
from mgjax.lab.worlds.digits.edits import (
  OF_MOTION,
  TASKS,
  Edit,
  Palette,
  all_instructions,
  draw_edit,
)
from mgjax.lab.worlds.digits.handwriting import SPLITS, identities_of
from mgjax.lab.worlds.digits.scene import (
  AUDIBLE,
  BACKGROUNDS,
  COLOURS,
  MOTIONS,
  TEXTURES,
  TINTS,
  DigitSize,
  Scene,
  events,
)
from mgjax.lab.worlds.source import Source, check_names

EXTRAS = ('mask', 'background', 'geometry', 'view', 'reference')
REFERENCES = ('other', 'own')


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
def _choices(captions: str, colours: tuple[str, ...], motions: tuple[str, ...]) -> list:
  keep = {'all': (False, True), 'seen': (False,), 'held_out': (True,)}[captions]
  return [choice for choice in all_captions(colours, motions) if is_held_out(*choice[:3]) in keep]


Side = Annotated[int, Range(least=8)]  # pixels


@dataclasses.dataclass(frozen=True)
class Digits(Source):
  """A random-access source of captioned clips; a sample is a function of (seed, split, index).

  `source[index]` is {'video': uint8 (t h w 3), 'caption', 'digit', 'identity', 'colour', 'motion',
  'texture'}. One frame makes images: 'a photo of the green digit 3', motion ''.
  `source.scene(index)` is what it shows, as data; a scene that was changed becomes a sample by
  `source.show(scene)`. Raises ConfigError for unknown names.

  With `sound` a sample has also 'audio', float32 (s 1) of frames / fps seconds at 48 kHz, and
  'events', the seconds at which the digit hits something: between frames as a rule, not on one.

  With `edits` a sample is a pair: 'video' after an edit, 'source_video' before it, 'task', and as
  'caption' the instruction; `source.edit(source.scene(index))` is both scenes, as data.
  """

  split: str = 'train'  # handwriting: one of `SPLITS`
  captions: str = 'seen'  # 'seen', 'held_out' or 'all', see `is_held_out`
  frames: Positive = 16
  size: tuple[Side, Side] = (32, 32)  # height, width
  length: Count = 50_000  # samples
  colours: tuple[str, ...] = ('red', 'green', 'blue', 'yellow')
  motions: tuple[str, ...] = ('left', 'right', 'up', 'down')
  textures: tuple[str, ...] = ('soft',)
  background: str = 'black'
  laps: Magnitude = 1.0  # how far a bouncing digit goes: more in longer clips
  jitter: Magnitude = 3.0  # distance from the centre line, at most
  digit_size: DigitSize = 14.0
  fps: Positive = 8  # frames a second of what is played or written
  seed: Count = 0
  sound: bool = False
  extras: tuple[str, ...] = ()  # further keys of samples, of `EXTRAS`
  turns: Magnitude = 0.0  # degrees that handwriting is turned by, at most
  weights: Magnitude = 0.0  # of strokes, see `Scene.weight`, at most, up and down
  numbered: bool = True  # whether captions say which digit it is
  # What 'reference' shows: frames of the clip, or the same handwriting otherwise.
  reference: str = 'other'
  references: Positive = 1  # pictures in it
  reference_turns: Magnitude = 30.0  # of another one
  reference_weights: Magnitude = 1.0
  empty: Fraction = 0.0  # of clips, that show a wall alone
  edits: tuple[str, ...] = ()  # of `edits.TASKS`, of which one is drawn for each sample

  by_seconds: ClassVar[bool] = False
  of_frames: ClassVar[frozenset[str]] = frozenset({'video', 'mask', 'geometry', 'view'})
  of_events: ClassVar[frozenset[str]] = frozenset()

  def __post_init__(self):
    check(self)
    check_names('split', (self.split,), SPLITS)
    check_names('captions', (self.captions,), ('seen', 'held_out', 'all'))
    check_names('background', (self.background,), BACKGROUNDS)
    check_names('colours', self.colours, COLOURS)
    check_names('motions', self.motions, MOTIONS)
    check_names('textures', self.textures, TEXTURES)
    check_names('reference', (self.reference,), REFERENCES)
    if self.extras:
      check_names('extras', self.extras, EXTRAS)
    if self.edits:
      check_names('edits', self.edits, [t for t in TASKS if self.frames > 1 or t not in OF_MOTION])
    self.check_sound()
    if not self._choices:
      raise ConfigError(
        f'captions={self.captions!r} leaves nothing to show with frames={self.frames}, '
        f"colours={self.colours}, motions={self.motions}; use captions='all' or more names"
      )

  @property
  def key(self) -> tuple[int, int]:
    """What draws by seed and split."""
    return self.seed, SPLITS.index(self.split)

  @property
  def silence(self) -> str:
    """Says why nothing is heard of these digits, '' if something is."""
    if set(self.motions) & set(AUDIBLE):
      return ''
    return f'motions={self.motions} are silent; add one of {", ".join(AUDIBLE)}'

  @property
  def _choices(self) -> list[Any]:
    motions = tuple(self.motions) if self.frames > 1 else ('',)
    return _choices(self.captions, tuple(self.colours), motions)

  @classmethod
  def validation(cls, frames: int) -> JSON:
    """Other handwriting, and combinations that training never shows; of images all."""
    return {'split': 'test', 'captions': 'held_out' if frames > 1 else 'all', 'length': 4096}

  def every_caption(self) -> Iterator[Sample]:
    """Yields {'caption'} of everything that samples may show."""
    if self.edits:
      for instruction in all_instructions(tuple(self.edits), tuple(self.colours)):
        yield {'caption': instruction}
      return
    walls = [wall_words(self.background, tint) for tint in TINTS]
    walls = walls if self.background == 'tinted' else walls[:1]
    for wall in walls:
      for digit, colour, motion, _ in self._choices:
        for texture in self.textures:
          caption = digit_caption(digit if self.numbered else None, colour, motion, texture)
          yield {'caption': caption + wall}
      if self.empty:
        yield {'caption': NOTHING + wall}

  def listen(self, index: int) -> Sample:
    """Returns `self[index]` without its pictures, which take most of the time to make."""
    return self._labels(self.scene(index))

  def scene(self, index: int) -> Scene:
    """Returns what a sample shows."""
    return self._scene(self.generator(index))

  def view(self, scene: Scene) -> Scene:
    """Returns the same handwriting in another scene, which is a function of this one.

    Colour, motion, place and background are drawn anew, among those that may go with its digits.
    """
    generator = np.random.default_rng((*self.key, scene.tiles))
    return self._scene(generator, scene)

  def _scene(self, generator: np.random.Generator, written: Scene | None = None) -> Scene:
    identities, colour, motion = self._draw(generator, written)
    # In this order, what is new last, so that a sample never becomes another.
    return Scene(
      identities=identities,
      colour=colour,
      motion=motion,
      offset=tuple(generator.uniform(-1, 1, 2).tolist()),
      phase=tuple(generator.uniform(0, 2, 2).tolist()),
      shades=tuple(map(tuple, generator.uniform(0, 0.25, (2, 3)).tolist())),
      tiles=int(generator.integers(2**31)),
      texture=one_of(self.textures, generator),
      parity=tuple(generator.integers(2, size=2).tolist()),
      background=self.background,
      digit_size=self.digit_size,
      jitter=self.jitter,
      laps=self.laps,
      turn=_up_to(self.turns, generator),
      weight=_up_to(self.weights, generator),
      tint=one_of(tuple(TINTS), generator) if self.background == 'tinted' else 'grey',
      hidden=bool(self.empty and generator.uniform() < self.empty),
    )

  def edit(self, scene: Scene) -> Edit:
    """Returns the edit that the sample of a scene is a pair of, a function of the scene."""
    generator = np.random.default_rng((*self.key, scene.tiles, 0))
    allowed = {choice[:3] for choice in self._choices}
    palette = Palette(
      tuple(self.colours), self.split, lambda *words: self.captions != 'seen' or words in allowed
    )
    return draw_edit(one_of(tuple(self.edits), generator), scene, palette, generator)

  def show(self, scene: Scene) -> Sample:
    """Returns the sample of a scene, in the frames and size of this source."""
    extra = {}
    if self.edits:
      edit = self.edit(scene)
      scene = edit.after
      source = render.render(edit.before, self.frames, self.size)
      extra = {'caption': edit.instruction, 'task': edit.task, 'source_video': source}
    sample = self._labels(scene) | extra
    where = (scene, self.frames, self.size)
    if 'mask' in self.extras:
      sample['mask'] = render.mask(*where)
    if 'background' in self.extras:
      sample['background'] = render.background(scene, self.size)
    if 'geometry' in self.extras:
      sample['geometry'] = render.geometry(*where)
    if 'view' in self.extras:
      view = self.view(scene)
      sample['view'] = render.render(view, self.frames, self.size)
      sample['view_caption'] = self._names(view)['caption']
    if 'reference' in self.extras:
      sample['reference'] = self._reference(scene)
    return sample | {'video': render.render(*where)}

  def reference_scene(self, scene: Scene, index: int = 0) -> Scene:
    """Returns the same handwriting in another image, turned, re-weighted, recoloured and moved.

    It is a function of the scene and the index of the reference, and on black: a masked crop.
    """
    generator = np.random.default_rng((*self.key, scene.tiles, 1 + index))
    return dataclasses.replace(
      scene,
      motion='',
      background='black',
      colour=one_of(self.colours, generator),
      offset=tuple(generator.uniform(-1, 1, 2).tolist()),
      jitter=9.0,
      turn=_up_to(self.reference_turns, generator),
      weight=_up_to(self.reference_weights, generator),
    )

  def _reference(self, scene: Scene) -> UInt8[np.ndarray, 'r h w 3']:
    if self.reference == 'other':
      scenes = [self.reference_scene(scene, index) for index in range(self.references)]
      return np.concatenate([render.render(portrait, 1, self.size) for portrait in scenes])
    masked = dataclasses.replace(scene, background='black')
    first = scene.tiles % self.frames
    step = max(self.frames // self.references, 1)
    chosen = (first + step * np.arange(self.references)) % self.frames
    return render.render(masked, self.frames, self.size)[chosen]

  def _labels(self, scene: Scene) -> Sample:
    """Returns the sample of a scene without its pictures."""
    sample = self._names(scene) | {'texture': scene.texture}
    if self.sound:
      times = events(scene) * (self.frames - 1) / self.fps
      samples = self.frames * RATE // self.fps
      sample |= {'audio': sounds.digit_sound(sample['digit'], times, samples), 'events': times}
    return sample

  def _names(self, scene: Scene) -> JSON:
    return {
      'caption': scene_caption(scene, self.numbered),
      'digit': int(scene.number),
      'identity': scene.identities[0],
      'colour': scene.colour,
      'motion': scene.motion,
    }

  def _draw(
    self, generator: np.random.Generator, written: Scene | None
  ) -> tuple[tuple[int, ...], str, str]:
    """Chooses what to show: the handwriting unless it is written, a colour and a motion."""
    choices = self._choices
    if written is not None:
      choices = [choice for choice in choices if str(choice[0]) == written.number]
    digit, colour, motion, _ = choices[generator.integers(len(choices))]
    if written is not None:
      return written.identities, colour, motion
    return (one_of(identities_of(self.split, digit), generator),), colour, motion


def _up_to(most: float, generator: np.random.Generator) -> float:
  return float(generator.uniform(-most, most)) if most else 0.0


def one_of(choices: Any, generator: np.random.Generator) -> Any:
  """Returns one of several, each as likely as the others."""
  return choices[generator.integers(len(choices))]
