"""Measures whom the videos of a personalized model show, and what they copy (Movie Gen §4).

A model that has learned what it should shows the identity of a reference as clips show it; one that
pastes shows the reference as it is. So beside whom a video shows stands how far its pose follows
that of the reference. What identities and poses are, the judge of the synthetic dataset says.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import UInt8
from mgjax.lab.evaluation.record.measured import Measured, found_metric, share_metric
from mgjax.lab.evaluation.record.show import Shown
from mgjax.lab.evaluation.worlds.alignment import judge_for
from mgjax.lab.statistics.correlations import correlate
from mgjax.lab.statistics.intervals import share
from mgjax.lab.worlds.judging import ReferencesJudge, Videos
from mgjax.sections.clip.pipeline import Clip
from mgjax.sections.video.pipeline import VideoPipeline

REFERENCE = 'reference'
OURS = 'model'
DISTRACTORS, SAMPLED = 100, 8  # other identities, and frames of a video


def judge_personalization(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0, recogniser: Clip | None = None
) -> tuple[Measured, list[Shown]]:
  """Makes a video of each held-out caption and identity by turns, and judges them.

  Beside the model stand the same without references, what the judge of the synthetic dataset
  compares with, the references, pasted as videos that stand still, the true clips, and what the
  autoencoder makes of them. A recogniser says of frames whom they show, see `recognised`.
  """
  if REFERENCE not in pipeline.reads:
    raise ConfigError(
      f'the model reads {", ".join(pipeline.reads) or "nothing"} beside text; expected one that '
      f'reads a {REFERENCE!r}, as configs/digits/personalization.py trains'
    )
  judge: ReferencesJudge = judge_for(pipeline, 'references')
  asked = judge.asks(samples)
  clips = judge.clips(asked)
  prompts = [each.caption for each in asked]
  truth = [clip['video'] for clip in clips]
  references = [clip[REFERENCE] for clip in clips]
  ways: dict[str, Videos] = {
    OURS: pipeline.generate(prompts, seed=seed, **pipeline.conditions_of(clips)),
    'model, no reference': pipeline.generate(prompts, seed=seed),
    **judge.ways(asked),
    'reference, pasted': [np.repeat(picture[:1], len(truth[0]), 0) for picture in references],
    'truth, autoencoder': [pipeline.reconstruct(video) for video in truth],
    'truth': truth,
  }
  right = {way: judge.right(videos, asked) for way, videos in ways.items()}
  poses = {way: judge.poses(videos, asked) for way, videos in ways.items()}
  pasted = judge.poses(references, asked)
  if recogniser is not None:
    identities = [int(clip['identity']) for clip in clips]
    seen = recognised(recogniser, ways, [picture[0] for picture in references], identities)
    right = {way: {**right[way], **seen[way]} for way in ways}
  shares = {}
  copied = {}
  metrics = {}
  for way in ways:
    shares[way] = {name: share(each) for name, each in right[way].items()}
    # A model that knows whom it shows, and copies no picture, has 0 but for chance; pasting has 1.
    copied[way] = {name: correlate(pasted[name], poses[way][name]) for name in pasted}
  others = [way for way in ways if way != OURS]
  for name, each in right[OURS].items():
    beside = {way: shares[way][name].value for way in others}
    metrics[f'shares/{OURS}/{name}'] = share_metric(each, name, beside=beside)
  for name, found in copied[OURS].items():
    beside = {way: copied[way][name].value for way in others}
    metrics[f'copied/{OURS}/{name}'] = found_metric(found, f'copied {name}', beside=beside)
  each = {name: [int(value) for value in found] for name, found in right[OURS].items()}
  chance = max((found.chance for found in copied[OURS].values()), default=0.0)
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
    notes=[f'{len(prompts)} videos; correlations within {chance:.2f} of 0 are chance'],
  )
  titles = ('reference', 'the model', 'truth')
  shown = []
  for prompt, *videos in zip(prompts, references, ways[OURS], truth, strict=True):
    shown.append(Shown(prompt, dict(zip(titles, videos, strict=True))))
  return measured, shown


def recognised(
  recogniser: Clip,
  ways: Mapping[str, Videos],
  references: Sequence[UInt8[np.ndarray, 'h w 3']],
  identities: Sequence[int],
) -> dict[str, dict[str, list[bool]]]:
  """Says whom the frames of videos show, by an embedding (Movie Gen §4, Table 14).

  The best and the worst frame of a video are the most and the least like its reference. They show
  its identity if they are more like it than like the references of up to 100 other videos. In a
  consistent video each sampled frame is as like the next as references of two identities are in one
  of twenty cases at most.
  """
  known = recogniser.encode_identities(np.stack(references))
  if len(set(identities)) < 2:
    raise ConfigError('one identity cannot be compared with others; take more samples')
  first = {identity: place for place, identity in reversed(list(enumerate(identities)))}
  others = [
    [place for identity, place in first.items() if identity != own][:DISTRACTORS]
    for own in identities
  ]
  between = np.concatenate([known[own] @ known[rest].T for own, rest in enumerate(others)])
  alike = float(np.quantile(between, 0.95))
  found = {}
  best_of, worst_of = (f'{name} frame, of {len(others[0]) + 1}' for name in ('best', 'worst'))
  for way, videos in ways.items():
    rows: dict[str, list[bool]] = {best_of: [], worst_of: [], 'consistent': []}
    for own, video in enumerate(videos):
      frames = recogniser.encode_identities(np.asarray(video)[:: max(1, len(video) // SAMPLED)])
      likeness = frames @ known[own]
      rivals = (frames @ known[others[own]].T).max(1)
      for name, frame in ((best_of, likeness.argmax()), (worst_of, likeness.argmin())):
        rows[name].append(bool(likeness[frame] > rivals[frame]))
      following = np.einsum('te,te->t', frames[1:], frames[:-1])
      rows['consistent'].append(bool((following > alike).all()))
    found[way] = rows
  return found
