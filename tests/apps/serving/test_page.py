"""The page in a real browser: keys, readiness, sides, trimming, and servers that are killed."""

import collections
import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from mgjax.apps.serving.review import Review
from mgjax.apps.serving.votes import Votes
from mgjax.lab.curation.review.decisions import FILE, read_decisions
from mgjax.lab.evaluation.human.study import Design, Folders, begin
from mgjax.lab.evaluation.human.votes import read_votes
from tests.apps.serving.browser import EXECUTABLE, browser
from tests.apps.serving.tiny_pages import COLOURS, begin_review, make_raw, make_videos, served
from tests.waiting import wait_for

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(EXECUTABLE is None, reason='no chromium is installed; apt install chromium'),
]
CHECKOUT = pathlib.Path(__file__).parents[3]
PAIRS = 14
READY = 'ready && !busy && task && task.id'
# Mean colour of a side as it is painted, so that what a rater sees is known and not only its name.
SEEN = """(() => {
  const video = document.querySelector('#SIDE video'), canvas = document.createElement('canvas')
  canvas.width = video.videoWidth; canvas.height = video.videoHeight
  const pen = canvas.getContext('2d'); pen.drawImage(video, 0, 0)
  const data = pen.getImageData(0, 0, canvas.width, canvas.height).data, sum = [0, 0, 0]
  data.forEach((value, i) => { if (i % 4 < 3) sum[i % 4] += value })
  return sum.indexOf(Math.max(...sum))
})()"""


class Site:
  """A study that `launch.serve votes` serves, which can be killed."""

  def __init__(self, directory: pathlib.Path):
    self.directory, self._process = directory, None
    with socket.create_server(('127.0.0.1', 0)) as free:
      self.port = free.getsockname()[1]
    self.links = [f'http://127.0.0.1:{self.port}/r/{token}' for token in Votes(directory).people]

  def start(self):
    command = [sys.executable, '-m', 'launch.serve', 'votes', f'--out={self.directory}']
    self._process = subprocess.Popen(
      [*command, f'--port={self.port}'], cwd=CHECKOUT, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while time.monotonic() < until:
      try:
        return socket.create_connection(('127.0.0.1', self.port), timeout=1).close()
      except OSError:
        assert self._process.poll() is None
        time.sleep(0.1)
    raise AssertionError('the server did not start')

  def kill(self):
    if self._process:
      self._process.send_signal(signal.SIGKILL)
      self._process.wait()
      self._process = None


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  make_videos(folder, PAIRS, 'abc', frames=16)
  return folder


@pytest.fixture
def site(videos, tmp_path, request):
  models = {name: str(videos / name) for name in 'ab'}
  given = {'questions': 'video:overall', 'raters': ('ann', 'ben', 'cy')}
  given |= getattr(request, 'param', {})
  references = given.pop('references', '')
  references = references and str(videos / references)
  prompts = tmp_path / 'prompts.txt'
  text = '<img src=x onerror="window.hurt=1"> ' + 'words and words ' * 80
  prompts.write_text('\n'.join([text, *(f'digit {index}' for index in range(1, PAIRS))]))
  begin(
    tmp_path / 'votes', Folders(models, references), str(prompts), design=Design(repeats=0), **given
  )
  made = Site(tmp_path / 'votes')
  made.start()
  yield made
  made.kill()


def enter(tab):
  tab.wait(READY)
  tab.press('Enter')  # the introduction
  tab.wait('!at("about").open')


def answer(tab, *keys):
  """Answers what a tab shows by keyboard and waits for what comes next."""
  task = tab.wait(READY)
  tab.press(*keys, 'Enter')
  tab.wait(f'(task === null && !at("end").hidden) || (ready && !busy && task.id !== "{task}")', 60)
  return task


def test_three_raters_vote_while_the_server_is_killed(site):
  """Two at once; it dies between votes and while one is sent; none is lost, none is doubled."""
  draw, chosen = random.Random(0), {}
  keys = {'a': 'left', 'ArrowRight': 'right', 'e': 'tie', 'x': 'cannot_judge', 'b': 'right'}
  with browser() as window:
    tabs = [window.open(link) for link in site.links]
    for tab in tabs:
      enter(tab)
    for turn in range(PAIRS):
      for tab in tabs[:2] if turn % 2 else tabs:
        if not tab.evaluate('task && task.id'):
          continue
        key = draw.choice([*keys])
        if turn == 4 and tab is tabs[0]:  # between votes
          site.kill()
          site.start()
        if turn == 9 and tab is tabs[1]:  # while one is sent
          task = tab.wait(READY)
          tab.press(key, 'Enter')
          site.kill()
          tab.wait('at("said").textContent.includes("Trying again") || task.id !== "' + task + '"')
          site.start()
          tab.wait(f'ready && !busy && task.id !== "{task}"', 60)
        elif turn == 12 and tab is tabs[0]:
          shown = tab.wait(READY)
          tab.reload()
          assert tab.wait(READY) == shown
          task = answer(tab, key)
        else:
          task = answer(tab, key)
        chosen[task] = keys[key]
    while tabs[2].evaluate('task && task.id'):
      chosen[answer(tabs[2], 'ArrowDown')] = 'tie'
    for tab in tabs:
      assert 'Thank you' in tab.text()
  written = [
    json.loads(line)['id'] for line in (site.directory / 'votes.jsonl').read_text().splitlines()
  ]
  votes = read_votes(site.directory)
  assert len({*written}) == len(written) == len(votes) == 3 * PAIRS
  assert {vote.id: vote.choice for vote in votes} == chosen
  counts = collections.Counter(vote.item for vote in votes)
  assert set(counts.values()) == {3} and len(counts) == PAIRS


def test_what_is_seen_on_a_side_is_what_the_vote_says(site):
  brightest = {name: ['red', 'green', 'blue'].index(colour) for name, colour in COLOURS.items()}
  with browser() as window:
    tab = window.open(site.links[0])
    enter(tab)
    for _ in range(6):
      tab.wait(READY)
      seen = [tab.evaluate(SEEN.replace('SIDE', side)) for side in ('left', 'right')]
      answer(tab, 'a')
      vote = read_votes(site.directory)[-1]
      assert seen == [brightest[vote.left], brightest[vote.right]] and vote.choice == 'left'


def test_a_vote_before_both_videos_are_ready_does_not_count(site):
  held = """
    window.original = fetch
    window.fetch = async (path, options) => {
      if (String(path).endsWith(window.slow)) await new Promise(done => window.release = done)
      return original(path, options)
    }
    window.ask = (old => async (...given) => {
      const found = await old(...given)
      window.slow ??= found[1].ahead?.[1]
      return found
    })(window.ask)
  """
  with browser() as window:
    tab = window.open(site.links[0])
    enter(tab)
    # The pair after the next is held back: the next one has been fetched ahead already.
    tab.evaluate(held)
    answer(tab, 'a')
    tab.press('a', 'Enter')
    tab.wait('task && !ready && !!window.release')
    count = len(read_votes(site.directory))
    tab.press('a', 'Enter', 'b', 'Enter', 'x', 'Enter')
    time.sleep(0.5)
    assert not tab.evaluate('chosen()') and tab.evaluate('at("send").disabled')
    assert len(read_votes(site.directory)) == count == 2
    tab.evaluate('release()')
    answer(tab, 'b')
    assert [vote.choice for vote in read_votes(site.directory)] == ['left', 'left', 'right']


def test_both_videos_move_together_by_keys(site):
  times = 'videos().map(each => each.currentTime)'
  with browser() as window:
    tab = window.open(site.links[0])
    enter(tab)
    tab.wait('videos().every(each => !each.paused)')
    for _ in range(10):  # half a second of frames, over the end of a loop
      left, right = tab.evaluate(times)
      assert abs(left - right) < 0.07 or min(left, right) < 0.07
      time.sleep(0.1)
    tab.press(' ')
    tab.wait('videos().every(each => each.paused)')
    tab.evaluate('seek(0.3)')
    for key, frame in (('.', 5), ('.', 6), (',', 5), (',', 4)):
      tab.press(key)
      tab.wait('videos().every(each => !each.seeking)')
      for found in tab.evaluate(times):
        assert found == pytest.approx((frame + 0.5) / 16, abs=0.002)
    tab.press('l', 'r')
    tab.wait('!looping && !playing && videos().every(each => each.ended)')
    assert tab.evaluate('videos().every(each => each.muted)')
    tab.press('l', ' ')
    tab.wait('playing && looping')


@pytest.mark.parametrize('site', [{'questions': 'sound:overall'}], indirect=True)
def test_questions_of_sound_let_one_side_be_heard_and_want_both_heard(site):
  with browser() as window:
    tab = window.open(site.links[0])
    enter(tab)
    tab.press('a')
    muted = "['left', 'right'].map(side => at(side).querySelector('video').muted)"
    assert tab.evaluate(muted) == [False, True]
    assert tab.evaluate('at("send").disabled')
    tab.wait('heard.left >= end() / 2')
    tab.press('2')
    assert tab.evaluate(muted) == [True, False]
    tab.wait('allHeard()')
    answer(tab, 'b')
    assert read_votes(site.directory)[0].choice == 'right'


def test_the_page_says_what_it_is_to_screen_readers_and_fits_a_narrow_screen(site):
  with browser() as window:
    for dark in (False, True):
      tab = window.open(site.links[0], 390, 844, dark)
      tab.wait(READY)
      tab.evaluate("at('start').click()")
      assert tab.evaluate('document.documentElement.scrollWidth <= 390')
      nodes = tab.call('Accessibility.getFullAXTree')['nodes']
      named = {
        (node.get('role', {}).get('value'), node.get('name', {}).get('value', ''))
        for node in nodes
        if not node.get('ignored')
      }
      roles = collections.Counter(role for role, _ in named)
      assert roles['radio'] == 4 and ('slider', 'Time') in named
      for role in ('button', 'radio', 'slider', 'Video'):
        assert not [name for each, name in named if each == role and not name.strip()], role
      assert any('Which video is better, all in all?' in name for _, name in named)


@pytest.mark.parametrize(
  'site', [{'questions': 'editing:structure', 'references': 'c'}], indirect=True
)
def test_what_both_were_given_is_between_them_and_a_script_in_a_text_does_not_run(site):
  with browser() as window:
    for width in (1280, 390):
      tab = window.open(site.links[0], width, 844)
      enter(tab)
      box = "at('SIDE').getBoundingClientRect()"
      assert tab.wait(SEEN.replace('SIDE', 'reference')) == 1  # green, as nothing else is
      assert {tab.evaluate(SEEN.replace('SIDE', side)) for side in ('left', 'right')} == {0, 2}
      left, middle, right = (box.replace('SIDE', s) for s in ('left', 'reference', 'right'))
      if width > 900:
        assert tab.evaluate(f'{left}.right <= {middle}.left && {middle}.right <= {right}.left')
        assert tab.evaluate("at('send').getBoundingClientRect().bottom <= innerHeight")
      assert tab.evaluate('document.documentElement.scrollWidth <= innerWidth')
    while '<img src=x' not in tab.text():
      answer(tab, 'a')
    assert not tab.evaluate('window.hurt')
    wrong = window.open(site.links[0][:-1] + '_')
    assert 'no invitation' in wrong.text()


def test_clips_are_looked_at_by_keys_alone(tmp_path):
  inputs, folder = make_raw(tmp_path / 'raw', 3), tmp_path / 'review'
  begin_review(folder, inputs, range(3))

  def decided(count):
    return wait_for(lambda: read_decisions(folder / FILE)[count - 1 :], seconds=20)[-1]

  queue = Review(folder, inputs, ('ann',))
  with served(queue) as people, browser() as chromium:
    home = f'http://127.0.0.1:{people["ann"].port}'
    page = chromium.open(home + people['ann'].path)
    page.wait(READY)
    assert page.evaluate("task.clip === '0.mp4#0' && at('about').open")
    page.press('Enter')
    page.wait('playing')
    page.press(' ')
    page.wait('!playing')
    page.evaluate('seek(1.05)')
    page.wait('!videos()[0].seeking')
    page.press('i', '.', '.', '.', ',')
    page.wait('!videos()[0].seeking && Math.abs(now() - 1.3125) < 1e-3')
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
    page.wait(f'task.clip === "1.mp4#0" && {READY}')
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
    progress = chromium.open(f'{home}/o/{queue.operator}')
    assert progress.wait("at('sum').textContent") == '3 of 3 clips are decided, 3 of them kept.'
    assert progress.evaluate("document.querySelector('td a').textContent") == 'ann'
