"""Clips with references that a model made: the same person, seen otherwise (Movie Gen §4).

A personalized model makes pictures of the person in a clip, from the clip's first reference, under
prompts of other expressions, poses and light. If one person is seen in a picture, and is the one
of the clip's own first frame, the masked crop becomes a reference of the clip. The clip's row with
these references is a synthetic cross pair. A model that is trained on such does not learn to paste.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from mgjax.apps.pairs.make_pairs import Pair, PairMaker, PairsResult, make_pairs, rounded
from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.core.resize import resize
from mgjax.core.settings import Count, Positive, Range, check
from mgjax.core.typing import Float, Sample, UInt8
from mgjax.data.ingest.clip_check import COLUMNS, open_row
from mgjax.data.media.faces.face import Frame
from mgjax.data.media.faces.pictures import SIDE
from mgjax.data.media.video import stream_frames
from mgjax.data.records.reader import Records
from mgjax.data.synthetic_datasets import judge_of
from mgjax.sections.clip.pipeline import Clip
from mgjax.sections.personalization.pipeline import PersonalizationPipeline
from mgjax.training.checkpoints.load_params import digest_of

PROMPTS = (
  'a portrait of a person who laughs, in bright daylight',
  'a portrait of a person with a serious look, lit from one side',
  'a portrait of a person who turns the head to the left, in warm evening light',
  'a portrait of a person who turns the head to the right, indoors',
  'a portrait of a person who looks up, under an overcast sky',
  'a portrait of a person who looks down, in the light of a lamp',
  'a portrait of a surprised person with an open mouth, in a dark room',
  'a portrait of a person who smiles with closed lips, against the sun',
)
_DARK = 32  # of 255; a picture of a world without a brighter spot shows nobody
_CLIPS_PER_SHARD = 16  # by default
_MADE = -1.0  # `reference_second` of a picture that is of no second of the video


@dataclasses.dataclass(frozen=True)
class CrossPairSettings:
  """Which pictures are made of a person, and which are kept.

  Attributes:
    threshold: the cosine with the clip's first frame from which on a picture shows its person. The
      paper's 0.7 is ArcFace's and means nothing for another embedder (Movie Gen §4).
    prompts: of the pictures, one each; not in public sources.
    least: pictures that must be left of a clip; not in public sources.
  """

  threshold: Annotated[float, Range(least=-1, most=1)]
  prompts: tuple[str, ...] = PROMPTS
  least: Positive = 2
  seed: Count = 0

  def __post_init__(self):
    check(self)
    if self.least > len(self.prompts):
      raise ConfigError(
        f'least = {self.least} pictures must be left of {len(self.prompts)}, one a prompt; lower '
        'it, or give more prompts'
      )


class Seen(NamedTuple):
  """The one person in a picture: what a model is shown of them, who they are, and where.

  `box` is (top, left, height, width) as shares of the picture.
  """

  crop: UInt8[np.ndarray, 's s 3']
  vector: Float[np.ndarray, ' d']
  box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


class Look(NamedTuple):
  """Tells who is in a picture.

  Attributes:
    see: a picture to who is seen, or to a reason why nobody is.
    known: what that depends on beside the model, as plain JSON values.
  """

  see: Callable[[Frame], Seen | str]
  known: Fields


def look_for_face(pipeline: PersonalizationPipeline) -> Look:
  """Returns a `Look` that finds the face in a picture, with the model's detector and embedder."""
  faces = pipeline.reader.faces
  if faces is None:
    raise ConfigError(
      'this model looks for no faces (config.references.faces is empty); say who is seen by a CLIP '
      'with a head for identities, as in --recogniser=runs/clip'
    )

  def see(picture: Frame) -> Seen | str:
    detected = faces.find([picture])[0]
    if len(detected) != 1:
      return 'several faces' if detected else 'no face'
    vectors = faces.embed([picture], detected)
    if pipeline.reader.denies(vectors, faces.threshold):
      return 'a person on the deny list'
    box = detected[0].within(*picture.shape[:2])
    return Seen(pipeline.reader.cut_out(picture, detected[0]), vectors[0], box)

  references = pipeline.config.references.to_dict()
  return Look(see, {'faces': faces.name, 'references': references})


def look_at_whole(recogniser: Clip, side: int) -> Look:
  """Returns what takes a picture of a synthetic dataset whole; a CLIP's head says whom it shows.

  Args:
    recogniser: with a head for identities.
    side: of references, in pixels.
  """

  def see(picture: Frame) -> Seen | str:
    if picture.max() < _DARK:
      return 'nothing to be seen'
    return Seen(_resized(picture, side, side), recogniser.encode_identities(picture[None])[0])

  return Look(see, {'recogniser': digest_of(recogniser.weights['workdir'])})


class PairedClips:
  """Clips of records with references of their own; rows that are cross pairs are left out."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens records; DataError if they have no clips with references."""
    self._records = Records(directory)
    first = self._records[0] if len(self._records) else {}
    if missing := [name for name in ('media', 'reference') if name not in first]:
      raise DataError(
        f'{os.fspath(directory)}: rows have no {missing[0]!r}; expected records of clips with '
        'references, as launch.data references makes them'
      )
    cross = np.zeros(len(self._records), bool)
    if 'cross' in first:
      cross = self._records.column('cross').astype(bool)
    self._rows = np.flatnonzero(~cross)

  @property
  def fingerprint(self) -> str:
    """Names the rows; which of them count depends on nothing else."""
    return self._records.fingerprint

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Sample:
    return self._records[int(self._rows[index])]


def make_cross_pairs(
  pipeline: PersonalizationPipeline,
  clips: PairedClips,
  directory: str | os.PathLike[str],
  look: Look,
  settings: CrossPairSettings,
  *,
  batch_size: int = 16,
  **options: Any,
) -> PairsResult:
  """Writes records of clips with references that a model made; see `make_pairs`.

  Args:
    batch_size: pictures at a time.
    **options: `samples_per_shard` and `share` of `make_pairs`.

  Raises:
    ConfigError: the model cannot make pictures, or as `make_pairs`.
    DataError: there is no clip, or none is left.
    StorageError: a clip that was there is gone.
  """
  shape = (1, *pipeline.default_shape[1:])
  pipeline.check(shape)

  def draw(index: int, reference: np.ndarray) -> UInt8[np.ndarray, 'n h w 3']:
    side = pipeline.reader.shape[1]
    return pipeline.generate(
      settings.prompts,
      reference=resize(reference, (side, side), 'area'),
      first=index * len(settings.prompts),
      batch_size=batch_size,
      seed=settings.seed,
      shape=shape,
    )[:, 0]

  maker = PairMaker(
    lambda indices, rows: (
      _pairs_of(index, row, look.see, settings, draw)
      for index, row in zip(indices, rows, strict=True)
    ),
    meta={
      'weights': digest_of(pipeline.weights['workdir']),
      'sampling': pipeline.settings,
      'shape': shape,
      'pictures_at_once': batch_size,
      'settings': dataclasses.asdict(settings),
      **look.known,
    },
    columns=(*COLUMNS, 'cross', 'synthetic'),
  )
  options = {'samples_per_shard': _CLIPS_PER_SHARD, **options}
  return make_pairs(clips, maker, directory, batch_size=1, **options)


def cross_pairs(
  pipeline: PersonalizationPipeline,
  records: str | os.PathLike[str],
  directory: str | os.PathLike[str],
  *,
  recogniser: str | os.PathLike[str] | None = None,
  threshold: float | None = None,
  prompts: Sequence[str] | None = None,
  **options: Any,
) -> PairsResult:
  """Makes synthetic cross pairs of records, for faces, or for a synthetic dataset.

  Args:
    records: of `launch.data references`.
    recogniser: work directory of a CLIP with a head for identities, for a model without faces.
    threshold: see `CrossPairSettings`; by default the embedder's, or the dataset's.
    prompts: of the pictures; by default `PROMPTS`, or the dataset's of a model without faces.
    **options: of `make_cross_pairs`.

  Raises:
    ConfigError: as `make_cross_pairs`, or nothing tells who is seen.
    DataError: as `make_cross_pairs`, or there are no such records.
  """
  clips = PairedClips(records)
  if recogniser is None:
    look = look_for_face(pipeline)
    usual = pipeline.reader.faces.threshold
    default_prompts = PROMPTS
  else:
    look = look_at_whole(Clip(recogniser), pipeline.reader.shape[1])
    world = judge_of(pipeline.config.data.kind, 'pictures')
    usual = world.recognised
    default_prompts = world.prompts
    if threshold is None and math.isnan(usual):
      raise ConfigError(
        'there is no default threshold for the identities of this dataset; give one, as '
        'in --threshold=0.7'
      )
  settings = CrossPairSettings(
    threshold=usual if threshold is None else threshold, prompts=tuple(prompts or default_prompts)
  )
  return make_cross_pairs(pipeline, clips, directory, look, settings, **options)


def _pairs_of(
  index: int,
  row: Fields,
  see: Callable[[Frame], Seen | str],
  settings: CrossPairSettings,
  draw: Callable[[int, np.ndarray], UInt8[np.ndarray, 'n h w 3']],
) -> list[Pair]:
  """Generates pictures of the person in a clip; the first accepted one carries the row.

  If nobody is found in the clip itself, it is the only pair, and dropped.
  """
  crops = row['reference']
  side = crops.shape[1]
  name = f'clip {index}'
  try:
    frame = _first_frame(row)
  except StorageError:
    raise
  except DataError:
    return [Pair(name, None, {}, 'the clip cannot be read', [crops[:1]])]
  own = see(frame)
  beside = [_resized(frame, side)[None], crops[:1]]
  if isinstance(own, str):
    return [Pair(name, None, {}, f"{own} in the clip's first frame", beside)]
  pictures = draw(index, crops[:1])
  matches = []
  judged = []
  for seen in map(see, pictures):
    if isinstance(seen, str):
      judged.append((seen, {}, seen))
      continue
    score = rounded(seen.vector @ own.vector)
    right = score >= settings.threshold
    matches += [seen] if right else []
    judged.append((seen, {'cosine': score}, '' if right else 'another person'))
  enough = len(matches) >= settings.least
  few = '' if enough else f'fewer than {settings.least} of its clip are left'
  pairs = []
  for prompt, picture, (seen, scores, reason) in zip(
    settings.prompts, pictures, judged, strict=True
  ):
    crop = np.zeros_like(crops[0]) if isinstance(seen, str) else _resized(seen.crop, side, side)
    first = enough and seen is matches[0]
    paired_row = {**row, **_fields(matches, len(crops), side)} if first else None
    media = [*beside, _resized(picture, side)[None], crop[None]]
    pairs.append(Pair(f'{name}, {prompt}', paired_row, scores, reason or few, media))
  return pairs


def _fields(matches: Sequence[Seen], count: int, side: int) -> dict[str, Any]:
  """Returns the fields of `single_person_references` and `synthetic`; repeats few matches."""
  taken = [matches[n] for n in np.linspace(0, len(matches) - 1, count).round().astype(int)]
  return {
    'reference': np.stack([_resized(seen.crop, side, side) for seen in taken]),
    'reference_box': np.array([seen.box for seen in taken], np.float32),
    'reference_second': np.full(count, _MADE, np.float32),
    'cross': True,
    'synthetic': True,
  }


def _first_frame(row: Fields) -> Frame:
  frames = stream_frames(open_row(dict(row)), SIDE)
  return next(frame for _, end, frame in frames if end > max(row['start'], 0.0))


def _resized(picture: Frame, height: int, width: int | None = None) -> Frame:
  """Returns a picture of some height, and of its own aspect where no width is given."""
  width = width or max(1, round(picture.shape[1] * height / picture.shape[0]))
  return resize(picture[None], (height, width), 'area')[0]
