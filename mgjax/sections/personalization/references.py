"""Settings of the pictures of people that personalized models read."""

import dataclasses
from typing import Annotated

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Positive, Range, fields_of, unpack
from mgjax.models.conditioning.identity import Identity
from mgjax.models.flow_model.model import FlowModel


@dataclasses.dataclass(frozen=True)
class References(Checked):
  """`config.references`: pictures of the people in clips, and of those whom a user brings.

  Attributes:
    per_clip: how many the training data have of a clip.
    faces: what finds and compares faces in a user's pictures, see
      `mgjax.data.media.faces.recognition.open_faces`; '' takes pictures whole, as of moving digits.
    margin: around a face, as a share of its box. Not in public sources.
  """

  per_clip: Positive = 5
  faces: str = ''
  margin: Annotated[float, Range(least=0, most=2)] = 0.3

  @classmethod
  def of(cls, fields: Fields) -> 'References':
    """Reads `references` of a configuration as a plain dictionary."""
    return unpack(cls, fields_of(fields, 'references'), 'references')


def identity_conditioning(model: FlowModel) -> Identity:
  """Returns the conditioning that reads references.
  Raises ConfigError if the model has none, or several.
  """
  identities = [
    conditioning for conditioning in model.conditionings if isinstance(conditioning, Identity)
  ]
  if len(identities) != 1:
    raise ConfigError(
      f"config.model.conditionings has {len(identities)} of the kind 'identity'; expected one"
    )
  return identities[0]
