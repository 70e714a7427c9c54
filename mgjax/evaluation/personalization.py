"""Measures whom the videos of a personalized model show, and what they copy (Movie Gen §4).

A reference is one picture of handwriting that training never saw, turned, re-weighted, recoloured
and moved; the caption says colour and motion and no number. A model that has learnt what it should
shows that hand in a pose that clips have; one that pastes shows the reference as it is. So beside
whom a video shows stands how far its pose follows that of the reference.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.evaluation.metrics.identity import copying
from mgjax.evaluation.metrics.intervals import share
from mgjax.evaluation.record.measured import Grid, Measured, found_metric, share_metric
from mgjax.evaluation.record.show import Shown
from mgjax.evaluation.worlds.alignment import world_of
from mgjax.video.pipeline import VideoPipeline
from mgjax.worlds.digits.clips import one_of
from mgjax.worlds.digits.handwriting import identities_of
from mgjax.worlds.digits.judges.digit import DigitJudge, train_judge
from mgjax.worlds.digits.judges.identity import IdentityJudge, candidates_for
from mgjax.worlds.digits.judges.video import LOOKS, held_out_labels, indices_of
from mgjax.worlds.digits.scene import Scene

REFERENCE = 'reference'
OURS = 'model'
ATTRIBUTES = ('digit', 'colour', 'direction', 'identity', 'any pose')
COPIED = ('turn', 'weight', 'place')
# Across which the place of a digit in motion is its own; what bounces has none.
_ACROSS = {'left': 'y', 'right': 'y', 'still': 'y', 'up': 'x', 'down': 'x', 'fall': 'x'}

Videos = Sequence[UInt8[np.ndarray, '_ _ _ 3']] | UInt8[np.ndarray, 'b _ _ _ 3']


def judge_personalization(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0
) -> tuple[Measured, list[Shown]]:
  """Makes a video of each held-out caption and a held-out hand by turns, and judges them.

  Beside the model stand the same without references; the captions drawn in another hand of the same
  digit, in which a hand of 20 is found by chance; the references, pasted as videos that stand
  still; the clips of the hand, and what the autoencoder makes of them.
  """
  if REFERENCE not in pipeline.reads:
    raise ConfigError(
      f'the model reads {", ".join(pipeline.reads) or "nothing"} beside text; expected one that '
      f'reads a {REFERENCE!r}, as configs/digits/personalization.py trains'
    )
  world = world_of(pipeline, 'digits', (*LOOKS, 'turns', 'weights'))
  data = data_settings(fields_of(pipeline.config, 'data'))
  looks = {'frames': world['frames'], 'size': world['size']}
  source = make_world(data, 'validation', extras=(REFERENCE,), reference='other', **looks)
  scenes = [source.scene(index) for index in indices_of(source, held_out_labels(world, samples))]
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
  right, poses = {}, {}
  for way, videos in ways.items():
    right[way] = _right(*judges, videos, scenes)
    poses[way] = _poses(judges[1], videos, scenes)
  pasted = _poses(judges[1], references, scenes)
  shares, copied, metrics = {}, {}, {}
  for way in ways:
    shares[way] = {name: share(each) for name, each in right[way].items()}
    copied[way] = copying(pasted, poses[way])
  others = [way for way in ways if way != OURS]
  for name, each in right[OURS].items():
    beside = {way: shares[way][name].value for way in others}
    metrics[f'shares/{OURS}/{name}'] = share_metric(each, name, beside=beside)
  for name, found in copied[OURS].items():
    beside = {way: copied[way][name].value for way in others}
    metrics[f'copied/{OURS}/{name}'] = found_metric(found, f'copied {name}', beside=beside)
  each = {name: [int(value) for value in found] for name, found in right[OURS].items()}
  chance = max(found.chance for found in copied[OURS].values())
  measured = Measured(
    metrics,
    prompts,
    about='reference, video of the model, true clip',
    record={
      'shares': shares,
      'copied': copied,
      'each': each | {f'{name} in video': found for name, found in poses[OURS].items()},
      'references': pasted,
    },
    table=[
      Grid(ATTRIBUTES, {way: [str(found[name]) for name in ATTRIBUTES]
                        for way, found in shares.items()}),
      '',
      Grid([f'copied {name}' for name in COPIED],
           {way: [str(found[name]) for name in COPIED] for way, found in copied.items()}),
      '',
      f'{len(prompts)} videos; correlations within {chance:.2f} of 0 are chance',
    ],
  )  # fmt: skip
  titles = ('reference', 'the model', 'truth')
  shown = []
  for prompt, *videos in zip(prompts, references, ways[OURS], truth, strict=True):
    shown.append(Shown(prompt, dict(zip(titles, videos, strict=True))))
  return measured, shown


def _by_another(scene: Scene) -> Scene:
  """The scene in another hand of the same digit, one of training."""
  generator = np.random.default_rng((scene.tiles, 2))
  another = one_of(identities_of('train', int(scene.number)), generator)
  return dataclasses.replace(scene, identities=(another,))


def _right(
  digits: DigitJudge, hands: IdentityJudge, videos: Videos, scenes: Sequence[Scene]
) -> dict[str, list[bool]]:
  """Whether videos have each of `ATTRIBUTES`; an 'identity' is one of 20, in a pose of clips."""
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
  return right


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
