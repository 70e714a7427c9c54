"""Decides whether a video file is usable or broken, and makes the row of its clip record.

A row has

media       uint8, the bytes of the file, opened only as `containers` opens files
caption     str
source      str, where it came from
text_key    str, names the caption, for caches of text embeddings
seconds     float, from the first frame to the end of the last
fps         float, average
height, width  int, as it is shown: turned upright, with square pixels
sounding    bool, whether there is sound from the beginning to the end
start       float, the second from which on it counts, or -1: all of it counts
"""

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError
from mgjax.data.ingest.entries import CAPTION_CHARACTERS, CUT
from mgjax.data.media.audio import probe_audio, stream_audio
from mgjax.data.media.containers import LIMITS, Blob, Limits
from mgjax.data.media.video import decode_all, probe
from mgjax.data.records.rows import text_key

COLUMNS = ('seconds', 'fps', 'height', 'width', 'sounding', 'start')
INTERLACED = 'are interlaced and show combs; convert them with --reencode=deinterlace=1'
WHOLE = -1.0  # what `start` is when all of a clip counts
_SILENT_END = 0.1  # seconds that may lack sound: `read_audio` makes as much silence


def make_row(
  data: bytes,
  caption: str,
  source: str,
  *,
  start: float | None = None,
  full: bool = False,
  limits: Limits = LIMITS,
  remarks: list[str] | None = None,
) -> JSON:
  """Makes the row of a video file, after decoding its first frame and looking at its end.

  Args:
    source: where it came from.
    start: the second from which on it counts, if not all of it does.
    limits: what it may cost, all calls together.
    remarks: gets what does not make it unusable, but is worth a word.

  Raises:
    DataError: as `video.probe`, or it ends before `start`.
  """
  blob = Blob(source, data)
  limits = limits.begun()
  info = probe(blob, limits)
  if full:
    decode_all(blob, limits)
  if start is not None and start >= info.seconds:
    raise DataError(f'{source}: lasts {info.seconds:.2f} s, but counts from {start:.2f} s on')
  if remarks is not None:
    remarks += [INTERLACED] * info.interlaced + [CUT] * (len(caption) >= CAPTION_CHARACTERS)
  return {
    'media': np.frombuffer(data, np.uint8),
    'caption': caption,
    'source': source,
    'text_key': text_key(caption),
    'seconds': info.seconds,
    'fps': info.fps,
    'height': info.height,
    'width': info.width,
    'sounding': info.has_audio and _sounds(blob, info.seconds, full, limits),
    'start': WHOLE if start is None else float(start),
  }


def open_row(row: JSON) -> Blob:
  """The file of a row, for `read_clip`, `read_audio` and the like."""
  return Blob(row['source'], memoryview(row['media']))


def _sounds(blob: Blob, seconds: float, full: bool, limits: Limits) -> bool:
  try:
    if full:
      for _ in stream_audio(blob, limits=limits):
        pass
    return probe_audio(blob, limits).seconds >= seconds - _SILENT_END
  except DataError:
    return False
