"""What a request may ask for and what is answered, in the words of OpenAI's videos API."""

import dataclasses
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.errors import ConfigError, printable
from mgjax.serving.http import Refused
from mgjax.text.prompts import clean_prompt

ID = re.compile('(video|image)_[0-9a-f]{32}')
_FIELDS = (
  'prompt', 'model', 'seconds', 'size', 'seed', 'num_frames', 'fps', 'num_inference_steps',
  'guidance_scale', 'negative_prompt', 'lora', 'soundtrack', 'upscale', 'input_reference',
)  # fmt: skip
_IMAGE_FIELDS = ('n', 'response_format', 'quality', 'style', 'user', 'output_format')
_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server allows, a field of --limits each.

  Attributes:
    queue: jobs that may wait.
    rate: jobs that one token, or without tokens one address, may ask for in a minute.
    prompt: characters.
    steps: of the sampler.
    upload: MB of a picture.
    batch: jobs of one call of a model.
    memory: GB of weights that are kept; what was not used for longest goes first. 0 keeps all.
    days: for which what was made is kept.
    grace: seconds that jobs which run have to end, after SIGTERM.
  """

  queue: int = 1000
  rate: float = 120
  prompt: int = 4096
  steps: int = 100
  upload: float = 16
  batch: int = 4
  memory: float = 0
  days: float = 7
  grace: float = 30


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
    told = {'reads_picture': bool(self.reads), 'shapes': [list(each) for each in self.shapes]}
    return {'object': 'model', 'created': 0, 'owned_by': 'mgjax', 'id': self.name,
            'component': self.component, 'fps': self.fps, 'steps': self.steps,
            'loras': list(self.loras), **told}  # fmt: skip


class ApiError(Refused):
  """A refusal in the API's own form: which field is wrong, and what to do."""

  def __init__(self, sentence: str, param: str | None = None, status: int = 400, wait: float = 0):
    super().__init__(status, sentence)
    self.param, self.wait = param, wait


def error_object(status: int, sentence: str, param: str | None = None) -> dict[str, Any]:
  """Returns what a client of OpenAI reads of an error."""
  kinds = {
    401: 'authentication_error', 404: 'not_found_error', 429: 'rate_limit_error',
    503: 'service_unavailable_error',
  }  # fmt: skip
  kind = kinds.get(status, 'server_error' if status >= 500 else 'invalid_request_error')
  code = {401: 'invalid_api_key', 404: 'not_found', 429: 'rate_limit_exceeded'}.get(status)
  return {'error': {'message': sentence, 'type': kind, 'param': param, 'code': code}}


def parse_job(
  fields: Mapping[str, Any], offers: Mapping[str, Offer], limits: Limits, *, image: bool = False
) -> dict[str, Any]:
  """Returns a job, plain JSON values with nothing left open, of what a client sent.
  Raises ApiError for a field that is unknown or out of its range.
  """
  known = (*_FIELDS, *(_IMAGE_FIELDS if image else ()))
  if unknown := sorted(set(fields) - set(known)):
    raise ApiError(f'unknown field {_told(unknown[0])}; expected some of {", ".join(known)}')
  prompt = parse_prompt(fields.get('prompt'), limits)
  offer = _offer(fields.get('model'), offers)
  if wrong := fields.get('input_reference') and not offer.reads:
    able = [each.name for each in offers.values() if each.reads]
    wrong = f'take {able[0]}' if able else 'serve one that reads pictures as well'
    raise ApiError(f'{offer.name} reads no picture; {wrong}', 'input_reference')
  fps = _number(fields, 'fps', offer.fps, 1, 240)
  size = _size(fields.get('size'), offer)
  steps, guidance = fields.get('num_inference_steps'), fields.get('guidance_scale')
  if steps is not None:
    steps = _number(fields, 'num_inference_steps', 0, 1, limits.steps, int)
  if guidance is not None:
    guidance = _number(fields, 'guidance_scale', 0, 0, 100)
  lora = fields.get('lora') or ''
  if lora not in ('', *offer.loras):
    names = ', '.join(offer.loras) or 'none; the server gives them by --lora=NAME=PLACE'
    raise ApiError(f'lora {_told(lora)}; {offer.name} has {names}', 'lora')
  negative = fields.get('negative_prompt') or ''
  return {
    'model': offer.name,
    'prompt': prompt,
    'frames': 1 if image else _frames(fields, fps, size, offer),
    'height': size[0],
    'width': size[1],
    'fps': fps,
    'seed': _number(fields, 'seed', secrets.randbelow(2**31), 0, _SEED - 1, int),
    'steps': steps,
    'guidance': guidance,
    'negative': parse_prompt(negative, limits, 'negative_prompt') if negative else '',
    'lora': lora,
    'soundtrack': '' if image else _other('soundtrack', fields, offers, 'audio'),
    'upscale': _other('upscale', fields, offers, 'upsampler'),
    'picture': bool(fields.get('input_reference')),
    'source': '',
  }


def parse_prompt(prompt: Any, limits: Limits, name: str = 'prompt') -> str:
  """Returns a cleaned prompt. Raises ApiError for one that is missing, empty or too long."""
  if not isinstance(prompt, str):
    raise ApiError(f'{name} is missing; say what the video shows', name)
  if len(prompt) > limits.prompt:
    raise ApiError(
      f'{name} has {len(prompt)} characters; expected at most {limits.prompt}: cut it', name
    )
  try:
    return clean_prompt(prompt)
  except ConfigError as error:
    raise ApiError(str(error), name) from error


def edit_job(video: Mapping[str, Any], prompt: str, editor: Offer) -> dict[str, Any]:
  """Returns the job of an edit of a video, given as the API shows it."""
  frames, height, width = editor.shapes[0]
  return {
    'model': editor.name, 'prompt': prompt, 'frames': min(video['num_frames'], frames),
    'height': height, 'width': width, 'fps': video['fps'], 'seed': video['seed'], 'steps': None,
    'guidance': None, 'negative': '', 'lora': '', 'soundtrack': '', 'upscale': '',
    'picture': False, 'source': video['id'],
  }  # fmt: skip


def video_object(id: str, job: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a job as the API shows it.

  `state` has status, progress, created_at, completed_at, expires_at and error.
  """
  factor = 2 if job['upscale'] else 1
  return {
    'id': id,
    'object': 'video',
    'model': job['model'],
    'prompt': job['prompt'],
    'seconds': f'{job["frames"] / job["fps"]:g}',
    'size': f'{factor * job["width"]}x{factor * job["height"]}',
    'remixed_from_video_id': job['source'] or None,
    'num_frames': job['frames'],
    'fps': job['fps'],
    'seed': job['seed'],
    'progress': 0,
    'completed_at': None,
    'expires_at': None,
    'error': None,
    **state,
  }


def _told(value: Any) -> str:
  return repr(printable(value)[:60])


def _offer(name: Any, offers: Mapping[str, Offer]) -> Offer:
  able = {each.name: each for each in offers.values() if each.makes_videos}
  if name in (None, '') and able:
    return next(iter(able.values()))
  if not isinstance(name, str) or name not in able:
    raise ApiError(
      f'no model {_told(name)} makes videos here; expected one of {", ".join(able)}', 'model',
      404 if able else 400,
    )  # fmt: skip
  return able[name]


def _other(
  field: str, fields: Mapping[str, Any], offers: Mapping[str, Offer], component: str
) -> str:
  value = fields.get(field)
  if value in (None, '', False, 'false', '0', 0):
    return ''
  able = [each.name for each in offers.values() if each.component == component]
  if not able:
    raise ApiError(f'no model of this server is for {field}; leave it out', field)
  if value in (True, 'true', '1', 1):
    return able[0]
  if value not in able:
    raise ApiError(f'{field} {_told(value)}; expected true or one of {", ".join(able)}', field)
  return value


def _number(
  fields: Mapping[str, Any], name: str, usual: Any, least: float, most: float, kind: Any = float
) -> Any:
  value = fields.get(name)
  if value is None or value == '':
    return usual
  try:
    right = isinstance(value, str | int | float) and not isinstance(value, bool)
    found = kind(value) if right and len(str(value)) < 32 else math.nan
    right = least <= found <= most and float(found) == float(value)
  except (ValueError, OverflowError):
    found, right = math.nan, False
  if not right:
    what = 'a whole number' if kind is int else 'a number'
    raise ApiError(f'{name} {_told(value)}; expected {what} from {least:g} to {most:g}', name)
  return found


def _size(value: Any, offer: Offer) -> tuple[int, int]:
  if value in (None, '', 'auto'):
    return offer.shapes[0][1:]
  sizes = {f'{width}x{height}': (height, width) for _, height, width in offer.shapes}
  if not isinstance(value, str) or value not in sizes:
    raise ApiError(
      f'size {_told(value)}; {offer.name} makes {", ".join(sizes)} (width x height)', 'size'
    )
  return sizes[value]


def _frames(fields: Mapping[str, Any], fps: float, size: tuple[int, int], offer: Offer) -> int:
  able = sorted({frames for frames, *other in offer.shapes if tuple(other) == size})
  frames = _number(fields, 'num_frames', None, 1, 100_000, int)
  seconds = _number(fields, 'seconds', None, 0, 100_000)
  if frames is None and seconds is not None:
    frames = round(seconds * fps)
    name, given = 'seconds', f'{seconds:g} at {fps:g} frames a second'
  else:
    name, given = 'num_frames', f'{frames}'
  if frames is None:
    return able[-1]
  if frames not in able:
    told = ', '.join(f'{each} ({each / fps:g} s)' for each in able)
    raise ApiError(f'{name} {given}; {offer.name} makes videos of {told} frames', name)
  return frames
