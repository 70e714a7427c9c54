"""Makes of any frame one that can be shown as it is: opaque, of standard dynamic range, whole.

Transparent pixels lie over white. HDR (PQ, HLG) is brought to BT.709: its reference white, 203
candela a square metre (ITU-R BT.2408), becomes white, and what is brighter is cut there.
"""

import collections
import functools
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.filter import Graph
from PIL import Image

from mgjax.core.typing import UInt8
from mgjax.data.media.frame_times import Shown

_PQ, _HLG = HDR = (16, 18)  # transfer characteristics' numbers in ITU-T H.273
_BT2020 = 9  # primaries' number there
_WHITE = 203.0  # candela a square metre
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
_TO_BT709 = np.array(  # ITU-R BT.2087
  [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def standard_range(signal: np.ndarray, transfer: int, primaries: int) -> UInt8[np.ndarray, 'h w 3']:
  """Returns what a standard display shows of 16-bit HDR (h w 3), of a `transfer` among `HDR`."""
  light = _light(transfer)[signal]
  if transfer == _HLG:  # BT.2100: a display of 1000 candela makes the picture steeper
    light = 1000 / _WHITE * light * (light @ _LUMINANCE)[..., None] ** 0.2
  if primaries == _BT2020:
    light = light @ _TO_BT709.T
  return np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.4)).astype(np.uint8)


@functools.cache
def _light(transfer: int) -> np.ndarray:
  """Light of each 16-bit value: of PQ that of a display over white, of HLG that of the scene."""
  value = np.linspace(0, 1, 1 << 16)
  if transfer == _HLG:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
  else:
    root = value ** (32 / 2523)
    light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
    light = 10_000 / _WHITE * light ** (8192 / 1305)
  return light.astype(np.float32)


def opaque(frame: av.VideoFrame) -> av.VideoFrame:
  """Returns a frame over white; itself where no pixel is transparent."""
  if not _has_alpha(frame.format.name) or _is_opaque(frame):
    return frame
  pixels = frame.to_ndarray(format='rgba').astype(np.uint16)
  alpha = pixels[..., 3:]
  mixed = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
  return av.VideoFrame.from_ndarray(mixed.astype(np.uint8))


def opaque_picture(image: Image.Image) -> Image.Image:
  """Returns a picture as RGB, over white where it is transparent."""
  if image.has_transparency_data:
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
  return image.convert('RGB')


def _is_opaque(frame: av.VideoFrame) -> bool:
  rgba = frame if frame.format.name in ('rgba', 'bgra') else frame.reformat(format='rgba')
  plane = rgba.planes[0]
  pixels = np.frombuffer(plane, '<u4').reshape(-1, plane.line_size // 4)[:, : frame.width]
  return bool(pixels.min() >= 0xFF000000)  # of a pixel alpha is the last byte


@functools.cache
def _has_alpha(name: str) -> bool:
  form = av.VideoFormat(name)
  return form.has_palette or any(component.is_alpha for component in form.components)


def deinterlaced(timed_frames: Iterable[Shown]) -> Iterator[Shown]:
  """Yields frames with the fields of interlaced ones made whole, each shown when it was."""
  graph = None
  times: collections.deque[tuple[float, float]] = collections.deque()
  for frame, start, end in timed_frames:
    graph = graph or _bwdif(frame)
    times.append((start, end))
    graph.push(frame)
    yield from _pulled(graph, times)
  if graph is not None:
    graph.push(None)
    yield from _pulled(graph, times)


def _pulled(graph: Graph, times: collections.deque[tuple[float, float]]) -> Iterator[Shown]:
  while times:
    try:
      frame = graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
      return
    yield frame, *times.popleft()


def _bwdif(frame: av.VideoFrame) -> Graph:
  graph = Graph()
  source = graph.add_buffer(
    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
  )
  graph.link_nodes(
    source, graph.add('bwdif', 'mode=send_frame:deint=interlaced'), graph.add('buffersink')
  ).configure()
  return graph
