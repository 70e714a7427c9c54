"""What a conditioning is: one Linen module in one file, which answers with `Ports`."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.ports import Ports

Latents = tuple[int, ...]  # shape (t h w c) of the latents of one row
Arrays = Mapping[str, jax.ShapeDtypeStruct]


class Cut(NamedTuple):
  """A prompt of `size` `unit` ('bytes', 'words' or 'tokens'), of which `read` are read, as `text`.

  `wanted` is what the field `length` would have to be to read it whole.
  """

  size: int
  read: int
  unit: str
  text: str
  wanted: int


class Conditioning(nn.Module):
  """The base of all conditionings, which override what applies to them.

  `requires` and `__call__` are about batches on the devices, the others about samples on the host.
  Of the fields `dim` (width d of the model), `patch` (of the backbone, along t, h, w) and `dtype`
  it is handed those that it declares; configurations say nothing of them. Shapes of latents are
  those of one row, (t h w c).

  Where `optional`, arrays may be missing from a batch, or be zero in a row: then it answers as for
  a dropped row. Others must be there. A person who samples must give one of the fields `needs`.
  """

  optional: ClassVar[bool] = False
  needs: ClassVar[tuple[str, ...]] = ()

  def requires(self, latents: Latents) -> Arrays:
    """Returns the arrays of a batch that `__call__` reads, by name, as one row has them."""
    raise NotImplementedError(f'{type(self).__name__}.requires')

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the fields of a sample that it reads beside 'caption' and 'fps', with their shapes.

    A person who samples gives conditions by these names. (t h w 3) are pictures, which may then be
    files; () is anything else, such as a word or a number. Records of latents keep these fields,
    but for those that `encodes` names, of which they keep the latents. `shape` has frames, height
    and width of what is generated, in pixels; (t, 1, 1) of sound.
    """
    return {}

  def encodes(self) -> tuple[str, ...]:
    """Names those of the arrays it requires that are latents of a clip, made by the codec."""
    return ()

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the clips that the codec must encode, by the names of `encodes`; none if absent.

    A clip is what the codec reads: uint8 (t h w 3), float16 where bytes may also be 127.5, which
    is grey, or float32 (s c) of sound.
    """
    return {}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Turns a sample's fields into the other arrays that it requires, on the host."""
    return {}

  def cut(self, sample: Fields) -> Cut | None:
    """Returns what it reads of a sample's prompt where that is not all of it, else None."""
    return None

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    """Returns what it adds to the model for the arrays of a batch, the batch axis first.

    Rows where `drop` is True must come out as if there were no condition at all.
    """
    raise NotImplementedError(f'{type(self).__name__}.__call__')


def array(shape: tuple[int, ...], dtype: object) -> jax.ShapeDtypeStruct:
  """Describes an array of one row, for `requires`."""
  return jax.ShapeDtypeStruct(shape, dtype)
