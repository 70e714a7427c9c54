"""A stranger's clips: what is usable is used, what is not is named, nothing is fatal."""

import dataclasses
import functools
import itertools
import json
import logging
import os
import pickle
import socket

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.buckets import Shape, sort_out
from mgjax.data.clips import InMemory, VideoClips, probe_video
from mgjax.data.ingest.entries import VIDEO
from mgjax.data.media.video import LIMITS, Limits, write_video
from mgjax.data.settings import DataSettings
from mgjax.data.sources import open_clip_index

WANTED = Shape(frames=4, height=16, width=16, fps=(8.0, 8.0))


def find(path, shape=WANTED, report=None, limits=LIMITS):
  """The clips of a folder or manifest that a bucket of this shape takes."""
  probe = functools.partial(probe_video, shapes={'bucket': shape}, limits=limits)
  data = DataSettings('clips', os.fspath(path))
  clips, rejected = open_clip_index(data, 'train', VIDEO, probe, report)
  return clips.take(sort_out(clips, rejected, {'bucket': shape}, path, report)['bucket'])


def write_clip(path, seconds=1.0, caption=None):
  """A clip at 16 frames per second whose frame i has brightness 2 i."""
  path.parent.mkdir(parents=True, exist_ok=True)
  levels = 2 * np.arange(round(16 * seconds), dtype=np.uint8)
  write_video(path, np.broadcast_to(levels[:, None, None, None], (len(levels), 32, 32, 3)), fps=16)
  if caption is not None:
    path.with_suffix('.txt').write_text(caption)
  return path


def rejected(path):
  """Clips found by name of file, and reasons by entry."""
  report = path.parent / 'rejected.jsonl'
  clips = find(path, report=report)
  rows = [json.loads(line) for line in report.read_text().splitlines()]
  return {os.path.basename(str(clip.file)): clip for clip in clips}, {
    row['entry']: row['reason'] for row in rows
  }


def test_captions_come_from_the_text_beside_or_from_the_name(tmp_path):
  root = tmp_path / 'clips'
  write_clip(root / 'a.mp4', caption='  a red\nball \x1b[2J \u202efalls ')
  write_clip(root / 'deep' / 'red_ball-bounces_012.mp4')
  write_clip(root / '猫 è.mp4', caption='\ufeffun chat')
  write_clip(root / '.hidden.mp4')
  clips, reasons = rejected(root)
  assert {name: clip.caption for name, clip in clips.items()} == {
    'a.mp4': 'a red ball [2J falls',
    'red_ball-bounces_012.mp4': 'red ball bounces',
    '猫 è.mp4': 'un chat',
  }
  assert not reasons


def test_every_unusable_file_is_reported_and_none_is_fatal(tmp_path, caplog):
  root = tmp_path / 'clips'
  good = write_clip(root / 'good.mp4')
  write_clip(root / 'short.mp4', seconds=0.25)
  write_clip(root / 'silent.mp4', caption=' \n')
  write_clip(root / 'binary.mp4').with_suffix('.txt').write_bytes(b'\xff\xfe\x00')
  (root / 'empty.mp4').touch()
  (root / 'text.mp4').write_text('no video ' * 99)
  (root / 'script.mp4').write_text('ffconcat version 1.0\nfile good.mp4\n')
  (root / 'cut.mp4').write_bytes(good.read_bytes()[:1000])
  (root / 'alone.txt').write_text('a caption')
  (root / 'notes.json').write_text('{}')
  os.mkfifo(root / 'pipe.mp4')
  write_clip(tmp_path / 'outside' / 'secret.mp4', caption='secret')
  (root / 'link.mp4').symlink_to(tmp_path / 'outside' / 'secret.mp4')
  (root / 'folder').symlink_to(tmp_path / 'outside')
  write_clip(root / 'leak.mp4').with_suffix('.txt').symlink_to(tmp_path / 'outside' / 'secret.txt')
  with caplog.at_level(logging.WARNING):
    clips, reasons = rejected(root)
  assert set(clips) == {'good.mp4', 'silent.mp4'}  # whose name is its caption
  expected = {
    'short.mp4': 'is too short: it lasts 0.25 s',
    'binary.mp4': 'cannot be read as UTF-8',
    'empty.mp4': 'is empty',
    'text.mp4': 'is a text file',
    'folder': 'not followed',
    'script.mp4': 'is a list of other files',
    'alone.txt': 'without a video',
    'cut.mp4': 'begins as mp4 or mov, but is damaged, cut off',
    'notes.json': 'is not a video',
    'pipe.mp4': 'not a regular file',
    'link.mp4': 'leaves the folder',
    'leak.mp4': 'leaves the folder',
  }
  assert set(reasons) == set(expected)
  for entry, part in expected.items():
    assert part in reasons[entry] and str(tmp_path) not in reasons[entry]
  assert '2 clips, 12 rejected' in caplog.text and 'rejected.jsonl' in caplog.text


def test_what_is_rejected_is_said_once_in_a_process_a_line_each(tmp_path, caplog):
  caplog.set_level('INFO')
  root = tmp_path / 'clips'
  write_clip(root / 'good.mp4')
  for index in range(30):
    (root / f'{index:02d}.mp4').touch()
  for stage in range(3):
    find(root, report=tmp_path / f'{stage}.jsonl')
    assert len((tmp_path / f'{stage}.jsonl').read_text().splitlines()) == 30
  assert caplog.text.count('1 clips, 30 rejected') == 1
  assert all(caplog.text.count(f'  {index:02d}.mp4: is empty') == 1 for index in range(20))
  assert f'\n  and 10 more (10 x is empty): see {tmp_path}/0.jsonl' in caplog.text
  assert '20.mp4' not in caplog.text
  (root / 'new.mp4').touch()
  caplog.clear()
  find(root, report=tmp_path / 'again.jsonl')
  assert caplog.text.count('is empty') == 1 and '  new.mp4: is empty' in caplog.text


def test_what_lies_in_place_of_a_caption_is_never_waited_for(tmp_path):
  for name in ('pipe', 'folder', 'socket', 'loop', 'device', 'good'):
    write_clip(tmp_path / f'clips/{name}.mp4')
  os.mkfifo(tmp_path / 'clips/pipe.txt')
  (tmp_path / 'clips/folder.txt').mkdir()
  with socket.socket(socket.AF_UNIX) as server:
    here = os.getcwd()
    os.chdir(tmp_path / 'clips')  # a socket's path may not be long
    server.bind('socket.txt')
    os.chdir(here)
  (tmp_path / 'clips/loop.txt').symlink_to('loop.txt')
  (tmp_path / 'clips/device.txt').symlink_to('/dev/zero')
  clips, reasons = rejected(tmp_path / 'clips')
  assert clips['good.mp4'].caption == 'good' and clips['folder.mp4'].caption == 'folder'
  for name in ('pipe', 'socket'):
    assert reasons[f'{name}.mp4'] == f'its caption {name}.txt is not a regular file'
  assert 'leaves the folder' in reasons['device.mp4']


def test_names_of_files_reach_no_terminal_as_they_are(tmp_path, caplog):
  name = 'a\x1b[31m\x07\u202e'
  write_clip(tmp_path / 'clips/good.mp4')
  (tmp_path / f'clips/{name}.mp4').write_bytes(b'no video')
  (tmp_path / f'clips/{name}2.mp4').write_bytes(b'')
  (tmp_path / f'clips/{name}.json').touch()
  write_clip(tmp_path / f'clips/{name}3.mp4').with_suffix('.txt').write_bytes(b'\xff')
  clips, reasons = rejected(tmp_path / 'clips')
  assert set(clips) == {'good.mp4'} and len(reasons) == 4
  assert reasons[f'{name}.mp4'] == 'is a text file, not a video'
  assert caplog.text.replace('\n', '').isprintable()
  with pytest.raises(DataError) as refusal:
    probe_video(tmp_path / f'clips/{name}.mp4', {'bucket': WANTED})
  assert str(refusal.value).isprintable() and 'a\\x1b[31m\\x07\\u202e.mp4' in str(refusal.value)


def test_a_report_in_the_folder_is_not_taken_for_an_entry(tmp_path):
  write_clip(tmp_path / 'a.mp4')
  for _ in range(2):
    assert len(find(tmp_path, report=tmp_path / 'rejected.jsonl')) == 1
    assert not (tmp_path / 'rejected.jsonl').read_text()


def test_a_csv_lists_clips_relative_to_itself(tmp_path):
  for name in ('a.mp4', 'b, c.mp4', 'long.mp4'):
    write_clip(tmp_path / 'sub' / name, seconds=3.0)
  (tmp_path / 'list.csv').write_text(
    'video, caption ,start\n'
    'sub/a.mp4,"a ball, falling",\n'
    '"sub/b, c.mp4",b\n'
    'sub/long.mp4,second,1.5\n'
    'sub/long.mp4,too late,2.9\n'
    'sub/long.mp4,no number,x\n'
    'sub/a.mp4,a ball, falling,\n'
    'sub/a.mp4\n'
    'sub/none.mp4,gone\n'
    ',nothing\n'
  )
  clips, reasons = rejected(tmp_path / 'list.csv')
  assert clips['a.mp4'].caption == 'a ball, falling' and clips['a.mp4'].start is None
  assert clips['long.mp4'].start == 1.5
  parts = ['start is', 'quote captions', 'no caption', 'no such file', 'no video', 'too short']
  assert [part in reason for part, reason in zip(parts, reasons.values(), strict=True)] == [
    True
  ] * 6
  assert 'line 5: sub/long.mp4' in reasons


def test_a_manifest_reads_nothing_outside_its_folder(tmp_path):
  write_clip(tmp_path / 'secret.mp4')
  root = tmp_path / 'root'
  write_clip(root / 'a.mp4')
  (root / 'link.mp4').symlink_to(tmp_path / 'secret.mp4')
  (root / 'loop.mp4').symlink_to(root / 'loop.mp4')
  names = {
    str(tmp_path / 'secret.mp4'): 'absolute',
    '../secret.mp4': 'upwards',
    'x/../../secret.mp4': 'upwards',
    'link.mp4': 'leaves the folder',
    'loop.mp4': '',
    'http://example.com/a.mp4': 'URL',
    'file:///etc/passwd': 'URL',
    'a.mp4\0.txt': 'NUL',
    'concat:a.mp4|a.mp4': 'no such file',
  }
  lines = [json.dumps({'video': name, 'caption': 'x'}) for name in ['a.mp4', *names]]
  (root / 'list.jsonl').write_text('\n'.join(lines))
  clips, reasons = rejected(root / 'list.jsonl')
  assert set(clips) == {'a.mp4'} and len(reasons) == len(names)
  for part, reason in zip(names.values(), reasons.values(), strict=True):
    assert part in reason


def test_nothing_usable_is_a_sentence_with_the_commonest_reasons(tmp_path):
  root = tmp_path / 'clips'
  for i in range(3):
    write_clip(root / f'{i}.mp4', seconds=(i + 1) / 16)
  (root / 'x.mp4').touch()
  with pytest.raises(DataError) as refusal:
    rejected(root)
  sentence = str(refusal.value)
  assert refusal.value.exit_code == 3
  for part in (
    str(root),
    '4 rejected',
    '3 x is too short',
    '1 x is empty',
    'rejected.jsonl',
    'give',
  ):
    assert part in sentence
  assert len((tmp_path / 'rejected.jsonl').read_text().splitlines()) == 4
  assert 'at least 0.50 s' in sentence


def test_limits_hold_while_finding(tmp_path):
  write_clip(tmp_path / 'a.mp4')
  with pytest.raises(DataError, match='more than 100 pixels'):
    find(tmp_path, limits=Limits(pixels=100))


def test_long_clips_give_windows_that_do_not_overlap(tmp_path):
  write_clip(tmp_path / 'a.mp4', seconds=1.0)  # windows of 4 frames at 8 per second: 0.5 s
  write_clip(tmp_path / 'b.mp4', seconds=4.2)
  write_clip(tmp_path / 'c.mp4', seconds=0.45)
  source = VideoClips(find(tmp_path), WANTED)
  captions = [source[i]['caption'] for i in range(len(source))]
  assert captions == ['a'] * 2 + ['b'] * 8 + ['c']
  starts = [int(source[2 + i]['video'][0].mean() / 2 + 0.5) for i in range(8)]
  assert all(after - before >= 8 for before, after in itertools.pairwise(starts))
  sample = source[5]['video']
  assert sample.dtype == np.uint8 and sample.shape == (4, 16, 16, 3)
  levels = sample.mean(axis=(1, 2, 3))
  np.testing.assert_allclose(np.diff(levels), 4, atol=1.5)  # every second frame, in order
  with pytest.raises(IndexError):
    source[len(source)]


def test_a_sample_is_a_function_of_its_index(tmp_path):
  write_clip(tmp_path / 'a.mp4', seconds=3.3)
  source = VideoClips(find(tmp_path), WANTED)
  twin = pickle.loads(pickle.dumps(source))
  for i in (4, 0, 5):
    np.testing.assert_array_equal(source[i]['video'], twin[np.int64(i)]['video'])


def test_a_start_gives_one_window_exactly_there(tmp_path):
  write_clip(tmp_path / 'a.mp4', seconds=4.0)
  (tmp_path / 'list.csv').write_text('video,caption,start\na.mp4,x,2\na.mp4,y,0\n')
  source = VideoClips(find(tmp_path / 'list.csv'), WANTED)
  firsts = [source[i]['video'][0].mean() for i in range(len(source))]
  np.testing.assert_allclose(firsts, [64, 0], atol=1.5)


def test_single_frames_come_from_pictures_and_once_a_second_from_videos(tmp_path):
  write_clip(tmp_path / 'a.mp4', seconds=3.0)
  Image.new('RGB', (20, 30), (9, 90, 200)).save(tmp_path / 'b.png')
  wanted = dataclasses.replace(WANTED, frames=1)
  source = VideoClips(find(tmp_path, wanted), wanted)
  assert len(source) == 3 + 1
  assert {source[i]['video'].shape for i in range(4)} == {(1, 16, 16, 3)}
  assert len(find(tmp_path)) == 1  # the picture is no video


def test_a_few_windows_come_from_every_clip(tmp_path):
  for name, seconds in (('long', 20.0), ('short', 1.0), ('other', 3.0)):
    write_clip(tmp_path / 'clips' / f'{name}.mp4', seconds)
  source = VideoClips(find(tmp_path / 'clips'), WANTED)
  assert len(source) == 40 + 2 + 6
  for count in (1, 2, 3, 9, 20, 100):
    chosen = source.spread(count)
    assert len(chosen) <= count and sorted(set(chosen)) == chosen
    if count >= 3:
      assert {source.caption(index) for index in chosen} == {'long', 'short', 'other'}
  assert source.spread(100) == list(range(48))


def test_windows_in_memory_are_read_once(tmp_path):
  file = write_clip(tmp_path / 'clips' / 'a.mp4', 5.0)
  source = VideoClips(find(tmp_path / 'clips'), WANTED)
  kept = InMemory(source, 3)
  assert len(kept) == 3 and kept.fingerprint != source.fingerprint
  first = [kept[index] for index in range(3)]
  for index, sample in zip(source.spread(3), first, strict=True):
    np.testing.assert_array_equal(sample['video'], source[index]['video'])
  file.unlink()
  assert all(kept[index]['video'] is sample['video'] for index, sample in enumerate(first))
  assert kept.caption(2) == 'a'
  with pytest.raises(IndexError):
    kept[3]
