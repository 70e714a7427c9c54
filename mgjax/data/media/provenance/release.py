"""Checks prompts, postprocesses outputs and signs files, as three environment variables ask for it.

`MGJAX_CHECK` names a function that may refuse a prompt, `MGJAX_POSTPROCESS` one that changes
pictures and audio before they are written, as a watermark does (both 'package.module:function'),
and `MGJAX_C2PA_CERTIFICATE` what files are signed with. Variables and not flags, so that no command
and no notebook can forget them.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, MgjaxError, first_line, printable
from mgjax.core.plug_ins import load_function
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.provenance.manifest import check_signing, configured, sign
from mgjax.data.media.viewing import enlarged

CHECK = 'MGJAX_CHECK'
POSTPROCESS = 'MGJAX_POSTPROCESS'

__all__ = ['admit', 'described', 'postprocess', 'postprocess_enlarged', 'postprocess_sound', 'sign']


def admit(prompts: Iterable[str]) -> None:
  """Refuses prompts before anything is made; empty ones are not checked.

  Raises ConfigError if `check(prompt) -> reason | None` gives a reason, or fails; or what a
  variable names cannot be used.
  """
  check_signing()
  _function(POSTPROCESS)
  check = _function(CHECK)
  for prompt in prompts if check is not None else ():
    if prompt and (reason := _called(CHECK, check, prompt)) is not None:
      if not isinstance(reason, str):
        raise _wrong(CHECK, f'returned {type(reason).__name__}, expected a reason or None')
      raise ConfigError(f'the prompt {printable(prompt)!r} is refused: {reason}')


def postprocess(video: UInt8[np.ndarray, 't h w 3']) -> UInt8[np.ndarray, 't h w 3']:
  """Returns pictures as `postprocess(video, audio) -> (video, audio)` wants them written.

  A long video comes in pieces, in order: t is 1 where files are written frame by frame.
  Raises ConfigError if the function fails, or returns another shape or type.
  """
  return _postprocessed(video, None)[0]


def postprocess_enlarged(
  video: UInt8[np.ndarray, 't h w 3'], scale: int
) -> tuple[UInt8[np.ndarray, 't h2 w2 3'], int]:
  """Returns pictures to be written, and how often their pixels are still to be repeated.

  The function of `postprocess` sees small pictures enlarged by `scale`, as they are written.
  """
  if not os.environ.get(POSTPROCESS):
    return video, scale
  return postprocess(enlarged(video, scale)), 1


def postprocess_sound(
  chunks: Iterable[Float[np.ndarray, '_ c']],
) -> Iterator[Float[np.ndarray, '_ c']]:
  """Yields pieces of a sound, in order, as the function of `postprocess` wants them written.

  It is called once for each file that is made of the sound; ConfigError as `postprocess`.
  """
  for chunk in chunks:
    yield _postprocessed(None, chunk)[1]


def described() -> JSON:
  """Returns the variables for the json beside a file; {} where none is set."""
  signing = configured()
  variables = {
    'check': os.environ.get(CHECK),
    'postprocess': os.environ.get(POSTPROCESS),
    'certificate': signing and hashlib.sha256(signing.chain).hexdigest()[:16],
  }
  variables = {name: value for name, value in variables.items() if value}
  return {'release': variables} if variables else {}


def _postprocessed(video: Any, audio: Any) -> tuple[Any, Any]:
  function = _function(POSTPROCESS)
  if function is None:
    return video, audio
  result = _called(POSTPROCESS, function, video, audio)
  if not isinstance(result, tuple) or len(result) != 2:
    raise _wrong(POSTPROCESS, 'returned no pair; expected (video, audio)')
  for name, before, after in zip(('video', 'audio'), (video, audio), result, strict=True):
    expected, actual = (getattr(array, 'dtype', None) for array in (before, after))
    if expected != actual or np.shape(before) != np.shape(after):
      raise _wrong(
        POSTPROCESS,
        f'returned, as {name}, {actual} {np.shape(after)}, expected {expected} {np.shape(before)}',
      )
  return result


def _function(variable: str) -> Any:
  name = os.environ.get(variable, '')
  return load_function(name) if name else None


def _called(variable: str, function: Any, *arguments: Any) -> Any:
  try:
    return function(*arguments)
  except MgjaxError:
    raise
  except Exception as error:  # a function of the user's own; what it did not pass must not pass
    raise _wrong(variable, f'failed: {type(error).__name__}: {first_line(error)}') from error


def _wrong(variable: str, what: str) -> ConfigError:
  return ConfigError(f'{variable}={printable(os.environ[variable])}: the function {what}')
