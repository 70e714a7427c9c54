"""What a request may ask for and what is answered, in the words of OpenAI's videos API."""

import dataclasses
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mgjax.apps.serving.http import Refused
from mgjax.core.configuration.keys import JSON, LARGEST_SEED, Fields
from mgjax.core.errors import ConfigError, printable
from mgjax.models.foreign_weights.numbers import number_in
from mgjax.models.text.prompts import clean_prompt, frame_rate_of

T = TypeVar('T')

# Paths from the root, of which the last name is kept; in quotes they may hold blanks.
_QUOTED = re.compile(r"'(?:file://)?/(?:[^/']*/)*([^/']*)'")
_PATH = re.compile(r"""(?<![\w/.:~<'-])(?:file://)?/(?:[^\s/'",;:()]+/)*([^\s/'",;:()]+)""")
_CONTROL = re.compile(r'[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]')  # but for blanks of any kind
_LONGEST = 1000  # characters of an error
ID = re.compile('(video|image)_[0-9a-f]{32}')
Job = Fields  # plain JSON values with nothing left open, of `plain_job`
_FIELDS = (
  'prompt',
  'model',
  'seconds',
  'size',
  'width',
  'height',
  'seed',
  'num_frames',
  'fps',
  'num_inference_steps',
  'guidance_scale',
  'negative_prompt',
  'lora',
  'soundtrack',
  'upscale',
  'input_reference',
)
_VIDEO_ONLY = ('seconds', 'num_frames', 'fps', 'soundtrack')
_IMAGE_CHOICES = {  # fields of OpenAI's images, and what they may say here
  'response_format': ('b64_json',),
  'output_format': ('png',),
  'quality': ('auto', 'standard'),
}
_IMAGE_FIELDS = (
  *(field for field in _FIELDS if field not in _VIDEO_ONLY),
  *_IMAGE_CHOICES,
  'n',
  'user',
)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server allows, a field of --limits each."""

  queue: int = 1000  # jobs that may wait
  rate: float = 120  # jobs that one token, or without tokens one address, may ask for in a minute
  prompt: int = 4096  # characters
  steps: int = 100  # of the sampler
  upload: float = 16  # MB of a picture
  batch: int = 4  # jobs of one call of a model
  memory: float = 0  # GB of weights that are kept; 0 keeps all
  days: float = 7  # for which what was made is kept
  grace: float = 30  # seconds that jobs which run have to end, after SIGTERM


@dataclasses.dataclass(frozen=True)
class Offer:
  """What a model of this server can do; `shapes` are those of its training, the usual one first."""

  name: str
  component: str
  shapes: Sequence[tuple[int, int, int]] = ()
  fps: float = 0
  steps: int = 0
  reads: str = ''  # the condition that a picture goes to
  loras: Sequence[str] = ()
  datasets: Sequence[str] = ()  # that it was trained on, the main one first
  words: Sequence[str] = ()  # of its captions, where they are few
  steps_able: Sequence[int] = ()  # where it cannot take any number of steps
  most_steps: int = 0
  takes_guidance: bool = False
  example: str = ''  # a prompt

  @property
  def makes_videos(self) -> bool:
    """Whether prompts alone are enough."""
    return self.component in ('video', 'personalization')

  def to_json(self) -> JSON:
    """Returns the offer as a model of the API."""
    fields = dataclasses.asdict(self)
    renamed = {'id': fields.pop('name'), 'reads_picture': bool(fields.pop('reads'))}
    return {'object': 'model', 'created': 0, 'owned_by': 'mgjax', **fields, **renamed}


class ApiError(Refused):
  """A refusal in the API's own form: which field is wrong, and what to do."""

  def __init__(self, sentence: str, param: str | None = None, status: int = 400, wait: float = 0):
    super().__init__(status, sentence)
    self.param, self.wait = param, wait


def plain_job(offer: Offer, prompt: str, **fields: Any) -> dict[str, Any]:
  """Returns a model's default job with some fields replaced."""
  frames, height, width = offer.shapes[0]
  return {
    'model': offer.name,
    'prompt': prompt,
    'frames': frames,
    'height': height,
    'width': width,
    'fps': offer.fps,
    'seed': 0,
    'steps': None,
    'guidance': None,
    'negative': '',
    'lora': '',
    'soundtrack': '',
    'upscale': '',
    'picture': False,
    'source': '',
    'request': '',  # a digest of the request, to recognise it when it is repeated
    'warnings': [],
    **fields,
  }


def parse_job(
  fields: Fields, offers: Mapping[str, Offer], limits: Limits, *, image: bool = False
) -> JSON:
  """Returns the job that a client asks for.
  Raises ApiError for a field that is unknown or out of its range.
  """
  check_fields(fields, _IMAGE_FIELDS if image else _FIELDS)
  for name, able in _IMAGE_CHOICES.items():
    choose(name, text(fields, name) or able[0], dict.fromkeys(able))
  prompt = parse_prompt(fields.get('prompt'), limits)
  able = {offer.name: offer for offer in offers.values() if offer.makes_videos}
  model = text(fields, 'model') or next(iter(able))
  if model in offers and model not in able:
    field = BESIDE[offers[model].component]
    raise ApiError(f'{model} makes no videos of prompts alone; it serves {field}', 'model')
  offer = choose('model', model, able, 404)
  if fields.get('input_reference') and not offer.reads:
    readers = [other.name for other in offers.values() if other.reads]
    advice = f'take {readers[0]}' if readers else 'serve one that reads pictures as well'
    raise ApiError(f'{offer.name} reads no picture; {advice}', 'input_reference')
  height, width = _size(fields, offer)
  try:  # a prompt may begin with its frame rate
    fps = frame_rate_of(prompt, number(fields, 'fps', None, 1, 240), offer.fps)
  except ConfigError as error:
    raise ApiError(str(error), 'fps') from error
  negative = text(fields, 'negative_prompt').strip()
  drawn = fields.get('seed') in (-1, '-1')
  frames = 1 if image else _frames(fields, fps, (height, width), offer)
  soundtrack = _other('soundtrack', fields, offers, offer, (height, width))
  if soundtrack and frames == 1:
    raise ApiError('soundtrack: one frame has no sound; ask for more frames', 'soundtrack')
  return plain_job(
    offer,
    prompt,
    frames=frames,
    height=height,
    width=width,
    fps=fps,
    # One that is drawn is a number that all clients read exactly.
    seed=number({} if drawn else fields, 'seed', secrets.randbelow(2**31), 0, LARGEST_SEED, int),
    steps=number(fields, 'num_inference_steps', None, 1, limits.steps, int),
    guidance=number(fields, 'guidance_scale', None, 0, 100),
    negative=parse_prompt(negative, limits, 'negative_prompt') if negative else '',
    lora=choose('lora', text(fields, 'lora'), {name: name for name in ('', *offer.loras)}),
    soundtrack=soundtrack,
    upscale=_other('upscale', fields, offers, offer, (height, width)),
    picture=bool(fields.get('input_reference')),
  )


def parse_prompt(prompt: object, limits: Limits, name: str = 'prompt') -> str:
  """Returns a cleaned prompt. Raises ApiError for one that is missing, empty or too long."""
  if prompt is None:
    raise ApiError(f'{name} is missing; say what the video shows', name)
  if not isinstance(prompt, str):
    raise ApiError(f'{name}: expected text, given {prompt!r:.60}', name)
  if (length := len(prompt)) > limits.prompt:
    raise ApiError(f'{name} has {length} characters; cut it to {limits.prompt}', name)
  if match := _CONTROL.search(prompt):
    raise ApiError(f'{name} has the control character {match[0]!r}; leave it out', name)
  try:
    return clean_prompt(prompt)
  except ConfigError as error:
    raise ApiError(str(error), name) from error


def text(fields: Fields, name: str) -> str:
  """Returns the text of a field, '' where there is none. Raises ApiError if it is no text."""
  value = fields.get(name)
  if not isinstance(value, str | None):
    raise ApiError(f'{name}: expected text, given {value!r:.60}', name)
  return value or ''


def choose(field: str, value: object, able: Mapping[str, T], status: int = 400) -> T:
  """Returns what a field names. Raises ApiError, with all names, if there is no such thing."""
  if not isinstance(value, str) or value not in able:
    names = ', '.join(filter(None, able)) or 'nothing, this server has none'
    raise ApiError(f'{field} {quoted(value)}; expected {names}', field, status)
  return able[value]


def number(
  fields: Fields, name: str, usual: object, least: float, most: float, kind: Any = float
) -> Any:
  """Returns a number of a request, `usual` where there is none.
  Raises ApiError if it is no such number, or out of its range.
  """
  value = fields.get(name)
  if value is None or value == '':
    return usual
  try:
    parsed = number_in(value, kind) if isinstance(value, str) else value
    is_real = isinstance(parsed, int | float) and not isinstance(parsed, bool)
    if is_real and least <= parsed <= most and kind(parsed) == parsed:
      return kind(parsed)
  except (ValueError, OverflowError):
    pass
  what = 'a whole number' if kind is int else 'a number'
  raise ApiError(f'{name} {quoted(value)}; expected {what} from {least} to {most}', name)


def video_object(id: str, job: Job, **state: object) -> JSON:
  """Returns a job as the API shows it; `state` has its status, its times and so on."""
  factor = 2 if job['upscale'] else 1
  return {
    'id': id,
    'object': 'video',
    'model': job['model'],
    'prompt': job['prompt'],
    'seconds': f'{job["frames"] / job["fps"]:g}',
    'num_frames': job['frames'],
    'fps': job['fps'],
    'size': f'{factor * job["width"]}x{factor * job["height"]}',
    'seed': job['seed'],
    'remixed_from_video_id': job['source'] or None,
    'progress': 0,
    'completed_at': None,
    'expires_at': None,
    'warnings': job.get('warnings', []),
    'error': None,
    **state,
  }


def public(error: Exception) -> str:
  """Returns an error's message in one line, without the folders of this machine."""
  line = printable(' '.join(str(error).split())[:_LONGEST] or type(error).__name__)
  return _QUOTED.sub(r"'\1'", _PATH.sub(r'\1', line))


def quoted(value: object) -> str:
  """Returns a value of a client as errors quote it."""
  return repr(printable(value[:60] if isinstance(value, str) else repr(value)[:60]))


def check_fields(fields: Fields, known: Sequence[str]) -> None:
  """Raises ApiError for a field that is none of the known, or is a list or an object."""
  if unknown := sorted(set(fields) - set(known)):
    raise ApiError(
      f'unknown field {quoted(unknown[0])}; expected some of {", ".join(known)}',
      printable(unknown[0][:60]),
    )
  for name, value in fields.items():
    if isinstance(value, list | dict):
      raise ApiError(f'{name} is a list or an object; expected text or a number', name)


BESIDE = {'audio': 'soundtrack', 'upsampler': 'upscale', 'editing': 'remix'}  # by component


def mismatch(maker: Offer | None, other: Offer, size: tuple[int, int]) -> str:
  """Says why a model cannot go on with videos of this size by another one; '' if it can."""
  name = other.name
  if maker is not None and not set(maker.datasets[:1]) <= set(other.datasets):
    return (
      f'{name} was trained on {", ".join(other.datasets)}, {maker.name} on {maker.datasets[0]}; '
      'serve one of the same'
    )
  sizes = {(height, width) for _, height, width in other.shapes}
  height, width = size
  small = all(2 * height < least or 2 * width < across for least, across in sizes)
  if sizes and (small if other.component == 'upsampler' else size not in sizes):
    of = ', '.join(f'{across}x{least}' for least, across in sorted(sizes))
    return f'{name} was trained on {of}, and this video has {width}x{height}; serve another one'
  return ''


def find_other(
  component: str,
  offers: Mapping[str, Offer],
  maker: Offer | None,
  size: tuple[int, int],
  name: str = '',
) -> Offer:
  """Returns the first model of a component, or the named one, that goes on with videos of a model.
  Raises ApiError if there is none, with the reason.
  """
  field = BESIDE[component]
  able = {offer.name: offer for offer in offers.values() if offer.component == component}
  if name or not able:
    able = {name: choose(field, name or 'true', able)}
  reasons = {model: mismatch(maker, other, size) for model, other in able.items()}
  if fitting := [model for model, reason in reasons.items() if not reason]:
    return able[fitting[0]]
  raise ApiError(f'{field}: {next(iter(reasons.values()))}', field)


def _other(
  field: str,
  fields: Fields,
  offers: Mapping[str, Offer],
  maker: Offer,
  size: tuple[int, int],
) -> str:
  """Returns the model that a field wants beside, '' for none."""
  value = fields.get(field)
  value = str(value) if isinstance(value, bool) else text(fields, field)
  switch = value.lower()  # Python's clients write False in a form
  if switch in ('', 'false', '0'):
    return ''
  component = next(key for key, name in BESIDE.items() if name == field)
  if switch in ('true', '1'):
    value = ''
  return find_other(component, offers, maker, size, value).name


def _size(fields: Fields, offer: Offer) -> tuple[int, int]:
  """Returns height and width, of `size` or of `width` and `height`."""
  sizes = {f'{width}x{height}': (height, width) for _, height, width in offer.shapes}
  size = fields.get('size')
  sides = [number(fields, name, 0, 1, 100_000, int) for name in ('width', 'height')]
  if any(sides):
    name = 'height' if sides[0] else 'width'
    if not all(sides):
      raise ApiError(f'{name} is missing; give width and height, or size', name)
    sides_text = '{}x{}'.format(*sides)
    if size not in (None, '', 'auto', sides_text):
      raise ApiError(f'size {quoted(size)} is not {sides_text}; give one of them', 'size')
    return choose('width', sides_text, sizes)
  return choose('size', next(iter(sizes)) if size in (None, '', 'auto') else size, sizes)


def _frames(fields: Fields, fps: float, size: tuple[int, int], offer: Offer) -> int:
  able = sorted({frames for frames, *other in offer.shapes if tuple(other) == size})
  name = 'num_frames'
  frames = number(fields, 'num_frames', None, 1, 100_000, int)
  seconds = number(fields, 'seconds', None, 0, 100_000)
  if frames is None:
    name = 'seconds'
    frames = able[-1] if seconds is None else round(seconds * fps)
  elif seconds is not None and round(seconds * fps) != frames:
    raise ApiError(
      f'seconds {seconds:g} is not {frames} frames at {fps:g} a second; give one of them', 'seconds'
    )
  if frames not in able:
    choices = ', '.join(f'{count} ({count / fps:g} s)' for count in able)
    raise ApiError(
      f'{name}: {frames} frames at {fps:g} a second; {offer.name} makes videos of {choices}', name
    )
  return frames
