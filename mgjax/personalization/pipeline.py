"""A trained personalized video model: pictures of somebody and prompts in, videos out."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.conditioning.identity import KEY
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.resize import resize
from mgjax.core.typing import Float, UInt8
from mgjax.media.faces.face import crop_face, mask_face
from mgjax.media.faces.pictures import read_picture
from mgjax.media.faces.recognition import Faces, open_faces
from mgjax.personalization.task import identity_of, references_of
from mgjax.video.pipeline import VideoPipeline

Picture = UInt8[np.ndarray, 'h w 3']


class PersonalizationPipeline(VideoPipeline):
  """Generates videos of somebody; attributes as `FlowPipeline`.

  `generate`, `stream` and `save` take `reference`, beside the options of `VideoPipeline`: a file or
  an array (h w 3), a tuple of several of one person, or a list of one of these for each prompt,
  None where there is none.
  """

  component, noun = 'personalization', 'a personalized video model'

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    deny_list: str | os.PathLike[str] | None = None,
    mesh: Mapping[str, int] | str | None = None,
    **changes: Any,
  ):
    """Reads the averaged weights.

    Args:
      workdir: of a run of the component 'personalization'.
      deny_list: a .npy of embeddings (n d) of people of whom no videos are made, by the embedder of
        `config.references.faces`.
      mesh: sizes of the mesh axes, see `VideoPipeline`.
      **changes: of `config.sample`: solver, schedule, steps, guidance; None keeps the run's.

    Raises:
      ConfigError: the directory does not hold a personalized model.
      CheckpointError: it has no checkpoint that can be trusted.
    """
    super().__init__(workdir, mesh=mesh, **changes)
    self._shape = identity_of(self.config).shape
    self._references = references_of(self.config)
    faces = self._references.faces
    self._faces = open_faces(faces) if faces else None
    self._denied = None if deny_list is None else _read_denied(deny_list, self._faces)

  def read_reference(self, given: Any) -> UInt8[np.ndarray, 'r s s 3']:
    """Returns what the model is shown of a person: masked crops of their face, the rest black.

    Args:
      given: a file or an array (h w 3), or a tuple of several of one person; an array (r s s 3) is
        crops already, as samples and records of training have them.

    Raises:
      ConfigError: there are more than the model reads, or the person is on the deny list.
      DataError: a file cannot be read, no face is found, several are, or they are not of one
        person.
    """
    if not isinstance(given, tuple) and getattr(given, 'ndim', 0) == 4:
      crops = list(given)
    else:
      crops = self._crops(given if isinstance(given, tuple) else (given,))
    most, side = self._shape[:2]
    if not 1 <= len(crops) <= most:
      raise ConfigError(
        f'{len(crops)} references; the model reads 1 to {most} of a person '
        '(config.model.conditionings.identity.references)'
      )
    if wrong := [crop.shape for crop in crops if crop.shape != (side, side, 3)]:
      raise ConfigError(
        f'a crop of shape {wrong[0]}; expected ({side}, {side}, 3). Give a picture (h w 3), or the '
        'name of its file, to have the face found in it'
      )
    shown = np.zeros(self._shape, np.uint8)
    shown[: len(crops)] = crops
    return shown

  def _crops(self, pictures: Sequence[Any]) -> list[Picture]:
    """Finds the face in each picture, if the model is one of faces, and cuts it out."""
    names = [f'reference {i + 1}' if _is_array(p) else os.fspath(p) for i, p in enumerate(pictures)]
    frames = [np.asarray(p) if _is_array(p) else read_picture(p) for p in pictures]
    side = self._shape[1]
    if self._faces is None:
      return [resize(frame, (side, side), 'area') for frame in frames]
    found = self._faces.find(frames)
    for name, faces in zip(names, found, strict=True):
      if len(faces) != 1:
        seen = f'{len(faces)} faces were found' if faces else 'no face was found'
        raise DataError(
          f'{name}: {seen}; expected one. Give a picture of the person alone, from the front, with '
          f'the face at least {self._faces.smallest:.0%} of its shorter side'
        )
    faces = [one for (one,) in found]
    self._check_who(names, self._faces.embed(frames, faces))
    margin = self._references.margin
    return [
      mask_face(crop_face(frame, face, side, margin))
      for frame, face in zip(frames, faces, strict=True)
    ]

  def _check_who(self, names: Sequence[str], vectors: Float[np.ndarray, 'n d']) -> None:
    threshold = self._faces.threshold
    if self._denied is not None and (vectors @ self._denied.T >= threshold).any():
      raise ConfigError(
        'the reference is of a person on the deny list, of whom no videos are made; take a picture '
        'of somebody who has agreed'
      )
    for name, likeness in zip(names[1:], vectors[1:] @ vectors[0], strict=True):
      if likeness < threshold:
        raise DataError(
          f'{name} does not show the person of {names[0]} (cosine {likeness:.2f}, expected '
          f'{threshold:.2f} or more); references are pictures of one person'
        )

  def stream(
    self, prompts: Sequence[str] | None = None, *, reference: Any = None, **options: Any
  ) -> Iterator[UInt8[np.ndarray, 't h w 3']]:
    """Generates one video a prompt; see `VideoPipeline.stream`, and the class for `reference`."""
    if isinstance(reference, list):
      given = [None if each is None else self.read_reference(each) for each in reference]
    else:
      given = None if reference is None else [self.read_reference(reference)] * len(prompts or [''])
    return super().stream(prompts, **options, **{KEY: given})


def _is_array(given: Any) -> bool:
  return hasattr(given, 'ndim')


def _read_denied(path: str | os.PathLike[str], faces: Faces | None) -> Float[np.ndarray, 'n d']:
  """Returns the unit vectors of a deny list."""
  if faces is None:
    raise ConfigError(
      f'deny_list = {os.fspath(path)!r}: this model looks for no faces (config.references.faces is '
      'empty), so it recognises nobody; leave it out'
    )
  try:
    vectors = np.load(path, allow_pickle=False).astype(np.float64)
  except (OSError, ValueError) as error:
    raise DataError(f'deny_list: cannot read {os.fspath(path)!r}: {error}') from error
  size = faces.embedder.embed([np.zeros((64, 64, 3), np.uint8)]).shape[1]
  lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
  if vectors.ndim != 2 or vectors.shape[1] != size or not (lengths > 0).all():
    raise DataError(
      f'deny_list: {os.fspath(path)!r} has shape {vectors.shape}; expected rows of {size} numbers, '
      f'as mgjax.media.faces.recognition.open_faces({faces.name!r}).embed makes them'
    )
  return vectors / lengths
