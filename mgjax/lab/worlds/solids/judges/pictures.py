"""Pictures of one solid, of which a CLIP is asked; see `PicturesJudge` of `judging.py`."""

import dataclasses
import math
from typing import ClassVar

from mgjax.core.configuration.keys import JSON
from mgjax.lab.worlds.judging import Picture
from mgjax.lab.worlds.solids.captions import describe
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.kinds import SIZES
from mgjax.lab.worlds.solids.portraits import object_of
from mgjax.lab.worlds.solids.scene import Solid


@dataclasses.dataclass(frozen=True)
class SolidsPictures:
  """An identity is an object, looked for in other surroundings among all others."""

  source: Solids

  identities: ClassVar[str] = 'object in other surroundings'
  prompts: ClassVar[tuple[str, ...]] = ('this object',) * 8
  recognised: ClassVar[float] = math.nan

  @property
  def choices(self) -> list[tuple[str, JSON]]:
    """What can be said of a solid but for its pattern."""
    found = []
    for size, spans in SIZES.items():
      for shape in self.source.shapes:
        for colour in self.source.colours:
          for material in self.source.materials:
            solid = Solid(shape, colour, material, sum(spans[0]) / 2)
            says = {'size': size, 'shape': shape, 'colour': colour, 'material': material}
            found.append((describe(solid), says))
    return found

  def pictures(self, count: int) -> list[Picture]:
    source = dataclasses.replace(
      self.source, frames=1, solids=(1, 1), meetings=0.0, extras=(), named=True
    )
    found = []
    for index in range(min(count // 2, len(source))):
      scene = source.scene(index)
      for view, shown in enumerate((scene, source.portrait(scene, near=False))):
        (solid,) = shown.solids
        picture = source.show(shown)['video'][0]
        found.append(Picture(picture, describe(solid), '', view, object_of(solid)))
    return found
