"""Defects of clips, each as strong as is drawn across the threshold of the filter for it.

A function (plan, chance, truth, least) -> Made says what is drawn, and writes into the truth which
filters are to drop it: True, False, or None where either is right.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

Truth = dict[str, Any]
_WORDS = ('SUBSCRIBE', 'Breaking News', 'Chapter 12', 'Visit our shop', 'LIVE 20:15', 'The End')
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


@dataclasses.dataclass(frozen=True)
class Made:
  """A plan with a defect."""

  plan: Any  # a `footage.Plan`
  strength: dict[str, float | str]  # of the defect
  changes: tuple[Callable[[list[np.ndarray], int], list[np.ndarray]], ...] = ()  # (frames, fps)
  speed: float | None = None  # pixels a frame at which all of the picture moves, if that is known


def nothing(plan, chance, truth, least) -> Made:
  """No defect."""
  return Made(plan, {}, speed=_speed(plan))


def _speed(plan) -> float | None:
  """Pixels a frame of a photograph that is moved, as long as it does not bounce all the time."""
  moves_as_a_whole = '.' in plan.source
  return plan.speed * plan.size[1] / 1024 if moves_as_a_whole else None


def duration(plan, chance, truth, least) -> Made:
  """Videos of 1.5 to 4.5 seconds; what is too short for the duration is so for a scene."""
  seconds = float(chance.uniform(1.5, 4.5))
  truth['duration'] = None if abs(seconds - 4) < 0.2 else seconds < 4
  truth['scenes'] = True
  return Made(dataclasses.replace(plan, seconds=seconds), {'seconds': seconds}, speed=_speed(plan))


def resolution(plan, chance, truth, least) -> Made:
  """Heights around the least."""
  height = round(least * chance.uniform(0.75, 1.1) / 2) * 2
  width = round(height * chance.uniform(1.05, 1.4) / 2) * 2
  truth['resolution'] = min(height, width) < least
  plan = dataclasses.replace(plan, size=(height, width))
  return Made(plan, {'height': height, 'width': width}, speed=_speed(plan))


def portrait(plan, chance, truth, least) -> Made:
  """Widths around the height."""
  ratio = float(chance.uniform(0.6, 1.2))
  height = round(least * 1.02 / min(1, ratio) / 2) * 2
  width = round(height * ratio / 2) * 2
  truth['aspect'] = width < height
  plan = dataclasses.replace(plan, size=(height, width))
  return Made(plan, {'width / height': ratio}, speed=_speed(plan))


def text(plan, chance, truth, least) -> Made:
  """Burnt-in words, small to large, faint to opaque, over the whole clip or a third of it."""
  height, opacity = float(chance.uniform(0.025, 0.09)), float(chance.uniform(0.45, 1.0))
  words, font = str(chance.choice(_WORDS)), int(chance.choice(_FONTS))
  place, white = chance.uniform(0.1, 0.8, 2), bool(chance.integers(2))
  whole = bool(chance.integers(2))
  clear = height >= 0.03 and opacity >= 0.6
  truth['text'] = True if clear else None
  # A line of this height can be seen as a defect of nothing else, but changes what moves.
  truth['motion'] = None

  def write(frames, fps):
    first, last = (0, len(frames)) if whole else (len(frames) // 3, 2 * len(frames) // 3)
    return [
      _written(frame, words, font, height, opacity, place, white) if first <= n < last else frame
      for n, frame in enumerate(frames)
    ]

  strength = {'height': height, 'opacity': opacity, 'words': words, 'whole': float(whole)}
  return Made(plan, strength, (write,))


def _written(frame, words, font, height, opacity, place, white):
  size = height * frame.shape[0] / 21  # of capitals, which are 21 pixels high at scale 1
  thick = max(1, round(size * 2))
  (width, _), _ = cv2.getTextSize(words, font, size, thick)
  at = (int(place[0] * max(1, frame.shape[1] - width)), int((0.1 + place[1]) * frame.shape[0]))
  colour, edge = ((255,) * 3, (0,) * 3) if white else ((0,) * 3, (255,) * 3)
  written = frame.copy()
  cv2.putText(written, words, at, font, size, edge, thick + 2, cv2.LINE_AA)
  cv2.putText(written, words, at, font, size, colour, thick, cv2.LINE_AA)
  return cv2.addWeighted(written, opacity, frame, 1 - opacity, 0)


def borders(plan, chance, truth, least) -> Made:
  """Flat bars of a share of the height or width, or a blurred copy beside the picture."""
  share = float(np.exp(chance.uniform(np.log(0.012), np.log(0.3))))
  kind = str(chance.choice(['black', 'black', 'white', 'grey', 'blurred']))
  upright, one = bool(chance.integers(2)), bool(chance.integers(4) == 0) and kind != 'blurred'
  truth['borders'] = None if share < 0.02 or kind == 'blurred' else True
  if kind == 'black' and plan.source == 'digits':
    truth['borders'] = None  # black beside black
  truth['motion'] = None

  def frame_them(frames, fps):
    return [_framed(frame, share, kind, upright, one) for frame in frames]

  strength = {'share': share, 'kind': kind, 'columns': float(upright), 'one': float(one)}
  return Made(plan, strength, (frame_them,))


def _framed(frame, share, kind, upright, one):
  frame = frame.transpose(1, 0, 2) if upright else frame
  count = len(frame)
  lines = max(1, round(share * count / (1 if one else 2)))
  low, high = lines, count if one else count - lines
  inner = cv2.resize(np.ascontiguousarray(frame), (frame.shape[1], high - low))
  if kind == 'blurred':
    made = cv2.GaussianBlur(np.ascontiguousarray(frame), (0, 0), 25)
  else:
    made = np.full_like(frame, {'black': 0, 'white': 255, 'grey': 90}[kind])
  made = np.array(made)
  made[low:high] = inner
  return made.transpose(1, 0, 2) if upright else made


def cuts(plan, chance, truth, least) -> Made:
  """One to four cuts to other places of other pictures; too short a shot is no scene."""
  from tests.lab.curation.footage import draw_plan, drawn

  count = int(chance.integers(1, 5))
  others = [draw_plan(chance, least, photograph=True) for _ in range(count)]
  while len({each.source for each in (plan, *others)}) < count + 1:
    others = [draw_plan(chance, least, photograph=True) for _ in range(count)]
  places = np.sort(chance.uniform(0.15, 0.85, count))
  while count > 1 and np.diff(places).min() < 0.15:
    places = np.sort(chance.uniform(0.15, 0.85, count))
  truth.update(scenes=True, motion=None)

  def cut(frames, fps):
    bounds = [0, *(int(place * len(frames)) for place in places), len(frames)]
    made = list(frames)
    for n, other in enumerate(others):
      whole = dataclasses.replace(other, size=plan.size, seconds=plan.seconds)
      new = list(drawn(whole, fps))
      made[bounds[n + 1] : bounds[n + 2]] = new[bounds[n + 1] : bounds[n + 2]]
    return made

  return Made(plan, {'cuts': float(count)}, (cut,))


def still(plan, chance, truth, least) -> Made:
  """A part of the clip, from its start on, in which nothing moves at all."""
  share = float(chance.uniform(0.945, 1.0) if chance.random() < 0.8 else chance.uniform(0.2, 1.0))
  truth['static'] = None if abs(share - 0.9) < 0.05 else share > 0.9
  truth['slides'] = None if abs(share - 0.5) < 0.1 else share > 0.5
  truth['motion'] = None

  def freeze(frames, fps):
    count = int(share * len(frames))
    return [frames[0]] * count + list(frames[: len(frames) - count])

  return Made(plan, {'share': share}, (freeze,))


def slides(plan, chance, truth, least) -> Made:
  """Photographs that fade into each other and do not move themselves."""
  from tests.lab.curation.footage import draw_plan, drawn

  shown, fade = float(chance.uniform(2.5, 4)), float(chance.uniform(0.5, 1))
  others = [draw_plan(chance, least, photograph=True) for _ in range(8)]
  truth.update(slides=True, static=None, motion=None, scenes=None, jitter=None)

  def show(frames, fps):
    stills = [
      next(drawn(dataclasses.replace(each, size=plan.size), fps)) for each in (plan, *others)
    ]
    made = []
    for n in range(len(frames)):
      number, at = divmod(n / fps, shown)
      weight = max(0.0, (at - (shown - fade)) / fade)
      a, b = stills[int(number) % 9], stills[(int(number) + 1) % 9]
      made.append(cv2.addWeighted(a, 1 - weight, b, weight, 0) if weight else a)
    return made

  return Made(plan, {'shown': shown, 'fade': fade}, (show,))


def speed(plan, chance, truth, least) -> Made:
  """A photograph moved more slowly or faster than may be."""
  draw = chance.uniform(0.05, 0.8) if chance.integers(2) else chance.uniform(5, 14)
  plan = dataclasses.replace(plan, speed=float(draw) * 1024 / plan.size[1])
  if draw < 1:
    truth.update(static=None, slides=None)
  if draw > 5:
    truth['jitter'] = None  # what moves so fast changes as much as what shakes
  return Made(plan, {'speed': float(draw)}, speed=float(draw))


def shake(plan, chance, truth, least) -> Made:
  """Each frame lies elsewhere, by a share of the width."""
  low, high = (0.06, 0.5) if chance.random() < 0.75 else (0.002, 0.06)
  share = float(np.exp(chance.uniform(np.log(low), np.log(high))))
  seed = int(chance.integers(2**31))
  truth.update(motion=None, static=None, slides=None, scenes=None)
  truth['jitter'] = True if share > 0.12 else False if share < 0.01 else None

  def move(frames, fps):
    draws = np.random.default_rng(seed).uniform(-1, 1, (len(frames), 2))
    return [
      _moved(frame, share * frame.shape[1] * by) for frame, by in zip(frames, draws, strict=True)
    ]

  return Made(plan, {'share': share}, (move,))


def _moved(frame, by):
  move = np.array([[1, 0, by[1]], [0, 1, by[0]]], np.float64)
  return cv2.warpAffine(frame, move, frame.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def copy(plan, chance, truth, least) -> Made:
  """Another clip at another size, rate and quality."""
  truth['duplicates'] = True
  truth['motion'] = None
  return Made(plan, {'height': float(plan.size[0])})


_ALL = (duration, resolution, portrait, text, borders, cuts, still, slides, speed, shake, copy)
DEFECTS = {each.__name__: each for each in _ALL}
