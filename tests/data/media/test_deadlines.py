"""No file is decoded for longer than its wall time, whatever is asked of it."""

import io
import time

import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.ingest.clip_check import make_row
from mgjax.data.media.containers import Limits
from mgjax.data.media.transcode import reencode
from mgjax.data.media.video import decode_all, probe, read_clip, stream_frames


def long_gif(path, count=19_000):
  """A GIF of equal frames, that takes seconds to decode."""
  buffer = io.BytesIO()
  first, other = (Image.new('RGB', (300, 300), colour) for colour in ('red', 'green'))
  first.save(buffer, 'GIF', save_all=True, append_images=[other], duration=20)
  data = buffer.getvalue()
  begin = data.find(b'\x21\xf9', data.find(b'\x21\xf9') + 8)
  path.write_bytes(data[:begin] + data[begin:-1] * count + b';')
  return path


def test_no_call_decodes_beyond_its_wall_time(tmp_path):
  path, limits = long_gif(tmp_path / 'a.gif'), Limits(wall_seconds=0.1)
  assert probe(path, Limits(wall_seconds=20)).frames == 19_001
  for call in (
    lambda: decode_all(path, limits),
    lambda: list(stream_frames(path, limits=limits.begun())),
    lambda: reencode(path, limits=limits),
    lambda: make_row(path.read_bytes(), 'c', str(path), full=True, limits=limits),
    lambda: read_clip(path, frames=2, size=(8, 8), fps=25, start=300, limits=limits),
  ):
    began = time.monotonic()
    with pytest.raises(DataError, match=r'took over 0\.1 s'):
      call()
    assert time.monotonic() - began < 3
