"""The style of a page."""

import re

import numpy as np

from mgjax.lab.report.page import render


def test_colours_can_be_told_from_the_paper_in_the_light_and_in_the_dark():
  def light(colour):
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722))) + 0.05  # as WCAG 2 has it

  themes = re.findall(r':root {[^}]*}', render('base.html', 'A page'))
  assert len(themes) == 2
  for theme in themes:
    colours = dict(re.findall(r'--(\w+): (#\w{6});', theme))
    paper = light(colours.pop('paper'))
    contrasts = {
      name: max(light(colour) / paper, paper / light(colour)) for name, colour in colours.items()
    }
    assert min(contrasts['ink'], contrasts['soft'], contrasts['c0']) >= 4.5  # text
    assert min(contrast for name, contrast in contrasts.items() if name != 'grid') >= 3
