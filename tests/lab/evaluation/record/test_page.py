"""The page of an evaluation: its numbers are the record's, its samples the best and the worst."""

import json
import re

import numpy as np
import pytest

import mgjax
from mgjax.data.media.viewing import write_clip
from mgjax.lab.statistics.intervals import compare
from tests.pages import Page

# Grey levels by which a video blinks, so that its flicker is twice that.
BLINKS = [0, 40, 10, 30, 20, 50, 15, 25, 35, 5, 45, 3]
HOSTILE = '<script>alert(1)</script> "><img src=https://evil.example/x.png onerror=alert(2)>'


class Evaluation(Page):
  """The page of an evaluation."""

  def all(self, tag):
    return [attrs for name, attrs in self.elements if name == tag]

  def row(self, label, table_index=0):
    """Cells of a table's row under the names of its columns."""
    heads = [n for n, row in enumerate(self.rows) if row[0] == '']
    places = [n for n, row in enumerate(self.rows) if row[0] == label]
    head = self.rows[max(n for n in heads if n < places[table_index])]
    return dict(zip(head, self.rows[places[table_index]], strict=True))


def make_videos(folder, blinks, prompts):
  folder.mkdir()
  odd = np.arange(6)[:, None, None, None] % 2
  for index, blink in enumerate(blinks):
    frames = np.broadcast_to(100 + blink * odd, (6, 32, 32, 3)).astype(np.uint8)
    write_clip(folder / f'{index:05d}.mp4', frames, 6)
  (folder / 'prompts.txt').write_text('\n'.join(prompts) + '\n')
  return folder


def evaluate(folder, **options):
  findings = mgjax.evaluate(videos=folder, prompts=folder / 'prompts.txt', **options)
  return (
    findings,
    Evaluation(findings.paths[-2].read_text()),
    json.loads(findings.paths[-1].read_text()),
  )


@pytest.fixture(scope='module')
def prompts():
  return [HOSTILE, *(f'prompt {number}' for number in range(1, len(BLINKS)))]


@pytest.fixture(scope='module')
def first(tmp_path_factory, prompts):
  folder = make_videos(tmp_path_factory.mktemp('first') / 'videos', BLINKS, prompts)
  return folder, *evaluate(folder)


def test_numbers_stand_with_interval_and_count_as_in_the_record(first):
  folder, findings, page, record = first
  assert findings.paths[-2:] == [folder / 'evaluation.html', folder / 'evaluation.json']
  flicker = record['measured']['metrics']['scores/flicker']
  old = record['scores']['flicker']
  for end in ('value', 'low', 'high'):
    assert flicker[end] == old[end]
  row = page.row('flicker')
  assert float(row['value']) == pytest.approx(old['value'], rel=1e-3)
  ends = [float(end) for end in row['95% interval'].split(' to ')]
  assert ends == pytest.approx([old['low'], old['high']], rel=1e-3)
  assert row['n'] == '12' and row['better'] == 'lower'
  assert [video['flicker'] for video in record['videos']] == flicker['each']
  assert 'flicker. samples: 12; all at' in next(
    svg['aria-label'] for svg in page.all('svg') if svg['aria-label'].startswith('flicker')
  )


def test_the_best_and_the_worst_videos_are_shown_in_order_with_their_numbers(first):
  _, _, page, record = first
  flicker = record['measured']['metrics']['scores/flicker']
  order = np.argsort(BLINKS)
  assert flicker['best'] == order[:4].tolist() and flicker['worst'] == order[::-1][:4].tolist()
  section = page.text[page.text.index('Best') :]
  numbers = [f'{flicker["each"][index]:.4g}' for index in (*flicker['best'], *flicker['worst'])]
  places = [section.index(number) for number in numbers]
  assert places == sorted(places) and places[3] < section.index('Worst') < places[4]
  # Each of the files is on the page once; where it is shown again the page takes it from there.
  videos = page.all('video')
  held = [video['id'] for video in videos if 'src' in video]
  assert held == [f'sample-{index}' for index in range(12)]
  again = [video['data-of'] for video in videos if 'data-of' in video]
  assert set(again) <= set(held) and len(again) >= 8


def test_the_page_needs_no_other_file_and_prompts_are_text(first):
  _, _, page, _ = first
  for _, attrs in page.elements:
    for name, value in attrs.items():
      assert not name.startswith('on')
      if name in ('src', 'href', 'poster', 'srcset', 'data'):
        assert value.startswith(('data:video/', 'data:image/', '#'))
  assert len(page.all('script')) == 1 and 'alert' not in page.scripts
  assert not page.all('link') and not page.all('img')
  assert not re.search(r'https?:|//\w', page.scripts)
  assert HOSTILE in page.text  # word for word, as text


def test_pairs_have_the_interval_of_the_paired_bootstrap(first, tmp_path, prompts):
  folder, _, _, before = first
  # Less flicker in all but two, in another order of the prompts.
  order = [*range(1, len(BLINKS)), 0]
  blinks = [max(BLINKS[n] - 3, 0) + 9 * (n in (2, 4)) for n in order]
  second = make_videos(tmp_path / 'videos', blinks, [prompts[n] for n in order])
  findings, page, record = evaluate(second, against=folder)
  change = record['against']['metrics']['scores/flicker']
  old = before['measured']['metrics']['scores/flicker']
  ours = record['measured']['metrics']['scores/flicker']
  by_prompt = dict(zip(record['measured']['samples'], ours['each'], strict=True))
  names = sorted(by_prompt)
  theirs = dict(zip(before['measured']['samples'], old['each'], strict=True))
  expected = compare([[theirs[n] for n in names]], [[by_prompt[n] for n in names]])
  assert (change['other'], change['prompts']) == (pytest.approx(old['value']), len(BLINKS))
  for name in ('difference', 'low', 'high'):
    assert change[name] == pytest.approx(getattr(expected, name))
  assert change['difference'] == pytest.approx(ours['value'] - old['value'])
  row = page.row('flicker', 1)
  assert row['how'] == 'paired, 12 prompts'
  assert float(row['other']) == pytest.approx(old['value'], rel=1e-3)
  assert row['which is'] == ('better' if expected.high < 0 else 'unsure')
  assert 'paired over 12 prompts' in findings.table and record['against']['notes'] == []
