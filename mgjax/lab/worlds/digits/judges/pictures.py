"""Pictures of digits, of which a CLIP is asked; see `PicturesJudge` of `lab/worlds/judging.py`."""

import dataclasses
from typing import ClassVar

from mgjax.core.configuration.keys import JSON
from mgjax.lab.worlds.digits.captions import digit_caption
from mgjax.lab.worlds.digits.clips import Digits, all_captions
from mgjax.lab.worlds.digits.scene import COLOURS
from mgjax.lab.worlds.judging import Picture


@dataclasses.dataclass(frozen=True)
class DigitsPictures:
  """An identity is one image of handwriting, looked for among the same digit in the next colour.

  So neither digit nor colour tells it.
  """

  source: Digits

  identities: ClassVar[str] = 'handwriting in another colour'
  prompts: ClassVar[tuple[str, ...]] = tuple(digit_caption(None, name, '') for name in COLOURS)
  # Of a clip and another picture of its hand 0.61 are at or above it, of another hand's same digit
  # 0.38, of another digit 0.17.
  recognised: ClassVar[float] = 0.57

  @property
  def choices(self) -> list[tuple[str, JSON]]:
    captions = all_captions(self.source.colours, ('',))
    return [(text, {'digit': digit, 'colour': colour}) for digit, colour, _, text in captions]

  def pictures(self, count: int) -> list[Picture]:
    source = dataclasses.replace(self.source, extras=())
    colours = list(self.source.colours)
    samples = [source[index] for index in range(min(count, len(source)))]
    return [
      Picture(
        sample['video'][0],
        sample['caption'],
        sample['digit'],
        colours.index(sample['colour']),
        sample['identity'],
      )
      for sample in samples
    ]
