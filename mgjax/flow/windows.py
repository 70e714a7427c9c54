"""Windows of one size that cover an axis: tiles of pixels, segments of long audio."""

import dataclasses

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Float


@dataclasses.dataclass(frozen=True)
class Cover:
  """Tiles of one size along an axis: the first starts at 0, the last one ends at the axis' end.

  Neighbours share `feather` positions; the last two may share more.
  """

  length: int
  size: int
  feather: int

  @property
  def starts(self) -> tuple[int, ...]:
    """The start of each tile."""
    last = self.length - self.size
    step = max(self.size - self.feather, 1)
    return tuple(min(start, last) for start in range(0, last + step, step))

  @property
  def windows(self) -> Float[np.ndarray, 'tiles places']:
    """The weight of each tile at its own positions, a partition of unity over the axis.

    w_i(x) = u_i(x) / sum_j u_j(x), where u rises from either end of a tile over the feather.
    """
    positions = np.arange(self.size) + 0.5
    hat = np.minimum(np.minimum(positions, self.size - positions), max(self.feather, 0.5))
    spans = [slice(start, start + self.size) for start in self.starts]
    total = np.zeros(self.length)
    for span in spans:
      total[span] += hat
    return np.stack([hat / total[span] for span in spans])


def windows(total: int, size: int, overlap: int = 0) -> Cover:
  """Covers `total` frames by windows of one size, of which the last is shifted to end there.

  If `total` is less than a window, there is one window of that size. Raises ConfigError if there is
  no frame, or windows would not advance.
  """
  if total < 1 or size < 1 or not 0 <= overlap < size:
    raise ConfigError(
      f'{total} frames in windows of {size} that share {overlap}: expected a frame at least, and '
      'fewer that are shared than a window has'
    )
  return Cover(total, min(size, total), min(overlap, total - 1))
