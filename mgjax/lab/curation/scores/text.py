"""Text in the picture, by RapidOCR, whose networks come inside its package (Movie Gen §3.2.1).

The score of a box is that of its detection times that of its recognition (Table 44, row 4), that of
a clip the largest on any frame that was read.
"""

import functools
from typing import Any

import numpy as np

from mgjax.core.plug_ins import load_package
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer, shown
from mgjax.lab.curation.settings import MeasureSettings, TextSettings


class Text(Scorer):
  """`text_score`: the most certain word of a clip, 0 without any; `text_words`: what it says."""

  name = 'text'

  def __init__(self, settings: MeasureSettings):
    self.rate, self.side = settings.text.rate, settings.text.side
    self._read = _reader(settings.text)
    self._least = settings.text.letters
    self._seen: list[tuple[float, float, float, str]] = []

  def see(self, frame: Frame) -> None:
    detection, _, words, _ = self._read(np.ascontiguousarray(frame.pixels[..., ::-1]), {})
    scores = zip(detection.scores or (), words.scores or (), words.txts or (), strict=False)
    texts = [(a * b, text) for a, b, text in scores if sum(map(str.isalnum, text)) >= self._least]
    best = max(texts, default=(0.0, ''))
    self._seen.append((frame.start, frame.end, float(best[0]), best[1]))

  def scores(self, start: float, end: float) -> dict[str, Score]:
    if not (inside := shown(self._seen, start, end)):
      return {'score': None, 'words': None}
    _, _, score, words = max(inside, key=lambda row: row[2])
    return {'score': score, 'words': words}


@functools.cache
def _reader(settings: TextSettings) -> Any:
  rapidocr = load_package('rapidocr', 'text in pictures needs RapidOCR', 'curation')
  threads = {
    f'EngineConfig.onnxruntime.{kind}_op_num_threads': 1 for kind in ('intra', 'inter')
  }  # many videos at once beat many threads on one
  engine = rapidocr.RapidOCR(
    params={
      **threads,
      'Global.log_level': 'error',
      'Global.use_cls': False,  # which side of a word is up: all are read as they stand
      'Det.limit_side_len': settings.side,
      'Det.limit_type': 'min',
      'Det.box_thresh': settings.least,
    }
  )
  return engine.run_ocr_steps
