"""Decodes untrusted uploaded pictures, in a child process with limits of memory and time.

The child is this file as a script: it reads bytes, tries three decoders and writes pixels anew as a
PNG, so that nothing else of what was sent goes on. A decoder that crashes takes the child along.
"""

import io
import os
import re
import resource
import subprocess
import sys

FORMATS = ('PNG', 'JPEG', 'WEBP')
CHILDREN = 2  # at once
# of the child
_MEMORY = 1 << 30
_SECONDS = 2  # of a processor
_PATIENCE = 30  # seconds in which it has to get them
_PIXELS, _SIDE = 50_000_000, 1024  # most that is decoded; the longest side that is kept
_SCANS = 100  # of a progressive JPEG, each as much work as a picture; encoders make ten
_NICER = 10  # than this process, whose other clients go first
_REASONS = {
  3: f'is none of {", ".join(FORMATS)}',
  4: f'has more than {_PIXELS} pixels',
  5: f'has more than {_SCANS} scans',
  6: 'has too much text, or other data beside its pixels',
}


def decode_picture(data: bytes) -> bytes:
  """Returns a picture as a PNG of RGB, with sides of at most 1024 pixels.
  Raises ApiError if it is none, or takes more memory or time than a picture needs.
  """
  from mgjax.apps.serving.videos.schema import ApiError  # which the child does not need

  command = [sys.executable, '-I', __file__]
  options = {'env': {}, 'timeout': _PATIENCE}
  try:
    return subprocess.run(command, input=data, capture_output=True, check=True, **options).stdout
  except subprocess.SubprocessError as error:
    code = getattr(error, 'returncode', None)
    reason = _REASONS.get(code, 'is damaged, or takes too much memory or time')
    raise ApiError(f'The picture {reason}; send another one.', 'input_reference') from None


def _decode() -> int:
  from PIL import Image, ImageOps, UnidentifiedImageError

  limits = {'AS': _MEMORY, 'CPU': _SECONDS, 'FSIZE': 0, 'CORE': 0}
  for name, most in limits.items():
    resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (most, most))
  os.nice(_NICER)
  Image.MAX_IMAGE_PIXELS = None  # this file says how many
  data = sys.stdin.buffer.read()
  try:
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
  except UnidentifiedImageError:
    return 3
  except ValueError:
    return 6
  if picture.width * picture.height > _PIXELS:
    return 4
  # In the data of a scan a byte 0xff is followed by 0, so these two begin one.
  if data.startswith(b'\xff\xd8') and len(re.findall(b'\xff\xda', data)) > _SCANS:
    return 5
  picture.draft('RGB', (_SIDE, _SIDE))  # a JPEG is decoded no larger than it will be
  picture = ImageOps.exif_transpose(picture)
  if picture.mode.startswith('I'):  # 16 bits, as launch.sample reads them: 65535 is white
    picture = picture.convert('F').point(lambda value: value * (1 / 257) + 0.5).convert('L')
  if picture.has_transparency_data:  # over white, as in training
    white = Image.new('RGBA', picture.size, 'white')
    picture = Image.alpha_composite(white, picture.convert('RGBA'))
  picture = picture.convert('RGB')
  picture.thumbnail((_SIDE, _SIDE))
  Image.frombytes('RGB', picture.size, picture.tobytes()).save(buffer := io.BytesIO(), 'PNG')
  sys.stdout.buffer.write(buffer.getvalue())
  return 0


if __name__ == '__main__':
  sys.exit(_decode())
