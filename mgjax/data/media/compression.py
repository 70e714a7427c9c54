"""Degrades pictures by JPEG and video codecs, as cameras and sites do, in memory.

The same arguments give the same bytes in any process: one thread, and no speed-up whose result
depends on the machine where an encoder can do without.
"""

import fractions
import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from mgjax.core.errors import ConfigError, DataError, check_one_of
from mgjax.core.typing import UInt8
from mgjax.data.media.video import REPEATABLE, SCALING

_BT709, _LIMITED = 1, 1  # numbers of the colour space and of the range 16 to 235 in ITU-T H.273
_ALIKE = {'interpolation': SCALING, 'threads': 1}  # of conversions between RGB and YCbCr


class _Codec(NamedTuple):
  encoder: str
  decoder: str
  options: Callable[[float], dict[str, str]]  # of a constant rate factor
  least: int = 16  # pixels of a side


def _step(crf: float) -> str:
  """The quantiser of MPEG-4, of step 2 q, with the step of H.264, 0.625 x 2^(crf / 6)."""
  return str(min(31, max(1, round(0.3125 * 2 ** (crf / 6)))))


_CODECS = {
  'h264': _Codec(
    'libx264',
    'h264',
    lambda crf: {
      'crf': f'{crf:g}',
      'preset': 'veryfast',
      'x264-params': f'{REPEATABLE}:cpu-independent=1',
    },
  ),
  'h265': _Codec(
    'libx265',
    'hevc',
    lambda crf: {
      'crf': f'{crf:g}',
      'preset': 'ultrafast',
      'x265-params': 'pools=none:frame-threads=1:log-level=none',
    },
    least=64,  # in frames of 48 x 48 and less x265 writes beyond its buffers
  ),
  'vp9': _Codec(  # its scale of quality has 63 steps where the others' have 51
    'libvpx-vp9',
    'vp9',
    lambda crf: {'crf': f'{crf * 63 / 51:.0f}', 'b': '0', 'deadline': 'realtime', 'cpu-used': '8'},
  ),
  'mpeg4': _Codec('mpeg4', 'mpeg4', lambda crf: {'qmin': _step(crf), 'qmax': _step(crf)}),
}
CODECS = tuple(_CODECS)


def jpeg(frames: UInt8[np.ndarray, 't h w 3'], quality: int) -> UInt8[np.ndarray, 't h w 3']:
  """Returns frames after JPEG compression with a quality of 1 to 100, each on its own."""
  decoded = np.empty_like(frames)
  for out, frame in zip(decoded, frames, strict=True):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, 'JPEG', quality=quality)
    out[...] = np.asarray(Image.open(buffer))
  return decoded


def video_codec(
  frames: UInt8[np.ndarray, 't h w 3'], codec: str, crf: float, fps: float = 24
) -> UInt8[np.ndarray, 't h w 3']:
  """Returns one or more frames after compression by one of `CODECS`, 4:2:0.

  `crf` is the constant rate factor of x264, 0 to 51, or what comes near it in another codec. Sizes
  that a codec does not have, odd or small ones, grow by repeated edges, which are cut off again.

  Raises:
    ConfigError: there is no such codec, or this build of PyAV has none.
    DataError: the frames are too large for it.
  """
  check_one_of(f'codec = {codec!r}', codec, CODECS)
  height, width = frames.shape[1:3]
  grown = [max(_CODECS[codec].least, side + side % 2) - side for side in (height, width)]
  padded = np.pad(frames, ((0, 0), (0, grown[0]), (0, grown[1]), (0, 0)), mode='edge')
  try:
    decoded = _there_and_back(padded, _CODECS[codec], crf, fps)
  except av.codec.codec.UnknownCodecError:
    raise ConfigError(
      f'codec = {codec!r}: this build of PyAV has no {_CODECS[codec].encoder}; expected another of '
      f'{", ".join(CODECS)}'
    ) from None
  except av.error.FFmpegError as error:
    raise DataError(f'{codec} cannot compress frames of {width} x {height}: {error}') from None
  return decoded[:, :height, :width]


def _there_and_back(frames: np.ndarray, codec: _Codec, crf: float, fps: float) -> np.ndarray:
  encoder = av.CodecContext.create(codec.encoder, 'w')
  assert isinstance(encoder, av.VideoCodecContext)
  encoder.height, encoder.width = frames.shape[1:3]
  encoder.pix_fmt = 'yuv420p'
  encoder.thread_count = 1
  encoder.framerate = fractions.Fraction(fps).limit_denominator(1001)
  encoder.time_base = 1 / encoder.framerate
  encoder.colorspace = encoder.color_primaries = encoder.color_trc = _BT709
  encoder.color_range = _LIMITED
  encoder.options = codec.options(crf)
  packets = []
  convert = functools.partial(VideoReformatter().reformat, **_ALIKE)
  for number, array in enumerate(frames):
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array))
    frame = convert(frame, format='yuv420p', dst_colorspace='ITU709', dst_color_range='MPEG')
    frame.pts = number
    frame.time_base = encoder.time_base
    packets += encoder.encode(frame)
  packets += encoder.encode(None)
  decoder = av.CodecContext.create(codec.decoder, 'r')
  decoder.thread_count = 1
  if encoder.extradata:
    decoder.extradata = encoder.extradata
  decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
  convert = functools.partial(VideoReformatter().reformat, **_ALIKE)
  options = {'format': 'rgb24', 'src_colorspace': 'ITU709', 'src_color_range': 'MPEG'}
  return np.stack([convert(frame, **options).to_ndarray() for frame in decoded])
