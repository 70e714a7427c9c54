"""One command curates for fine-tuning: it waits for people and cuts what they leave."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from mgjax.data.media.containers import Blob
from mgjax.data.media.video import probe
from mgjax.data.records.reader import Records
from mgjax.lab.curation.rows import pyarrow
from tests.apps.serving.tiny_pages import FPS, SECONDS, Client, make_raw
from tests.binaries import succeeded
from tests.end_to_end.test_curation import CHECKOUT, curate
from tests.lab.language_models.chat_server import Server

pytest.importorskip('uvicorn', reason='needs the extra serve')


@contextlib.contextmanager
def reviewing(raw, output, *flags):
  """Yields those who look at clips, by name, while the command serves; then kills it."""
  words = ['review', f'--input={raw}', f'--output={output}', '--port=0', *flags]
  process = subprocess.Popen(
    [sys.executable, '-m', 'launch.serve', *words],
    cwd=CHECKOUT,
    env={**os.environ, 'PYTHONPATH': str(CHECKOUT)},
    text=True,
    stdout=subprocess.PIPE,
  )
  try:
    for line in process.stdout:
      if line.startswith('stop with Ctrl-C'):
        break
    invitations = (pathlib.Path(output) / 'review' / 'invitations.txt').read_text()
    found = re.findall(r'(\w+) http://127\.0\.0\.1:(\d+)/r/(\w+)', invitations)
    people = {name: Client(int(port), token) for name, port, token in found}
    yield people
    for person in people.values():
      person.close()
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_people_look_at_clips_and_the_command_cuts_what_they_leave(tmp_path):
  raw, output = tmp_path / 'raw', tmp_path / 'D'
  make_raw(raw, 4)
  changes = {
    'measure__scorers': "('motion','camera','sound')",
    'measure__clips__longest': 16.0,
    'keep__clip_seconds': '(1.0,16.0)',
    'order': "('duration','silence')",
    'keep__sound__silence': 1.0,
    'review__undecided': 'wait',
  }
  done = succeeded(curate(raw, output, **changes))
  assert 'nothing is cut while 4 clips wait for launch.serve review' in done.stdout
  assert '4 of 4 clips have a caption (existing)' in done.stdout
  assert not (output / 'records').exists()

  with reviewing(raw, output, '--people=ann,ben') as people:
    (_, _, ann), (shown, _, ben) = (people[name].next() for name in ('ann', 'ben'))
    assert people['ann'].send(ann, keep=False, reason='jitter')[0] == 200
    changed = {'from': 1.0, 'to': 3.0, 'caption': 'Noise moves.', 'labels': ['pan left']}
    assert people['ben'].send(ben, **changed)[0] == 200
    _, _, last = people['ben'].next()
  with reviewing(raw, output) as people:  # killed with -9, and nothing of it is lost
    found, _, answer = people['ben'].next()
    assert (found['done'], answer) == (2, last)
    assert people['ben'].send(answer)[0] == 200

  done = succeeded(curate(raw, output, **changes | {'review__undecided': 'drop'}))
  assert 'people have seen 3 of 4 clips: 1 are trimmed, 1 have another caption' in done.stdout
  funnel = json.loads((output / 'funnel.json').read_text())
  assert funnel['filters'][-1]['name'] == 'people' and funnel['kept'] == 2
  assert funnel['people'] == {'seen': 3, 'waiting': 1, 'trimmed': 1, 'corrected': 1}
  assert funnel['captions'] == {'by': 'existing', 'kept': 2, 'without': 0}
  decisions = pyarrow().parquet.read_table(output / 'decisions.parquet').to_pylist()
  reasons = [row['reason'] for row in decisions if row['filter'] == 'people']
  assert sorted(reasons) == ['person: jitter', 'person: nobody has looked at it']
  assert 'jitter' in (output / 'report.html').read_text()

  records = Records(output / 'records')
  rows = {row['source']: row for row in (records[index] for index in range(len(records)))}
  trimmed = rows[shown['task']['clip']]
  assert trimmed['caption'] == 'Pan left. Noise moves.' and trimmed['labels'] == 'pan left'
  assert probe(Blob('cut', trimmed['media'].tobytes())).frames == 2 * FPS
  (whole,) = (row for name, row in rows.items() if name != shown['task']['clip'])
  assert whole['seconds'] == SECONDS and whole['caption'].endswith('text 2')
  assert whole['sound_silence'] == 1.0 and 'labels' not in whole
  kept = pyarrow().parquet.read_table(output / 'kept.parquet').to_pylist()
  assert {row['clip']: row['caption'] for row in kept} == {
    name: row['caption'] for name, row in rows.items()
  }


CAPTIONS_ALONE = {'measure__scorers': "('motion',)", 'order': "('duration',)"}


def test_a_written_caption_is_in_the_record_and_is_written_once(tmp_path):
  raw, output = tmp_path / 'raw', tmp_path / 'D'
  make_raw(raw, 2)
  rules = {'captions__kind': 'rules', 'captions__template': 'Film: {caption}'}
  changes = CAPTIONS_ALONE | rules
  done = succeeded(curate(raw, output, **changes))
  assert '2 of 2 clips have a caption (rules)' in done.stdout, done.stderr
  (path,) = (output / 'captions').glob('*.jsonl')
  before = path.read_bytes()
  assert before.count(b'\n') == 2
  records = Records(output / 'records')
  assert all(records[index]['caption'].startswith('Film: ') for index in range(2))
  assert curate(raw, output, **changes).returncode == 0 and path.read_bytes() == before


def test_nothing_is_cut_while_an_endpoint_has_yet_to_answer(tmp_path):
  raw, output = tmp_path / 'raw', tmp_path / 'D'
  make_raw(raw, 2)
  answer = json.dumps({'caption': 'Noise moves.'})

  def faults(text):  # the first time somebody asks about one of the clips
    return ['refused'] * ('text 0' in text)

  with Server(lambda text: answer, faults) as server:
    asked = {'model': 'tiny', 'url': server.url}
    changes = CAPTIONS_ALONE | {'captions__kind': 'endpoint'}
    changes |= {f'captions__endpoint__{name}': value for name, value in asked.items()}
    first = succeeded(curate(raw, output, **changes))
    assert 'nothing is cut while 1 clips have no answer of the endpoint' in first.stdout
    assert not (output / 'records').exists()
    second = curate(raw, output, **changes)
    assert '2 of 2 clips have a caption (endpoint)' in second.stdout, second.stderr
    assert sorted(map(len, server.requests.values())) == [
      1,
      2,
    ]  # what was answered is not asked again
  records = Records(output / 'records')
  assert [records[index]['caption'] for index in range(2)] == ['Noise moves.'] * 2
