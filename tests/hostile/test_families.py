"""No damaged file ends in a traceback, a crash, a hang, too much memory or a wrong answer."""

import pytest

from tests.hostile.families import FAMILIES
from tests.hostile.run import try_inputs

_QUICK = ('list.csv', 'mp4', 'tokenizer.json')


def test_some_inputs_of_some_families_are_read_or_refused():
  report, forbidden = try_inputs(list(_QUICK), 6, seed=0)
  assert not forbidden, '\n'.join(forbidden)
  assert all(sum(counts.values()) == 6 for counts in report.values())


@pytest.mark.slow
@pytest.mark.parametrize('name', [family.name for family in FAMILIES])
def test_inputs_are_read_or_refused(name):
  _, forbidden = try_inputs([name], 80, seed=1)
  assert not forbidden, '\n'.join(forbidden)
