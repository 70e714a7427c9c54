"""What a request may ask for and what is answered, in the words of OpenAI's videos API."""

import dataclasses
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.apps.serving.http import Refused
from mgjax.core.errors import ConfigError, printable
from mgjax.models.text.prompts import clean_prompt

ID = re.compile('(video|image)_[0-9a-f]{32}')
Job = Mapping[str, Any]  # plain JSON values with nothing left open, of `plain_job`
_FIELDS = (
  'prompt',
  'model',
  'seconds',
  'size',
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
_IMAGE_FIELDS = ('n', 'response_format', 'quality', 'style', 'user', 'output_format')


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

  @property
  def makes_videos(self) -> bool:
    """Whether prompts alone are enough."""
    return self.component in ('video', 'personalization')

  def shown(self) -> dict[str, Any]:
    """Returns it as a model of the API."""
    found = dataclasses.asdict(self)
    told = {'id': found.pop('name'), 'reads_picture': bool(found.pop('reads'))}
    return {'object': 'model', 'created': 0, 'owned_by': 'mgjax', **found, **told}


class ApiError(Refused):
  """A refusal in the API's own form: which field is wrong, and what to do."""

  def __init__(self, sentence: str, param: str | None = None, status: int = 400, wait: float = 0):
    super().__init__(status, sentence)
    self.param, self.wait = param, wait


def plain_job(offer: Offer, prompt: str, **more: Any) -> dict[str, Any]:
  """Returns the usual job of a model, but for some of its fields."""
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
    **more,
  }


def parse_job(
  fields: Mapping[str, Any], offers: Mapping[str, Offer], limits: Limits, *, image: bool = False
) -> dict[str, Any]:
  """Returns the job that a client asks for.
  Raises ApiError for a field that is unknown or out of its range.
  """
  known = (*_FIELDS, *(_IMAGE_FIELDS if image else ()))
  if unknown := sorted(set(fields) - set(known)):
    raise ApiError(f'unknown field {_told(unknown[0])}; expected some of {", ".join(known)}')
  prompt = parse_prompt(fields.get('prompt'), limits)
  able = {each.name: each for each in offers.values() if each.makes_videos}
  offer = choose('model', fields.get('model') or next(iter(able)), able, 404)
  if fields.get('input_reference') and not offer.reads:
    readers = [each.name for each in offers.values() if each.reads]
    wrong = f'take {readers[0]}' if readers else 'serve one that reads pictures as well'
    raise ApiError(f'{offer.name} reads no picture; {wrong}', 'input_reference')
  sizes = {f'{width}x{height}': (height, width) for _, height, width in offer.shapes}
  size = fields.get('size')
  fps = number(fields, 'fps', offer.fps, 1, 240)
  height, width = choose('size', next(iter(sizes)) if size in (None, '', 'auto') else size, sizes)
  negative = fields.get('negative_prompt') or ''
  return plain_job(
    offer,
    prompt,
    frames=1 if image else _frames(fields, fps, (height, width), offer),
    height=height,
    width=width,
    fps=fps,
    seed=number(fields, 'seed', secrets.randbelow(2**31), 0, 2**32 - 1, int),
    steps=number(fields, 'num_inference_steps', None, 1, limits.steps, int),
    guidance=number(fields, 'guidance_scale', None, 0, 100),
    negative=parse_prompt(negative, limits, 'negative_prompt') if negative else '',
    lora=choose('lora', fields.get('lora') or '', {name: name for name in ('', *offer.loras)}),
    soundtrack='' if image else _other('soundtrack', fields, offers, 'audio'),
    upscale=_other('upscale', fields, offers, 'upsampler'),
    picture=bool(fields.get('input_reference')),
  )


def parse_prompt(prompt: Any, limits: Limits, name: str = 'prompt') -> str:
  """Returns a cleaned prompt. Raises ApiError for one that is missing, empty or too long."""
  if not isinstance(prompt, str):
    raise ApiError(f'{name} is missing; say what the video shows', name)
  if (length := len(prompt)) > limits.prompt:
    raise ApiError(f'{name} has {length} characters; cut it to {limits.prompt}', name)
  try:
    return clean_prompt(prompt)
  except ConfigError as error:
    raise ApiError(str(error), name) from error


def choose(field: str, value: Any, able: Mapping[str, Any], status: int = 400) -> Any:
  """Returns what a field names. Raises ApiError, with all names, if there is no such thing."""
  if not isinstance(value, str) or value not in able:
    names = ', '.join(filter(None, able)) or 'nothing, this server has none'
    raise ApiError(f'{field} {_told(value)}; expected {names}', field, status)
  return able[value]


def number(
  fields: Mapping[str, Any], name: str, usual: Any, least: float, most: float, kind: Any = float
) -> Any:
  """Returns a number of a request, `usual` where there is none.
  Raises ApiError if it is no such number, or out of its range.
  """
  value = fields.get(name)
  if value is None or value == '':
    return usual
  try:
    found = kind(value) if len(str(value)) < 32 and not isinstance(value, bool) else most + 1
    if least <= found <= most and found == float(value):
      return found
  except (TypeError, ValueError, OverflowError):
    pass
  what = 'a whole number' if kind is int else 'a number'
  raise ApiError(f'{name} {_told(value)}; expected {what} from {least:g} to {most:g}', name)


def video_object(id: str, job: Job, **state: Any) -> dict[str, Any]:
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
    'error': None,
    **state,
  }


def _told(value: Any) -> str:
  return repr(printable(value)[:60])


def _other(
  field: str, fields: Mapping[str, Any], offers: Mapping[str, Offer], component: str
) -> str:
  """Returns the model that a field wants beside, '' for none."""
  value = fields.get(field)
  if value in (None, '', False, 'false', '0', 0):
    return ''
  able = {each.name: each.name for each in offers.values() if each.component == component}
  return choose(field, next(iter(able), value) if value in (True, 'true', '1', 1) else value, able)


def _frames(fields: Mapping[str, Any], fps: float, size: tuple[int, int], offer: Offer) -> int:
  able = sorted({frames for frames, *other in offer.shapes if tuple(other) == size})
  name = 'num_frames'
  frames = number(fields, 'num_frames', None, 1, 100_000, int)
  if frames is None:
    name = 'seconds'
    seconds = number(fields, 'seconds', able[-1] / fps, 0, 100_000)
    frames = round(seconds * fps)
  if frames not in able:
    told = ', '.join(f'{each} ({each / fps:g} s)' for each in able)
    raise ApiError(
      f'{name}: {frames} frames at {fps:g} a second; {offer.name} makes videos of {told}', name
    )
  return frames
