"""How much of the collectives of a compiled program hides behind the work scheduled beside them."""

from collections.abc import Callable, Sequence

from mgjax.planning.programs.audit import CompiledCollective
from mgjax.planning.programs.work import Work


def waiting_seconds(
  found: Sequence[CompiledCollective],
  wires: Sequence[float],
  seconds: Callable[[Work], float],
) -> list[float]:
  """Returns the seconds of one execution of every collective that no work hides.

    max(0, seconds on the wire - seconds of the work between start and done)

  for a collective by itself. Of several that are on their way at once no work counts twice: a place
  of the schedule hides first those that must end first, which leaves the least to wait for
  (Glover's rule). A collective that waits inside another's flight is not counted as work.

  Args:
    found: from `audit`.
    wires: seconds on the wire of one execution of each.
    seconds: of work, on the chip.
  """
  left, flying, works = list(wires), {}, {}
  for index, each in enumerate(found):
    for scheduled in each.between:
      flying.setdefault(scheduled.place, []).append(index)
      works[scheduled.place] = scheduled.work
  last = [each.between[-1].place if each.between else 0 for each in found]
  for place in sorted(works):
    time = seconds(works[place])
    for index in sorted(flying[place], key=lambda index: last[index]):
      used = min(time, left[index])
      time, left[index] = time - used, left[index] - used
  return left
