"""Each kind of file that is no video is refused by its own name, and says what to do."""

import gzip
import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.audio import probe_audio, write_wav
from mgjax.data.media.containers import Blob
from mgjax.data.media.video import probe
from tests.data.media.test_video import copy_with_index_first, encode, numbered

CUT, TEXT = 'begins as mp4 or mov, but is damaged, cut off', 'is a text file, not a video'
# What the sentence about a file says among other things.
SAID = {
  'text': TEXT,
  'letters cut within one': TEXT,
  'utf-16': TEXT,
  'json': TEXT,
  'page': 'a web page (HTML), not a video; the download failed',
  'pointer': '`git lfs pull`',
  'playlist': 'is a list of other files',
  'zip': 'unpack it',
  'gzip': 'unpack it',
  'tar': 'unpack it',
  'pdf': 'is a PDF',
  'empty': 'is empty',
  'few zeros': 'holds only zeros',
  'zeros': 'holds zeros where a video has its header',
  'noise': 'begins as none of mp4, mov',
  'without its beginning': 'begins as none of mp4, mov',
  'first bytes': CUT,
  'first half': CUT,
  'index cut': CUT,
  'index cut late': 'has no video stream that is whole',
  'pictures cut': 'is cut off, it declares',
  'no index': 'was never finished',
  'length damaged': CUT,
  'avi cut': 'begins as avi, but is damaged',
  'mkv cut': 'begins as mkv or webm, but is damaged',
  'ts': 'is not of a kind that is read here',
  'sound': 'has no video stream, only sound',
}


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> dict[str, bytes]:
  folder = tmp_path_factory.mktemp('files')
  encode(folder / 'a.mp4', numbered(100))
  copy_with_index_first(folder / 'a.mp4', folder / 'b.mp4')
  write_wav(folder / 'a.wav', np.zeros((800, 1), np.float32), 16_000)
  packed, tarred = io.BytesIO(), io.BytesIO()
  with zipfile.ZipFile(packed, 'w') as archive:
    archive.writestr('a.txt', 'hello')
  with tarfile.open(fileobj=tarred, mode='w') as archive:
    archive.addfile(tarfile.TarInfo('a.mp4'))
  last, first = ((folder / name).read_bytes() for name in ('a.mp4', 'b.mp4'))
  index = last.index(b'moov') - 4
  return {
    'text': b'hello\n' * 500,
    'letters cut within one': 'ж'.encode() * 3000 + b'\xd0',
    'utf-16': ('hello\n' * 9).encode('utf-16'),
    'json': b'{"error": "denied"}',
    'page': b'\n<!DOCTYPE HTML><html><title>404</title></html>',
    'pointer': b'version https://git-lfs.github.com/spec/v1\nsize 9\n',
    'playlist': b'#EXTM3U\n#EXTINF:1,\nhttp://host/a.ts\n',
    'zip': packed.getvalue(),
    'gzip': gzip.compress(last),
    'tar': tarred.getvalue(),
    'pdf': b'%PDF-1.7\n\xff\xfe',
    'empty': b'',
    'few zeros': bytes(100),
    'zeros': bytes(10_000),
    'noise': np.random.default_rng(0).bytes(4096),
    'without its beginning': last[len(last) // 2 : index],
    'first bytes': last[:10],
    'first half': last[: index // 2],
    'index cut': first[: first.index(b'moov') + 600],
    'index cut late': first[: first.index(b'moov') + 300],
    'pictures cut': first[: len(first) * 6 // 10],
    'no index': last[:index],
    'length damaged': last[:32] + b'\0\0\0\5free' + last[40:index],
    'avi cut': encode(folder / 'a.avi', numbered(4), codec='mpeg4').read_bytes()[:60],
    'mkv cut': encode(folder / 'a.mkv', numbered(4)).read_bytes()[:60],
    'ts': encode(folder / 'a.ts', numbered(8)).read_bytes(),
    'sound': (folder / 'a.wav').read_bytes(),
  }


@pytest.mark.parametrize('name', SAID)
def test_what_a_file_is_and_what_to_do_is_said(files, tmp_path, name):
  path = tmp_path / 'a.mp4'
  path.write_bytes(files[name])
  for file in (path, Blob('in memory', files[name])):
    with pytest.raises(DataError) as refusal:
      probe(file)
    said = str(refusal.value)
    assert said.startswith(f'{file}: ') and SAID[name] in said and said.isprintable()


def test_a_sound_is_expected_where_one_is_asked_for(tmp_path):
  (tmp_path / 'a.wav').write_bytes(b'hello')
  with pytest.raises(DataError, match=r'is a text file, not a sound$'):
    probe_audio(tmp_path / 'a.wav')
  with pytest.raises(DataError, match=r'is a folder, not a sound$'):
    probe_audio(tmp_path)


def test_a_link_to_nothing_is_told_from_nothing(tmp_path):
  (tmp_path / 'a.mp4').symlink_to('b.mp4')
  with pytest.raises(DataError, match=r'there is no such file$'):
    probe(tmp_path / 'b.mp4')
  with pytest.raises(DataError, match=r'is a link to a file that is not there$'):
    probe(tmp_path / 'a.mp4')


@pytest.mark.parametrize('closed', ['file', 'folder'])
def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, closed):
  """The super user may read all files, so here the system's answer is made up."""

  def refuse(*_, **__):
    raise PermissionError(13, 'Permission denied')

  (tmp_path / 'a.mp4').write_bytes(b'whatever')
  where = (pathlib.Path, 'exists') if closed == 'folder' else (io, 'open')
  monkeypatch.setattr(*where, refuse)
  monkeypatch.setattr('mgjax.data.media.containers.open', refuse, raising=False)
  with pytest.raises(DataError, match=r'may not be read by this user; give it the right to$'):
    probe(os.fspath(tmp_path / 'a.mp4'))
