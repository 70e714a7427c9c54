"""launch.data: hostile clips end in rows or sentences, within little memory; records are shown."""

import contextlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.ingest.clip_check import open_row
from mgjax.data.media.video import probe, stream_frames
from mgjax.data.records.reader import Records, write_records
from tests import binaries
from tests.data.ingest.test_open_inputs import make_tar
from tests.data.media.hostile_clips import make_clips
from tests.data.media.test_frame_pixels import write_interlaced
from tests.data.media.test_video import numbered_file
from tests.tiny import CHECKOUT

GIGABYTE = 1 << 30


# A process starts with the peak of the one that forks it, and pytest's may be large.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stderr=subprocess.STDOUT)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def launch(*arguments):
  """Runs launch.data: (exit code, what it says)."""
  done = binaries.run('data', *arguments)
  return done.returncode, done.stdout + done.stderr


def measure(*arguments):
  """Runs launch.data in a process of its own: (exit code, what it says, peak memory in bytes)."""
  command = [sys.executable, '-c', MEASURE, sys.executable, '-m', 'launch.data']
  process = subprocess.run(
    [*command, *map(str, arguments)], cwd=CHECKOUT, capture_output=True, text=True
  )
  return process.returncode, process.stdout, int(process.stderr) * 1024


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
  folder = tmp_path_factory.mktemp('hostile')
  return folder, make_clips(folder / 'clips')


@pytest.fixture(scope='module')
def converted(hostile):
  folder, _ = hostile
  given = ('--allow_names', f'--input={folder}/clips', f'--output={folder}/records')
  return measure('convert', *given)


def frames(file):
  """Times and numbers of all frames, up to where the file is damaged."""
  seen = []
  with contextlib.suppress(DataError):
    for start, _, frame in stream_frames(file):
      seen.append((start, hash(frame.tobytes())))
  return seen


def rejected(directory):
  return [json.loads(line) for line in (directory / 'rejected.jsonl').read_text().splitlines()]


def test_each_of_two_hundred_hostile_clips_is_a_row_or_a_reason(hostile, converted):
  folder, usable = hostile
  code, said, memory = converted
  assert code == 0, said
  records, refused = Records(folder / 'records'), rejected(folder / 'records')
  taken = {row['source'] for row in records}
  reasons = {line['entry']: line['reason'] for line in refused if line['entry'] in usable}
  assert len(usable) >= 200 and taken | set(reasons) == set(usable)
  assert len(taken) == len(records) and not taken & set(reasons)
  for name, expected in usable.items():
    assert expected is None or (name in taken) is expected, (name, reasons.get(name))
  assert all(re.fullmatch(r'[a-z].{5,300}', reason, re.DOTALL) for reason in reasons.values())
  assert f'{len(records)} clips, {len(refused)} rejected' in said and 'Traceback' not in said
  assert memory < GIGABYTE, f'{memory / GIGABYTE:.2f} GiB'


def test_the_records_give_the_frames_of_the_files(hostile, converted):
  folder, _ = hostile
  assert converted[0] == 0
  for index, row in enumerate(Records(folder / 'records')):
    path = folder / 'clips' / row['source']
    assert row['media'].tobytes() == path.read_bytes()
    if index % 8 == 0:
      assert frames(open_row(row)) == frames(path), row['source']


def test_encoded_anew_what_is_whole_has_all_its_frames(hostile):
  folder, usable = hostile
  given = (f'--input={folder}/clips', f'--output={folder}/anew', '--reencode=gop=16', '--full')
  code, said, memory = measure('convert', '--allow_names', *given)
  assert code == 0 and 'Traceback' not in said, said
  assert memory < GIGABYTE, f'{memory / GIGABYTE:.2f} GiB'
  rows = {row['source']: row for row in Records(folder / 'anew')}
  entries = {line['entry'] for line in rejected(folder / 'anew')}
  assert set(usable) <= set(rows) | entries and not set(rows) & entries
  assert set(rows) >= {name for name, expected in usable.items() if expected}
  for name, row in rows.items():
    after = frames(open_row(row))
    if usable[name]:
      before = frames(folder / 'clips' / name)
      assert [start for start, _ in after] == pytest.approx([s for s, _ in before], abs=1e-3), name
    assert after and row['height'] % 2 == row['width'] % 2 == 0
    assert probe(open_row(row)).seconds == pytest.approx(row['seconds'])


def test_clips_are_shown_and_verified(tmp_path):
  (tmp_path / 'clips').mkdir()
  numbered_file(tmp_path / 'clips', 'a_numbered_clip.mp4', count=20)
  records = tmp_path / 'records'
  given = (f'--input={tmp_path}/clips', f'--output={records}', '--allow_names')
  assert launch('convert', *given)[0] == 0
  code, said = launch('inspect', f'--input={records}', f'--sheet={tmp_path}/sheet.png')
  assert code == 0 and '1 rows' in said and 'a numbered clip' in said
  with Image.open(tmp_path / 'sheet.png') as sheet:
    assert sheet.width > 8 * 160 and sheet.height > 160
  code, said = launch('verify', f'--input={records}')
  assert code == 0 and 'every file is as it was written, 1 rows' in said
  (shard,) = records.glob('*.arrayrecord')
  shard.write_bytes(shard.read_bytes()[:-1] + b'?')
  code, said = launch('verify', f'--input={records}')
  assert code == 3 and 'checksum' in said and 'Traceback' not in said


def test_damaged_clips_are_listed_and_the_rest_is_summed_up(tmp_path):
  (tmp_path / 'clips').mkdir()
  data = numbered_file(tmp_path / 'clips', 'good.mp4', count=20).read_bytes()
  (tmp_path / 'clips/stale.mp4').write_bytes(data)
  place = data.rindex(b'moov') - 304  # in the last frames, which conversion does not decode
  (tmp_path / 'clips/holes.mp4').write_bytes(data[:place] + bytes(100) + data[place + 100 :])
  for name, content in (
    ('cut', data[:900]),
    ('zeros', bytes(900)),
    ('text', b'hi'),
    ('empty', b''),
  ):
    (tmp_path / f'clips/{name}.mp4').write_bytes(content)
  code, said = launch('inspect', f'--input={tmp_path}/clips')
  assert code == 3 and 'holds no records; make them of clips with convert --input=' in said
  records = tmp_path / 'records'
  given = (f'--input={tmp_path}/clips', f'--output={records}', '--allow_names')
  code, said = launch('convert', *given)
  assert code == 0 and '3 clips, 4 rejected' in said
  for name in ('cut', 'zeros', 'text', 'empty'):
    assert said.count(f'  {name}.mp4: ') == 1
  (shard,) = records.glob('*.arrayrecord')
  content = shard.read_bytes()
  shard.write_bytes(content.replace(b'"stale"', b'"stolen"'[:7]))
  code, said = launch('inspect', f'--input={records}', f'--sheet={tmp_path}/sheet.png')
  assert code == 3 and 'Traceback' not in said
  assert '3 rows' in said and '3.00 s a clip' not in said and 'seconds:' in said
  assert '\n  good\n' in said and (tmp_path / 'sheet.png').exists()
  assert re.search(r'\n  row 1, holes\.mp4: cannot be decoded', said)
  assert re.search(r'\n  row 2: .* is damaged at its row 2', said)
  assert 'damaged rows: 2, listed above' in said


def test_latents_are_a_table_of_names_and_numbers(tmp_path):
  rows = [
    {'latents': np.full((2, 4 + i, 4, 8), i, np.float16), 'caption': 'red \x1b[31m', 'fps': 16.0}
    for i in range(3)
  ]
  write_records(tmp_path / 'latents', rows, rows_per_shard=2, meta={'config': 'abc'})
  code, said = launch('inspect', f'--input={tmp_path}/latents')
  assert code == 0 and '3 rows' in said and "'config': 'abc'" in said and '\x1b' not in said
  assert re.search(r'latents: float16 \(2, 4, 4, 8\) or .*, mean 1\.13\d*, .* from 0 to 2', said)
  assert 'fps: float (), mean 16, deviation 0, from 16 to 16' in said


def test_latents_of_several_buckets_are_shown_and_verified_together(tmp_path):
  for name in ('train/video', 'train/image', 'validation/video'):
    write_records(tmp_path / name, [{'latents': np.zeros((1, 2, 2, 4))}], rows_per_shard=1)
  for command in ('inspect', 'verify'):
    code, said = launch(command, f'--input={tmp_path}')
    assert code == 0 and said.count(str(tmp_path)) >= 3 and 'train/image' in said
  next((tmp_path / 'train' / 'image').glob('*.arrayrecord')).unlink()
  code, said = launch('verify', f'--input={tmp_path}')
  assert code == 3 and 'train/image' in said and 'train/video: every file' in said


def test_no_name_of_a_file_reaches_the_terminal_as_it_is(tmp_path):
  clips = tmp_path / 'clips\x1b[2J'
  clips.mkdir()
  for name in ('a\x1b[31m.mp4', 'b\u202e.tar', 'c\x07.mp4'):
    (clips / name).write_bytes(b'nothing')
  (clips / 'c\x07.txt').write_bytes(b'\xff')
  for code, layout in ((2, 'auto'), (3, 'files'), (3, 'tar')):
    given = (f'--input={clips}', f'--output={tmp_path}/{layout}', '--allow_names')
    found, said = launch('convert', *given, f'--layout={layout}')
    assert found == code and said.replace('\n', '').isprintable() and 'Traceback' not in said, said


def test_clips_without_a_caption_stop_a_conversion_that_does_not_allow_it(tmp_path):
  clips = tmp_path / 'clips'
  clips.mkdir()
  for index in range(3):
    numbered_file(clips, f'{index}.mp4', count=8)
    (clips / f'{index}.txt').write_text(f'the clip {index}' if index else 'x' * 5005)
  given = ('convert', f'--input={clips}', f'--output={tmp_path}/out')
  code, said = launch(*given)
  assert code == 0 and '0 of 3 clips have no caption' in said
  assert '1 of 3 clips have a caption that reaches 4096 characters' in said
  (clips / '1.txt').unlink()
  given = ('convert', f'--input={clips}', f'--output={tmp_path}/again')
  code, said = launch(*given)
  assert code == 3 and '1 of 3 clips have no caption, the first is 1.mp4' in said
  assert '--allow_names' in said and not (tmp_path / 'again').exists()
  (clips / 'list.jsonl').write_text('{"datei": "1.mp4", "beschreibung": "the clip 1"}')
  code, said = launch(*given)
  assert code == 3 and 'list.jsonl: names no video' in said and 'datei, beschreibung' in said
  named = ('--media_column=datei', '--caption_column=beschreibung')
  code, said = launch('convert', f'--input={clips}', f'--output={tmp_path}/named', *named)
  assert code == 0 and '0 of 3 clips have no caption' in said
  (clips / 'list.jsonl').unlink()
  code, said = launch(*given, '--allow_names')
  assert code == 0 and '3 clips, 0 rejected' in said and '1 of 3 clips have no caption' in said


@pytest.mark.parametrize('kind', ['text', 'list', 'tar'])
def test_empty_captions_stop_a_conversion_as_missing_ones_do(tmp_path, kind):
  clips = tmp_path / 'clips'
  clips.mkdir()
  said = {'a': 'a clip', 'b': '' if kind == 'text' else ' '}
  for name, caption in said.items():
    numbered_file(clips, f'{name}.mp4', count=8)
    (clips / f'{name}.txt').write_text(caption)
  (clips / 'README.md').write_text('of two clips')
  source = clips
  if kind == 'list':
    source = clips / 'list.csv'
    source.write_text('video,caption\n' + '\n'.join(f'{n}.mp4,{c}' for n, c in said.items()))
  if kind == 'tar':
    source = tmp_path / 'clips.tar'
    make_tar(source, [(each.name, each.read_bytes()) for each in clips.glob('?.*')])
  given = ('convert', f'--input={source}', f'--output={tmp_path}/out')
  code, told = launch(*given)
  assert code == 3 and '1 of 2 clips have no caption, the first is ' in told
  assert '--allow_names' in told and 'its caption is empty' in told
  code, told = launch(*given, '--allow_names')
  assert code == 0 and '1 of 2 clips have no caption' in told
  captions = [row['caption'] for row in Records(tmp_path / 'out')]
  assert captions == (['a clip'] if kind == 'tar' else ['a clip', 'b'])


def test_interlaced_clips_are_counted_and_made_whole_on_request(tmp_path):
  clips = tmp_path / 'clips'
  clips.mkdir()
  write_interlaced(clips / 'a.mp4', **{'x264-params': 'interlaced=1:tff=1'})
  numbered_file(clips, 'b.mp4', count=8)
  for name in 'ab':
    (clips / f'{name}.txt').write_text(name)
  given = ('convert', f'--input={clips}')
  code, said = launch(*given, f'--output={tmp_path}/out')
  assert code == 0 and '1 of 2 clips are interlaced' in said and '--reencode=deinterlace=1' in said
  code, said = launch(*given, f'--output={tmp_path}/anew', '--reencode=deinterlace=1')
  assert code == 0 and 'interlaced' not in said
  first, second = Records(tmp_path / 'anew')
  assert not probe(open_row(first)).interlaced and probe(open_row(second)).frames == 8
