"""Settings of curation: what is measured, what is kept, in which order (Movie Gen §3.2.1, App. J).

`measure` is what the expensive pass depends on, and `keep` what the cheap one does: a threshold may
change without measuring anything again. Published numbers are those of Table 44.
"""

import dataclasses
import string
from collections.abc import Mapping
from typing import Annotated, Any

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Fraction, Magnitude, Positive, Range, check
from mgjax.curation.filters.scenes import SceneSettings
from mgjax.curation.scores.global_motion import CameraSettings
from mgjax.curation.scores.sound import SoundLimits, SoundSettings
from mgjax.data.ingest.worker_pool import ALLOWANCE, Allowance

Rate = Annotated[float, Range(above=0, most=1000)]  # frames a second
Side = Annotated[int, Range(least=16, most=16_384)]  # pixels
CAPTIONERS = ('existing', 'endpoint', 'rules')
SOUND_FIELD = 'sound'
TEMPLATE_FIELDS = ('camera', 'shot', 'caption', SOUND_FIELD)
Chance = Annotated[float, Range(above=0, most=1)]
_SOUND, _PLACES, _CAMERA = SoundSettings(), SoundLimits(), CameraSettings()


class Checked:
  """A dataclass whose fields are in their ranges."""

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class ClipSettings(Checked):
  """Which stretches of shots become clips.

  Attributes:
    shortest: seconds of a clip, at least. Where no shot of a video is as long, its longest one is
      a clip nevertheless, which the filters 'scenes' and 'duration' drop, so that it is counted.
    longest: seconds of a clip, at most; of a longer shot its middle is taken (the paper draws a
      place by chance, which would give copies of a video different clips).
    most: clips of a video, at most: of its longest shots (§3.2.1: one or two).
    first: seconds at the start of a video that no clip shows, if so much is left of the shot (as
      Panda-70M does; how many is not in public sources).
  """

  shortest: Magnitude = 4.0
  longest: Magnitude = 16.0
  most: Positive = 2
  first: Magnitude = 1.0

  def __post_init__(self):
    super().__post_init__()
    if self.shortest > self.longest:
      raise ConfigError(
        f'shortest = {self.shortest} s and longest = {self.longest} s of clips; expected the first '
        'to be no more than the second'
      )


@dataclasses.dataclass(frozen=True)
class TextSettings(Checked):
  """How text is looked for; not in public sources.

  Attributes:
    rate: frames a second that are read.
    side: shorter side of what is read, in pixels.
    least: of a box's detection score to be read at all.
    letters: and digits of a word, at least: single ones are seen in gravel and leaves.
  """

  rate: Rate = 0.5
  side: Side = 480
  least: Fraction = 0.3
  letters: Positive = 2


@dataclasses.dataclass(frozen=True)
class BorderSettings(Checked):
  """How borders are looked for; not in public sources.

  Attributes:
    rate: frames a second that are looked at.
    step: least mean first derivative across an edge of a border, of 255.
    flat: most standard deviation along the lines of a border, of 255.
  """

  rate: Rate = 1.0
  step: Magnitude = 6.0
  flat: Magnitude = 6.0


@dataclasses.dataclass(frozen=True)
class StillnessSettings(Checked):
  """When a picture counts as the same as the one before; not in public sources.

  Attributes:
    rate: frames a second that are compared.
    change: mean absolute difference of brightness, of 255, below which nothing moved.
  """

  rate: Rate = 4.0
  change: Magnitude = 0.5


@dataclasses.dataclass(frozen=True)
class PlugIn(Checked):
  """A score that needs weights which cannot be shipped.

  Attributes:
    python: 'package.module:function', `function(frames, weights) -> number` or vector of frames
      uint8 (t h w 3); '' for none.
    weights: a path that the function is given.
    frames: seen of a clip, evenly spaced; one is its middle frame.
    side: shorter side of them, in pixels.
  """

  python: str = ''
  weights: str = ''
  frames: Positive = 1
  side: Side = 224


@dataclasses.dataclass(frozen=True)
class MeasureSettings(Checked):
  """What the expensive pass depends on.

  Attributes:
    scorers: names of `scores/scorer.py`.
    scenes: what a cut is.
    clips: which stretches of shots become clips.
    text: how text is looked for.
    borders: how borders are.
    stillness: when nothing moves.
    camera: what counts as a move of the camera.
    jitter: change, of 255, at which PySceneDetect's content detector sees a shot end.
    aesthetics: number a frame, LAION's of the middle frame as published.
    people: chance that there are people.
    concepts: vector in which clips of one concept are close.
    copies: vector in which copies are close (SSCD's as published).
    subject: masks or boxes of subjects, see `scores/subject.py`; without it what stands out.
    sound: what is looked at of the sound.
    sound_events: `function(sound (s 1), rate, weights) -> {event: likelihood}` of `EVENTS`.
    sound_cosine: `function(frames, sound, rate, weights) -> number`, of sound and pictures.
    sound_quality: `function(sound, rate, weights) -> number`, 0 to 10.
  """

  scorers: tuple[str, ...] = (
    'text', 'borders', 'motion', 'jitter', 'stillness', 'fingerprint', 'aesthetics', 'copies',
    'people', 'concepts', 'camera',
  )  # fmt: skip
  scenes: SceneSettings = dataclasses.field(default_factory=SceneSettings)
  clips: ClipSettings = ClipSettings()
  text: TextSettings = TextSettings()
  borders: BorderSettings = BorderSettings()
  stillness: StillnessSettings = StillnessSettings()
  camera: CameraSettings = dataclasses.field(default_factory=CameraSettings)
  jitter: Magnitude = 27.0
  aesthetics: PlugIn = PlugIn()
  people: PlugIn = PlugIn(frames=4)
  concepts: PlugIn = PlugIn(frames=8)
  copies: PlugIn = PlugIn(frames=4)
  subject: PlugIn = PlugIn(frames=4)
  sound: SoundSettings = _SOUND
  sound_events: PlugIn = PlugIn()
  sound_cosine: PlugIn = PlugIn(frames=8)
  sound_quality: PlugIn = PlugIn()


@dataclasses.dataclass(frozen=True)
class KeepSettings(Checked):
  """What the cheap pass keeps; the published numbers of Table 44 where there are any.

  Attributes:
    seconds: of a whole video, from and to.
    side: pixels that width and height have at least.
    aspect: width / height, at least; 0 for any.
    text: detection x recognition, below which a word counts as none.
    borders: share of height or width that is border, at most; not in public sources.
    clip_seconds: of a clip of one scene, from and to.
    aesthetics: of the middle frame, at least.
    motion: FFmpeg's vmafmotion, above.
    vectors: mean length of the codec's motion vectors, above the first and below the second.
    jitter: shots a second, below.
    still: share of a clip in which nothing moves, at most: above it is a static video; not in
      public sources.
    slides: the same of a slide show, whose pictures follow each other or fade; not in public
      sources.
    copies: cosine of fingerprints, from which two clips may be copies.
    hashes: bits of 64 by which perceptual hashes of copies may differ, at most; not in public
      sources.
    landscape: share of clips that are as wide as high or wider; None for as they come.
    people: share of clips that show people, at least; 0 for as they come.
    person: chance of people from which a clip shows some; not in public sources.
    clusters: of concepts; 0 for the square root of the number of clips.
    merge: cosine of two clusters' centres from which they are one; not in public sources.
    resample: share of clips kept by resampling concepts (Table 44: .94 of 1.15).
    seed: of what is drawn.
    subject: share of the picture that its largest subject has, at least; not in public sources.
    seeds: a .csv with the columns concept and clip: clips that people picked for each concept; ''
      for none.
    neighbours: of each of them that are kept; not in public sources.
    alike: cosine of a clip and a seed, at least; not in public sources.
    sound: of Table 24, and which sounds are kept.
  """

  seconds: tuple[Magnitude, Magnitude] = (4.0, 120.0)
  side: Count = 768
  aspect: Magnitude = 1.0
  text: Fraction = 0.6
  borders: Fraction = 0.01
  clip_seconds: tuple[Magnitude, Magnitude] = (12.0, 16.0)
  aesthetics: Magnitude = 4.0
  motion: Magnitude = 2.0
  vectors: tuple[Magnitude, Magnitude] = (0.5, 7.0)
  jitter: Magnitude = 0.85
  still: Fraction = 0.9
  slides: Fraction = 0.5
  copies: Fraction = 0.99
  hashes: Count = 10
  landscape: Fraction | None = None
  people: Fraction = 0.0
  person: Fraction = 0.5
  clusters: Count = 0
  merge: Fraction = 0.95
  resample: Chance = 0.94 / 1.15
  seed: Count = 0
  subject: Fraction = 0.05
  seeds: str = ''
  neighbours: Positive = 100
  alike: Fraction = 0.0
  sound: SoundLimits = _PLACES


@dataclasses.dataclass(frozen=True)
class CutSettings(Checked):
  """How clips are cut.

  Attributes:
    anew: encode the pictures of all of them anew, for quick reads at any moment; else of those
      that do not begin with a key frame, or need frames outside.
    gop: most frames from one key frame to the next, of pictures that are encoded anew.
    crf: of these, the constant rate factor of x264.
    clips_per_shard: of records.
  """

  anew: bool = False
  gop: Positive = 16
  crf: Annotated[float, Range(least=0, most=51)] = 20.0
  clips_per_shard: Positive = 32


CUT = CutSettings()


@dataclasses.dataclass(frozen=True)
class CaptionSettings(Checked):
  """Who writes captions, and of what.

  Attributes:
    kind: 'existing', 'endpoint' or 'rules', or 'package.module:Class' of a captioner of one's own.
    endpoint: fields of `EndpointSettings`; of 'endpoint' alone they name a model.
    frames: of a clip that the endpoint is shown, evenly spaced; not in public sources.
    side: longer side of them, in pixels; not in public sources.
    words: that the endpoint is asked for; the paper's captions have about 100.
    template: of a record's caption; of TEMPLATE_FIELDS in braces. What is not known of a clip is
      left out. '{sound}' is the structured caption of Table 27, and stands alone.
    prefix: confidence from which the scorer of the camera is believed.
  """

  kind: str = 'existing'
  endpoint: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  frames: Positive = 8
  side: Annotated[int, Range(least=32, most=4096)] = 512
  words: Annotated[int, Range(least=5, most=500)] = 100
  template: str = '{camera} {shot} {caption}'
  prefix: Fraction = _CAMERA.prefix

  def __post_init__(self):
    super().__post_init__()
    if self.kind not in CAPTIONERS and ':' not in self.kind:
      raise ConfigError(
        f'kind = {self.kind!r}; expected one of {", ".join(CAPTIONERS)}, or package.module:Class'
      )
    if (self.kind == 'endpoint') != bool(self.endpoint.get('model')):
      raise ConfigError(
        f'kind = {self.kind!r} and endpoint = {dict(self.endpoint)!r:.60}; the endpoint of '
        "'endpoint', and of nothing else, has a model, as in {'model': 'llava'}"
      )
    try:
      found = [name for _, name, *_ in string.Formatter().parse(self.template) if name is not None]
    except ValueError:
      found = ['']
    strange = [name for name in found if name not in TEMPLATE_FIELDS]
    if strange or not found or (SOUND_FIELD in found and self.template.strip() != '{sound}'):
      fields = ' '.join(f'{{{name}}}' for name in TEMPLATE_FIELDS[:-1])
      raise ConfigError(f"template = {self.template!r}; expected some of {fields}, or '{{sound}}'")


UNDECIDED = ('keep', 'wait', 'drop')


@dataclasses.dataclass(frozen=True)
class ReviewSettings(Checked):
  """What becomes of clips that people have not looked at.

  Attributes:
    undecided: 'keep' cuts them as they are, 'drop' does not, 'wait' cuts nothing before people
      have looked at all of them, on the page of `launch.serve review`.
  """

  undecided: str = 'keep'

  def __post_init__(self):
    super().__post_init__()
    if self.undecided not in UNDECIDED:
      raise ConfigError(f'undecided = {self.undecided!r}; expected one of {", ".join(UNDECIDED)}')


# The order of Table 44; what it names without numbers stands where it costs least.
ORDER = (
  'duration', 'resolution', 'aspect', 'text', 'borders', 'scenes', 'aesthetics', 'static', 'slides',
  'motion', 'jitter', 'duplicates', 'concepts', 'mixture',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CurationSettings(Checked):
  """Settings of a run of curation.

  Attributes:
    measure: of the expensive pass; its hash says whether scores can be used again.
    keep: of the cheap pass.
    order: names of filters, in which they are asked; a clip falls to the first that drops it.
    captions: who writes captions of what is kept, and what is in them.
    review: what becomes of clips that people have not looked at.
    cut: how what is kept is cut out of its videos.
    limits: of each video, while it is measured and cut.
    gate: whether videos that the first filters drop by a probe are not decoded, see `gate.py`.
  """

  measure: MeasureSettings = MeasureSettings()
  keep: KeepSettings = KeepSettings()
  order: tuple[str, ...] = ORDER
  captions: CaptionSettings = dataclasses.field(default_factory=CaptionSettings)
  review: ReviewSettings = ReviewSettings()
  cut: CutSettings = CUT
  limits: Allowance = ALLOWANCE
  gate: bool = False
