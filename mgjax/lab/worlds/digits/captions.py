"""Captions of synthetic clips of digits."""

from mgjax.lab.worlds.digits.scene import MOTIONS, TEXTURES, Scene

NOTHING = 'nothing'  # of a wall alone


def described(colour: str, texture: str) -> str:
  """Returns the adjectives of a caption, as in 'striped green'; some textures have no word."""
  return f'{TEXTURES[texture]} {colour}'.strip()


def digit_caption(digit: int | None, colour: str, motion: str, texture: str = 'soft') -> str:
  """Returns the caption of a clip or, without a motion, of an image.

  With `digit` None it names no digit, as in 'the green digit moves left'.
  """
  subject = f'the {described(colour, texture)} digit' + ('' if digit is None else f' {digit}')
  return f'{subject} {MOTIONS[motion]}' if motion else f'a photo of {subject}'


def wall_words(background: str, tint: str) -> str:
  """Says of what colour the wall is, behind a caption; '' where it has no word."""
  return f', {tint} wall' if background == 'tinted' else ''


def scene_caption(scene: Scene, numbered: bool = True) -> str:
  """Returns the caption of a scene, with its digit or without."""
  digit = int(scene.number) if numbered else None
  caption = digit_caption(digit, scene.colour, scene.motion, scene.texture)
  return (NOTHING if scene.hidden else caption) + wall_words(scene.background, scene.tint)
