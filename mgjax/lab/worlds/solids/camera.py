"""Where the camera is and looks, time by time.

A move goes at constant speed from the first frame to the last. At its middle the camera is where
the scene says: a pan by 20 degrees begins 10 to the left. Pan and tilt turn the camera where it
stands, and zoom lengthens its focal length. A circle carries it around what it looks at, and a
following camera moves with a solid.
"""

import math
from typing import NamedTuple

import numpy as np

from mgjax.core.typing import Float
from mgjax.lab.worlds.solids.kinds import CAMERAS
from mgjax.lab.worlds.solids.physics import Track
from mgjax.lab.worlds.solids.scene import Camera

AIM = 0.6  # height of what it looks at
FOCAL = 2.6  # distance of the picture at which half its shorter side is 1


class Poses(NamedTuple):
  """The camera, time by time; rows of `axes` are right, up and forward."""

  eye: Float[np.ndarray, 't 3']
  axes: Float[np.ndarray, 't 3 3']
  focal: Float[np.ndarray, 't']

  def project(self, points: Float[np.ndarray, 't n 3']) -> Float[np.ndarray, 't n 3']:
    """Returns u to the right and v up, ±1 at the edges of a square picture, and the depth."""
    local = np.einsum('tij,tnj->tni', self.axes, points - self.eye[:, None])
    depth = local[..., 2:]
    return np.concatenate([self.focal[:, None, None] * local[..., :2] / depth, depth], -1)


def poses(camera: Camera, followed: Track, times: Float[np.ndarray, 't'], last: float) -> Poses:
  """Returns the camera at some times (seconds) of a clip whose last frame is at `last`."""
  move = CAMERAS[camera.move]
  share = times / last - 0.5 if last else np.zeros(len(times))
  amount = camera.amount * move.sign
  turn = np.radians(amount) * share
  kind = camera.move.split()[0]
  azimuth = camera.azimuth + (turn if kind == 'circles' else 0 * share)
  flat = camera.distance * math.cos(camera.elevation)
  up = AIM + camera.distance * math.sin(camera.elevation)
  eye = np.stack([flat * np.sin(azimuth), -flat * np.cos(azimuth), np.full(len(times), up)], -1)
  if kind == 'follows':
    eye += (followed.positions(times) - followed.positions(np.array([last / 2]))) * [1, 1, 0]
  heading = azimuth - (turn if kind == 'pans' else 0)
  pitch = -camera.elevation + (turn if kind == 'tilts' else 0 * share)
  right = np.stack([np.cos(heading), np.sin(heading), 0 * heading], -1)
  forward = np.stack(
    [-np.sin(heading) * np.cos(pitch), np.cos(heading) * np.cos(pitch), np.sin(pitch)], -1
  )
  focal = FOCAL * np.ones(len(times))
  if kind == 'zooms':
    focal = FOCAL * camera.amount ** (move.sign * share)
  return Poses(eye, np.stack([right, np.cross(right, forward), forward], 1), focal)


def distance_gone(camera: Camera, followed: Track, last: float) -> float:
  """Returns the amount of a move, of one that follows as well: how far it goes in all."""
  if camera.move != 'follows':
    return camera.amount
  first, final = followed.positions(np.array([0.0, last]))
  return float(np.hypot(*(final - first)[:2]))
