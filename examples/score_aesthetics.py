"""Scores audio with Audiobox Aesthetics.

python score_aesthetics.py [--weights=checkpoint.pt] request.json answer.json
`mgjax/lab/evaluation/external_scorers.py` runs it, and says what the two files hold. Any Python
that has audiobox_aesthetics 0.0.4 will do: nothing of mgjax is imported. Without --weights the
package fetches its own. The numbers, from 1 to 10, are PQ (production quality), PC (production
complexity), CE (content enjoyment) and CU (content usefulness).
"""

import argparse
import json
import pathlib

BATCH = 16  # sounds


def main() -> None:
  """Reads the request, writes the answer."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--weights', default='')
  parser.add_argument('request')
  parser.add_argument('answer')
  words = parser.parse_args()
  from audiobox_aesthetics import infer  # pyright: ignore[reportMissingImports]

  predictor = infer.initialize_predictor(words.weights or None)
  sounds = json.loads(pathlib.Path(words.request).read_text())['sounds']
  rows = []
  for first in range(0, len(sounds), BATCH):
    rows += predictor.forward([{'path': path} for path in sounds[first : first + BATCH]])
  answer = {axis: [row[axis] for row in rows] for axis in ('PQ', 'PC', 'CE', 'CU')}
  pathlib.Path(words.answer).write_text(json.dumps(answer))


if __name__ == '__main__':
  main()
