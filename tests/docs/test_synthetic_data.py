"""The examples of docs/small_world.md, run in their order."""

import pathlib
import re

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/small_world.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_run(capsys):
  names = {}
  for number, block in enumerate(BLOCKS):
    exec(compile(block, f'docs/small_world.md, block {number}', 'exec'), names)
  said = capsys.readouterr().out
  assert 'the red digit' in said and 'digit 7' in said
  plain, textured = map(float, re.search(r'([\d.]+) dB, ([\d.]+) dB', said).groups())
  assert plain > 43 and textured < 26
  assert names['ceiling']['texture'] == 1 and names['ceiling']['digit'] > 0.85
  assert names['floor']['texture'] < 0.5 and names['floor']['all'] < 0.1
  assert (names['known']['truth'] == 1).all() and names['known']['reference, pasted'][0] > 0.8
  assert names['known']['another hand'][1] < 0.4
  assert 'make the digit' in said and 'the edit is right: True, the source is: False' in said
