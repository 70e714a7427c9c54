"""What the sources of all synthetic datasets have in common; see `table.py`."""

import dataclasses
import operator

import numpy as np

from mgjax.core.configuration.keys import Sample
from mgjax.core.errors import ConfigError
from mgjax.data.synthetic_datasets import RATE


def check_names(field: str, names, choices) -> None:
  """Raises ConfigError if a field has unknown names, or none."""
  unknown = [value for value in names if value not in choices]
  if unknown or not names:
    raise ConfigError(f'{field}: got {unknown or "nothing"}, choose from {", ".join(choices)}')


class Source:
  """A random-access source of samples, a dataclass; each is made of a scene, which an index draws.

  A synthetic dataset adds its fields, `key`, which draws by seed and split, `scene(index)` and
  `show(scene)`.
  """

  @property
  def fingerprint(self) -> str:
    """The fields that differ from their defaults, as text: samples depend on them."""
    default = {field.name: field.default for field in dataclasses.fields(self)}
    # 1 and 1.0 are one number.
    values = {name: type(usual)(getattr(self, name)) for name, usual in default.items()}
    changed = [f'{name}={values[name]!r}' for name in values if values[name] != default[name]]
    return f'{type(self).__name__}({", ".join(changed)})'

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, index: int) -> Sample:
    return self.show(self.scene(index))

  def generator(self, index: int) -> np.random.Generator:
    """Returns what draws the scene of an index."""
    index = operator.index(index)
    if not 0 <= index < self.length:
      raise IndexError(f'index {index} of a source of {self.length} samples')
    return np.random.default_rng((*self.key, index))

  def check_sound(self) -> None:
    """Raises ConfigError if a clip would end within a sample of its sound."""
    if self.sound and self.frames * RATE % self.fps:
      raise ConfigError(
        f'frames={self.frames}, fps={self.fps}: their sound is not a whole number of samples; '
        f'choose frames a second that divide {RATE}, such as 8, 24 or 25'
      )
