"""Films still photographs as the 16 classes of camera motion do, with a camera that is known.

A photograph is a plane at depth 1; a pinhole camera turns, moves or changes its focal length before
it, shakes a little, and its sensor has noise. A right pan turns the camera right: what is seen
moves left.
"""

import functools

import cv2
import numpy as np
import sklearn.datasets

from mgjax.data.media.video import stream_frames
from tests.data.media.real_clips import real_clip

SIZE = (144, 256)
DIRECTIONS = {
  'pan right': ('turn', 0, 1),
  'pan left': ('turn', 0, -1),
  'tilt up': ('turn', 1, -1),
  'tilt down': ('turn', 1, 1),
  'truck right': ('move', 0, 1),
  'truck left': ('move', 0, -1),
  'pedestal up': ('move', 1, -1),
  'pedestal down': ('move', 1, 1),
  'zoom in': ('focal', 0, 1),
  'zoom out': ('focal', 0, -1),
  'push in': ('depth', 0, 1),
  'pull out': ('depth', 0, -1),
  'roll': ('roll', 0, 1),
}
KINDS = (*DIRECTIONS, 'tracking shot', 'arc shot', 'static shot', 'handheld shot')


@functools.cache
def photographs():
  """Two photographs and frames of the real clips, uint8 (h w 3) each."""
  found = [*sklearn.datasets.load_sample_images().images]
  for name, numbers in (
    ('bikes.mp4', (10, 60, 110, 160, 215, 245)),
    ('bigbuckbunny.mp4', (5, 120)),
    ('carphone_pristine.mp4', (3,)),
  ):
    for number, (_, _, frame) in enumerate(stream_frames(real_clip(name), 288)):
      if number in numbers:
        found.append(np.asarray(frame))
  return found


def film(kind, seed, seconds=3.0, fps=8, size=SIZE):
  """Returns frames (t h w 3) of a kind of shot; photograph, speed and noise by the seed."""
  draw = np.random.default_rng(seed)
  pictures = photographs()
  photo = pictures[draw.integers(len(pictures))]
  count = round(seconds * fps)
  times = np.arange(count) / fps
  speed = np.exp(draw.uniform(np.log(0.04), np.log(0.5)))  # shorter sides a second
  ramp = times - times[-1] / 2
  if draw.random() < 0.5:  # it sets off and comes to rest softly
    part = times / times[-1]
    ramp = times[-1] * (part * part * (3 - 2 * part) - 0.5)
  aside = draw.uniform(-0.3, 0.3)  # nobody pans along a ruler
  # A camera on a tripod or a rail still trembles a little.
  path = {axis: 0.001 * draw.standard_normal(count) for axis in ('x', 'y', 'roll')}
  if kind == 'handheld shot':
    strength = np.exp(draw.uniform(np.log(0.006), np.log(0.03)))
    for axis, share in (('x', 1.0), ('y', 0.8), ('roll', 0.5)):
      path[axis] = strength * share * _shake(draw, times)
  focal = size[1] * draw.uniform(0.9, 1.6)
  covered = draw.uniform(0.45, 0.65)
  per_unit = covered * photo.shape[1] * focal / size[1]  # pixels of the photograph
  centre = np.array(photo.shape[1::-1]) / 2 + draw.uniform(-20, 20, 2)
  what, axis, sign = DIRECTIONS.get(kind, ('move', 0, 1 if draw.random() < 0.5 else -1))
  if kind in ('static shot', 'handheld shot'):
    what = 'nothing'
  side = size[0] / focal  # a shorter side at depth 1
  subject = _subject(draw, pictures) if kind in ('tracking shot', 'arc shot') else None
  # What is followed is told from its background where that moves visibly from frame to frame.
  speed = max(speed, 0.15) if subject is not None else speed
  passing = _subject(draw, pictures, 0.5) if subject is None and draw.random() < 0.3 else None
  # Who passes by, beside the middle: what stays there while the camera moves is followed.
  by = draw.uniform(-1, 1, 2) * size[0] * (0.3, 0.1)  # pixels a second
  beside = size[0] * draw.uniform(0.4, 0.6) * np.array([1 if draw.random() < 0.5 else -1, 0])
  noise, frames = draw.uniform(0, 4), []
  for number in range(count):
    way = sign * speed * ramp[number]
    turn = np.array([path['x'][number], path['y'][number]]) * side
    move, depth, length, roll = np.zeros(2), 1.0, focal, path['roll'][number]
    if what == 'turn':
      turn[axis] += way * side
      turn[1 - axis] += aside * way * side
    elif what == 'move':
      move[axis] += way * side
      move[1 - axis] += aside * way * side
    elif what == 'focal':
      length = focal * np.exp(way / 0.55)
    elif what == 'depth':
      depth = np.exp(-way / 0.55)
    elif what == 'roll':
      roll += way / 0.55
    camera = np.diag([length, length, 1.0])
    camera[:2, 2] = size[1] / 2, size[0] / 2
    place = np.array([[1, 0, -move[0]], [0, 1, -move[1]], [0, 0, depth]])
    plane = np.diag([1 / per_unit, 1 / per_unit, 1.0])
    plane[:2, 2] = -centre / per_unit
    matrix = camera @ _rotation(*turn, roll) @ place @ plane
    frame = cv2.warpPerspective(
      photo, matrix, size[::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32)
    if subject is not None:
      yaw = sign * ramp[number] * speed if kind == 'arc shot' else 0.0
      frame = _paste(frame, *subject, yaw)
    if passing is not None:
      frame = _paste(frame, *passing, 0.0, beside + by * ramp[number])
    frame += noise * draw.standard_normal(frame.shape)
    frames.append(np.uint8(np.clip(np.rint(frame), 0, 255)))
  return np.stack(frames)


def _shake(draw, times):
  """A hand's movement: sines of 0.7 to 4 Hz, of standard deviation 1."""
  waves = sum(
    np.sin(2 * np.pi * (rate * times + draw.random())) / rate**0.5
    for rate in draw.uniform(0.7, 4.0, 6)
  )
  return waves / waves.std()


def _rotation(right, down, roll):
  """A camera turned right, down and about its axis, in radians."""
  c, s = np.cos, np.sin
  yaw = np.array([[c(right), 0, -s(right)], [0, 1, 0], [s(right), 0, c(right)]])
  pitch = np.array([[1, 0, 0], [0, c(down), -s(down)], [0, s(down), c(down)]])
  about = np.array([[c(roll), s(roll), 0], [-s(roll), c(roll), 0], [0, 0, 1]])
  return about @ pitch @ yaw


def _subject(draw, pictures, scale=1.0):
  """Something in the middle: a picture of its own and the ellipse that it fills."""
  photo = pictures[draw.integers(len(pictures))]
  height, width = SIZE
  fit = max(height / photo.shape[0], width / photo.shape[1])
  photo = cv2.resize(photo, None, fx=fit, fy=fit, interpolation=cv2.INTER_AREA)
  ys, xs = np.indices(SIZE)
  tall, wide = scale * height * draw.uniform((0.28, 0.2), (0.38, 0.3))
  inside = ((ys - height / 2) / tall) ** 2 + ((xs - width / 2) / wide) ** 2 < 1
  return photo[:height, :width].astype(np.float32), inside.astype(np.float32)


def _paste(frame, photo, inside, yaw, by=(0.0, 0.0)):
  height, width = inside.shape
  squeeze = np.float32([[np.cos(yaw), 0, (1 - np.cos(yaw)) * width / 2 + by[0]], [0, 1, by[1]]])
  photo, inside = (cv2.warpAffine(each, squeeze, (width, height)) for each in (photo, inside))
  return frame + inside[..., None] * (photo - frame)
