"""Makes clips with known defects out of real footage, photographs and moving digits.

Each clip has at most one defect, whose strength is drawn across the published threshold of the
filter that looks for it; its truth says what was done: for each filter True (to be dropped),
False (to be kept) or None where what was drawn lies so near the threshold that either is right, or
where it is not known. Everything follows from the seed and the number of the clip.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
from collections.abc import Iterator
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from tests.data.media.real_clips import real_clip
from tests.lab.curation import defects

FPS = 8
PHOTOGRAPHS = (
  'astronaut.png',
  'brick.png',
  'chelsea.png',
  'coffee.png',
  'coins.png',
  'grass.png',
  'gravel.png',
  'hubble_deep_field.jpg',
  'ihc.png',
  'motorcycle_left.png',
  'retina.jpg',
  'rocket.jpg',
)
LETTERED = ('digits', 'coins.png', 'motorcycle_left.png')  # there is something to read in them
SHOTS = {
  'rabbit': ('bigbuckbunny.mp4', 0, 132),
  'street': ('bikes.mp4', 0, 30),
  'race': ('bikes.mp4', 30, 76),
  'crowd': ('bikes.mp4', 76, 137),
  'cyclist': ('bikes.mp4', 137, 187),
  'hill': ('bikes.mp4', 187, 242),
  'man in a car': ('carphone_pristine.mp4', 0, 120),
}
FILTERS = (
  'duration',
  'resolution',
  'aspect',
  'text',
  'borders',
  'scenes',
  'static',
  'slides',
  'motion',
  'jitter',
  'duplicates',
)
# So many of each that of 300 clips every filter has 15 or more to drop.
_SHARES = {
  'none': 3,
  'duration': 3,
  'resolution': 3,
  'portrait': 3,
  'text': 3,
  'borders': 3,
  'cuts': 1,
  'still': 3,
  'slides': 1,
  'speed': 4,
  'shake': 4,
  'copy': 2,
  'broken': 1,
}
KINDS = tuple(kind for kind, count in _SHARES.items() for _ in range(count))


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a clip shows, before defects."""

  source: str  # a key of `SHOTS`, a file of `PHOTOGRAPHS`, or 'digits'
  size: tuple[int, int]  # (height, width)
  seconds: float
  speed: float  # pixels a frame that the picture moves by, at a width of 1024
  angle: float  # of that movement
  zoom: float  # how much of the picture is seen
  mirrored: bool
  colours: tuple[float, float, float]  # gains of red, green and blue
  place: tuple[float, float]  # where the movement begins, each in [0, 1)


def make_clip(folder: pathlib.Path, number: int, seed: int, least: int) -> dict:
  """Writes one clip with a caption, and returns its truth; `least` pixels of width and height."""
  chance = np.random.default_rng([seed, number])
  kind = _kind(seed, number)
  original = number
  plan = draw_plan(chance, least, photograph=kind in ('speed', 'still', 'slides', 'shake'))
  fps, crf = FPS, 20
  if kind == 'copy':
    original = _original(chance, seed, number)
    fresh = np.random.default_rng([seed, original])
    plan = draw_plan(fresh, least, photograph=False)
    scale = chance.uniform(1.0, 1.5)
    plan = dataclasses.replace(plan, size=_even(plan.size[0] * scale, plan.size[1] * scale))
    fps, crf = int(chance.choice([6, 8, 12])), int(chance.integers(18, 31))
  truth = dict.fromkeys(FILTERS, False)
  made = defects.DEFECTS.get(kind, defects.nothing)(plan, chance, truth, least)
  frames = list(drawn(made.plan, fps))
  for change in made.changes:
    frames = change(frames, fps)
  truth |= measured_truth(frames, made, truth, kind)
  name = f'clip-{number:04d}.mp4'
  encode(folder / name, frames, fps, crf)
  if kind == 'broken':
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * chance.uniform(0.1, 0.9))])
  word = made.plan.source.split('.')[0].replace('_', ' ')
  (folder / name).with_suffix('.txt').write_text(f'a video of a {word}')
  about = {'name': name, 'kind': kind, 'original': f'clip-{original:04d}.mp4'}
  return {**about, 'source': made.plan.source, 'strength': made.strength, **truth}


def _kind(seed: int, number: int) -> str:
  draw = np.random.default_rng([seed, 1, number // len(KINDS)]).permutation(len(KINDS))
  return KINDS[draw[number % len(KINDS)]]


def _original(chance: np.random.Generator, seed: int, number: int) -> int:
  """The number of a clip without a defect."""
  whole = [n for n in range(max(number, len(KINDS))) if _kind(seed, n) == 'none' and n != number]
  return int(chance.choice(whole))


def _even(height: float, width: float) -> tuple[int, int]:
  return round(height / 2) * 2, round(width / 2) * 2


def draw_plan(chance: np.random.Generator, least: int, photograph: bool) -> Plan:
  """Draws a clip that no filter drops, unless footage moves too much."""
  source = chance.choice(['photograph', 'shot', 'digits'], p=[0.55, 0.4, 0.05])
  if photograph or source == 'photograph':
    source = PHOTOGRAPHS[chance.integers(len(PHOTOGRAPHS))]
  elif source == 'shot':
    source = list(SHOTS)[chance.integers(len(SHOTS))]
  height = round(least * chance.uniform(1.01, 1.1))
  return Plan(
    source=str(source),
    size=_even(height, height * chance.uniform(1.2, 1.5)),
    seconds=float(chance.uniform(13.3, 15.5)),
    speed=float(chance.uniform(2.0, 4.5)),
    angle=float(chance.uniform(0, 2 * np.pi)),
    zoom=float(chance.uniform(0.45, 0.7)),
    mirrored=bool(chance.integers(2)),
    colours=tuple(float(each) for each in chance.uniform(0.7, 1.0, 3)),
    place=(float(chance.uniform()), float(chance.uniform())),
  )


def drawn(plan: Plan, fps: int) -> Iterator[np.ndarray]:
  """The frames of a plan, uint8 (h w 3); the movement is that of `FPS` whatever the rate."""
  pictures = source_frames(plan.source)
  height, width = plan.size
  gains = np.arange(256)[:, None] * np.array(plan.colours, np.float32)
  levels = np.uint8(np.clip(gains, 0, 255))[None]
  for n in range(round(plan.seconds * fps)):
    time = n * FPS / fps  # frames of FPS
    last = len(pictures) - 1
    picture = pictures[int(_triangle(round(time), last)) if last else 0]
    rows, columns = picture.shape[:2]
    scale = max(height / rows, width / columns) / plan.zoom
    room = np.array([rows * scale - height, columns * scale - width])
    way = time * plan.speed * width / 1024 * np.array([np.sin(plan.angle), np.cos(plan.angle)])
    top, left = (
      _triangle(each + p * r, r) for each, p, r in zip(way, plan.place, room, strict=True)
    )
    sign = -1 if plan.mirrored else 1
    origin = width + left if plan.mirrored else -left
    move = np.array([[sign * scale, 0, origin], [0, scale, -top]], np.float64)
    shown = cv2.warpAffine(picture, move, (width, height), borderMode=cv2.BORDER_REFLECT)
    yield cv2.LUT(shown, levels)


def _triangle(place: float, room: float) -> float:
  if room <= 0:
    return 0.0
  place = place % (2 * room)
  return min(place, 2 * room - place)


@functools.cache
def source_frames(source: str) -> tuple[np.ndarray, ...]:
  """The pictures of a source, RGB, each uint8 (h w 3)."""
  if source == 'digits':
    from mgjax.lab.worlds.digits.clips import Digits

    return tuple(Digits(frames=64, size=(96, 128), laps=3.0)[3]['video'])
  if source in SHOTS:
    name, first, last = SHOTS[source]
    with av.open(str(real_clip(name))) as container:
      frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    return tuple(frames[first:last])
  return (photograph(source),)


def photograph(name: str) -> np.ndarray:
  """A photograph of scikit-image, with the shorter side enlarged to 700 pixels or more."""
  files = importlib.metadata.files('scikit-image') or []
  path = next(each for each in files if each.name == name and 'data' in each.parts)
  picture = np.asarray(Image.open(str(path.locate())).convert('RGB'))
  scale = max(1.0, 700 / min(picture.shape[:2]))
  return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def measured_truth(
  frames: list[np.ndarray], made: 'defects.Made', truth: dict[str, Any], kind: str
) -> dict[str, Any]:
  """What is known of motion: vmafmotion of the frames that were drawn, and the drawn speed.

  The movement inside footage is not known, so that neither is the length of its motion vectors.
  """
  if kind == 'broken':
    return dict.fromkeys(FILTERS)
  motion = vmaf_motion(frames[::1])
  speed = made.speed
  slow = motion < 1.8 or (speed is not None and speed < 0.35)
  fast = speed is not None and speed > 8.5
  kept = motion > 2.2 and speed is not None and 0.7 < speed < 5.5
  found: dict[str, Any] = {'motion': True if slow or fast else False if kept else None}
  if made.plan.source in LETTERED:
    found['text'] = True if truth['text'] else None
  return {key: value for key, value in found.items() if truth[key] is not None}


def vmaf_motion(frames: list[np.ndarray]) -> float:
  """Mean of VMAF's motion: mean absolute difference of blurred brightness, all but the first."""
  kernel = np.array([3571, 16004, 26386, 16004, 3571], np.float32) / 65536
  total, before = 0.0, None
  for frame in frames:
    light = 16 + cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) * 219 / 255
    blurred = cv2.sepFilter2D(light, -1, kernel, kernel)
    if before is not None:
      total += float(np.abs(blurred - before).mean())
    before = blurred
  return total / max(1, len(frames) - 1)


def encode(path: pathlib.Path, frames: list[np.ndarray], fps: int, crf: int) -> None:
  """Writes an H.264 mp4 as quickly as it goes.

  Each frame refers to the one before it, so that its motion vectors are those of one frame's time.
  """
  options = {'preset': 'veryfast', 'crf': str(crf), 'bf': '0', 'refs': '1'}
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=fps, options=options)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = 'yuv420p'
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), 'rgb24')
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
