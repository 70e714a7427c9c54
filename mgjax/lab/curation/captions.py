"""Captions of clips, with the move of the camera in front (Movie Gen §3.2.1).

The paper's captions are written by a finetuned model that sees frames, about 100 words each, and
begin with the class of the camera where a classifier is sure of it. Three captioners are here:

existing  the text that came with a clip
endpoint  a model that a server has, which is shown frames
rules     what optical flow and colours tell, in a few sentences: no subject is named

Any other is the user's own subclass of `Captioner`, 'package.module:Class', made without arguments.
"""

import abc
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Sequence

import numpy as np

from mgjax.core.errors import ConfigError, printable
from mgjax.core.plug_ins import load_function
from mgjax.core.settings import unpack
from mgjax.core.typing import UInt8
from mgjax.data.media.optical_flow import opencv
from mgjax.lab.curation.scores.camera_motion import (
  ANSWERS,
  ROLL,
  CameraMotion,
  CameraSettings,
  PairMotion,
  camera_motion,
  pair_motion,
)
from mgjax.lab.curation.settings import CaptionSettings
from mgjax.lab.language_models.endpoint import Endpoint, EndpointSettings, Question
from mgjax.models.text.prompts import answered, clean_prompt

_CAMERA = CameraSettings()
_REQUEST = (
  'These are {count} frames of one video clip, in order. Describe the clip to a person who cannot '
  'see it, in about {words} words and plain sentences: who or what is there, what happens from the '
  'first frame to the last, the place, light and colours. Describe only what is visible; do not '
  'mention frames or images.{hint} Answer with JSON alone: {{"caption": "..."}}'
)
_HINT = ' The clip has this caption, which may be wrong: "{caption}".'
_OWN = 0.12  # share of the places that move on their own, from which something is said to move
_FAST = 0.25  # shorter sides a second, from which a move is fast
# Of hue, in OpenCV's degrees / 2, up to which a colour is called so.
_HUES = (
  (8, 'red'),
  (20, 'orange'),
  (34, 'yellow'),
  (80, 'green'),
  (96, 'turquoise'),
  (130, 'blue'),
  (150, 'purple'),
  (170, 'pink'),
  (180, 'red'),
)
_GREYS = ('black', 'grey', 'white')
# of 255: brightness of black and of white, saturation of grey
_DARK = 50
_BRIGHT = 200
_PALE = 45
_NAMED = 0.15  # share of the picture from which a colour is named


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """What a captioner may look at."""

  read: Callable[[], UInt8[np.ndarray, 't h w 3']]  # the frames, when they are needed
  fps: float  # of the frames
  caption: str = ''


class Captioner(abc.ABC):
  """Writes captions of clips."""

  sees = True  # whether it looks at frames

  def sampling(self, settings: CaptionSettings, seconds: float) -> tuple[float, int]:
    """Returns how many frames a second it is shown of a clip so long, and their shorter side."""
    return 2 * settings.frames / max(seconds, 1e-6), settings.side

  @abc.abstractmethod
  def captions(self, clips: Sequence[Clip]) -> list[str | None]:
    """Returns a caption a clip; None where there is none."""


class Existing(Captioner):
  """Takes the text that came with a clip."""

  sees = False

  def captions(self, clips: Sequence[Clip]) -> list[str | None]:
    return [_clean(clip.caption) for clip in clips]


class Asking(Captioner):
  """Shows frames to a model that a server has; what it answered is kept in a folder."""

  def __init__(self, settings: CaptionSettings, folder: str | os.PathLike[str]):
    self._settings = settings
    self._endpoint = Endpoint(unpack(EndpointSettings, settings.endpoint, 'endpoint'), folder)

  def captions(self, clips: Sequence[Clip]) -> list[str | None]:
    read = functools.partial(answered, name='caption')
    return self._endpoint.ask_all(_Questions(clips, self._settings), read)


class Rules(Captioner):
  """Tells what optical flow and colours see, in a few sentences."""

  def __init__(self, settings: CameraSettings = _CAMERA):
    self._settings = settings

  def sampling(self, settings: CaptionSettings, seconds: float) -> tuple[float, int]:
    return self._settings.rate, self._settings.side

  def captions(self, clips: Sequence[Clip]) -> list[str | None]:
    return [describe(clip.read(), clip.fps, self._settings) for clip in clips]


_KINDS: dict[str, Callable[..., Captioner]] = {
  'existing': lambda settings, folder: Existing(),
  'endpoint': Asking,
  'rules': lambda settings, folder: Rules(),
}


def make_captioner(settings: CaptionSettings, folder: str | os.PathLike[str]) -> Captioner:
  """Makes a captioner; it saves its answers in `folder`.
  Raises ConfigError if a field of the endpoint is wrong, or a plug-in makes no `Captioner`.
  """
  if settings.kind in _KINDS:
    return _KINDS[settings.kind](settings, folder)
  captioner = load_function(settings.kind)()
  if not isinstance(captioner, Captioner):
    raise ConfigError(
      f'plug-in {printable(settings.kind)!r} makes {type(captioner).__name__}; expected a subclass '
      'of mgjax.lab.curation.captions.Captioner'
    )
  return captioner


def sentence_of(*labels: str) -> str:
  """Returns 'Pan right, wide shot.', a sentence of labels; '' of none."""
  text = ', '.join(labels)
  return f'{text[0].upper()}{text[1:]}.' if text else ''


def describe(
  frames: UInt8[np.ndarray, 't h w 3'], fps: float, settings: CameraSettings = _CAMERA
) -> str:
  """Describes frames by optical flow and colours: camera, moving objects, colours and light.

  Raises:
    ConfigError: OpenCV is not installed.
    DataError: the frames are too small.
  """
  cv2 = opencv()
  step = max(1, round(fps / settings.rate))
  height, width = frames.shape[1:3]
  scale = min(1.0, settings.side / min(height, width))
  size = max(16, round(width * scale)), max(16, round(height * scale))
  small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames[::step]]
  luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
  pairs = [pair_motion(*both, step / fps) for both in itertools.pairwise(luma)]
  sentences = [_camera_sentence(camera_motion(pairs, settings)), _motion_sentence(pairs, settings)]
  sentences.append(_colour_sentence(small[len(small) // 2]))
  return ' '.join(sentence for sentence in sentences if sentence)


def _camera_sentence(camera: CameraMotion) -> str:
  if camera.answer == ROLL:
    return 'The camera rolls.'
  if camera.answer not in ANSWERS:
    return ''
  how = ', fast' if camera.speed >= _FAST else ''
  return f'{camera.answer[0].upper()}{camera.answer[1:]}{how}.'


def _motion_sentence(pairs: Sequence[PairMotion | None], settings: CameraSettings) -> str:
  """Returns a sentence about motion that is not the camera's, or ''."""
  measured = [pair for pair in pairs if pair is not None]
  if not measured or np.median([1 - pair.support for pair in measured]) < _OWN:
    return ''
  x, y = (
    float(np.mean([getattr(pair, name) / pair.seconds for pair in measured]))
    for name in ('own_x', 'own_y')
  )
  if max(abs(x), abs(y)) < settings.still:
    return 'Something moves.'
  where = ('right' if x > 0 else 'left') if abs(x) >= abs(y) else ('down' if y > 0 else 'up')
  towards = f'to the {where}' if where in ('right', 'left') else where
  return f'Something moves {towards}.'


def _colour_sentence(frame: UInt8[np.ndarray, 'h w 3']) -> str:
  shares = colours(frame)
  named = [name for name, share in shares.items() if share >= _NAMED][:3]
  mean = float(frame.mean())
  light = 'dark' if mean < _DARK else 'bright' if mean > _BRIGHT else ''
  opening = f'The picture is {light}' if light else 'The picture is'
  palette = f'mostly {" and ".join(named)}' if named else 'of many colours'
  return f'{opening}{"," if light else ""} {palette}.'


def colours(frame: UInt8[np.ndarray, 'h w 3']) -> dict[str, float]:
  """Returns the names of a picture's colours and their shares of it, the largest first."""
  cv2 = opencv()
  hue, saturation, value = np.moveaxis(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV), -1, 0)
  names = [*_GREYS, *dict.fromkeys(name for _, name in _HUES)]
  limits = np.array([limit for limit, _ in _HUES])
  of_hue = np.array([names.index(name) for _, name in _HUES])
  labels = of_hue[np.searchsorted(limits, hue, side='right').clip(max=len(_HUES) - 1)]
  grey = np.where(value > _BRIGHT, names.index('white'), names.index('grey'))
  labels = np.where(saturation < _PALE, grey, labels)
  labels = np.where(value < _DARK, names.index('black'), labels)
  shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
  order = np.argsort(-shares, kind='stable')
  return {names[index]: float(shares[index]) for index in order if shares[index]}


class _Questions(Sequence):
  """Questions of clips, whose frames are read when they are asked for."""

  def __init__(self, clips: Sequence[Clip], settings: CaptionSettings):
    self._clips, self._settings = clips, settings

  def __len__(self) -> int:
    return len(self._clips)

  def __getitem__(self, index: int) -> Question:
    clip = self._clips[index]
    settings = self._settings
    frames = clip.read()
    count = min(settings.frames, len(frames))
    chosen = np.linspace(0, len(frames) - 1, 2 * count + 1).round().astype(int)[1::2]
    caption = _clean(clip.caption)
    hint = _HINT.format(caption=caption.replace('"', "'")) if caption else ''
    text = _REQUEST.format(count=count, words=settings.words, hint=hint)
    return Question(text, [_shrunk(frames[number], settings.side) for number in chosen])


def _shrunk(frame: UInt8[np.ndarray, 'h w 3'], side: int) -> UInt8[np.ndarray, 'i j 3']:
  from PIL import Image

  scale = min(1.0, side / max(frame.shape[:2]))
  size = [max(1, round(length * scale)) for length in frame.shape[1::-1]]
  return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def _clean(text: str) -> str | None:
  try:
    return clean_prompt(text)
  except ConfigError:  # nothing is left of it
    return None
