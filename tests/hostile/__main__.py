"""Tries hostile inputs of every family and prints a table of what became of them.

Example: python -m tests.hostile --inputs=300 --seed=1 --family=config.json --failures=/tmp/failures
"""

import argparse
import sys
import time
from pathlib import Path

from tests.hostile.families import FAMILIES
from tests.hostile.family import OUTCOMES
from tests.hostile.run import try_inputs


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = [family.name for family in FAMILIES]
  parser.add_argument('--inputs', type=int, default=200, help='of each family')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--family', choices=names, action='append', help='only these')
  parser.add_argument('--failures', type=Path, help='where inputs that should not be are kept')
  options = parser.parse_args()
  print(f'{"family":24}{"inputs":>8}' + ''.join(f'{each:>11}' for each in OUTCOMES), flush=True)
  bad, everything, began = [], 0, time.monotonic()
  for name in options.family or names:
    report, lines = try_inputs([name], options.inputs, options.seed, options.failures)
    counts = [report[name][each] for each in OUTCOMES]
    print(f'{name:24}{sum(counts):8}' + ''.join(f'{each:11}' for each in counts), flush=True)
    everything += sum(counts)
    bad += lines
  print(f'{everything} inputs in {time.monotonic() - began:.0f} s, seed {options.seed}')
  for line in bad:
    print(line, file=sys.stderr)
  return bool(bad)


if __name__ == '__main__':
  sys.exit(main())
