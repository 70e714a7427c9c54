"""Settings of curation: what is measured, what is kept, in which order (Movie Gen §3.2.1, App. J).

`measure` is what the expensive pass depends on, and `keep` what the cheap one does: a threshold may
change without measuring anything again. Published numbers are those of Table 44.
"""

import dataclasses
import string
from typing import Annotated

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import Checked, Count, Fraction, Magnitude, Positive, Range
from mgjax.data.ingest.worker_pool import ALLOWANCE, Allowance
from mgjax.lab.curation.filters.scenes import SceneSettings
from mgjax.lab.curation.scores.camera_motion import CameraSettings
from mgjax.lab.curation.scores.sound import SoundLimits, SoundSettings

Rate = Annotated[float, Range(above=0, most=1000)]  # frames a second
Side = Annotated[int, Range(least=16, most=16_384)]  # pixels
# Name -> whether it needs a model.
CAPTIONERS = {'existing': False, 'endpoint': True, 'rules': False}
SOUND_FIELD = 'sound'
TEMPLATE_FIELDS = ('camera', 'shot', 'caption', SOUND_FIELD)
Chance = Annotated[float, Range(above=0, most=1)]
_SOUND, _PLACES, _CAMERA = SoundSettings(), SoundLimits(), CameraSettings()


@dataclasses.dataclass(frozen=True)
class ClipSettings(Checked):
  """Which stretches of shots become clips.

  Where no shot of a video lasts `shortest`, its longest one is a clip nevertheless, which the
  filters 'scenes' and 'duration' drop, so that it is counted. Of a shot beyond `longest` the middle
  is taken (the paper draws a place by chance: copies of a video would have different clips).
  """

  shortest: Magnitude = 4.0  # seconds
  longest: Magnitude = 16.0  # seconds
  most: Positive = 2  # of a video, its longest shots (§3.2.1: one or two)
  first: Magnitude = 1.0  # seconds at its start that no clip shows, if the shot allows (Panda-70M)

  def __post_init__(self):
    super().__post_init__()
    if self.shortest > self.longest:
      raise ConfigError(
        f'shortest = {self.shortest} s and longest = {self.longest} s of clips; expected the first '
        'to be no more than the second'
      )


@dataclasses.dataclass(frozen=True)
class TextSettings(Checked):
  """How text is looked for; not in public sources."""

  rate: Rate = 0.5  # frames a second that are read
  side: Side = 480  # shorter side of what is read, in pixels
  least: Fraction = 0.3  # of a box's detection score to be read at all
  letters: Positive = 2  # and digits of a word, at least: single ones are seen in gravel and leaves


@dataclasses.dataclass(frozen=True)
class BorderSettings(Checked):
  """How borders are looked for; not in public sources."""

  rate: Rate = 1.0
  step: Magnitude = 6.0  # least mean first derivative across an edge of a border, of 255
  flat: Magnitude = 6.0  # most standard deviation along the lines of a border, of 255


@dataclasses.dataclass(frozen=True)
class StillnessSettings(Checked):
  """When a picture counts as the same as the one before; not in public sources."""

  rate: Rate = 4.0
  # Mean absolute difference of brightness, of 255, below which nothing moved.
  change: Magnitude = 0.5


@dataclasses.dataclass(frozen=True)
class PlugIn(Checked):
  """A score that needs weights which cannot be shipped.

  `python` is 'package.module:function', `function(frames, weights) -> number` or vector of frames
  uint8 (t h w 3); '' for none.
  """

  python: str = ''
  weights: str = ''  # a path that the function is given
  frames: Positive = 1  # seen of a clip, evenly spaced; one is its middle frame
  side: Side = 224  # shorter side of them, in pixels


@dataclasses.dataclass(frozen=True)
class MeasureSettings(Checked):
  """What the expensive pass depends on; `scorers` are names of `scores/scorer.py`."""

  scorers: tuple[str, ...] = (
    'text',
    'borders',
    'motion',
    'jitter',
    'stillness',
    'fingerprint',
    'aesthetics',
    'copies',
    'people',
    'concepts',
    'camera',
  )
  scenes: SceneSettings = dataclasses.field(default_factory=SceneSettings)
  clips: ClipSettings = ClipSettings()
  text: TextSettings = TextSettings()
  borders: BorderSettings = BorderSettings()
  stillness: StillnessSettings = StillnessSettings()
  camera: CameraSettings = dataclasses.field(default_factory=CameraSettings)
  # Change, of 255, at which PySceneDetect's content detector sees a shot end.
  jitter: Magnitude = 27.0
  aesthetics: PlugIn = PlugIn()  # number a frame, LAION's of the middle frame as published
  people: PlugIn = PlugIn(frames=4)  # chance that there are people
  concepts: PlugIn = PlugIn(frames=8)  # vector in which clips of one concept are close
  copies: PlugIn = PlugIn(frames=4)  # vector in which copies are close (SSCD's as published)
  # Masks or boxes, see `scores/subject.py`; else what stands out.
  subject: PlugIn = PlugIn(frames=4)
  sound: SoundSettings = _SOUND
  sound_events: PlugIn = PlugIn()  # `function(sound (s 1), rate, weights) -> {event: likelihood}`
  sound_cosine: PlugIn = PlugIn(frames=8)  # `function(frames, sound, rate, weights) -> number`
  sound_quality: PlugIn = PlugIn()  # `function(sound, rate, weights) -> number`, 0 to 10


@dataclasses.dataclass(frozen=True)
class KeepSettings(Checked):
  """What the cheap pass keeps; the published numbers of Table 44 where there are any.

  Not in public sources: borders, still, slides, hashes, person, merge, subject, neighbours, alike.
  """

  seconds: tuple[Magnitude, Magnitude] = (4.0, 120.0)  # of a whole video, from and to
  side: Count = 768  # pixels that width and height have at least
  aspect: Magnitude = 1.0  # width / height, at least; 0 for any
  text: Fraction = 0.6  # detection x recognition, below which a word counts as none
  borders: Fraction = 0.01  # share of height or width that is border, at most
  clip_seconds: tuple[Magnitude, Magnitude] = (12.0, 16.0)  # of a clip of one scene, from and to
  aesthetics: Magnitude = 4.0  # of the middle frame, at least
  motion: Magnitude = 2.0  # FFmpeg's vmafmotion, above
  # Mean length of motion vectors, above and below.
  vectors: tuple[Magnitude, Magnitude] = (0.5, 7.0)
  jitter: Magnitude = 0.85  # shots a second, below
  # Share of a clip in which nothing moves, at most: above it is a static video.
  still: Fraction = 0.9
  slides: Fraction = 0.5  # the same of a slide show, whose pictures follow each other or fade
  copies: Fraction = 0.99  # cosine of fingerprints, from which two clips may be copies
  hashes: Count = 10  # bits of 64 by which perceptual hashes of copies may differ, at most
  landscape: Fraction | None = None  # share of clips that are as wide as high or wider; None: any
  people: Fraction = 0.0  # share of clips that show people, at least; 0 for as they come
  person: Fraction = 0.5  # chance of people from which a clip shows some
  clusters: Count = 0  # of concepts; 0 for the square root of the number of clips
  merge: Fraction = 0.95  # cosine of two clusters' centres from which they are one
  resample: Chance = 0.94 / 1.15  # share of clips kept by resampling concepts (Table 44)
  seed: Count = 0  # of what is drawn
  subject: Fraction = 0.05  # share of the picture that its largest subject has, at least
  # A .csv of concept and clip: clips that people picked for each concept; '' for none.
  seeds: str = ''
  neighbours: Positive = 100  # of each of these seeds that are kept
  alike: Fraction = 0.0  # cosine of a clip and a seed, at least
  sound: SoundLimits = _PLACES


@dataclasses.dataclass(frozen=True)
class CutSettings(Checked):
  """How clips are cut.

  With `anew` the pictures of all clips are encoded anew, for quick reads at any moment; else of
  those that do not begin with a key frame, or need frames outside.
  """

  anew: bool = False
  gop: Positive = 16  # most frames between key frames of pictures that are encoded anew
  crf: Annotated[float, Range(least=0, most=51)] = 20.0  # constant rate factor of x264, of these
  clips_per_shard: Positive = 32  # of records


CUT = CutSettings()


@dataclasses.dataclass(frozen=True)
class CaptionSettings(Checked):
  """Who writes captions, and of what.

  `kind` is 'existing', 'endpoint', 'rules', or 'package.module:Class' of a captioner of one's own.
  The template has TEMPLATE_FIELDS in braces; what is not known of a clip is left out. '{sound}' is
  the structured caption of Table 27, and stands alone.
  """

  kind: str = 'existing'
  # Fields of `EndpointSettings`.
  endpoint: Fields = dataclasses.field(default_factory=dict)
  frames: Positive = 8  # of a clip that the endpoint is shown; not in public sources
  # Longer side, in pixels; not in public sources.
  side: Annotated[int, Range(least=32, most=4096)] = 512
  # Of the endpoint; the paper's captions have about 100.
  words: Annotated[int, Range(least=5, most=500)] = 100
  template: str = '{camera} {shot} {caption}'
  prefix: Fraction = _CAMERA.prefix  # confidence from which the scorer of the camera is believed

  def __post_init__(self):
    super().__post_init__()
    if self.kind not in CAPTIONERS and ':' not in self.kind:
      raise ConfigError(
        f'kind = {self.kind!r}; expected one of {", ".join(CAPTIONERS)}, or package.module:Class'
      )
    if CAPTIONERS.get(self.kind, False) != bool(self.endpoint.get('model')):
      raise ConfigError(
        f'kind = {self.kind!r} and endpoint = {dict(self.endpoint)!r:.60}; the endpoint of '
        "'endpoint', and of nothing else, has a model, as in {'model': 'llava'}"
      )
    try:
      names = [name for _, name, *_ in string.Formatter().parse(self.template) if name is not None]
    except ValueError:
      names = ['']
    strange = [name for name in names if name not in TEMPLATE_FIELDS]
    if strange or not names or (SOUND_FIELD in names and self.template.strip() != '{sound}'):
      fields = ' '.join(f'{{{name}}}' for name in TEMPLATE_FIELDS[:-1])
      raise ConfigError(f"template = {self.template!r}; expected some of {fields}, or '{{sound}}'")


UNDECIDED = ('keep', 'wait', 'drop')


@dataclasses.dataclass(frozen=True)
class ReviewSettings(Checked):
  """What becomes of clips that people have not looked at.

  'keep' cuts them as they are, 'drop' does not, 'wait' cuts nothing before people have looked at
  all of them, on the page of `launch.serve review`.
  """

  undecided: str = 'keep'

  def __post_init__(self):
    super().__post_init__()
    check_one_of(f'undecided = {self.undecided!r}', self.undecided, UNDECIDED)


# The order of Table 44; what it names without numbers stands where it costs least.
ORDER = (
  'duration',
  'resolution',
  'aspect',
  'text',
  'borders',
  'scenes',
  'aesthetics',
  'static',
  'slides',
  'motion',
  'jitter',
  'duplicates',
  'concepts',
  'mixture',
)


@dataclasses.dataclass(frozen=True)
class CurationSettings(Checked):
  """Settings of a run of curation."""

  # The expensive pass; its hash says whether scores can be used again.
  measure: MeasureSettings = MeasureSettings()
  keep: KeepSettings = KeepSettings()  # the cheap pass
  order: tuple[str, ...] = ORDER  # of filters; a clip falls to the first that drops it
  captions: CaptionSettings = dataclasses.field(default_factory=CaptionSettings)
  review: ReviewSettings = ReviewSettings()
  cut: CutSettings = CUT
  limits: Allowance = ALLOWANCE  # of each video, while it is measured and cut
  gate: bool = False  # leave undecoded what the first filters drop by a probe, see `gate.py`
