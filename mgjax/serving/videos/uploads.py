"""Decodes pictures that strangers send, in a child process with limits of memory and time.

The child is this file as a script: it reads bytes, tries three decoders and writes pixels anew as a
PNG, so that nothing else of what was sent goes on. A decoder that crashes takes the child along.
"""

import resource
import subprocess
import sys

FORMATS = ('PNG', 'JPEG', 'WEBP')
_MEMORY, _SECONDS = 1 << 30, 10  # of the child
_PIXELS, _SIDE = 50_000_000, 1024  # most that is decoded; the longest side that is kept
_REASONS = {3: 'is none of ' + ', '.join(FORMATS), 4: f'has more than {_PIXELS} pixels'}


class UnreadableError(Exception):
  """What was sent is no picture that can be read; the message says why."""


def decode_picture(data: bytes) -> bytes:
  """Returns a picture as a PNG of RGB, with sides of at most 1024 pixels.
  Raises UnreadableError if it is none, or takes more memory or time than a picture needs.
  """
  try:
    done = subprocess.run(
      [sys.executable, '-I', __file__], input=data, capture_output=True, timeout=2 * _SECONDS,
      env={}, check=False,
    )  # fmt: skip
  except subprocess.TimeoutExpired as error:
    raise UnreadableError(f'takes more than {_SECONDS} s to decode') from error
  if done.returncode or not done.stdout:
    reason = _REASONS.get(done.returncode, 'is damaged, or takes too much memory or time')
    raise UnreadableError(reason)
  return done.stdout


def _decode() -> int:
  from PIL import Image, ImageOps

  for limit, most in (
    (resource.RLIMIT_AS, _MEMORY),
    (resource.RLIMIT_CPU, _SECONDS),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
  ):
    resource.setrlimit(limit, (most, most))
  import io

  Image.MAX_IMAGE_PIXELS = None  # this file says how many
  try:
    picture = Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=FORMATS)
  except Exception:
    return 3
  if picture.width * picture.height > _PIXELS:
    return 4
  picture = ImageOps.exif_transpose(picture).convert('RGB')
  picture.thumbnail((_SIDE, _SIDE))
  clean = Image.frombytes('RGB', picture.size, picture.tobytes())
  buffer = io.BytesIO()
  clean.save(buffer, 'PNG')
  sys.stdout.buffer.write(buffer.getvalue())
  return 0


if __name__ == '__main__':
  sys.exit(_decode())
