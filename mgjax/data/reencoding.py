"""Encodes a video anew, so that any moment of it is found quickly.

A clip is read from the key frame before it on: with a key frame every 250 frames, as most encoders
place them, a random clip of 16 frames costs the decoding of 140.
"""

from mgjax.core.errors import DataError
from mgjax.data.containers import LIMITS, Blob, File, Limits
from mgjax.data.sound_io import encodable_rate, probe_sound, soundtrack, stream_sound
from mgjax.data.video_io import encode_frames, probe, stream_frames

_CLOCK = 90_000  # ticks a second, a multiple of the usual frame rates


def reencode(file: File, *, gop: int = 16, crf: float = 20, limits: Limits = LIMITS) -> bytes:
  """Returns an H.264 mp4 of a video: upright, square pixels, a key frame every `gop` frames.

  Each frame is kept, at its time. The sound is kept as AAC, with one or two channels; sound that
  cannot be decoded is left out.

  Args:
    file: the video.
    gop: most frames from one key frame to the next.
    crf: the constant rate factor of x264; lower is better and larger.
    limits: what the file may cost.

  Raises:
    DataError: a frame cannot be decoded, or it is beyond `limits`.
  """
  fps = probe(file, limits).fps
  pictures = encode_frames(stream_frames(file, limits), fps=fps, clock=_CLOCK, crf=crf, gop=gop)
  try:
    sound = probe_sound(file, limits)
    rate = encodable_rate(sound.rate)
    chunks = stream_sound(file, rate=rate, channels=min(sound.channels, 2), limits=limits)
    return soundtrack(Blob(str(file), pictures), chunks, rate)
  except DataError:
    return pictures
