"""What a synthetic dataset offers to those who measure models: judges of its clips, behind one
contract.

A synthetic dataset names its judges in its row of `table.WORLDS`; what makes one takes the source
that a model was trained on. A judge says what to ask of a model (captions that training never
showed), reads what it made, and says what real clips score, so that a number has a ceiling and a
floor.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.typing import Float, Sample, UInt8

Videos = Sequence[np.ndarray] | UInt8[np.ndarray, 'b t h w 3']


class Asked(NamedTuple):
  """A caption to sample, and the label that its synthetic dataset has for the clip."""

  caption: str
  label: Any


@runtime_checkable
class VideoJudge(Protocol):
  """Reads clips of one synthetic dataset, of one shape."""

  @property
  def factors(self) -> Mapping[str, str]:
    """What is read, name -> label in tables; all of it is in 'all', the last."""

  def asks(self, samples: int) -> Mapping[str, Sequence[Asked]]:
    """What a model is asked for, by group of captions: about so many samples of each."""

  def right(
    self, videos: Videos, requests: Sequence[Asked]
  ) -> Mapping[str, Float[np.ndarray, 'b']]:
    """Returns the share of a caption's statements that a clip shows, by factor; NaN for none."""

  def references(self, group: str) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What real clips of a group score, by factor, and real clips under captions of others."""

  def clips(self, requests: Sequence[Asked]) -> list[dict[str, Any]]:
    """Returns samples of the dataset with these captions that are not in training."""


@runtime_checkable
class DiverseJudge(VideoJudge, Protocol):
  """A judge that also says how much the clips of one caption differ, and compares distributions."""

  def diversity(self, videos: Videos, requests: Sequence[Asked]) -> float:
    """Returns how much clips of a label differ: 1 as much as real ones, 0 for copies."""

  def features(self, videos: Videos) -> Float[np.ndarray, 'b d']:
    """Numbers of each clip whose distributions are compared (Frechet distance)."""


@runtime_checkable
class VariedJudge(VideoJudge, Protocol):
  """A judge that also knows what a caption might have said instead."""

  def variants(self, requests: Sequence[Asked]) -> Mapping[str, Sequence[str]]:
    """Returns captions that differ in one factor, by its name; unchanged if they lack it."""


class Prompt(NamedTuple):
  """A caption that training never showed, what it tests, and where its scene is found."""

  caption: str
  concepts: tuple[str, ...]
  scene: str  # '' where the caption says all


class Prompts(Protocol):
  """What any model, of ours or not, is asked for in a suite of prompts, and is judged by."""

  def rows(self, count: int, seed: int, trained: bool = False) -> list[Prompt]:
    """Returns so many captions, in an order that the seed says; `trained`: as training has them."""

  def asked(self, caption: str, scene: str) -> Asked:
    """Returns what a judge needs to know; DataError if the caption is none of this synthetic
    dataset."""


@runtime_checkable
class ReferencesJudge(Protocol):
  """Asks for clips of what references show, and reads whom clips show, and how they were taken.

  It is made of the source of training.
  """

  @property
  def attributes(self) -> tuple[str, ...]:
    """What `right` says."""

  @property
  def copied(self) -> tuple[str, ...]:
    """What `poses` says."""

  def asks(self, samples: int) -> list[Asked]:
    """About so many captions and identities that training never showed."""

  def clips(self, requests: Sequence[Asked]) -> list[dict[str, Any]]:
    """Returns samples of the dataset, with 'reference' (r h w 3) and 'identity', a number."""

  def ways(self, requests: Sequence[Asked]) -> dict[str, Videos]:
    """Returns the clips of baselines, by name."""

  def right(self, videos: Videos, requests: Sequence[Asked]) -> Mapping[str, list[bool]]:
    """Returns whether clips have each of `attributes`."""

  def poses(self, videos: Videos, requests: Sequence[Asked]) -> Mapping[str, list[float]]:
    """Returns the poses in clips or pictures, by the names in `copied`; NaN if unknown."""


class AskedEdit(NamedTuple):
  """An edit to judge a model by; `name` is the row of a table that it counts in."""

  name: str
  edit: Any  # with `task`, `instruction` and what the world knows
  before: UInt8[np.ndarray, 't h w 3']
  after: UInt8[np.ndarray, 't h w 3']


class JudgedEdit(NamedTuple):
  """What is read of one edited clip: which parts of it are right; numbers, NaN where none is."""

  parts: Mapping[str, bool]
  numbers: Mapping[str, float]

  @property
  def right(self) -> bool:
    """Whether all is as asked and all else is kept."""
    return all(self.parts.values())


@runtime_checkable
class EditsJudge(Protocol):
  """Asks for edits of clips of one synthetic dataset and reads them; it is made of the source of
  training."""

  @property
  def tasks(self) -> tuple[str, ...]:
    """What can be asked for of such clips."""

  @property
  def numbers(self) -> Mapping[str, 'Column']:
    """Those of `JudgedEdit`."""

  @property
  def uncounted(self) -> tuple[str, ...]:
    """Rows that count in no mean over tasks."""

  def asks(self, samples: int, tasks: Sequence[str]) -> list[AskedEdit]:
    """Edits of clips that training never showed, about so many, at least one of each task."""

  def read(self, requests: Sequence[AskedEdit], videos: Videos) -> list[JudgedEdit]:
    """Judges an edited video for each request."""


class CameraPath(NamedTuple):
  """How far the camera of a clip has moved until each frame, as asked for and as it is read."""

  move: str
  unit: str
  asked: Float[np.ndarray, 't']
  read: Float[np.ndarray, 't']


@runtime_checkable
class CameraJudge(VideoJudge, Protocol):
  """A judge that also follows the camera."""

  def paths(self, videos: Videos, requests: Sequence[Asked]) -> list[CameraPath]:
    """Returns the paths of the clips at the indices of `moves`."""

  def moves(self, requests: Sequence[Asked]) -> list[int]:
    """Returns the indices of captions that say how far the camera moves."""


class Picture(NamedTuple):
  """A picture of one thing, its caption, and who is looked for among whom.

  An `identity` is looked for, from one view to the next, among those of its `group`.
  """

  image: UInt8[np.ndarray, 'h w 3']
  caption: str
  group: Any
  view: int
  identity: int


@runtime_checkable
class PicturesJudge(Protocol):
  """Knows pictures of one synthetic dataset and all that captions may say of them; it is made of a
  source."""

  @property
  def identities(self) -> str:
    """What an identity is, in tables, as in 'handwriting in another colour'."""

  @property
  def prompts(self) -> tuple[str, ...]:
    """Captions of pictures of whom a reference shows."""

  @property
  def recognised(self) -> float:
    """The cosine by a CLIP's head from which on two pictures show one identity; NaN if unknown."""

  @property
  def choices(self) -> list[tuple[str, JSON]]:
    """Every caption there is, and what it says, name -> value."""

  def pictures(self, count: int) -> list[Picture]:
    """So many pictures that training did not show, at most."""


@runtime_checkable
class EnlargedJudge(Protocol):
  """Reads clips of one synthetic dataset that were enlarged; it is made of the source that
  validates."""

  @property
  def source(self) -> Any:
    """Whole clips that training did not show."""

  @property
  def columns(self) -> Mapping[str, str]:
    """The numbers of `read`, name -> label in tables; more is better."""

  def kinds(self, indices: Sequence[int]) -> list[str]:
    """Names a kind of each clip of the source; each kind has a table of its own."""

  def read(self, videos: Videos, indices: Sequence[int]) -> dict[str, Float[np.ndarray, 'b']]:
    """Says how much of what clips of the source show is read from such videos; NaN if nothing."""


class Column(NamedTuple):
  """A number of a table: its label, what it is multiplied by there, and which way is better."""

  label: str
  scale: float
  better: int


@runtime_checkable
class SoundJudge(Protocol):
  """Hears audio of clips of one synthetic dataset; it is made without a source."""

  @property
  def columns(self) -> Mapping[str, Column]:
    """The numbers of `scores`, attributes of it."""

  def read(self, sounds: Iterable[np.ndarray], samples: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Compares audio (s c) of 48 kHz with what is to be heard of as many samples."""

  def scores(self, readings: Sequence[object]) -> Any:
    """Sums readings up; NaN where there was nothing to score."""

  def long_clips(self, source: object, times: int, count: int) -> list[Sample]:
    """Samples of a source, `times` as long as training's, in which something is heard all along."""
