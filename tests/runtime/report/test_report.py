"""The page of a run: what it shows, whatever state the run is in."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.media.contact_sheet import contact_sheet
from mgjax.runtime.report.page import DARK, LIGHT
from mgjax.runtime.report.samples import PICTURE
from mgjax.runtime.report.write import read_curves, write_report
from tests import tiny
from tests.pages import Page

TITLES = re.compile(r'<text class="title"[^>]*>([^<]*)<')


def read(path):
  page = Page(path.read_text())
  for tag, attrs in page.elements:
    assert tag != 'img' or attrs['alt']
    assert tag != 'th' or attrs['scope'] in ('row', 'col')
    assert tag != 'svg' or attrs['aria-label']
    outside = [attrs[name] for name in ('src', 'href') if name in attrs]
    assert all(value.startswith(('data:', '#')) for value in outside)  # it needs no other file
  return path.read_text()


def test_the_page_of_a_run_has_its_losses_and_numbers(tiny_runs, tmp_path):
  page = read(write_report(tiny_runs / 'video', tmp_path / 'page.html'))
  assert TITLES.findall(page) == ['Loss']
  assert ' training</span>' in page and ' validation</span>' in page
  assert '8 of 8' in page and 'step p99' in page and 'data wait' in page
  loss = tiny.losses(tiny_runs / 'video')[8]['loss']
  assert f'<td>{loss:.4g}</td>' in page


def test_a_run_that_failed_or_just_began_has_a_page(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'component': 'video', 'train': {'steps': 9}}))
  assert 'No metrics yet' in read(write_report(tmp_path))
  rows = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": "nan"}', '[]', '{"step": 3, "lo']
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(rows))
  page = read(write_report(tmp_path))
  assert len(read_curves(tmp_path)['loss']) == 2
  assert '2 of 9' in page and '<circle' in page


def test_names_are_text_not_markup(tmp_path):
  fields = {'component': '<script>', 'train': {'steps': 9}}
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 1}\n')
  assert '<script>' not in read(write_report(tmp_path))


def begin(workdir, rows='{"step": 1, "loss": 0.5}\n'):
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'config.json').write_text(json.dumps({'component': 'video', 'train': {'steps': 9}}))
  (workdir / 'metrics.jsonl').write_text(rows)


def figures(page):
  return re.findall(r'<(img|video|audio) src="data:(?:image|video|audio)/(\w+);', page)


def test_the_newest_samples_are_shown_with_their_prompts(tmp_path):
  begin(tmp_path)
  for step, prompt in (('000008', 'an <old> dog'), ('000016', 'a "new" \u0434\u043e\u043c')):
    folder = tmp_path / f'samples/step_{step}'
    folder.mkdir(parents=True)
    contact_sheet(folder / 'samples.png', [np.zeros((2, 8, 8, 3), np.uint8)], [prompt])
    (folder / '000.mp4').write_bytes(b'pictures')
  (tmp_path / 'evaluation').mkdir()
  (tmp_path / 'evaluation' / '000.wav').write_bytes(b'sound')
  page = read(write_report(tmp_path))
  assert figures(page) == [('img', 'png'), ('video', 'mp4'), ('audio', 'wav')]
  prompt = 'a &quot;new&quot; \u0434\u043e\u043c'
  assert f'alt="Samples, step_000016, samples.png: {prompt}"' in page
  assert f'<figcaption>{prompt}</figcaption>' in page and 'old' not in page
  Image.new('RGB', (8, 8)).save(folder / 'samples.webp')  # in which all of them move
  assert figures(read(write_report(tmp_path)))[:2] == [('img', 'webp'), ('img', 'png')]
  (folder / 'samples.webp').write_bytes(bytes(PICTURE + 1))
  page = read(write_report(tmp_path))
  assert 'Too large for this page: samples.webp' in page and 'image/webp' not in page


def test_the_page_of_a_recipe_has_scores_stages_and_samples(tmp_path):
  begin(tmp_path / 'video')
  (tmp_path / 'seconds.json').write_text('{"video": 90.0, "samples": 6.0, "../x": 1.0}')
  stages = [
    {'name': name, 'kind': kind, 'folder': name, 'after': [], 'steps': kind == 'train'}
    for name, kind in (('video', 'train'), ('samples', 'samples'))
  ]
  (tmp_path / 'recipe.json').write_text(json.dumps({'stages': stages}))
  scores = {'alignment': {'all': 0.9632, 'odd': float('nan')}, 'floor': {'all': 0.008}}
  report = scores | {'samples': 216, '<b>': 1, 'seconds': 7654, 'stages': {'video': 90}}
  (tmp_path / 'report.json').write_text(json.dumps(report))
  (tmp_path / 'samples').mkdir()
  contact_sheet(tmp_path / 'samples.png', [np.zeros((2, 8, 8, 3), np.uint8)], ['a dog'])
  page = read(write_report(tmp_path))
  rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
  cells = {re.sub('<.*?>', '', name): re.findall('<td>(.*?)</td>', row) for name, row in rows}
  assert cells['alignment'][0] == '0.963' and cells['floor'][0] == '0.008'
  assert cells['all'] == ['216', '1'] and '7654' not in page
  assert cells['video'][-1] == '1.5' and cells['samples'][-1] == '0.1' and '../x' not in page
  (link,) = re.findall('<a href="#(.*?)">video</a>', page)
  assert f'<details id="{link}"><summary>video</summary>' in page
  assert figures(page) == [('img', 'png')] and 'a dog' in page
  (tmp_path / 'report.json').write_text('[1')  # damaged, or not there: the rest is shown
  (tmp_path / 'samples.png').write_bytes(b'no picture')
  assert 'Stages' in read(write_report(tmp_path))


def test_colours_can_be_told_from_the_paper_in_the_light_and_in_the_dark():
  def light(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722))) + 0.05  # as WCAG 2 has it

  for theme in (LIGHT, DARK):
    colours = dict(re.findall(r'--(\w+):(#\w{6});', theme))
    paper = light(colours.pop('paper'))
    found = {name: max(light(each) / paper, paper / light(each)) for name, each in colours.items()}
    assert min(found['ink'], found['soft'], found['c0']) >= 4.5  # text, and links
    assert min(each for name, each in found.items() if name != 'grid') >= 3


def test_where_nothing_ran_there_is_nothing_to_show(tmp_path):
  with pytest.raises(ConfigError, match='neither a run nor a recipe; train first'):
    write_report(tmp_path)
  begin(tmp_path / 'run')
  with pytest.raises(ConfigError, match=r"did you mean '.*run' \(video\)\?"):
    write_report(tmp_path)
