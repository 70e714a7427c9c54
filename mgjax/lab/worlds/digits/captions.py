"""Captions of synthetic clips of digits."""

from mgjax.lab.worlds.digits.scene import MOTIONS, TEXTURES, Scene

NOTHING = 'nothing'  # of a wall alone


def described(colour: str, texture: str) -> str:
  """Returns the adjectives of a caption, as in 'striped green'; some textures have no word."""
  return f'{TEXTURES[texture]} {colour}'.strip()


def digit_caption(digit: int | None, colour: str, motion: str, texture: str = 'soft') -> str:
  """Says what a clip shows; without a motion it says what an image shows.

  The digit None leaves it open which one, as in 'the green digit moves left'.
  """
  shown = f'the {described(colour, texture)} digit' + ('' if digit is None else f' {digit}')
  return f'{shown} {MOTIONS[motion]}' if motion else f'a photo of {shown}'


def wall_words(background: str, tint: str) -> str:
  """Says of what colour the wall is, behind a caption; '' where it has no word."""
  return f', {tint} wall' if background == 'tinted' else ''


def scene_caption(scene: Scene, numbered: bool = True) -> str:
  """Says what a scene shows, with its digit or without."""
  digit = int(scene.number) if numbered else None
  shown = digit_caption(digit, scene.colour, scene.motion, scene.texture)
  return (NOTHING if scene.hidden else shown) + wall_words(scene.background, scene.tint)
