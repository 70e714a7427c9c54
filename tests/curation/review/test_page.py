"""The page for people in a real browser: keys, trimming, reasons, going back."""

import time

import pytest

from mgjax.curation.review.decisions import FILE, read_decisions
from tests.browser import EXECUTABLE, browser
from tests.curation.review.tiny_review import begin, make_videos, row, served

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(EXECUTABLE is None, reason='no chromium is installed; apt install chromium'),
]
READY = 'ready && !busy && video && task.clip'


def test_clips_are_looked_at_by_keys_alone(tmp_path):
  inputs, folder = make_videos(tmp_path / 'raw', 3), tmp_path / 'review'
  begin(folder, inputs, [row(0), row(1), row(2)])

  def decided(count):
    until = time.monotonic() + 20
    while len(found := read_decisions(folder / FILE)) < count:
      assert time.monotonic() < until
      time.sleep(0.05)
    return found[-1]

  with served(folder, inputs, ('ann',)) as people, browser() as chromium:
    port, path = people['ann'].client._connection.port, people['ann'].path
    page = chromium.open(f'http://127.0.0.1:{port}{path}')
    assert page.wait(READY) == '0.mp4#0' and page.evaluate("at('about').open")
    page.press('Enter')
    page.wait('playing()')
    page.press(' ')
    page.wait('!playing()')
    page.evaluate('video.currentTime = 1.05')
    page.wait('!video.seeking')
    page.press('i', '.', '.', '.', ',')
    page.wait('!video.seeking && Math.abs(video.currentTime - 1.3125) < 1e-3')
    page.press('o')
    assert page.evaluate('[first, last]') == pytest.approx([1.0, 1.375])
    assert 'under 2 s' in page.evaluate("at('clock').textContent")
    page.press('c')
    page.evaluate("at('caption').select()")
    page.press(*'kd')  # letters, not decisions
    page.press('Escape')
    page.evaluate("document.querySelector('.chips .likely').click()")
    page.press('k')
    kept = decided(1)
    assert (kept.keep, kept.caption, kept.labels) == (True, 'kd', ('pan right',))
    assert (kept.first, kept.last) == pytest.approx((1.5, 1.875))
    assert page.wait(f'task.clip === "1.mp4#0" && {READY}') == '1.mp4#0'
    page.press('d', '2')
    assert decided(2).reason == 'jitter'
    page.wait(f'task.clip === "2.mp4#0" && {READY}')
    page.press('b')
    page.wait(f'task.clip === "1.mp4#0" && {READY}')
    assert 'jitter' in page.evaluate("at('before').textContent")
    page.press('w', 'k')
    assert decided(3).clip == '1.mp4#0' and decided(3).keep
    page.wait(f'task.clip === "2.mp4#0" && {READY}')
    page.press('s')
    page.wait(READY)
    page.press('k')
    decided(4)
    page.wait("!at('end').hidden")
    assert 'All 3 clips are decided' in page.text()
