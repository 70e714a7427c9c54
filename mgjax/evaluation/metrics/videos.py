"""All that can be measured of a set of videos, by name: beside prompts, beside other videos, alone."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from mgjax.core.typing import Float, UInt8
from mgjax.evaluation.metrics.values import Value

Video = UInt8[np.ndarray, '_ _ _ 3']


class Encoder(Protocol):
  """What is asked of a CLIP, such as `mgjax.clip.pipeline.Clip`."""

  def encode_images(self, images: np.ndarray) -> Any:
    """Returns a vector of every image of bytes (b h w 3)."""
    ...

  def encode_texts(self, texts: Sequence[str]) -> Any:
    """Returns a vector a text, of the same space."""
    ...


def score_videos(
  videos: Iterable[Video],
  prompts: Sequence[str] | None = None,
  clip: Encoder | None = None,
  reference: Iterable[Video] | Float[np.ndarray, '_ _'] | None = None,
  seed: int = 0,
) -> dict[str, Value]:
  """Returns all metrics that what is given allows, by name."""
  raise NotImplementedError
