"""Measures whom the videos of a personalized model show, and what they copy (Movie Gen §4).

A reference is one picture of handwriting that training never saw, turned, re-weighted, recoloured
and moved; the caption says colour and motion and no number. A model that has learnt what it should
shows that hand in a pose that clips have, as the caption says; one that pastes shows the reference
as it is. So beside whom a video shows stands how far its pose follows that of the reference, and
beside the model what cannot be better, what pastes, and what knows nothing.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_digits
from mgjax.digits.clips import one_of
from mgjax.digits.handwriting import identities_of
from mgjax.digits.identity_judge import IdentityJudge, candidates_for
from mgjax.digits.judge import DigitJudge, train_judge
from mgjax.digits.scene import Scene
from mgjax.evaluation.alignment import LOOKS, held_out_labels, indices_of, world_of
from mgjax.evaluation.metrics.correlations import Correlation
from mgjax.evaluation.metrics.identity import copying
from mgjax.evaluation.metrics.intervals import Share, share
from mgjax.evaluation.reconstruction import evenly
from mgjax.evaluation.record.measured import Measured, found_metric, share_metric
from mgjax.media.contact_sheet import contact_sheet
from mgjax.video.pipeline import VideoPipeline

REFERENCE = 'reference'
OURS = 'model'
ATTRIBUTES = ('digit', 'colour', 'direction', 'identity', 'any pose')
COPIED = ('turn', 'weight', 'place')
SHOWN = 6  # samples on the contact sheet
# Across which the place of a digit in motion is its own; what bounces has none.
_ACROSS = {'left': 'y', 'right': 'y', 'still': 'y', 'up': 'x', 'down': 'x', 'fall': 'x'}

Videos = Sequence[UInt8[np.ndarray, '_ _ _ 3']] | UInt8[np.ndarray, 'b _ _ _ 3']


@dataclasses.dataclass(frozen=True)
class Judged:
  """What is read of one set of videos, one number a video.

  Attributes:
    right: of `ATTRIBUTES`, whether it is as asked: 'identity' is found among 20 hands of one digit,
      in a pose that clips have, 'any pose' also if in another.
    poses: of `COPIED`, in the video.
  """

  right: dict[str, list[bool]]
  poses: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Personalized:
  """Shares and correlations of videos of a model, and of what it can be compared with.

  Attributes:
    judged: way -> what is read of each of its videos.
    references: of `COPIED`, in the references.
    prompts: of the videos.
  """

  judged: dict[str, Judged]
  references: dict[str, list[float]]
  prompts: Sequence[str] = ()

  @property
  def shares(self) -> dict[str, dict[str, Share]]:
    """Way -> attribute -> share of videos that have it as asked."""
    return {
      way: {name: share(right) for name, right in judged.right.items()}
      for way, judged in self.judged.items()
    }

  @property
  def copied(self) -> dict[str, dict[str, Correlation]]:
    """Way -> coordinate -> its correlation with that of the references."""
    return {way: copying(self.references, judged.poses) for way, judged in self.judged.items()}

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values: the table, and of each video of the model what was read."""
    ours = self.judged[OURS]
    each = {name: [int(value) for value in right] for name, right in ours.right.items()}
    return _plain(
      {
        'shares': _values(self.shares),
        'copied': _values(self.copied),
        'each': each | {f'{name} in video': values for name, values in ours.poses.items()},
        'references': self.references,
      }
    )

  def measured(self) -> Measured:
    """Returns the model's shares and correlations, beside those of the other ways."""
    metrics, others = {}, [way for way in self.judged if way != OURS]
    for name, right in self.judged[OURS].right.items():
      beside = {way: self.shares[way][name].value for way in others}
      metrics[f'shares/{OURS}/{name}'] = share_metric(right, name, beside=beside)
    copied = self.copied
    for name, found in copied[OURS].items():
      beside = {way: copied[way][name].value for way in others}
      metrics[f'copied/{OURS}/{name}'] = found_metric(found, f'copied {name}', beside=beside)
    return Measured(metrics, self.prompts, about='reference, video of the model, true clip')

  def table(self) -> str:
    """Formats all ways with 95% intervals, for people."""
    lines = []
    titles = {name: name for name in ATTRIBUTES}, {name: f'copied {name}' for name in COPIED}
    for heads, rows in zip(titles, (self.shares, self.copied), strict=True):
      lines.append(f'{"":26}' + ''.join(f'{title:>22}' for title in heads.values()))
      for way, found in rows.items():
        lines.append(f'{way:26}' + ''.join(f'{found[name]!s:>22}' for name in heads))
      lines.append('')
    chance = max(found.chance for found in self.copied[OURS].values())
    count = len(self.references['turn'])
    return '\n'.join([*lines, f'{count} videos; correlations within {chance:.2f} of 0 are chance'])


@dataclasses.dataclass(frozen=True)
class Shown:
  """One sample, for a picture."""

  caption: str
  reference: UInt8[np.ndarray, '1 h w 3']
  ours: UInt8[np.ndarray, 't h w 3']
  truth: UInt8[np.ndarray, 't h w 3']

  @property
  def beside(self) -> UInt8[np.ndarray, 't h v 3']:
    """Reference, the model's video and the true clip side by side."""
    still = np.repeat(self.reference, len(self.ours), 0)
    return np.concatenate([still, self.ours, self.truth], axis=2)


def judge_personalization(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0
) -> tuple[Personalized, list[Shown]]:
  """Makes a video of each held-out caption and a held-out hand by turns, and judges them.

  Beside the model stand the same without references, which knows nothing of the hand; the captions
  drawn in another hand of the same digit, in which a hand of 20 is found by chance; the references
  themselves, pasted as videos that stand still; the clips of the hand, and what the autoencoder
  makes of them.

  Args:
    pipeline: of a model that was trained on moving digits and reads references.
    samples: videos to judge, at least one a caption.
    seed: of the noise.

  Raises:
    ConfigError: the model was trained on something else, or reads no references.
  """
  if REFERENCE not in pipeline.reads:
    raise ConfigError(
      f'the model reads {", ".join(pipeline.reads) or "nothing"} beside text; expected one that '
      f'reads a {REFERENCE!r}, as configs/digits/personalization.py trains'
    )
  world = world_of(pipeline, 'digits', (*LOOKS, 'turns', 'weights'))
  data = data_settings(fields_of(pipeline.config, 'data'))
  looks = {'frames': world['frames'], 'size': world['size']}
  source = make_digits(data, 'validation', extras=(REFERENCE,), reference='other', **looks)
  scenes = [source.scene(index) for index in indices_of(source, held_out_labels(world, samples)[2])]
  clips = [source.show(scene) for scene in scenes]
  prompts = [clip['caption'] for clip in clips]
  truth = [clip['video'] for clip in clips]
  references = [clip[REFERENCE] for clip in clips]
  ways: dict[str, Videos] = {
    OURS: pipeline.generate(prompts, seed=seed, **pipeline.conditions_of(clips)),
    'model, no reference': pipeline.generate(prompts, seed=seed),
    'another hand (chance)': [source.show(_by_another(scene))['video'] for scene in scenes],
    'reference, pasted': [np.repeat(picture, len(truth[0]), 0) for picture in references],
    'truth, autoencoder': [pipeline.reconstruct(video) for video in truth],
    'truth': truth,
  }
  judges = train_judge(**world), IdentityJudge(world['turns'], world['weights'], source.digit_size)
  found = Personalized(
    judged={way: _judged(*judges, videos, scenes) for way, videos in ways.items()},
    references=_poses(judges[1], references, scenes),
    prompts=prompts,
  )
  shown = zip(prompts, references, ways[OURS], truth, strict=True)
  return found, [Shown(*each) for each in shown]


def _by_another(scene: Scene) -> Scene:
  """The scene in another hand of the same digit, one of training."""
  generator = np.random.default_rng((scene.tiles, 2))
  another = one_of(identities_of('train', int(scene.number)), generator)
  return dataclasses.replace(scene, identities=(another,))


def _judged(
  digits: DigitJudge, hands: IdentityJudge, videos: Videos, scenes: Sequence[Scene]
) -> Judged:
  right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
  for video, scene in zip(videos, scenes, strict=True):
    read, (identity,) = digits.read(video), scene.identities
    likeness = hands.find(video, candidates_for(identity))
    found = likeness.identity == identity
    right['digit'].append(read.digit == int(scene.number))
    right['colour'].append(read.colour == scene.colour)
    right['direction'].append(read.motion == scene.motion)
    right['identity'].append(found and hands.allows(likeness.pose))
    right['any pose'].append(found)
  return Judged(right, _poses(hands, videos, scenes))


def _poses(hands: IdentityJudge, videos: Videos, scenes: Sequence[Scene]) -> dict[str, list[float]]:
  """The poses in which videos, or pictures, show the hands of scenes."""
  found: dict[str, list[float]] = {name: [] for name in COPIED}
  for video, scene in zip(videos, scenes, strict=True):
    pose = hands.find(video, scene.identities).pose
    found['turn'].append(pose.turn)
    found['weight'].append(pose.weight)
    across = _ACROSS.get(scene.motion)
    found['place'].append(getattr(pose, across) if across else float('nan'))
  return found


def _values(table: dict[str, dict[str, Any]]) -> dict[str, Any]:
  return {
    way: {name: dataclasses.asdict(value) for name, value in found.items()}
    for way, found in table.items()
  }


def _plain(values: Any) -> Any:
  """Plain JSON values, None for NaN."""
  if isinstance(values, dict):
    return {name: _plain(value) for name, value in values.items()}
  if isinstance(values, list):
    return [_plain(value) for value in values]
  return None if isinstance(values, float) and math.isnan(values) else values


def write_shown(directory: pathlib.Path, shown: Sequence[Shown]) -> pathlib.Path:
  """Draws of some samples the reference, the model's video and the true clip below each other."""
  shown = [shown[place] for place in evenly(len(shown), SHOWN)]
  directory.mkdir(parents=True, exist_ok=True)
  rows = [video for each in shown for video in (each.reference, each.ours, each.truth)]
  titles = [
    f'{each.caption}: {what}' for each in shown for what in ('reference', 'the model', 'truth')
  ]
  path = directory / 'personalized.png'
  contact_sheet(path, rows, titles)
  return path
