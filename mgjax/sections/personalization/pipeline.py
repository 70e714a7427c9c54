"""A trained personalized video model: pictures of a person and prompts in, videos out."""

import functools
import inspect
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mgjax.models.conditioning.identity import REFERENCE_KEY
from mgjax.sections.flow.calls import callable_as
from mgjax.sections.personalization.files import COMPONENT, NOUN, PersonalSamples, ReferenceReader
from mgjax.sections.video.pipeline import VideoPipeline


class PersonalizationPipeline(VideoPipeline):
  """Generates videos of a person; attributes as `FlowPipeline`, and `reader`, of references.

  `generate`, `stream` and `save` take `reference`, beside the options of `VideoPipeline`: a file or
  an array (h w 3), or a tuple of several of one person. A list has one of these for each prompt,
  None where there is none.
  """

  component, noun = COMPONENT, NOUN

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    deny_list: str | os.PathLike[str] | None = None,
    **options: object,
  ):
    """Reads the averaged weights; see `FlowPipeline`, and of `deny_list` `ReferenceReader`."""
    super().__init__(workdir, **options)
    self.reader = ReferenceReader(workdir, deny_list)

  @functools.partial(callable_as, like=VideoPipeline.stream)
  def stream(
    self, prompts: Sequence[str] | None = None, *, reference: object = None, **options: object
  ) -> Iterator[Any]:
    """Generates one video a prompt; see `VideoPipeline.stream`, and the class for `reference`."""
    if isinstance(reference, list):
      crops = [None if person is None else self._read(person) for person in reference]
    else:
      crops = None if reference is None else [self._read(reference)] * len(prompts or [''])
    return super().stream(prompts, **options, **{REFERENCE_KEY: crops})

  def _read(self, reference: object) -> Any:
    """Reads the pictures of a person, images of PIL as well."""
    if isinstance(reference, tuple):
      return self.reader.read(tuple(map(_pixels, reference)))
    return self.reader.read(_pixels(reference))

  generate = callable_as(inspect.unwrap(VideoPipeline.generate), like=stream)

  def _request(self) -> type[PersonalSamples]:
    return PersonalSamples


def _pixels(picture: Any) -> object:
  return np.asarray(picture.convert('RGB')) if hasattr(picture, 'convert') else picture
