"""Judges clips of solids: reads count, looks, places, motions, contacts and the camera from pixels.

Two small networks (`network.py`) were trained on renders (`training.py`) and come with the world.
Another judge, 'filter', learns from other scenes with other blemishes: what it chose, 'judge' may
judge. They look at 16 frames of 64 pixels at 8 a second; larger clips are averaged down.

A solid is known by its colour, which no other of its scene has. What is asked of a clip are the
statements of its caption (`captions.Statement`), and the score of a kind of statements is the share
of those that are right. The score is a proxy; `references` say what it can be.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Float
from mgjax.worlds.judging import Asked, CameraPath, Videos
from mgjax.worlds.solids.captions import Statement
from mgjax.worlds.solids.clips import Solids
from mgjax.worlds.solids.judges.examples import AMOUNTS, FPS, FRAMES, LOOKS, SIDE
from mgjax.worlds.solids.kinds import CAMERAS, COLOURS, MOTIONS
from mgjax.worlds.solids.scene import Scene

GROUPS = {
  'in distribution': 'in_distribution',
  'new combination': 'new_combination',
  'new value': 'new_value',
}
FACTORS = {
  'count': 'number of solids',
  'colour': 'colours',
  'shape': 'shapes',
  'material': 'materials',
  'size': 'sizes',
  'motion': 'motions',
  'hits': 'who hits whom',
  'relation': 'who stands where',
  'camera': 'camera move',
  'all': 'all of a clip',
}
TURNS = ('pans', 'tilts', 'circles')  # columns of a path in degrees
TOGETHER = 0.2  # seconds, within which two solids are in one contact
_REFERENCES = 300  # clips
_LEAST = (-1.0, 0.0)  # logits; contacts of two, which both must show, are missed more easily
_HERE = pathlib.Path(__file__).parent


class SolidSeen(NamedTuple):
  """One solid that a clip shows."""

  shape: str
  material: str
  size: str
  motion: str
  place: tuple[float, float]  # units to the right and away, in the middle of the clip
  meets: tuple[float, ...]  # seconds at which it touches another solid
  lands: tuple[float, ...]  # and the floor


class SolidsReading(NamedTuple):
  """What a clip shows: solids by their colours, and the camera."""

  solids: Mapping[str, SolidSeen]
  camera: str
  amount: float  # of its move, in the unit of `kinds.CAMERAS`; 0 of none
  # How far it panned, tilted and circled (degrees) and zoomed (log) until each frame.
  path: Float[np.ndarray, 't 4'] = np.zeros((FRAMES, 4), np.float32)

  def meetings(self) -> list[tuple[float, str, str]]:
    """Lists contacts of two solids: seconds and both colours."""
    found = [(time, name) for name, solid in self.solids.items() for time in solid.meets]
    found.sort()
    return [
      (first[0], first[1], second[1])
      for place, first in enumerate(found)
      for second in found[place + 1 :]
      if first[1] != second[1] and second[0] - first[0] <= TOGETHER
    ]


class Wanted(NamedTuple):
  """What is asked of a clip: the scene that its caption is of, and what the caption says."""

  scene: Scene
  says: tuple[Statement, ...]


def says_right(reading: SolidsReading, wanted: Wanted) -> dict[str, float]:
  """The share of the statements of each factor that a clip shows, NaN if there is none."""
  scores: dict[str, list[bool]] = {name: [] for name in FACTORS}
  names = [solid.colour for solid in wanted.scene.solids]
  scores['count'].append(len(reading.solids) == len(names))
  for what, solids, value in wanted.says:
    seen = [reading.solids.get(names[index]) for index in solids]
    if what == 'colour':
      scores[what].append(seen[0] is not None)
    elif what in ('shape', 'material', 'size', 'motion'):
      scores[what].append(seen[0] is not None and getattr(seen[0], what) == value)
    elif what == 'hits':
      pair = {names[index] for index in solids}
      scores[what].append(any({a, b} == pair for _, a, b in reading.meetings()))
    elif what == 'relation':
      scores[what].append(None not in seen and _stands(*seen) == value)
    elif what == 'camera':
      scores[what].append(reading.camera == value)
  every = [right for each in scores.values() for right in each]
  found = {name: float(np.mean(each)) if each else np.nan for name, each in scores.items()}
  return found | {'all': float(all(every))}


def _mean(shares: Sequence[float]) -> float:
  """The mean of what counts, NaN if nothing does."""
  counted = [share for share in shares if not np.isnan(share)]
  return float(np.mean(counted)) if counted else np.nan


def _stands(first: SolidSeen, second: SolidSeen) -> str:
  right, away = np.subtract(first.place, second.place)
  if abs(right) > abs(away):
    return 'right of' if right > 0 else 'left of'
  return 'behind' if away > 0 else 'in front of'


@dataclasses.dataclass(frozen=True)
class SolidsJudge:
  """Reads clips, and asks models for captions of a world's splits; made by `make_judge`."""

  source: Solids
  weights: Mapping[str, Any]  # of both networks

  @property
  def factors(self) -> dict[str, str]:
    return FACTORS

  def asks(self, samples: int) -> dict[str, list[Asked]]:
    """Returns captions of scenes that training never showed, so many of each group."""
    return {group: self._asked(group, samples) for group in GROUPS}

  def right(self, videos: Videos, asked: Sequence[Asked]) -> dict[str, Float[np.ndarray, 'b']]:
    """Says of each clip which share of the statements of each factor it shows."""
    readings = self.read(videos)
    if len(readings) != len(asked) or not readings:
      raise DataError(f'{len(readings)} videos and {len(asked)} captions: give one caption a video')
    rows = [says_right(reading, each.label) for reading, each in zip(readings, asked, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in FACTORS}

  def references(self, group: str) -> tuple[dict[str, float], dict[str, float]]:
    """Scores real clips, and real clips under the captions of others."""
    asked = self._asked(group, _REFERENCES)
    readings = self.read([each['video'] for each in self.clips(asked)])
    found = []
    for given in (asked, asked[1:] + asked[:1]):
      rows = [
        says_right(reading, each.label) for reading, each in zip(readings, given, strict=True)
      ]
      found.append({name: _mean([row[name] for row in rows]) for name in FACTORS})
    return found[0], found[1]

  def clips(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """Draws the clips that captions are of."""
    return [self.source.show(each.label.scene) for each in asked]

  def paths(self, videos: Videos, asked: Sequence[Asked]) -> list[CameraPath]:
    """Follows pans, tilts and circles whose degrees a caption says."""
    found = []
    for reading, each in zip(self.read(videos), asked, strict=True):
      amount = next((value for what, _, value in each.label.says if what == 'amount'), None)
      if amount is not None:
        move = each.label.scene.camera.move
        kind, sign = move.split()[0], CAMERAS[move].sign
        path = np.linspace(0, sign * float(amount), FRAMES)
        found.append(CameraPath(move, 'degrees', path, reading.path[:, TURNS.index(kind)]))
    return found

  def read(self, videos: Videos) -> list[SolidsReading]:
    """Says what clips show. Raises DataError unless they are uint8 (16 h w 3), 64 px or more."""
    from mgjax.worlds.solids.judges.network import tell  # JAX, only where something is read

    small = np.stack([_looked_at(np.asarray(video)) for video in videos])
    told, rates = tell(self.weights, small)
    return [_reading(told, index)._replace(path=_path(rates[index])) for index in range(len(small))]

  def _asked(self, group: str, count: int) -> list[Asked]:
    source = dataclasses.replace(self.source, split=GROUPS[group])
    scenes = [source.scene(index) for index in range(count)]
    told = [source.caption(scene) for scene in scenes]
    return [
      Asked(each.text, Wanted(scene, each.says)) for each, scene in zip(told, scenes, strict=True)
    ]


def make_judge(source: Solids, name: str = 'judge') -> SolidsJudge:
  """Makes the judge of clips like those of a source, or the other one, 'filter'.

  Raises ConfigError for clips that it cannot look at.
  """
  height, width = source.size
  if source.frames != FRAMES or source.fps != FPS or height != width or height % SIDE:
    raise ConfigError(
      f'the judge of solids got {source.frames} frames of {height} x {width} at {source.fps} a '
      f'second; expected {FRAMES} of {SIDE} x {SIDE}, or a multiple of that size, at {FPS}'
    )
  source = dataclasses.replace(source, extras=('segmentation',))
  return SolidsJudge(source, load(name))


@functools.cache
def load(name: str) -> dict[str, Any]:
  """Reads a judge's weights: {'frames': tree, 'clips': tree}; ConfigError if there are none."""
  from safetensors.numpy import load_file

  path = _HERE / f'{name}.safetensors'
  if not path.is_file():
    raise ConfigError(
      f'no judge {name!r} comes along; train it, half an hour of two cores: python -m '
      f'mgjax.worlds.solids.judges.training --split={name} --out={path}'
    )
  flat = load_file(path)
  tree: dict[str, Any] = {}
  for key, each in flat.items():
    *folders, last = key.split('/')
    place = functools.reduce(lambda at, folder: at.setdefault(folder, {}), folders, tree)
    place[last] = each.astype(np.float32)
  return tree


def save(path: pathlib.Path, weights: Mapping[str, Any]) -> None:
  """Writes what `load` reads, in half precision."""
  import jax
  from safetensors.numpy import save_file

  rows, _ = jax.tree.flatten_with_path(weights)
  flat = {'/'.join(key.key for key in place): np.asarray(each, np.float16) for place, each in rows}
  save_file(flat, path)


def _looked_at(video: np.ndarray) -> np.ndarray:
  if video.dtype != np.uint8 or video.ndim != 4 or len(video) != FRAMES or video.shape[3] != 3:
    raise DataError(
      f'the judge of solids got {video.dtype} {video.shape}; expected uint8 ({FRAMES}, height, '
      'width, 3)'
    )
  _, height, width, _ = video.shape
  if height != width or height % SIDE:
    raise DataError(
      f'the judge of solids got {height} x {width} pixels; expected {SIDE} x {SIDE} or a multiple'
    )
  if height == SIDE:
    return video
  times = height // SIDE
  blocks = video.reshape(FRAMES, SIDE, times, SIDE, times, 3).astype(np.float32)
  return np.rint(blocks.mean((2, 4))).astype(np.uint8)


def _reading(told: Any, index: int) -> SolidsReading:
  """What the nets say of one clip, in words."""
  solids = {}
  for place, colour in enumerate(COLOURS):
    if told.present[index, place] <= 0:
      continue
    looks = [names[int(each[index, place].argmax())] for names, each in zip(
      LOOKS.values(), told.looks, strict=True
    )]  # fmt: skip
    meets, lands = (_times(told.contacts[index, :, place], kind) for kind in range(len(_LEAST)))
    right, away = told.place[index, place].tolist()
    motion = list(MOTIONS)[int(told.motion[index, place].argmax())]
    solids[colour] = SolidSeen(*looks, motion, (right, away), meets, lands)
  camera = list(CAMERAS)[int(told.camera[index].argmax())]
  return SolidsReading(solids, camera, _amount(told.amount[index], camera))


def _path(rates: Float[np.ndarray, 'k r']) -> Float[np.ndarray, 't 4']:
  """Sums rates (a clip) of the steps, of which the ends hold for the frames beside them."""
  at = np.clip(np.arange(FRAMES - 1) - 1, 0, len(rates) - 1)
  return np.concatenate([np.zeros((1, 4)), np.cumsum(rates[at, :4], 0) / (FRAMES - 1)])


def _times(contacts: Float[np.ndarray, 't 4'], kind: int) -> tuple[float, ...]:
  """Seconds of contacts: where the logit is highest in its surroundings and above `_LEAST`."""
  logits = np.pad(contacts[:, kind], 1, constant_values=-np.inf)
  before, here, after = logits[:-2], logits[1:-1], logits[2:]
  peaks = (here > _LEAST[kind]) & (here >= before) & (here > after)
  frames = np.flatnonzero(peaks)
  late = np.clip(contacts[frames, 2 + kind], 0, 1)
  return tuple(((frames + late) / FPS).tolist())


def _amount(amounts: Float[np.ndarray, 'a'], camera: str) -> float:
  kind = camera.split()[0]
  if kind not in AMOUNTS:
    return 0.0
  amount = float(amounts[AMOUNTS.index(kind)])
  return float(np.exp(amount)) if kind == 'zooms' else amount
