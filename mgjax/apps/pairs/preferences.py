"""Pairs of samples of one prompt and a vote for one of them, for training from preferences.

A model makes two clips of a caption, a judge reads both, and the better one is chosen.
If the dataset has another judge for 'votes', that one votes, and the judge of evaluations does not.
With a `strength` below 1 both begin with one real clip that is noised to a middle time. They then
differ in what the vote is about and not in how much they move (DenseDPO, arXiv 2506.03517).
Rows of people's votes come from `read_rows`. `flow.distillation.preference` is the objective that
learns it.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.apps.encode import stored_type
from mgjax.apps.pairs.make_pairs import Pair, PairMaker, PairsResult, make_pairs, rounded
from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, first_line
from mgjax.core.settings import Count, Magnitude, Positive, Strength, check, fields_of, unpack
from mgjax.core.typing import Sample
from mgjax.data.buckets import Shape
from mgjax.data.media.video import read_clip
from mgjax.data.records.rows import text_key
from mgjax.data.records.writer import ALONE, Share
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.shape import whole
from mgjax.data.sources import SPLITS, make_world
from mgjax.data.synthetic_datasets import judge_of, judged, prompts_of, source_of
from mgjax.flow.distillation.preference import REJECTED_KEY
from mgjax.lab.worlds.judging import Asked
from mgjax.models.flow_model.build import make_flow_model
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.editing.pipeline import Editor
from mgjax.sections.editing.requests import SDEDIT
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.sections.video.section import about_videos
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.load_params import digest_of

_SEEDS = {'train': 1, 'validation': 2}  # of prompts; 0 is that of suites, which evaluation asks


@dataclasses.dataclass(frozen=True)
class Preferences:
  """`config.preferences`: whose samples are compared, and by whom.

  Attributes:
    model: work directory of the text-to-video model that makes them.
    votes: a .jsonl of rows {'prompt', 'chosen', 'rejected'}, the latter two clips, in place of a
      judge; '' has the judge of the synthetic dataset vote.
    prompts: of the training data, of each of which there are two samples.
    validation: the same of the validation data.
    strength: 1 makes both samples of noise alone; below, of a real clip of the caption that is
      noised so far.
    least: by how much the judge's scores differ at least, of 1.
    seed: of prompts and noise.
  """

  model: str = ''
  votes: str = ''
  prompts: Positive = 1024
  validation: Positive = 128
  strength: Strength = 1.0
  least: Magnitude = 0.01
  seed: Count = 0

  def __post_init__(self):
    check(self)
    if bool(self.model) == bool(self.votes):
      raise ConfigError(
        f'preferences.model = {self.model!r} and preferences.votes = {self.votes!r}; expected a '
        'model whose samples a judge compares, or a .jsonl of votes'
      )


def prefer(
  config: Fields,
  directory: str | os.PathLike[str],
  *,
  batch_size: int = 16,
  samples_per_shard: int = 128,
  share: Share = ALONE,
) -> dict[str, PairsResult]:
  """Writes the latents of preference pairs for `config.data.latents`.

  The same command goes on after a stop, and ends with the same records (`make_pairs`).

  Args:
    config: of a model that learns from preferences, with `preferences`, as plain values.
    directory: what `data.latents` is then.
    batch_size: prompts at a time.
    share: of the work, where several processes do it at once.

  Returns:
    'train/<bucket>' and 'validation/<bucket>' -> how many pairs there are.

  Raises:
    ConfigError: a field is wrong, or as `make_pairs`.
    DataError: there is no pair, or a file of votes cannot be read.
  """
  settings = unpack(Preferences, fields_of(config, 'preferences'), 'preferences')
  data = data_settings(fields_of(config, 'data')).without_latents()
  shapes = video_shapes(fields_of(config, 'buckets'), data.fps)
  codec = load_codec(config['autoencoder'])
  dtype = stored_type(config['encode']['dtype'])
  conditionings = make_flow_model(fields_of(config, 'model')).conditionings
  votes = read_rows(settings.votes) if settings.votes else []
  results: dict[str, PairsResult] = {}
  for split in SPLITS:
    for bucket, shape in shapes.items():
      if votes:
        source = _Rows(votes, split, settings, shape)
        make: Any = functools.partial(_voted, codec, dtype)
        made_by: JSON = {}
      else:
        rate = {'fps': whole(data.fps, 'data.fps')} if source_of(data.kind).by_seconds else {}
        world = make_world(data, 'train', frames=shape.frames, size=shape.size, **rate)
        source = _Prompts(data.kind, split, settings)
        votes_of = 'votes' if data.kind in judged('votes') else 'video'
        maker = _Maker(settings, judge_of(data.kind, votes_of)(world), codec, dtype, batch_size)
        make = maker.make
        made_by = {'model': digest_of(settings.model), **maker.sampling}
      pairs = PairMaker(
        make,
        meta={
          'statistics': codec.statistics.as_dict(),
          'dtype': config['encode']['dtype'],
          **about_videos(shape, conditionings, codec),
          'data': data.content(),
          'preferences': dataclasses.asdict(settings) | made_by,
        },
      )
      results[f'{split}/{bucket}'] = make_pairs(
        source,
        pairs,
        pathlib.Path(directory) / split / bucket,
        batch_size=batch_size,
        samples_per_shard=samples_per_shard,
        share=share,
      )
  return results


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
  """Reads votes as TRL has them: lines {'prompt', 'chosen', 'rejected'}, clips by their paths.

  Paths are relative to the file. Raises DataError if it is not there, or a line is none.
  """
  folder = pathlib.Path(path).parent
  rows = []
  try:
    lines = pathlib.Path(path).read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'{os.fspath(path)!r}: no votes can be read: {first_line(error)}') from error
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      rows.append({name: os.fspath(folder / row[name]) for name in ('chosen', 'rejected')})
      rows[-1]['prompt'] = row['prompt'] + ''  # TypeError of what is no text
    except (ValueError, TypeError, KeyError) as error:
      raise DataError(
        f'{os.fspath(path)!r}, line {number}: {line[:80]}; expected '
        '{"prompt": ..., "chosen": "a.mp4", "rejected": "b.mp4"}'
      ) from error
  if not rows:
    raise DataError(f'{os.fspath(path)!r} has no votes')
  return rows


class _Rows:
  """Votes of people: one in nine of them, and one at least, validates."""

  def __init__(
    self, rows: Sequence[Mapping[str, str]], split: str, settings: Preferences, shape: Shape
  ):
    held = [index % 9 == 8 or len(rows) < 9 for index in range(len(rows))]
    in_split = [len(rows) < 9 or is_held == (split == 'validation') for is_held in held]
    self._rows = [row for row, mine in zip(rows, in_split, strict=True) if mine]
    self._shape = shape
    self.fingerprint = f'{settings.votes}, {split}, {fingerprint_of(self._rows)}'

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Sample:
    row = self._rows[index]
    shape = self._shape
    clips = {
      name: read_clip(row[name], frames=shape.frames, size=shape.size, fps=shape.fps[-1])
      for name in ('chosen', 'rejected')
    }
    return {'caption': row['prompt'], 'fps': shape.fps[-1], **clips}


class _Prompts:
  """Captions of a synthetic dataset as training has them, other than those that evaluation asks."""

  def __init__(self, world: str, split: str, settings: Preferences):
    count = settings.prompts if split == 'train' else settings.validation
    prompts = prompts_of(world)
    seed = 10 * settings.seed + _SEEDS[split]
    rows = prompts.rows(count, seed, trained=True)
    self._requests = [prompts.asked(row.caption, row.scene) for row in rows]
    self.fingerprint = f'{world} {split} {seed} {count}'

  def __len__(self) -> int:
    return len(self._requests)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'asked': self._requests[index]}


class _Maker:
  def __init__(self, settings: Preferences, judge: Any, codec: Any, dtype: jnp.dtype, rows: int):
    self._settings = settings
    self._judge = judge
    self._codec = codec
    self._dtype = dtype
    self._rows = rows
    kind = VideoPipeline if settings.strength == 1 else Editor
    self._model = kind(settings.model)
    self.sampling = {'sampling': self._model.settings}

  def make(
    self, indices: Sequence[int], samples: Sequence[Mapping[str, Any]]
  ) -> Iterator[Sequence[Pair]]:
    requests: list[Asked] = [sample['asked'] for sample in samples]
    # One program serves all batches.
    filled = [*requests, *[requests[0]] * (self._rows - len(requests))]
    both = [self._sample(filled, indices[0], which) for which in range(2)]
    scores = [_score(self._judge.right(videos, filled)) for videos in both]
    latents = [np.asarray(self._codec.encode(videos), np.float32) for videos in both]
    fps = self._model.config.data.fps
    for row, request in enumerate(requests):
      first = scores[0][row] >= scores[1][row]
      better, worse = (0, 1) if first else (1, 0)
      chosen, rejected = (rounded(scores[which][row]) for which in (better, worse))
      margin = rounded(chosen - rejected)  # 0.57 - 0.56 is less than 0.01
      pair_row = _row(request.caption, fps, latents[better][row], latents[worse][row], self._dtype)
      reason = '' if margin >= self._settings.least else 'as good as each other'
      pair_scores = {'chosen': chosen, 'rejected': rejected}
      clips = both[better][row], both[worse][row]
      yield [Pair(request.caption, pair_row, pair_scores, reason, clips)]

  def _sample(self, requests: Sequence[Asked], first: int, which: int) -> np.ndarray:
    captions = [request.caption for request in requests]
    options = {'seed': 2 * self._settings.seed + which, 'first': first}
    if self._settings.strength == 1:
      return np.asarray(self._model.generate(captions, **options))
    clips = [sample['video'] for sample in self._judge.clips(requests)]
    options |= {'how': SDEDIT, 'strength': self._settings.strength}
    return np.asarray(self._model.generate(captions, video=clips, **options))


def _voted(
  codec: Any, dtype: jnp.dtype, indices: Sequence[int], samples: Sequence[Fields]
) -> Iterator[Sequence[Pair]]:
  """Makes rows of the pairs that people voted on; drops none."""
  del indices
  chosen, rejected = (
    np.asarray(codec.encode(np.stack([sample[name] for sample in samples])), np.float32)
    for name in ('chosen', 'rejected')
  )
  for row, sample in enumerate(samples):
    pair_row = _row(sample['caption'], sample['fps'], chosen[row], rejected[row], dtype)
    yield [Pair(sample['caption'], pair_row, {}, '', (sample['chosen'], sample['rejected']))]


def _row(
  caption: str, fps: float, chosen: np.ndarray, rejected: np.ndarray, dtype: jnp.dtype
) -> JSON:
  return {
    'latents': chosen.astype(dtype),
    REJECTED_KEY: rejected.astype(dtype),
    'caption': caption,
    'text_key': text_key(caption),
    'fps': float(fps),
  }


def _score(right: Mapping[str, np.ndarray]) -> np.ndarray:
  """Returns the mean accuracy over the factors of a caption, for each clip."""
  factors = [np.asarray(factor, np.float64) for name, factor in right.items() if name != 'all']
  return np.nanmean(np.stack(factors), axis=0)
