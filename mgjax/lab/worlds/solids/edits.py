"""Edits of clips of solids: scenes before and after, the instruction and the one that undoes it.

Both scenes share all but what the instruction names, so that what an edit must change and what it
must keep are known pixel by pixel. No two solids of such scenes meet, before or after: what happens
to one changes nothing of the others.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Bool, UInt8
from mgjax.lab.worlds.solids.captions import describe, scene_caption
from mgjax.lab.worlds.solids.kinds import (
  CAMERAS,
  COLOURS,
  FLOORS,
  MATERIALS,
  MOTIONS,
  SHAPES,
  SKIES,
  motions_of,
)
from mgjax.lab.worlds.solids.sampling import happens
from mgjax.lab.worlds.solids.scene import STYLES, Camera, Scene, Solid

TASKS = (
  'recolour',
  'material',
  'replace',
  'remove',
  'add',
  'background',
  'style',
  'camera',
  'mark',
  'nothing',
)
OF_MOTION = ('camera',)  # pictures cannot show it
OF_SEVERAL = ('remove', 'add')  # of a single solid nothing would be left
_UNDO = {'remove': 'add', 'add': 'remove', 'mark': ''}  # '' cannot be undone
_LAYER = 0.65  # opacity of a mark
_INSTEAD = {'rolls': 'slides', 'slides': 'rolls', 'bounces': 'falls', 'falls': 'bounces'}
_EDGES, _PAPER = 5.0, 250.0  # how dark outlines are, and what they are drawn on
_NIGHT = np.array((0.26, 0.31, 0.46), np.float32)


class Edit(NamedTuple):
  """What is asked for, one of `TASKS`, the scenes before and after it, and of which solid it is.

  A solid that is removed or added is the last of the scene that has it.
  """

  task: str
  before: Scene
  after: Scene
  solid: int

  @property
  def instruction(self) -> str:
    """Says what to do, as in 'make the red ball blue'."""
    before, after = self.before, self.after
    if self.task == 'background':
      floor = before.floor != after.floor
      return f'make the floor {after.floor}' if floor else f'make the sky {after.sky}'
    if self.task == 'style':
      return f'make it look like {STYLES[after.style]}'
    if self.task == 'camera':
      whom = f' {_it(after.solids[after.follows])}' if after.camera.move == 'follows' else ''
      return f'let the camera {_bare(after.camera.move)}{whom}'
    if self.task == 'nothing':
      return 'leave it as it is'
    if self.task == 'add':
      return f'add {describe(after.solids[self.solid])}'
    old = before.solids[self.solid]
    it = _it(old)
    if self.task == 'remove':
      return f'remove {it}'
    if self.task == 'mark':
      return f'mark {it} in {after.mark}'
    new = after.solids[self.solid]
    if self.task == 'replace':
      return f'replace {it} with {describe(new)}'
    return f'make {it} {new.colour if self.task == "recolour" else MATERIALS[new.material].word}'

  @property
  def source_caption(self) -> str:
    """Says what a picture shows before."""
    return scene_caption(self.before).text

  @property
  def target_caption(self) -> str:
    """Says what a picture shows after; of a mark it says nothing."""
    return scene_caption(self.after).text

  @property
  def undone(self) -> 'Edit | None':
    """The edit that leads back; None if no instruction can say it."""
    task = _UNDO.get(self.task, self.task)
    return Edit(task, self.after, self.before, self.solid) if task else None


def draw_edit(
  task: str, scene: Scene, colours: Sequence[str], generator: np.random.Generator
) -> Edit:
  """Returns an edit that leads to a scene, or adds a style or mark to it; 'nothing' if none can.

  Raises ConfigError if two of its solids meet, or if removing its only solid would leave nothing.
  """
  if scene.meets or (task in OF_SEVERAL and len(scene.solids) < 2):
    raise ConfigError(
      f'nobody can {task} in a scene of {len(scene.solids)} solids of which {len(scene.meets)} '
      'meet; expected meetings = 0 and solids = (2, 3)'
    )
  which = int(generator.integers(len(scene.solids)))
  if task in OF_SEVERAL:
    return _with_or_without(task, scene, which)
  ways = list(_WAYS[task](scene, which, colours))
  changed = next(
    (ways[index] for index in generator.permutation(len(ways)) if happens(ways[index])), scene
  )
  if task in ('style', 'mark'):  # these are added; clips that already have one are rare
    return Edit(task, scene, changed, which)
  return Edit(task if changed is not scene else 'nothing', changed, scene, which)


def styled(video: UInt8[np.ndarray, 't h w 3'], style: str) -> UInt8[np.ndarray, 't h w 3']:
  """Shows a clip as outlines on paper, or at night; as it is without a style."""
  if style == 'night':
    return np.rint(video * _NIGHT).astype(np.uint8)
  if style == 'outlines':
    grey = np.pad(video.astype(np.float32).mean(-1), ((0, 0), (0, 1), (0, 1)), mode='edge')
    down = np.diff(grey, axis=1)[:, :, :-1]
    across = np.diff(grey, axis=2)[:, :-1]
    lines = np.maximum(_PAPER - _EDGES * np.hypot(down, across), 0)
    return np.repeat(np.rint(lines).astype(np.uint8)[..., None], 3, -1)
  return video


def marked(
  video: UInt8[np.ndarray, 't h w 3'], where: Bool[np.ndarray, 't h w'], scene: Scene
) -> UInt8[np.ndarray, 't h w 3']:
  """Lays the colour of a scene's mark over what is marked."""
  layer = _LAYER * where[..., None]
  colour = 255 * np.array(COLOURS[scene.mark], np.float32)
  return np.rint((1 - layer) * video + layer * colour).astype(np.uint8)


def _with_or_without(task: str, scene: Scene, which: int) -> Edit:
  """Returns an edit between a scene and the scene without one solid, which becomes the last."""
  order = [*(index for index in range(len(scene.solids)) if index != which), which]
  with_solid = dataclasses.replace(
    scene, solids=tuple(scene.solids[index] for index in order), follows=order.index(scene.follows)
  )
  if with_solid.follows == len(order) - 1:
    with_solid = dataclasses.replace(with_solid, camera=_standing(with_solid.camera), follows=0)
  without_solid = dataclasses.replace(with_solid, solids=with_solid.solids[:-1])
  both = (without_solid, with_solid) if task == 'add' else (with_solid, without_solid)
  return Edit(task, *both, len(order) - 1)


def _standing(camera: Camera) -> Camera:
  still = camera.move == 'follows'
  return dataclasses.replace(camera, move='stands still', amount=0.0) if still else camera


def _changed(scene: Scene, which: int, **fields: object) -> Scene:
  solids = list(scene.solids)
  solids[which] = dataclasses.replace(solids[which], **fields)
  return dataclasses.replace(scene, solids=tuple(solids))


def _other_colours(scene: Scene, which: int, colours: Sequence[str]) -> list[Scene]:
  used = {solid.colour for solid in scene.solids} | {scene.solids[which].second}
  return [_changed(scene, which, colour=name) for name in colours if name not in used]


def _other_materials(scene: Scene, which: int, colours: Sequence[str]) -> list[Scene]:
  del colours
  own = scene.solids[which].material
  return [_changed(scene, which, material=name) for name in MATERIALS if name != own]


def _other_solids(scene: Scene, which: int, colours: Sequence[str]) -> list[Scene]:
  """Returns scenes with another shape and colour that moves in the same direction."""
  solid = scene.solids[which]
  scenes = []
  for shape in SHAPES:
    verb, direction = MOTIONS[solid.motion]
    motion = solid.motion
    if motion not in motions_of(shape):
      motion = f'{_INSTEAD[verb]} {direction if _INSTEAD[verb] != "falls" else ""}'.strip()
    if shape != solid.shape and motion in MOTIONS:
      flat = (0.0, 0.0) if motion == 'falls' else solid.velocity
      fields = {'shape': shape, 'motion': motion, 'velocity': flat}
      scenes += [
        _changed(recoloured, which, **fields)
        for recoloured in _other_colours(scene, which, colours)
      ]
  return scenes


def _others(scene: Scene, field: str, names: Iterable[str]) -> list[Scene]:
  own = getattr(scene, field)
  return [dataclasses.replace(scene, **{field: name}) for name in names if name != own]


def _marks(scene: Scene, which: int, colours: Sequence[str]) -> list[Scene]:
  used = scene.solids[which].colour
  return [dataclasses.replace(scene, mark=c, marked=which) for c in colours if c != used]


def _other_cameras(scene: Scene, which: int, colours: Sequence[str]) -> list[Scene]:
  del which, colours
  camera = scene.camera
  return [
    dataclasses.replace(
      scene, camera=dataclasses.replace(camera, move=name, amount=sum(move.amounts) / 2)
    )
    for name, move in CAMERAS.items()
    if name not in ('follows', camera.move)
  ]


_WAYS: dict[str, Callable[[Scene, int, Sequence[str]], list[Scene]]] = {
  'recolour': _other_colours,
  'material': _other_materials,
  'replace': _other_solids,
  'background': lambda scene, which, colours: (
    _others(scene, 'floor', FLOORS) + _others(scene, 'sky', SKIES)
  ),
  'style': lambda scene, which, colours: _others(scene, 'style', STYLES),
  'camera': _other_cameras,
  'mark': _marks,
  'nothing': lambda scene, which, colours: [],
}  # what a scene may have been before


def _it(solid: Solid) -> str:
  return f'the {solid.colour} {solid.shape}'


def _bare(move: str) -> str:
  """'pan left' of 'pans left'."""
  verb, _, way = move.partition(' ')
  return f'{verb.removesuffix("s")} {way}'.strip()
