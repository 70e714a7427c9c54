"""Judges clips of solids: reads count, looks, places, motions, contacts and the camera from pixels.

Two small networks (`network.py`) were trained on renders (`training.py`) and ship with the dataset.
Another judge, 'filter', was trained on other scenes with other degradations, so that 'judge' may
judge what it chose. They look at 16 frames of 64 px at 8 a second. Larger clips are averaged down
and smaller ones enlarged, which costs real ones little accuracy
(docs/experiments/solids_sample_faults.md).

A solid is known by its colour, which no other of its scene has. What is asked of a clip are the
statements of its caption (`captions.Statement`), and the score of a kind of statements is the share
of those that are right. The score is a proxy; `references` say what it can be.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.resize import resize
from mgjax.core.typing import Float
from mgjax.lab.worlds.judging import Asked, CameraPath, Prompt, Videos
from mgjax.lab.worlds.solids.captions import Statement, size_word
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.examples import AMOUNTS, FPS, FRAMES, LOOKS, PATHS, SIDE
from mgjax.lab.worlds.solids.kinds import CAMERAS, COLOURS, MATERIALS, MOTIONS, SHAPES, SIZES
from mgjax.lab.worlds.solids.scene import Scene

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
_REFERENCES = 300  # clips
_PAIRS = (('left', 'right'), ('closer', 'away'), ('up', 'down'), ('in', 'out'))
_OTHER_WAY = dict(_PAIRS) | {second: first for first, second in _PAIRS}
# Logits from which on something is read. What both solids of a contact must show is missed sooner.
_LANDS = 0.0
_MEET = -2.3
_SIZES = f'{SIDE // 2} x {SIDE // 2}, {SIDE} x {SIDE} or a multiple'
_HERE = pathlib.Path(__file__).parent
_LARGE = 2**14  # numbers of a matrix in int8; the small ones take a tenth and err as much as these


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
  # How far it went in each of `examples.PATHS` until each frame.
  path: Float[np.ndarray, 't 4'] = np.zeros((FRAMES, 4), np.float32)
  meetings: tuple[tuple[float, str, str], ...] = ()  # seconds and both colours


class Target(NamedTuple):
  """What a clip should show: the scene of its caption, and the caption's statements."""

  scene: Scene
  says: tuple[Statement, ...]


def says_right(reading: SolidsReading, target: Target) -> dict[str, float]:
  """Returns the share of the statements of each factor that a clip shows, NaN if there is none."""
  scores: dict[str, list[bool]] = {name: [] for name in FACTORS}
  names = [solid.colour for solid in target.scene.solids]
  scores['count'].append(len(reading.solids) == len(names))
  for what, solids, value in target.says:
    predicted = [reading.solids.get(names[index]) for index in solids]
    if what == 'colour':
      scores[what].append(predicted[0] is not None)
    elif what in ('shape', 'material', 'size', 'motion'):
      scores[what].append(predicted[0] is not None and getattr(predicted[0], what) == value)
    elif what == 'hits':
      pair = {names[index] for index in solids}
      scores[what].append(any({a, b} == pair for _, a, b in reading.meetings))
    elif what == 'relation':
      scores[what].append(None not in predicted and _stands(*predicted) == value)
    elif what == 'camera':
      scores[what].append(reading.camera == value)
  every = [right for values in scores.values() for right in values]
  shares = {name: float(np.mean(values)) if values else np.nan for name, values in scores.items()}
  return shares | {'all': float(all(every))}


def scores_of(
  readings: Sequence[SolidsReading], requests: Sequence[Asked]
) -> dict[str, Float[np.ndarray, 'b']]:
  """Returns `says_right` for each clip, by factor."""
  rows = [
    says_right(reading, request.label) for reading, request in zip(readings, requests, strict=True)
  ]
  return {name: np.array([row[name] for row in rows]) for name in FACTORS}


def _stands(first: SolidSeen, second: SolidSeen) -> str:
  right, away = np.subtract(first.place, second.place)
  if abs(right) > abs(away):
    return 'right of' if right > 0 else 'left of'
  return 'behind' if away > 0 else 'in front of'


@dataclasses.dataclass(frozen=True)
class SolidsJudge:
  """Reads clips, and asks models for captions of a synthetic dataset's splits; made by
  `make_judge`."""

  source: Solids
  name: str  # of its weights, see `load`

  @property
  def factors(self) -> dict[str, str]:
    return FACTORS

  def asks(self, samples: int) -> dict[str, tuple[Asked, ...]]:
    """Returns captions of scenes that training never showed, so many of each group."""
    return {group: _requests(self.source, group, samples) for group in GROUPS}

  def right(self, videos: Videos, requests: Sequence[Asked]) -> dict[str, Float[np.ndarray, 'b']]:
    """Returns for each clip the share of the statements of each factor that it shows."""
    readings = self.read(videos)
    if len(readings) != len(requests) or not readings:
      raise DataError(
        f'{len(readings)} videos and {len(requests)} captions: give one caption a video'
      )
    return scores_of(readings, requests)

  def references(self, group: str) -> tuple[dict[str, float], dict[str, float]]:
    """Scores real clips, and real clips under the captions of others."""
    return _references(self, group, _REFERENCES)

  def clips(self, requests: Sequence[Asked]) -> list[dict[str, Any]]:
    """Renders the clips of the captions."""
    return [self.source.show(request.label.scene) for request in requests]

  def variants(self, requests: Sequence[Asked]) -> dict[str, list[str]]:
    """Returns captions in the same words of scenes that differ in one factor.

    The first solid has another appearance, or all solids or the camera move the other way.
    """
    captions: dict[str, list[str]] = {}
    for request in requests:
      for name, scene in _varied(request.label.scene).items():
        captions.setdefault(name, []).append(self.source.caption(scene).text)
    return captions

  def paths(self, videos: Videos, requests: Sequence[Asked]) -> list[CameraPath]:
    """Follows the pans, tilts and circles of clips whose captions give degrees, and no others."""
    paths = []
    indices = self.moves(requests)
    if not indices:
      return []
    for reading, index in zip(
      self.read([videos[index] for index in indices]), indices, strict=True
    ):
      request = requests[index]
      move = request.label.scene.camera.move
      amount = _degrees(request)
      path = np.linspace(0, CAMERAS[move].sign * float(amount), FRAMES)
      measured = reading.path[:, PATHS.index(move.split()[0])]
      paths.append(CameraPath(move, 'degrees', path, measured))
    return paths

  def moves(self, requests: Sequence[Asked]) -> list[int]:
    """Returns the indices of captions that say how many degrees the camera moves."""
    return [index for index, request in enumerate(requests) if _degrees(request) is not None]

  def read(self, videos: Videos) -> list[SolidsReading]:
    """Reads what clips show. Raises DataError unless they are uint8 (16 h w 3), 32 px or more."""
    from mgjax.lab.worlds.solids.judges.network import tell  # JAX, only where something is read

    small = np.stack([_looked_at(np.asarray(video)) for video in videos])
    predictions, rates = tell(load(self.name), small)
    return [_reading(predictions, rates, index) for index in range(len(small))]


class SolidsEnlarged:
  """Reads enlarged clips, see `EnlargedJudge` of `lab/worlds/judging.py`.

  A model may have learned from windows: the clips are whole, as long as the judge looks.
  """

  def __init__(self, source: Solids):
    size = tuple(side * source.crop for side in source.size)
    self.source = dataclasses.replace(source, frames=FRAMES, fps=FPS, size=size, crop=1)
    self._judge = make_judge(self.source)

  @property
  def columns(self) -> dict[str, str]:
    return FACTORS

  def kinds(self, indices: Sequence[int]) -> list[str]:
    return ['clips'] * len(indices)

  def read(self, videos: Videos, indices: Sequence[int]) -> dict[str, Float[np.ndarray, 'b']]:
    scenes = [self.source.scene(index) for index in indices]
    return self._judge.right(videos, [_request_of(self.source, scene) for scene in scenes])


class SolidsPrompts:
  """Captions of scenes of every group in turn; a scene is 'split:seed:index'."""

  def rows(self, count: int, seed: int, trained: bool = False) -> list[Prompt]:
    prompts = []
    groups = list(GROUPS.items())[: 1 if trained else None]
    for number in range(count):
      index, group = divmod(number, len(groups))
      title, split = groups[group]
      source = Solids(split, seed=seed, length=count)
      name = f'{split}:{seed}:{index}'
      scene = source.scene(index)
      prompts.append(Prompt(source.caption(scene).text, (title, scene.camera.move), name))
    return prompts

  def asked(self, caption: str, scene: str) -> Asked:
    split, *numbers = scene.split(':')
    if split in GROUPS.values() and len(numbers) == 2 and all(map(str.isdecimal, numbers)):
      seed, index = map(int, numbers)
      source = Solids(split, seed=seed, length=index + 1)
      drawn = source.scene(index)
      if (described := source.caption(drawn)).text == caption:
        return Asked(caption, Target(drawn, described.says))
    raise DataError(f'{caption[:40]!r} is no caption of a suite of solids, such as solids:300')


def _varied(scene: Scene) -> dict[str, Scene]:
  first = scene.solids[0]
  used = {solid.colour for solid in scene.solids}
  other_size = next(size for size in SIZES if size != size_word(first))
  looks = {
    'colour': next(colour for colour in COLOURS if colour not in used),
    'shape': next(shape for shape in SHAPES if shape not in (first.shape, 'ball')),
    'material': next(material for material in MATERIALS if material != first.material),
    'size': sum(SIZES[other_size][0]) / 2,
  }
  variants = {
    name: dataclasses.replace(
      scene, solids=(dataclasses.replace(first, **{name: value}), *scene.solids[1:])
    )
    for name, value in looks.items()
  }
  turned = (dataclasses.replace(solid, motion=_turned(solid.motion)) for solid in scene.solids)
  variants['motion'] = dataclasses.replace(scene, solids=tuple(turned))
  camera = dataclasses.replace(scene.camera, move=_turned(scene.camera.move))
  return variants | {'camera': dataclasses.replace(scene, camera=camera)}


def _turned(way: str) -> str:
  """'rolls right' of 'rolls left'."""
  return ' '.join(_OTHER_WAY.get(word, word) for word in way.split())


@functools.lru_cache(maxsize=8)  # several instruments ask for the same
def _requests(source: Solids, group: str, count: int) -> tuple[Asked, ...]:
  source = dataclasses.replace(source, split=GROUPS[group])
  return tuple(_request_of(source, source.scene(index)) for index in range(count))


def _request_of(source: Solids, scene: Scene) -> Asked:
  caption = source.caption(scene)
  return Asked(caption.text, Target(scene, caption.says))


@functools.lru_cache(maxsize=8)  # several ways to sample one model are judged alike
def _references(
  judge: SolidsJudge, group: str, count: int
) -> tuple[dict[str, float], dict[str, float]]:
  requests = _requests(judge.source, group, count)
  readings = judge.read([sample['video'] for sample in judge.clips(requests)])
  scores = (scores_of(readings, labels) for labels in (requests, requests[1:] + requests[:1]))
  right, shuffled = ({name: _mean(values) for name, values in its.items()} for its in scores)
  return right, shuffled


def _mean(shares: Float[np.ndarray, 'b']) -> float:
  """The mean of what counts, NaN if nothing does."""
  counted = shares[~np.isnan(shares)]
  return float(counted.mean()) if len(counted) else np.nan


def _degrees(request: Asked) -> Any:
  """Returns the degrees in a caption, None if it has none."""
  return next((value for what, _, value in request.label.says if what == 'amount'), None)


def make_judge(source: Solids, name: str = 'judge') -> SolidsJudge:
  """Makes the judge of clips like those of a source, or the other one, 'filter'.

  Raises ConfigError for clips that it cannot look at.
  """
  height, width = source.size
  if source.frames != FRAMES or source.fps != FPS or not _is_read(height, width):
    raise ConfigError(
      f'the judge of solids got {source.frames} frames of {height} x {width} at {source.fps} a '
      f'second; expected {FRAMES} of {_SIZES}, at {FPS}'
    )
  source = dataclasses.replace(source, extras=('segmentation',))
  load(name)  # or says that there is none
  return SolidsJudge(source, name)


def make_filter(source: Solids) -> SolidsJudge:
  """Makes the other judge, for votes; see `make_judge`."""
  return make_judge(source, 'filter')


@functools.cache
def load(name: str) -> JSON:
  """Reads a judge's weights: {'frames': tree, 'clips': tree}.

  Raises ConfigError if there are none, or they are damaged.
  """
  from mgjax.core.safetensors_files import open_tensors, unpacked
  from mgjax.core.tree import nest

  path = _HERE / f'{name}.safetensors'
  if not path.is_file():
    raise ConfigError(
      f'no judge {name!r} ships with mgjax; train it, half an hour of two cores: python -m '
      f'mgjax.lab.worlds.solids.judges.training --split={name} --out={path}'
    )
  with open_tensors(path) as file:
    tensors = {name: file.read(name) for name in file.names}
  return nest({key: tensor.astype(np.float32) for key, tensor in unpacked(tensors).items()})


def save(path: pathlib.Path, weights: Fields) -> None:
  """Writes what `load` reads: large matrices in int8, all else in half precision."""
  from mgjax.core.safetensors_files import in_int8, write_tensors
  from mgjax.core.tree import named_leaves

  tensors = {}
  for key, leaf in named_leaves(weights).items():
    half = np.asarray(leaf, np.float16)
    tensors |= in_int8(key, half, np.float16) if half.size >= _LARGE else {key: half}
  write_tensors(path, tensors)


def _is_read(height: int, width: int) -> bool:
  return height == width and (height * 2 == SIDE or not height % SIDE)


def _looked_at(video: np.ndarray) -> np.ndarray:
  if video.dtype != np.uint8 or video.ndim != 4 or len(video) != FRAMES or video.shape[3] != 3:
    raise DataError(
      f'the judge of solids got {video.dtype} {video.shape}; expected uint8 ({FRAMES}, height, '
      'width, 3)'
    )
  _, height, width, _ = video.shape
  if not _is_read(height, width):
    raise DataError(f'the judge of solids got {height} x {width} pixels; expected {_SIZES}')
  if height == SIDE:
    return video
  if height < SIDE:
    return resize(video, (SIDE, SIDE), 'bicubic')
  times = height // SIDE
  blocks = video.reshape(FRAMES, SIDE, times, SIDE, times, 3).astype(np.float32)
  return np.rint(blocks.mean((2, 4))).astype(np.uint8)


def _reading(predictions: Any, rates: Float[np.ndarray, 'b k r'], index: int) -> SolidsReading:
  """Turns the predictions for one clip into words."""
  present = [slot for slot in range(len(COLOURS)) if predictions.present[index, slot] > 0]
  meetings = _meetings(predictions.contacts[index], present)
  solids = {}
  for slot in present:
    colour = list(COLOURS)[slot]
    looks = [
      names[int(logits[index, slot].argmax())]
      for names, logits in zip(LOOKS.values(), predictions.looks, strict=True)
    ]
    right, away = predictions.place[index, slot].tolist()
    motion = list(MOTIONS)[int(predictions.motion[index, slot].argmax())]
    meets = tuple(sorted(time for time, *both in meetings if colour in both))
    lands = _landings(predictions.contacts[index, :, slot])
    solids[colour] = SolidSeen(*looks, motion, (right, away), meets, lands)
  camera = list(CAMERAS)[int(predictions.camera[index].argmax())]
  return SolidsReading(
    solids, camera, _amount(predictions.amount[index], camera), _path(rates[index]), meetings
  )


def _path(rates: Float[np.ndarray, 'k r']) -> Float[np.ndarray, 't 4']:
  """Sums rates (a clip) of the steps, of which the ends hold for the frames beside them."""
  at = np.clip(np.arange(FRAMES - 1) - 1, 0, len(rates) - 1)
  return np.concatenate([np.zeros((1, 4)), np.cumsum(rates[at, :4], 0) / (FRAMES - 1)])


def _landings(contacts: Float[np.ndarray, 't 4']) -> tuple[float, ...]:
  """Seconds at which a solid lands, where its logit is at a peak."""
  frames = _peaks(contacts[:, 1], _LANDS)
  return tuple(((frames + np.clip(contacts[frames, 3], 0, 1)) / FPS).tolist())


def _meetings(
  contacts: Float[np.ndarray, 't n 4'], present: Sequence[int]
) -> tuple[tuple[float, str, str], ...]:
  """Returns seconds and colours of contacts that both solids show, at most one frame apart."""
  names = list(COLOURS)
  logits = contacts[..., 0]
  padded = np.pad(logits, ((1, 1), (0, 0)), constant_values=-np.inf)
  neighbours = np.stack([padded[:-2], logits, padded[2:]])
  wide = neighbours.max(0)
  frame = np.arange(len(logits))[:, None] + neighbours.argmax(0) - 1
  meetings = []
  for first, second in itertools.combinations(present, 2):
    both = np.maximum(
      np.minimum(logits[:, first], wide[:, second]), np.minimum(wide[:, first], logits[:, second])
    )
    for at in _peaks(both, _MEET):
      times = [
        moment + np.clip(contacts[moment, slot, 2], 0, 1)
        for slot, moment in ((first, frame[at, first]), (second, frame[at, second]))
      ]
      meetings.append((float(np.mean(times)) / FPS, names[first], names[second]))
  return tuple(sorted(meetings))


def _peaks(logits: Float[np.ndarray, 't'], least: float) -> np.ndarray:
  """The frames where a logit is highest in its surroundings and above `least`."""
  before, here, after = np.pad(logits, 1, constant_values=-np.inf)[
    np.arange(3)[:, None] + np.arange(len(logits))
  ]
  return np.flatnonzero((here > least) & (here >= before) & (here > after))


def _amount(amounts: Float[np.ndarray, 'a'], camera: str) -> float:
  kind = camera.split()[0]
  if kind not in AMOUNTS:
    return 0.0
  amount = float(amounts[AMOUNTS.index(kind)])
  return float(np.exp(amount)) if kind == 'zooms' else amount
