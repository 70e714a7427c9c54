"""The page of a curation says the funnel, the reasons, the scores, the costs and what is off."""

import io
import re

import numpy as np
import pyarrow
import pytest
from PIL import Image

from mgjax.data.ingest.entries import alike
from mgjax.lab.curation.pages.page import write_page
from mgjax.lab.curation.select import Selection, Step
from mgjax.lab.curation.settings import CurationSettings, KeepSettings
from tests.pages import Page

COUNT = 40
SHAPE = {'start': 1.0, 'end': 10.0, 'seconds': 30.0, 'width': 1280, 'height': 720}


def picture(colour, kind='JPEG', **options):
  file = io.BytesIO()
  Image.new('RGB', (32, 18), colour).save(file, kind, **options)
  return file.getvalue()


def row(number):
  return {
    **SHAPE,
    'video': f'video_{number // 2}.mp4',
    'clip': f'video_{number // 2}.mp4#{number % 2}',
    'caption': f'caption {number}',
    'seconds_of': {'decode': 0.5, 'text': 0.2},
    'text_score': number / COUNT,
    'motion_vmaf': 3.0 if number % 4 else 1.0,
    'camera_class': 'static shot' if number % 2 else 'unknown',
    'fingerprint_vector': [0.0, 1.0],
    'error': None,
  }


def broken():
  return {'video': 'broken.mp4', 'clip': 'broken.mp4', 'error': 'is <cut> off\x1b[31m'}


def said(each):
  """Text drops from 0.5 on, motion those that are slow, and copies name what they copy."""
  if each['error']:
    return 'unmeasured', each['error']
  if each['text_score'] >= 0.5:
    return 'text', f'text_score {each["text_score"]:.2f} >= 0.5'
  if each['motion_vmaf'] == 1.0:
    return 'motion', 'motion_vmaf 1 <= 2'
  if each['clip'] in ('video_1.mp4#1', 'video_2.mp4#1'):
    return 'duplicates', f'copy of video_0.mp4#{each["clip"][6]}'
  return '', ''


def write(tmp_path, rows, pictures=None, off=''):
  table = pyarrow.Table.from_pylist([row(0), *rows]).slice(1)
  dropped_by, reasons = np.array([said(each) for each in rows], object).reshape(-1, 2).T
  steps, left = [], int((dropped_by != 'unmeasured').sum())
  for name in ('text', 'aesthetics', 'motion', 'duplicates'):
    lost, why = dropped_by == name, off if name == 'aesthetics' else ''
    steps.append(Step(name, left, left - int(lost.sum()), why, alike(reasons[lost]), 0.01))
    left = steps[-1].kept

  def own(numbers, kind):
    return [picture((number, 100, 50)) if kind == 'middle' else None for number in numbers]

  path, keep = tmp_path / 'report.html', CurationSettings(keep=KeepSettings(text=0.5))
  selection = Selection(table, dropped_by, reasons, steps)
  return write_page(selection, keep, path, pictures or own).read_text()


@pytest.fixture
def rows():
  return [*map(row, range(COUNT)), broken()]


def test_the_funnel_counts_each_clip_once_beside_the_published_shares(tmp_path, rows):
  tables = Page(write(tmp_path, rows)).tables
  head, *found = tables['What each filter left']
  assert head[0] == 'filter'
  cells = {name: dict(zip(head, [name, *rest], strict=True)) for name, *rest in found}
  # Of 40 the first 20 have little text, 15 of these move, and 2 of those are copies.
  assert [cells[name]['left'] for name in cells] == ['20', '20', '15', '13']
  assert cells['motion']['dropped'] == '5' and cells['motion']['kept of what came'] == '75%'
  assert cells['text']['left of all'] == '50%' and cells['text']['Table 44'] == '1.94%'
  assert cells['aesthetics']['kept in Table 44'] == '80.93%'  # 1.57 of 1.94
  assert cells['duplicates']['hours left'] == '0.033'  # 13 clips of 9 s
  assert ['kept', '9', '13', '0.033'] in tables['Clips']
  assert ['could not be measured', '1', '', ''] in tables['Clips']


def test_reasons_are_counted_without_their_numbers(tmp_path, rows):
  _, *found = Page(write(tmp_path, rows)).tables['Why clips were dropped']
  assert dict(found) == {
    'text: text_score … >= 0.5': '20',
    'motion: motion_vmaf … <= 2': '5',
    'duplicates: copy of …': '2',
  }


def test_histograms_have_the_thresholds_of_the_settings(tmp_path, rows):
  text = write(tmp_path, rows)
  labels = re.findall(r'<svg[^>]*aria-label="([^"]*)"', text)
  (label,) = [each for each in labels if each.startswith('text: text_score')]
  assert label == 'text: text_score. kept by text: 20; dropped by it: 20; 0.5 at 0.5'
  (label,) = [each for each in labels if each.startswith('motion: motion_vmaf')]
  assert 'kept by motion: 15; dropped by it: 5; 2 at 2' in label  # of those that came so far
  _, *found = Page(text).tables['camera_class']
  assert sorted(found) == [['static shot', '20', '8'], ['unknown', '20', '5']]


def test_what_is_off_and_broken_is_said_aloud(tmp_path, rows):
  text = write(tmp_path, rows, off='aesthetics is off: no weights are given')
  assert '<b>aesthetics</b> is off: no weights are given' in text
  assert 'aesthetics (off)' in text
  tables = Page(text).tables
  assert tables['Videos that could not be measured'][1] == ['broken.mp4', 'is <cut> off\\x1b[31m']


def test_costs_are_told_by_clip_and_by_dropped_clip(tmp_path, rows):
  head, *found = Page(write(tmp_path, rows)).tables['Running time']
  cells = {name: dict(zip(head, [name, *rest], strict=True)) for name, *rest in found}
  assert cells['decode']['seconds of scores'] == '20' and cells['decode']['a clip, ms'] == '500'
  # 40 clips of 0.2 s and 0.01 s of the filter, of 20 clips dropped.
  assert cells['text']['a clip dropped, ms'] == '400.5'


def test_examples_move_unless_the_reader_wants_none(tmp_path, rows):
  webp, asked = picture((1, 2, 3), 'WEBP'), []

  def pictures(numbers, kind):
    if kind == 'loop':
      return [webp if number == 2 else None for number in numbers]
    asked.extend(numbers)
    return [None if number % 2 else picture((9, 9, 9)) for number in numbers]

  text = write(tmp_path, rows, pictures)
  assert text.count('data:image/webp') == 1 and 'prefers-reduced-motion:no-preference' in text
  assert 'Dropped by text' in text and 'text_score 0.50 &gt;= 0.5' in text
  shown = text.count('data:image/jpeg')
  assert len(asked) == 25 and shown == sum(number % 2 == 0 for number in asked)
  assert write(tmp_path, rows).count('data:image/jpeg') == 12 + 6 + 5 + 2  # kept, of three filters


def test_without_clips_there_is_a_page_too(tmp_path):
  text = write(tmp_path, [])
  assert Page(text).tables['What each filter left'][1][2] == '0'
  assert 'is &lt;cut&gt;' in write(tmp_path, [broken()])


def test_names_of_strangers_are_shown_as_text(tmp_path, rows):
  rows[1] |= {'clip': '<script>alert(1)</script>', 'caption': '<img src=x onerror=alert(1)>'}
  rows[2]['camera_class'] = '<b>'
  text = write(tmp_path, rows)
  assert '<script' not in text and '<img src=x' not in text and '<b>unknown' not in text
  Page(text)
