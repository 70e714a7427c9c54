"""How much moves: FFmpeg's vmafmotion and the codec's own motion vectors (Movie Gen §3.2.1).

vmafmotion is the mean absolute difference of the brightness of a frame and the previous one, both
blurred, at their own size. The motion vectors are what the encoder found (Table 44, row 8).
"""

from typing import Any

import av
import numpy as np
from av.filter import Graph

from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.settings import MeasureSettings

_KEY = 'lavfi.vmafmotion.score'


class Motion(Scorer):
  """`motion_vmaf` and `motion_vectors`, means over the frames of a clip.

  The vectors are None if the codec has none, as for frames that are all stored whole. They are also
  None if FFmpeg's decoder does not report them: it does for H.264 and MPEG-4, not for VP9 and AV1.
  """

  name = 'motion'

  def __init__(self, settings: MeasureSettings):
    del settings
    self._graph: tuple[Graph, Any, Any] | None = None
    self._starts: list[float] = []
    self._motion: list[float] = []
    self._vectors: list[float] = []

  def see(self, frame: Frame) -> None:
    picture = av.VideoFrame.from_ndarray(frame.luma, 'gray')
    picture.pts = frame.number
    if self._graph is None:
      self._graph = _make_graph(*frame.size)
    _, source, sink = self._graph
    source.push(picture)
    self._starts.append(frame.start)
    self._motion.append(float(sink.pull().metadata[_KEY]))
    self._vectors.append(np.nan if frame.vectors is None else frame.vectors)

  def scores(self, start: float, end: float) -> dict[str, Score]:
    starts = np.array(self._starts)
    # Not the first frame of a clip, which is compared with one that is not in it.
    inside = (starts > start + 1e-6) & (starts < end - 1e-6) & (starts > 0)
    motion, vectors = np.array(self._motion)[inside], np.array(self._vectors)[inside]
    vectors = vectors[np.isfinite(vectors)]
    return {
      'vmaf': float(motion.mean()) if len(motion) else None,
      'vectors': float(vectors.mean()) if len(vectors) else None,
    }


def _make_graph(height: int, width: int) -> tuple[Graph, Any, Any]:
  """The graph, which its ends do not keep alive, and both of them."""
  graph = Graph()
  size = f'video_size={width}x{height}:pix_fmt=gray:time_base=1/25'
  chain = [graph.add('buffer', size), graph.add('vmafmotion'), graph.add('buffersink')]
  graph.link_nodes(*chain).configure()
  return graph, chain[0], chain[-1]
