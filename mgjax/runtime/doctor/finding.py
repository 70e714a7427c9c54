"""What a look at one thing has found."""

import dataclasses
import enum


class State(enum.Enum):
  """Right, fine without (something optional is missing), or wrong (something needed is)."""

  RIGHT = 'right'
  OPTIONAL = 'optional'
  WRONG = 'WRONG'


@dataclasses.dataclass(frozen=True)
class Finding:
  """One line of what `launch.doctor` says.

  Attributes:
    what: was looked at.
    state: of it.
    told: what it is.
    advice: what to do, where it is not right.
  """

  what: str
  state: State
  told: str
  advice: str = ''

  def __str__(self) -> str:
    advice = f'; {self.advice}' if self.advice else ''
    return f'{self.state.value:8}  {self.what:10}  {self.told}{advice}'


def right(what: str, told: str) -> Finding:
  """Returns a line that says that all is well."""
  return Finding(what, State.RIGHT, told)


def optional(what: str, told: str, advice: str) -> Finding:
  """Returns a line of what is missing and not needed."""
  return Finding(what, State.OPTIONAL, told, advice)


def wrong(what: str, told: str, advice: str) -> Finding:
  """Returns a line of what is needed and is not right."""
  return Finding(what, State.WRONG, told, advice)
