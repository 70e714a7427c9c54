"""References of the person in a clip: faces followed through its shots (Movie Gen §4).

Frames of each shot are sampled, one a second. A shot is taken if each of them shows exactly one
face, and the embeddings of consecutive ones agree; its references are crops of that face.

paired   the references come from the clip itself
cross    they come from other shots of the same video whose face has the clip's identity
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Magnitude, Positive, Range, check
from mgjax.data.media.faces.face import Face, Frame, crop_face, mask_face
from mgjax.data.media.faces.recognition import Faces
from mgjax.lab.curation.filters.scenes import Shot

PEOPLE = (
  'person',
  'people',
  'man',
  'men',
  'woman',
  'women',
  'boy',
  'boys',
  'girl',
  'girls',
  'child',
  'children',
  'kid',
  'kids',
  'baby',
  'toddler',
  'teenager',
  'lady',
  'gentleman',
  'guy',
  'guys',
  'he',
  'she',
  'him',
  'her',
  'his',
  'adult',
  'human',
  'face',
  'portrait',
  'actor',
  'actress',
  'singer',
  'dancer',
  'player',
  'athlete',
  'doctor',
  'nurse',
  'teacher',
  'student',
  'worker',
  'chef',
  'farmer',
  'soldier',
  'astronaut',
  'scientist',
  'musician',
  'speaker',
  'presenter',
  'reporter',
  'driver',
  'rider',
  'runner',
  'couple',
  'bride',
  'groom',
  'mother',
  'father',
  'son',
  'daughter',
  'brother',
  'sister',
  'grandmother',
  'grandfather',
  'friend',
  'customer',
  'tourist',
)


@dataclasses.dataclass(frozen=True)
class ReferenceSettings:
  """How references are made; margin, pixels, seconds and words are not in public sources."""

  side: Positive = 224  # pixels of a reference
  margin: Magnitude = 0.3  # around a face, on each side, as a share of its box
  rate: Annotated[float, Range(above=0)] = 1.0  # frames a second that are looked at (§4)
  references: Positive = 5  # of a clip (§4); of fewer frames some come more than once
  pixels: Positive = 32  # that the face in a frame has at least
  seconds: Magnitude = 2.0  # that a shot has at least
  shots: Annotated[int, Range(least=1, most=64)] = 8  # of one video that are looked at
  words: tuple[str, ...] = PEOPLE  # of which a caption with a person has one

  def __post_init__(self):
    check(self)
    if self.seconds * self.rate < 2:
      raise ConfigError(
        f'seconds = {self.seconds:g} at rate = {self.rate:g}; expected two frames of a shot at '
        'least, or there is nothing to compare'
      )


def names_person(caption: str, words: Sequence[str] = PEOPLE) -> bool:
  """Says whether a caption has one of the words, or the possessive of one, in any case."""
  return not {word.lower() for word in words}.isdisjoint(re.findall(r'[^\W\d_]+', caption.lower()))


@dataclasses.dataclass
class Track:
  """The face of one shot, frame by frame."""

  shot: Shot
  reason: str = ''  # why the shot cannot be used
  references: list[np.ndarray] = dataclasses.field(default_factory=list)  # uint8 (side side 3) each
  vectors: list[np.ndarray] = dataclasses.field(default_factory=list)  # unit vectors
  boxes: list[tuple[float, ...]] = dataclasses.field(default_factory=list)  # shares
  seconds: list[float] = dataclasses.field(default_factory=list)  # of the frames, in the video
  cosines: list[float] = dataclasses.field(default_factory=list)  # of consecutive frames

  def look(
    self,
    time: float,
    frame: Frame,
    faces: Faces,
    settings: ReferenceSettings,
    seen: Callable[[float, Frame, list[Face]], None] = lambda *_: None,
  ) -> None:
    """Adds a frame, unless the shot was rejected; calls `seen` with the detected faces."""
    if self.reason:
      return
    detections = faces.find([frame])[0]
    seen(time, frame, detections)
    if len(detections) != 1:
      self.reason = f'{len(detections) or "no"} face{"s" * (len(detections) > 1)} at {time:.2f} s'
      return
    face = detections[0]
    if (size := min(face.height, face.width)) < settings.pixels:
      self.reason = f'a face of {size:.0f} pixels at {time:.2f} s, fewer than {settings.pixels}'
      return
    vector = faces.embed([frame], detections)[0]
    if self.vectors:
      cosine = float(vector @ self.vectors[-1])
      if cosine < faces.threshold:
        self.reason = (
          f'another face at {time:.2f} s than before: similarity {cosine:.3f}, '
          f'less than {faces.threshold:g}'
        )
        return
      self.cosines.append(cosine)
    self.references.append(mask_face(crop_face(frame, face, settings.side, settings.margin)))
    self.vectors.append(vector)
    self.boxes.append(face.within(*frame.shape[:2]))
    self.seconds.append(time)

  def end(self) -> None:
    """Says that the shot is over."""
    if not self.reason and len(self.vectors) < 2:
      self.reason = f'only {len(self.vectors)} frames to compare'

  @property
  def identity(self) -> np.ndarray:
    """The mean of its vectors, a unit vector."""
    mean = np.mean(self.vectors, axis=0)
    return mean / np.linalg.norm(mean)


def paired_fields(track: Track, settings: ReferenceSettings) -> JSON:
  """Returns the fields of a record whose references come from the clip itself."""
  return _fields([(track, number) for number in range(len(track.vectors))], settings, False)


def cross_fields(
  track: Track, tracks: Sequence[Track], threshold: float, settings: ReferenceSettings
) -> dict[str, Any] | None:
  """Returns the fields of a record whose references come from other shots; None if none agrees."""
  identity = track.identity
  candidates = [
    (candidate, number)
    for candidate in tracks
    if candidate is not track and not candidate.reason
    for number, vector in enumerate(candidate.vectors)
    if float(vector @ identity) >= threshold
  ]
  return _fields(candidates, settings, True) if candidates else None


def _fields(
  candidates: Sequence[tuple[Track, int]], settings: ReferenceSettings, cross: bool
) -> dict[str, Any]:
  """Chooses references evenly among the candidates.

  reference         uint8 (n side side 3), outside of the masks 0
  reference_box     float32 (n 4): top, left, height, width of each face as shares of its frame
  reference_second  float32 (n): of each frame in the video
  """
  indices = np.linspace(0, len(candidates) - 1, settings.references).round().astype(int)
  chosen = [candidates[index] for index in indices]
  return {
    'reference': np.stack([track.references[number] for track, number in chosen]),
    'reference_box': np.array([track.boxes[number] for track, number in chosen], np.float32),
    'reference_second': np.array([track.seconds[number] for track, number in chosen], np.float32),
    'cross': cross,
  }
