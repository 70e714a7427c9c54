"""Captioned clips of lit solids that move, meet and sound, made on the fly.

'a large red metal ball rolls left and hits a small blue wooden cube; the camera circles right'.
What an index shows is a scene (`scene.py`), drawn from the seed, the split and the index alone; it
is the same at every size, number of frames and rate. Nothing is downloaded or stored.
"""

import contextlib
import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Fraction, Positive, Range, check
from mgjax.core.typing import Float, Sample, UInt8
from mgjax.lab.worlds.solids import sounds
from mgjax.lab.worlds.solids.camera import Poses, distance_gone, poses
from mgjax.lab.worlds.solids.captions import (
  Caption,
  plain_caption,
  scene_caption,
  sound_caption,
  varied_caption,
)
from mgjax.lab.worlds.solids.edits import (
  OF_MOTION,
  OF_SEVERAL,
  TASKS,
  Edit,
  draw_edit,
  marked,
  styled,
)
from mgjax.lab.worlds.solids.kinds import CAMERAS, COLOURS, MATERIALS, MOTIONS, PATTERNS, SHAPES
from mgjax.lab.worlds.solids.physics import Contact, simulate
from mgjax.lab.worlds.solids.portraits import object_of, portrait
from mgjax.lab.worlds.solids.sampling import Choices, draw_scene
from mgjax.lab.worlds.solids.scene import SECONDS, STYLES, Scene
from mgjax.lab.worlds.source import Source, check_names

# Split -> what is new in it, see `sampling.Choices`. Two judges learn from one half each.
SPLITS = {
  'train': 'none',
  'in_distribution': 'none',
  'new_combination': 'combination',
  'new_value': 'value',
  'filter': 'any',
  'judge': 'any',
}
WHOLE = ('segmentation', 'depth', 'positions', 'velocities', 'camera')  # no window has them
EXTRAS = (*WHOLE, 'view', 'reference')
WORDINGS = ('plain', 'varied', 'scene', 'heard')
MOST = 4  # solids

Side = Annotated[int, Range(least=8)]  # pixels


class Labels(NamedTuple):
  """All that is true of a clip, frame by frame; n solids in the order of the scene's."""

  times: Float[np.ndarray, 't']  # seconds
  positions: Float[np.ndarray, 't n 3']
  velocities: Float[np.ndarray, 't n 3']
  turns: Float[np.ndarray, 't n 3 3']  # columns are the axes of a solid
  camera: Poses
  amount: float  # of the camera's move, in the unit of `kinds.CAMERAS`
  contacts: tuple[Contact, ...]  # within the clip


@dataclasses.dataclass(frozen=True)
class Solids(Source):
  """A random-access source of captioned clips; a sample is a function of (seed, split, index).

  `source[index]` is {'video': uint8 (t h w 3), 'caption', 'count'}. One frame makes pictures: of
  some moment, with captions that say nothing of motion. `source.scene(index)` is what it shows, as
  data; a scene that was changed becomes a sample by `source.show(scene)`; `source.labels(scene)` is
  all that is true of it and `source.caption(scene)` what its caption says, statement by statement.

  Of the first solid, in other surroundings (`portraits.py`), 'reference' (r h w 3) are pictures
  that it fills, 'view' (1 h w 3) is one as in clips, with 'view_caption'; with either 'identity'.

  With `edits` a sample is a pair: 'video' after an edit, 'source_video' before it, 'task', and as
  'caption' the instruction; `source.edit(source.scene(index))` is both scenes, as data.

  With `sound` a sample has also 'audio', float32 (s 2) of frames / fps seconds at 48 kHz, and
  'events', the seconds of its contacts. Each has a 'loudness', an amplitude, and both 'materials',
  places in `kinds.MATERIALS`, -1 for the floor. Raises ConfigError for unknown names.
  """

  split: str = 'train'
  frames: Positive = 16
  size: tuple[Side, Side] = (64, 64)  # height, width
  length: Count = 50_000  # samples
  fps: Positive = 8
  seed: Count = 0
  sound: bool = False
  extras: tuple[str, ...] = ()  # further keys of samples, of `EXTRAS`
  solids: tuple[Positive, Positive] = (1, 3)  # how many, at least and at most
  shapes: tuple[str, ...] = tuple(SHAPES)
  colours: tuple[str, ...] = tuple(COLOURS)
  materials: tuple[str, ...] = tuple(MATERIALS)
  motions: tuple[str, ...] = tuple(MOTIONS)
  cameras: tuple[str, ...] = tuple(CAMERAS)
  patterns: tuple[str, ...] = ('band',)
  seconds: tuple[str, ...] = ('',)  # colours of patterns, '' a lighter shade of the solid's own
  styles: tuple[str, ...] = ('',)  # of `scene.STYLES`
  meetings: Fraction = 0.5  # share of scenes of several solids in which two meet
  named: bool = True  # False: captions call the first solid 'this object', as a picture shows it
  references: Positive = 1  # pictures in 'reference'
  wording: str = 'varied'  # of captions: 'plain' says all of solids and camera, always the same
  # way; 'scene' what a picture shows with floor, sky and style, as captions of edits do; 'heard'
  # by turns what is seen and what is heard
  rays: Annotated[int, Range(least=1, most=2)] = 2  # a pixel, along each side
  edits: tuple[str, ...] = ()  # of `edits.TASKS`, of which one is drawn for each sample
  crop: Positive = 1  # of clips so many times as large a window is cut out, the same in all frames

  by_seconds: ClassVar[bool] = True
  of_frames: ClassVar[frozenset[str]] = frozenset({'video', *WHOLE})
  of_events: ClassVar[frozenset[str]] = frozenset({'loudness', 'materials'})
  silence: ClassVar[str] = ''  # even what stands still may be struck

  def __post_init__(self):
    check(self)
    check_names('split', (self.split,), SPLITS)
    check_names('wording', (self.wording,), WORDINGS)
    for name, choices in (
      ('shapes', SHAPES),
      ('colours', COLOURS),
      ('materials', MATERIALS),
      ('motions', MOTIONS),
      ('cameras', CAMERAS),
      ('patterns', PATTERNS),
      ('seconds', ('', *COLOURS)),
      ('styles', STYLES),
    ):
      check_names(name, getattr(self, name), choices)
    if self.extras:
      check_names('extras', self.extras, EXTRAS)
    least, most = self.solids
    if not least <= most <= min(MOST, len(self.colours)):
      raise ConfigError(
        f'solids = {self.solids} of {len(self.colours)} colours; expected from 1 to {MOST} with a '
        'colour for each, as in (1, 3)'
      )
    moving = any(MOTIONS[name].direction for name in self.motions)
    if self.edits:
      check_names('edits', self.edits, [t for t in TASKS if self.frames > 1 or t not in OF_MOTION])
      single = [task for task in self.edits if task in OF_SEVERAL and self.solids[0] < 2]
      if self.meetings or single or self.sound:
        raise ConfigError(
          f'edits = {self.edits}, meetings = {self.meetings:g}, solids = {self.solids}, sound = '
          f'{self.sound}; expected meetings = 0, solids = (2, 3) and sound = False'
        )
    if self.crop > 1 and set(WHOLE) & set(self.extras):
      raise ConfigError(f'extras = {self.extras} are of whole clips; expected crop = 1')
    if self.cameras == ('follows',) and not moving:
      raise ConfigError(
        "cameras = ('follows',), but nothing moves; give motions such as rolls left"
      )
    self.check_sound()

  @property
  def key(self) -> tuple[int, int]:
    """What draws by seed and split."""
    return self.seed, list(SPLITS).index(self.split)

  @classmethod
  def validation(cls, frames: int) -> JSON:
    """Other scenes of the same kind; what is new in other splits is for judges."""
    del frames
    return {'split': 'in_distribution', 'length': 4096}

  def listen(self, index: int) -> Sample:
    """Returns `self[index]` without its pictures, which take most of the time to make."""
    scene = self.scene(index)
    return self._sample(scene, self.labels(scene))

  def scene(self, index: int) -> Scene:
    """Returns what a sample shows."""
    choices = Choices(
      **{
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(Choices)
        if field.name != 'novelty'
      },
      novelty=SPLITS[self.split],
    )
    return draw_scene(choices, self.generator(index))

  def caption(self, scene: Scene) -> Caption:
    """Returns the caption of a scene and what it says."""
    moves = self.frames > 1
    if self.wording == 'scene':
      return scene_caption(scene)
    if self.wording == 'heard' and scene.wording % 2:
      return sound_caption(scene, self.labels(scene).contacts)
    if self.wording == 'plain':
      return plain_caption(scene, moves, self.named)
    return varied_caption(scene, np.random.default_rng(scene.wording), moves, self.named)

  def edit(self, scene: Scene) -> Edit:
    """Returns the edit that the sample of a scene is a pair of, a function of the scene."""
    if not self.edits:
      raise ConfigError("edits is empty; expected some, as in ('recolour', 'replace')")
    generator = np.random.default_rng((scene.wording, len(TASKS)))
    task = self.edits[generator.integers(len(self.edits))]
    return draw_edit(task, scene, self.colours, generator)

  def labels(self, scene: Scene) -> Labels:
    """Returns the ground truth of a scene's clip."""
    history = simulate(scene.solids)
    times = np.arange(self.frames) / self.fps
    last = self._last
    if self.frames == 1:
      times = np.array([scene.moment])
    followed = history.tracks[scene.follows]
    end = self.frames / self.fps
    return Labels(
      times,
      np.stack([track.positions(times) for track in history.tracks], 1),
      np.stack([track.velocities(times) for track in history.tracks], 1),
      np.stack([track.turns(times) for track in history.tracks], 1),
      poses(scene.camera, followed, times, last),
      distance_gone(scene.camera, followed, last),
      tuple(contact for contact in history.contacts if contact.time < end),
    )

  def show(self, scene: Scene) -> Sample:
    """Returns the sample of a scene, in the frames and size of this source."""
    if not self.edits:
      return self._rendered(scene)
    edit = self.edit(scene)
    plain = dataclasses.replace(self, edits=())
    source = {'source_video': plain._rendered(edit.before)['video']}
    extra = {'caption': edit.instruction, 'task': edit.task}
    return plain._rendered(edit.after) | source | extra

  def _rendered(self, scene: Scene) -> dict[str, Any]:
    from mgjax.lab.worlds.solids import render

    labels = self.labels(scene)
    sample = self._sample(scene, labels)
    with _on_cpu():
      stage = render.stage(scene, labels.positions, labels.turns, labels.camera, self._room(scene))
      size = tuple(side * self.crop for side in self.size)
      drawn = styled(np.array(render.draw(stage, self.rays, size)), scene.style)
      if scene.mark:
        drawn = marked(drawn, np.array(render.measure(stage, size)[0]) == 1 + scene.marked, scene)
      sample['video'] = self._cut(scene, drawn)
      if {'segmentation', 'depth'} & set(self.extras):
        measured = dict(
          zip(('segmentation', 'depth'), render.measure(stage, self.size), strict=True)
        )
        sample |= {name: np.array(measured[name]) for name in measured if name in self.extras}
    for name, count in (('reference', self.references), ('view', 1)):
      if name in self.extras:
        scenes = [self.portrait(scene, name == 'reference', index) for index in range(count)]
        views = [dataclasses.replace(self, frames=1, extras=()).show(other) for other in scenes]
        sample[name] = np.concatenate([view['video'] for view in views])
        sample['identity'] = object_of(scene.solids[0])
        if name == 'view':
          sample['view_caption'] = views[0]['caption']
    return sample

  def portrait(self, scene: Scene, close_up: bool, index: int = 0) -> Scene:
    """Returns the scene of a reference, in close-up, or of a view; scene and index determine it."""
    return portrait(scene, np.random.default_rng((scene.wording, close_up, index)), close_up)

  @property
  def _last(self) -> float:
    """When the camera's move ends, at the last frame."""
    return (self.frames - 1) / self.fps or SECONDS

  def _cut(self, scene: Scene, video: UInt8[np.ndarray, 't h w 3']) -> np.ndarray:
    """Returns the crop of a clip, at a position that the scene determines."""
    if self.crop == 1:
      return video
    generator = np.random.default_rng((scene.wording, self.crop))
    top, left = [int(generator.integers((self.crop - 1) * side + 1)) for side in self.size]
    height, width = self.size
    return video[:, top : top + height, left : left + width]

  def _room(self, scene: Scene) -> int:
    return max(self.solids[1], len(scene.solids))

  def _sample(self, scene: Scene, labels: Labels) -> Sample:
    """Returns the sample of a scene without its pictures."""
    sample = {'caption': self.caption(scene).text, 'count': len(scene.solids)}
    rows = {'positions': labels.positions, 'velocities': labels.velocities}
    for name in rows.keys() & set(self.extras):  # zeros where there are fewer solids
      room = self._room(scene) - len(scene.solids)
      sample[name] = np.pad(rows[name], ((0, 0), (0, room), (0, 0))).astype(np.float32)
    if 'camera' in self.extras:
      eye, axes, focal = labels.camera
      flat = axes.reshape(len(eye), 9)
      sample['camera'] = np.concatenate([eye, flat, focal[:, None]], 1).astype(np.float32)
    if self.sound:
      sample['audio'] = sounds.sound(scene, self.frames / self.fps, self._last)
      sample['events'] = np.array([contact.time for contact in labels.contacts])
      loudness, materials = sounds.heard(scene, labels.contacts, self._last)
      sample |= {'loudness': loudness, 'materials': materials}
    return sample


def _on_cpu() -> contextlib.AbstractContextManager:
  """Pictures are made beside the device that trains."""
  import jax

  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS names others alone
    return contextlib.nullcontext()
