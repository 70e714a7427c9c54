"""The examples of docs/models.md, run as they stand."""

import pathlib
import re

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/models.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_the_page_says(capsys):
  names: dict = {}
  for block in BLOCKS:
    exec(compile(block, 'docs/models.md', 'exec'), names)
  printed = capsys.readouterr().out.split()
  for count in (printed[1], printed[3]):
    assert f'{int(count):,}' in TEXT
  mean, deviation = map(float, printed[-2:])
  # Three standard errors of 10,000 draws, and what 50 steps of Euler leave.
  assert abs(mean - 2) < 0.03 and abs(deviation - 0.5) < 0.03
