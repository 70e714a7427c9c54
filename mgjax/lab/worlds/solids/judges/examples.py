"""What judges of solids learn from: clips, and all that is true of them, colour by colour.

No two solids of a scene have one colour, so a colour is the name of a solid: row k of all tables is
the solid of the k-th of `kinds.COLOURS`, if there is one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mgjax.core.typing import Float, Int, UInt8
from mgjax.lab.worlds.solids.captions import size_word
from mgjax.lab.worlds.solids.clips import Labels, Solids
from mgjax.lab.worlds.solids.kinds import CAMERAS, COLOURS, MATERIALS, MOTIONS, SHAPES, SIZES
from mgjax.lab.worlds.solids.physics import ON_FLOOR
from mgjax.lab.worlds.solids.scene import Scene

# of what a judge looks at
FRAMES = 16
SIDE = 64
FPS = 8
LOOKS = {'shape': tuple(SHAPES), 'material': tuple(MATERIALS), 'size': tuple(SIZES)}
# Of a solid in a frame: velocity to the right, away and up (units/s) and turns about the vertical
# (radians/s), distance along the axis (units), place in the picture (u, v) and height (units).
COURSE = 8
RATES = 6  # of the camera: those of `PATHS`, a clip, and following right and away
PATHS = ('pans', 'tilts', 'circles', 'zooms')  # degrees, of zooms the log
AMOUNTS = ('pans', 'tilts', 'zooms', 'circles', 'follows')  # moves of a camera that have one
_NAMES = list(COLOURS)


class Examples(NamedTuple):
  """Clips with what is true of them, n = 7 colours; -1 and 0 where there is no solid of one."""

  video: UInt8[np.ndarray, 'b t h w 3']
  owner: UInt8[np.ndarray, 'b t h w']  # colour of the solid in the middle of a pixel, 7 of none
  looks: Int[np.ndarray, 'b n 3']  # places in `LOOKS`
  motion: Int[np.ndarray, 'b n']  # place in `kinds.MOTIONS`
  course: Float[np.ndarray, 'b t n c']  # `COURSE` numbers
  place: Float[np.ndarray, 'b n 2']  # units right and away of the middle, halfway
  camera: Int[np.ndarray, 'b']  # place in `kinds.CAMERAS`
  amount: Float[np.ndarray, 'b']  # of its move, in its unit
  rates: Float[np.ndarray, 'b t r']  # `RATES` numbers
  # Contacts with another solid and with the floor: when after the frame, in frames, or -1.
  contacts: Float[np.ndarray, 'b t n 2']


def make_examples(
  source: Solids, first: int, count: int, report: Callable[[int], None] = lambda done: None
) -> Examples:
  """Makes examples from clips of a source with 16 frames of 64 px at 8 fps."""
  rows = []
  for index in range(first, first + count):
    scene = source.scene(index)
    rows.append(_example(source, scene))
    report(index + 1 - first)
  return Examples(*(np.stack(columns) for columns in zip(*rows, strict=True)))


def _example(source: Solids, scene: Scene) -> Examples:
  sample, labels = source.show(scene), source.labels(scene)
  colours = [_NAMES.index(solid.colour) for solid in scene.solids]
  owner = np.array([*colours, len(_NAMES)], np.uint8)[sample['segmentation'].astype(int) - 1]
  looks = np.full((len(_NAMES), 3), -1, np.int8)
  motion = np.full(len(_NAMES), -1, np.int8)
  for colour, solid in zip(colours, scene.solids, strict=True):
    values = {'shape': solid.shape, 'material': solid.material, 'size': size_word(solid)}
    looks[colour] = [names.index(values[name]) for name, names in LOOKS.items()]
    motion[colour] = list(MOTIONS).index(solid.motion)
  return Examples(
    sample['video'],
    owner,
    looks,
    motion,
    _spread(_course(scene, labels), colours, 1),
    _spread(_places(scene, labels), colours, 0),
    np.int8(list(CAMERAS).index(scene.camera.move)),
    np.float32(labels.amount),
    _rates(scene, labels),
    _contacts(labels, colours),
  )


def _spread(rows: np.ndarray, colours: list[int], axis: int) -> np.ndarray:
  """Rows of solids at the places of their colours."""
  shape = list(rows.shape)
  shape[axis] = len(_NAMES)
  spread = np.zeros(shape, np.float32)
  spread[(slice(None),) * axis + (colours,)] = rows
  return spread


def _flat(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
  """To the right and away, as the camera looks, on the floor; (t 2) each."""
  right = labels.camera.axes[:, 0, :2]
  return right, np.stack([-right[:, 1], right[:, 0]], -1)


def _course(scene: Scene, labels: Labels) -> Float[np.ndarray, 't n c']:
  right, away = _flat(labels)
  velocity = labels.velocities
  projected = labels.camera.project(labels.positions)
  spin = np.array([solid.spin for solid in scene.solids])
  columns = (
    np.einsum('td,tnd->tn', right, velocity[..., :2]),
    np.einsum('td,tnd->tn', away, velocity[..., :2]),
    velocity[..., 2],
    np.broadcast_to(spin, velocity.shape[:2]),
    projected[..., 2],
    np.clip(projected[..., 0], -2, 2),
    np.clip(projected[..., 1], -2, 2),
    labels.positions[..., 2],
  )
  return np.stack(columns, -1)


def _places(scene: Scene, labels: Labels) -> Float[np.ndarray, 'n 2']:
  """Where solids are in the middle of a clip, as the camera looks in the middle of its move."""
  return np.stack(scene.camera.on_floor(labels.positions[len(labels.times) // 2]), -1)


def _rates(scene: Scene, labels: Labels) -> Float[np.ndarray, 't r']:
  rates = np.zeros((len(labels.times), RATES), np.float32)
  kind = scene.camera.move.split()[0]
  sign = CAMERAS[scene.camera.move].sign
  if kind in PATHS:
    amount = np.log(scene.camera.amount) if kind == 'zooms' else scene.camera.amount
    rates[:, PATHS.index(kind)] = sign * amount
  if kind == 'follows':
    right, away = _flat(labels)
    velocity = labels.velocities[:, scene.follows, :2]
    rates[:, 4] = (right * velocity).sum(-1)
    rates[:, 5] = (away * velocity).sum(-1)
  return rates


def _contacts(labels: Labels, colours: list[int]) -> Float[np.ndarray, 't n 2']:
  table = np.full((len(labels.times), len(_NAMES), 2), -1, np.float32)
  for contact in labels.contacts:
    at = contact.time * FPS
    for index in (contact.first, contact.second):
      if index != ON_FLOOR:
        kind = int(contact.second == ON_FLOOR)
        table[int(at), colours[index], kind] = at - int(at)
  return table
