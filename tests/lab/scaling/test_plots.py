"""Pictures and the page of laws by the binary: one arm, two, and what stands on them."""

import html
import json
import re

import numpy as np
import pytest
from PIL import Image

from mgjax.lab.scaling.findings import find_law
from mgjax.lab.scaling.parametric import Runs
from mgjax.lab.scaling.plots import write_laws
from tests import binaries
from tests.lab.scaling.test_comparison import FIRST, SECOND
from tests.lab.scaling.test_parametric import noisy, runs

PICTURES = ('isoflop', 'size', 'loss')


def test_the_binary_draws_two_arms_in_one_picture_and_tells_all_on_a_page(tmp_path):
  rows = [
    {'arm': arm, 'parameters': n, 'tokens': d, 'loss': x}
    for arm, law in (('llama', FIRST), ('<dit>', SECOND))
    for n, d, x in zip(*noisy(law), strict=True)
  ]
  records, out = tmp_path / 'runs.jsonl', tmp_path / 'laws'
  records.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  done = binaries.finish(
    'scaling', 'plot', f'--records={records}', f'--out={out}', '--resamples=20', '--hold_out=1'
  )
  files = [f'{name}.{kind}' for name in PICTURES for kind in ('png', 'svg')]
  assert done.stdout.splitlines() == [
    f'{out}/{name}' for name in ('laws.html', 'laws.json', *files)
  ]
  with Image.open(out / 'isoflop.png') as picture:
    assert picture.width > 1.8 * picture.height > 600  # two panels
  sizes = (out / 'size.svg').read_text()
  for told in ('llama law', 'Llama 3, text', 'HunyuanVideo, videos', 'Yin et al., videos'):
    assert told in sizes
  page = (out / 'laws.html').read_text()
  assert page.count('data:image/svg+xml;base64,') == 3
  assert 'src="http' not in page and '<dit>' not in page and html.escape('<dit>') in page
  for told in (
    'IsoFLOP minima',
    'Comparison',
    'Predicted by the 36 runs',
    'of one seed',
    'Published laws',
    'arXiv 2412.03603',
    'Best sizes, predicted',
  ):
    assert told in page, told
  laws = json.loads((out / 'laws.json').read_text())
  assert list(laws) == ['llama', '<dit>'] and len(laws['llama']['minima']) == 5


def test_an_arm_alone_is_drawn_as_often_as_one_likes_with_the_same_bytes(tmp_path):
  found = {'': find_law(noisy(FIRST), resamples=10)}
  paths = write_laws(found, tmp_path)
  before = [path.read_bytes() for path in paths]
  assert [path.read_bytes() for path in write_laws(found, tmp_path)] == before
  with Image.open(tmp_path / 'isoflop.png') as picture:
    assert picture.width < 1.5 * picture.height
  page = (tmp_path / 'laws.html').read_text()
  cells = re.findall(r'<td>([^<]*)</td>', page)
  assert all(str(number) in cells for number in found[''].numbers().values())
  assert 'Comparison' not in page


def test_runs_without_minima_have_a_law_and_its_pictures(tmp_path):
  generator = np.random.default_rng(0)
  size, tokens = 10 ** generator.uniform(7, 10, 30), 10 ** generator.uniform(9, 12, 30)
  found = find_law(Runs(size, tokens, FIRST.loss(size, tokens)), resamples=10)
  assert not found.minima and found.power is None
  page = write_laws({'': found}, tmp_path)[0].read_text()
  assert 'Law' in page and '<caption>IsoFLOP minima' not in page


def test_minima_lie_where_the_parabolas_are_lowest_and_intervals_hold_them():
  found = find_law(noisy(FIRST), resamples=60)
  for place, minimum in enumerate(found.minima):
    around = minimum.size * np.array([0.8, 1.0, 1.25])
    assert minimum.at(around).argmin() == 1
    each = found.minimum(place)
    assert each.low < each.value < each.high and each.high / each.low < 1.4
  told = found.best_size(1e21)
  # Three times its half-width: an interval of 80% has 1.28 standard errors on either side.
  middle, half = np.log(told.value), np.log(told.high / told.low) / 2
  assert abs(np.log(FIRST.optimum(1e21).size) - middle) < 3 * half < 0.5


@pytest.mark.slow
def test_intervals_of_minima_have_the_minimum_of_the_noise_free_parabola_in_80_percent():
  clean, inside = find_law(runs(FIRST), resamples=10), []
  for seed in range(60):
    found = find_law(noisy(FIRST, seed), resamples=60, seed=seed)
    each = [found.minimum(place) for place in range(5)]
    inside += [a.low <= b.size <= a.high for a, b in zip(each, clean.minima, strict=True)]
  # Of 300 minima the standard error is .023; those of a set share the draws of their noise.
  assert 0.72 <= np.mean(inside) <= 0.88
