"""Questions that raters answer about a pair of videos, in sets (Movie Gen §3.5.1)."""

import dataclasses
import os
from typing import Annotated

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json
from mgjax.core.settings import Magnitude, Range, check, unpack

_CAREFUL = 6  # raters for the most subjective questions (Movie Gen §3.5.1); 3 for all others


@dataclasses.dataclass(frozen=True)
class Question:
  """One question about a pair of videos; `help` explains below it what counts.

  Attributes:
    raters: number of raters that answer it about each pair.
    sound: whether it is about audio; other questions are shown muted.
    reference: whether raters need the model's input, a clip to edit or a face.
    sigma: standard deviation of the net win rate over repeated studies, in points, if known (Movie
      Gen Table 6).
  """

  name: str
  text: str
  help: str = ''
  raters: Annotated[int, Range(least=1, most=99)] = 3
  sound: bool = False
  reference: bool = False
  sigma: Magnitude | None = None

  def __post_init__(self):
    check(self)
    if not self.name.isidentifier() or not self.text.strip():
      raise ConfigError(
        f'question {self.name!r}: {self.text!r}; expected a name of letters and _, and a text'
      )


SETS = {
  'video': (
    Question(
      'overall',
      'Which video is better, all in all?',
      'Look at sharpness, at how objects and people look, and at how they move.',
      sigma=5.07,
    ),
    Question(
      'frame_consistency',
      'In which video do things stay the same from frame to frame?',
      'Things that morph, flicker, appear or vanish for no reason count against it.',
      sigma=4.08,
    ),
    Question(
      'motion_completeness',
      'In which video does more of the described motion happen?',
      'A video that hardly moves, or stops halfway, is less complete.',
      sigma=1.68,
    ),
    Question(
      'motion_naturalness',
      'In which video is the motion more natural?',
      'Think of weight, speed and joints; of what is imagined, whether it moves as it would.',
      sigma=3.98,
    ),
    Question(
      'text_subject',
      'Which video shows better what the text names?',
      'Subjects, their number, looks and places. Motion does not count here.',
      sigma=3.74,
    ),
    Question(
      'text_motion',
      'Which video moves more as the text says?',
      'What subjects do, and what the camera does. Looks do not count here.',
      sigma=3.74,
    ),
    Question(
      'realness',
      'Which video looks more real?',
      'As filmed by a camera; of what cannot be filmed, as made by a professional studio.',
      raters=_CAREFUL,
      sigma=2.52,
    ),
    Question(
      'aesthetics',
      'Which video is more beautiful?',
      'Light, colour, composition and camera. Whether it fits the text does not count here.',
      raters=_CAREFUL,
      sigma=4.84,
    ),
  ),
  'sound': (
    Question('overall', 'Which sound is better for this video, all in all?', sound=True),
    Question(
      'naturalness',
      'Which sound is more natural?',
      'Like a recording: no artefacts, no noise, no cuts.',
      sound=True,
    ),
    Question(
      'professionalism',
      'Which sound is more professional?',
      'As if mixed for a film: levels, space, and what is heard above what.',
      sound=True,
    ),
    Question(
      'correctness',
      'In which video is the right thing heard?',
      'Sounds of what is seen, none of what is not, music in the mood of the picture.',
      sound=True,
    ),
    Question(
      'synchronisation',
      'In which video do sounds come at the right moment?',
      'Steps, blows and speech with what is seen, music with the cuts.',
      sound=True,
    ),
  ),
  'editing': (
    Question(
      'text',
      'Which video does better what the instruction says?',
      'All that it asks for. What it does not speak of does not count here.',
      reference=True,
    ),
    Question(
      'structure',
      'Which video keeps better what should stay?',
      'Compare with the source: places, motion, camera, and all that was not to be changed.',
      reference=True,
    ),
    Question(
      'quality', 'Which video looks better?', 'Sharpness, steadiness, no artefacts.', reference=True
    ),
    Question('overall', 'Which is the better edit, all in all?', reference=True),
  ),
  'personalization': (
    Question(
      'identity',
      'Which video shows more of the person in the picture?',
      'Face and hair. Clothes, pose and light may change.',
      reference=True,
    ),
    Question(
      'face_consistency',
      'In which video does the face stay the same?',
      'From the first frame to the last, when it turns and when it speaks.',
      reference=True,
    ),
    Question('overall', 'Which video is better, all in all?'),
    Question('frame_consistency', 'In which video do things stay the same from frame to frame?'),
    Question('motion_completeness', 'In which video does more of the described motion happen?'),
    Question('motion_naturalness', 'In which video is the motion more natural?'),
    Question('text', 'Which video shows better what the text says?'),
  ),
}


def read_questions(source: str, raters: int = 0) -> tuple[Question, ...]:
  """Reads the questions of a study; `raters` above 0 replaces the number of raters of each.

  `source` is a set of SETS, a selection such as 'video:overall,realness', or a .json with a list of
  questions. Raises ConfigError if the set, question or file does not exist, or a field is wrong.
  """
  if source.endswith('.json'):
    fields = read_json(source, list, mend='write a list of {"name": ..., "text": ...}')
    questions = tuple(
      unpack(Question, row if isinstance(row, dict) else {}, f'{source}, question {number}')
      for number, row in enumerate(fields, 1)
    )
  else:
    questions = _of_set(*source.partition(':')[::2])
  names = [question.name for question in questions]
  if not names or len({*names}) < len(names):
    raise ConfigError(
      f'--questions={os.fspath(source)}: holds {", ".join(names) or "none"}; expected names that '
      'differ, one or more'
    )
  return tuple(
    dataclasses.replace(question, raters=raters or question.raters) for question in questions
  )


def _of_set(name: str, selection: str) -> tuple[Question, ...]:
  if name not in SETS:
    raise ConfigError(
      f'--questions={name}: there is no such set; expected {", ".join(SETS)}, or a .json'
    )
  known = {question.name: question for question in SETS[name]}
  for question in (selected := selection.split(',') if selection else list(known)):
    if question not in known:
      raise ConfigError(did_you_mean(f'{name}:{question}', [f'{name}:{one}' for one in known]))
  return tuple(known[question] for question in selected)
