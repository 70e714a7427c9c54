"""Finds a person in pictures, and writes videos of them with what the model was shown."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError, first_line
from mgjax.core.resize import resize
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.faces.face import Face, Frame, crop_face, mask_face
from mgjax.data.media.faces.pictures import read_picture
from mgjax.data.media.faces.recognition import Faces, open_faces
from mgjax.models.flow_model.build import make_flow_model
from mgjax.sections.personalization.references import References, identity_conditioning
from mgjax.sections.video.files import Samples
from mgjax.training.checkpoints.workdir import read_config_of

COMPONENT = 'personalization'
NOUN = 'a personalized video model'


class ReferenceReader:
  """Finds the person in pictures; needs no more of a model than its configuration.

  `shape` is of what the model is shown of a person (r s s 3).
  """

  def __init__(
    self, workdir: str | os.PathLike[str], deny_list: str | os.PathLike[str] | None = None
  ):
    """Reads the configuration and the deny list, and no weights.

    Args:
      workdir: of a run of the component 'personalization'.
      deny_list: a .npy of embeddings (n d) of people of whom no videos are made, by the embedder of
        `config.references.faces`.

    Raises:
      ConfigError: the directory does not hold a personalized model; or there is a deny list, but
        the model looks for no faces, or what finds them is not installed.
      DataError: the deny list cannot be used.
    """
    config = read_config_of(workdir, COMPONENT, NOUN)
    self.shape = identity_conditioning(make_flow_model(fields_of(config, 'model'))).shape
    self._references = References.of(config.to_dict())
    self._denied = None if deny_list is None else _read_denied(deny_list, self.faces)

  @functools.cached_property
  def faces(self) -> Faces | None:
    """What finds and compares faces; None of a model that takes pictures whole."""
    name = self._references.faces
    return open_faces(name) if name else None

  def read(self, reference: Any) -> UInt8[np.ndarray, 'r s s 3']:
    """Returns the masked crops of a face that the model is conditioned on; the rest is black.

    Args:
      reference: a file or an array (h w 3), or a tuple of several of one person. An array
        (r s s 3) holds crops already, as training samples and records do; no face is detected.

    Raises:
      ConfigError: there are more than the model reads, an array is of another shape or type, or the
        person is on the deny list.
      DataError: a file cannot be read, no face is found, several are, or they are not of one
        person.
    """
    most, side = self.shape[:2]
    ready = not isinstance(reference, tuple) and getattr(reference, 'ndim', 0) == 4
    reference = reference if ready or isinstance(reference, tuple) else (reference,)
    if not 1 <= len(reference) <= most:
      raise ConfigError(
        f'{len(reference)} references; the model reads 1 to {most} of a person '
        '(config.model.conditionings.identity.references)'
      )
    crops = list(reference) if ready else self._crops(reference)
    expected = (np.uint8, (side, side, 3))
    if wrong := [crop for crop in crops if (crop.dtype, crop.shape) != expected]:
      raise ConfigError(
        f'a crop is {wrong[0].dtype} of shape {wrong[0].shape}; expected uint8 {expected[1]}. Give '
        'a picture (h w 3), or the name of its file, to have the face found in it'
      )
    padded = np.zeros(self.shape, np.uint8)
    padded[: len(crops)] = crops
    return padded

  def _crops(self, pictures: Sequence[Any]) -> list[UInt8[np.ndarray, '_ _ 3']]:
    """Crops the face of each picture; a model without faces gets the whole picture."""
    names = [f'reference {i + 1}' if _is_array(p) else os.fspath(p) for i, p in enumerate(pictures)]
    frames = [
      _checked(name, picture) if _is_array(picture) else read_picture(picture)
      for name, picture in zip(names, pictures, strict=True)
    ]
    if dark := [name for name, frame in zip(names, frames, strict=True) if not frame.any()]:
      raise DataError(f'{dark[0]}: is all black, so nobody is to be seen; give another picture')
    side = self.shape[1]
    if self.faces is None:
      return [resize(frame[None], (side, side), 'area')[0] for frame in frames]
    detections = self.faces.find(frames)
    for name, detected in zip(names, detections, strict=True):
      if len(detected) != 1:
        seen = f'{len(detected)} faces were found' if detected else 'no face was found'
        raise DataError(
          f'{name}: {seen}; expected one. Give a picture of the person alone, from the front, with '
          f'the face at least {self.faces.smallest:.0%} of its shorter side'
        )
    faces = [one for (one,) in detections]
    self._check_who(names, self.faces.embed(frames, faces), self.faces.threshold)
    return [self.cut_out(frame, face) for frame, face in zip(frames, faces, strict=True)]

  def cut_out(self, picture: Frame, face: Face) -> UInt8[np.ndarray, 's s 3']:
    """Cuts a face out of a picture as the model is shown it, the rest black."""
    return mask_face(crop_face(picture, face, self.shape[1], self._references.margin))

  def denies(self, vectors: Float[np.ndarray, 'n d'], threshold: float) -> bool:
    """Says whether one of these unit vectors is of a person on the deny list."""
    return self._denied is not None and bool((vectors @ self._denied.T >= threshold).any())

  def _check_who(
    self, names: Sequence[str], vectors: Float[np.ndarray, 'n d'], threshold: float
  ) -> None:
    if self.denies(vectors, threshold):
      raise ConfigError(
        'the reference is of a person on the deny list, of whom no videos are made; take a picture '
        'of a person who has agreed'
      )
    for name, likeness in zip(names[1:], vectors[1:] @ vectors[0], strict=True):
      if likeness < threshold:
        raise DataError(
          f'{name} does not show the person of {names[0]} (cosine {likeness:.2f}, expected '
          f'{threshold:.2f} or more); references are pictures of one person'
        )


@dataclasses.dataclass(frozen=True)
class PersonalSamples(Samples):
  """One video of a person a prompt.

  Attributes:
    reference: of one person, as `ReferenceReader.read` takes them, or what it returned; a list is
      one person for each prompt.
    deny_list: as of `ReferenceReader`; `check` looks at it, and a pipeline has one of its own.
  """

  reference: Any = None
  deny_list: str | os.PathLike[str] | None = None

  def check(self, workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}) -> None:
    """Checks the model, the person and where videos go; see `Request.check`."""
    if self.reference is None:
      raise ConfigError(
        '--reference is missing: a picture of the person, or several, as in --reference=face.jpg'
      )
    ReferenceReader(workdir, self.deny_list).read(self.reference)
    super().check(workdir, changes)

  def write(self, pipeline: Any) -> list[pathlib.Path]:
    """Generates the videos with a `PersonalizationPipeline`; writes them, the crops first.

    `..._reference.png` has the crops that the model was shown, and is not signed, since no model
    made it. The json has digests of these crops, neither pixels nor names of files.
    """
    if self.reference is None or isinstance(self.reference, list):
      return self._samples(self.reference).write(pipeline)
    crops = pipeline.reader.read(self.reference)
    frames = self.frames or pipeline.default_shape[0]
    pipeline.check((frames, *(self.size or pipeline.default_shape[1:])))
    out, alone = self.destination(frames)
    sheet = out.with_name(f'{out.stem}_reference.png') if alone else out / 'reference.png'
    there = [crop[None] for crop in crops if crop.any()]
    contact_sheet(sheet, there, [f'reference {index + 1}' for index in range(len(there))])
    return [sheet, *self._samples(crops).write(pipeline)]

  def _samples(self, reference: Any) -> Samples:
    """Returns the request of videos conditioned on the person."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(Samples)}
    condition = {} if reference is None else {'reference': reference}
    return Samples(**{**fields, 'conditions': {**self.conditions, **condition}})


def _is_array(value: Any) -> bool:
  return hasattr(value, 'ndim')


def _checked(name: str, picture: Any) -> Frame:
  array = np.asarray(picture)
  if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
    raise ConfigError(
      f'{name} is {array.dtype} of shape {array.shape}; expected a picture, uint8 (h w 3)'
    )
  return array


def _read_denied(path: str | os.PathLike[str], faces: Faces | None) -> Float[np.ndarray, 'n d']:
  """Returns the unit vectors of a deny list."""
  file_name = os.fspath(path)
  if faces is None:
    raise ConfigError(
      f'deny_list = {file_name!r}: this model looks for no faces (config.references.faces is '
      'empty), so it recognises nobody; leave it out'
    )
  mend = f'mgjax.data.media.faces.recognition.open_faces({faces.name!r}).embed makes them'
  try:
    vectors = np.load(path, allow_pickle=False)
    vectors = np.asarray(vectors, np.float64) if isinstance(vectors, np.ndarray) else None
  except (OSError, ValueError, TypeError, EOFError) as error:
    raise DataError(
      f'deny_list: cannot read {file_name!r}: {first_line(error)}; expected a .npy of numbers, as '
      f'{mend}'
    ) from error
  if vectors is None:
    raise DataError(
      f'deny_list: {file_name!r} holds several arrays; expected a .npy of one, as {mend}'
    )
  size = faces.embed([np.zeros((64, 64, 3), np.uint8)], [Face(8, 8, 48, 48)]).shape[1]
  if vectors.ndim != 2 or vectors.shape[1] != size:
    raise DataError(
      f'deny_list: {file_name!r} has shape {vectors.shape}; expected rows of {size} numbers, as '
      f'{mend}'
    )
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  if wrong := np.flatnonzero(~((lengths > 0) & np.isfinite(lengths))[:, 0]).tolist():
    raise DataError(
      f'deny_list: row {wrong[0]} of {file_name!r} has the length {lengths[wrong[0], 0]:g}, so it '
      f'is of nobody; expected embeddings, as {mend}'
    )
  return vectors / lengths
