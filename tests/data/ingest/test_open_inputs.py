"""Files, tars and parquet give the same inputs; what is hostile in them is refused in words."""

import io
import json
import os
import tarfile

import pytest

from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.data.ingest.entries import Captions, RejectedEntry
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.ingest.tar import list_members
from mgjax.sections.audio.captions import CAPTION_COLUMNS, caption_of_row

CLIPS = {'cat': (b'the bytes of a cat', 'a cat sleeps'), 'dog': (b'those of a dog', 'a dog runs')}


def in_folder(folder):
  folder.mkdir()
  for key, (data, caption) in CLIPS.items():
    (folder / f'{key}.mp4').write_bytes(data)
    (folder / f'{key}.txt').write_text(caption)
  return folder


def in_manifest(folder):
  in_folder(folder)
  rows = [json.dumps({'video': f'{key}.mp4', 'caption': CLIPS[key][1]}) for key in CLIPS]
  (folder / 'list.jsonl').write_text('\n'.join(rows))
  return folder / 'list.jsonl'


def make_tar(path, members, kind=tarfile.PAX_FORMAT):
  """Members are (name, bytes) or TarInfo without bytes."""
  with tarfile.open(path, 'w', format=kind) as tar:
    for member in members:
      if isinstance(member, tarfile.TarInfo):
        tar.addfile(member)
      else:
        info = tarfile.TarInfo(member[0])
        info.size = len(member[1])
        tar.addfile(info, io.BytesIO(member[1]))
  return path


def in_tars(folder):
  folder.mkdir()
  (cat, cat_says), (dog, dog_says) = CLIPS.values()
  make_tar(folder / '0.tar', [('cat.mp4', cat), ('cat.txt', cat_says.encode())])
  fields = json.dumps({'caption': dog_says, 'fps': 25}).encode()
  make_tar(folder / '1.tar', [('./set/dog.json', fields), ('./set/dog.mp4', dog)])
  return folder


def in_rows(path, names, *columns, **options):
  """A parquet file of these columns, whose names may be alike."""
  pyarrow = pytest.importorskip('pyarrow', reason='pyarrow is of requirements/test.txt')
  parquet = pytest.importorskip('pyarrow.parquet')
  parquet.write_table(pyarrow.table(list(map(pyarrow.array, columns)), names), path, **options)
  return path


def in_parquet(folder, nested=True, **options):
  folder.mkdir(exist_ok=True)
  clips, captions = zip(*CLIPS.values(), strict=True)
  if nested:
    clips = [{'bytes': data, 'path': f'{key}.mp4'} for key, (data, _) in CLIPS.items()]
  names = ['video', 'caption', 'score']
  in_rows(folder / 'part.parquet', names, clips, captions, [0.5] * len(clips), **options)
  return folder


def in_flat_parquet(folder):
  return in_parquet(folder, nested=False, row_group_size=1)


def rejections(inputs):
  return {each.name: each.reason for each in inputs if isinstance(each, RejectedEntry)}


@pytest.mark.parametrize('lay', [in_folder, in_manifest, in_tars, in_parquet, in_flat_parquet])
def test_every_layout_gives_the_same_clips(tmp_path, lay):
  inputs = open_inputs(lay(tmp_path / 'clips'))
  found = list(inputs.between(0, len(inputs)))
  assert [(each.load(), each.caption) for each in found] == list(CLIPS.values())
  assert [each.size for each in found] == [len(data) for data, _ in CLIPS.values()]
  assert len({each.name for each in found}) == 2
  assert inputs[1].caption == 'a dog runs' and next(inputs.between(1, 2)).name == found[1].name


@pytest.mark.parametrize('lay', [in_folder, in_tars, in_parquet])
def test_inputs_are_told_from_others(tmp_path, lay, monkeypatch):
  first = open_inputs(lay(tmp_path / 'clips')).identity
  assert open_inputs(tmp_path / 'clips').identity == first
  monkeypatch.setitem(CLIPS, 'cow', (b'of a cow', 'a cow eats'))
  if lay is in_tars:
    make_tar(tmp_path / 'clips' / '2.tar', [('cow.mp4', b''), ('cow.txt', b'')])
  else:
    (tmp_path / 'clips').rename(tmp_path / 'before')
    lay(tmp_path / 'clips')
  assert open_inputs(tmp_path / 'clips').identity != first


@pytest.mark.parametrize('kind', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_where_they_are(tmp_path, kind):
  members = [
    ('a/b.mp4', b'x' * 700),
    ('a/b.txt', b'one'),
    ('empty.txt', b''),
    ('c.mp4', b'y' * 512),
  ]
  if kind != tarfile.USTAR_FORMAT:
    members += [('d' * 200 + '.mp4', b'long'), ('\u00e9\u00e8.mp4', b'accents')]
  path = make_tar(tmp_path / 'a.tar', members, kind)
  data = path.read_bytes()
  found = [(m.name, data[m.offset : m.offset + m.size]) for m in list_members(path)]
  assert found == members and not any(m.problem for m in list_members(path))


def test_what_is_hostile_in_a_tar_is_refused(tmp_path):
  link = tarfile.TarInfo('link.mp4')
  link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
  hard = tarfile.TarInfo('hard.mp4')
  hard.type, hard.linkname = tarfile.LNKTYPE, 'a.mp4'
  device = tarfile.TarInfo('device.mp4')
  device.type = tarfile.CHRTYPE
  folder = tarfile.TarInfo('folder')
  folder.type = tarfile.DIRTYPE
  sparse = tarfile.TarInfo('sparse.mp4')
  sparse.pax_headers = {'GNU.sparse.major': '1', 'GNU.sparse.size': str(10**15)}
  path = make_tar(
    tmp_path / 'a.tar',
    [
      link,
      hard,
      device,
      folder,
      sparse,
      ('../up.mp4', b'x'),
      ('up.txt', b'x'),
      ('/root.mp4', b'x'),
      ('.hidden.mp4', b'x'),
      ('twice.mp4', b'1'),
      ('twice.mp4', b'2'),
      ('twice.txt', b'a caption'),
      ('mute.mp4', b'x'),
      ('odd.mp4', b'x'),
      ('odd.json', b'{"words": 1}'),
      ('blank.mp4', b'x'),
      ('blank.txt', b' \n'),
      ('deep.mp4', b'x'),
      ('deep.json', b'[' * 100_000),
      ('good.mp4', b'good'),
      ('good.txt', b'good \x1b[31mwords'),
    ],
  )
  inputs = open_inputs(path)
  found = rejections(inputs)
  for name, reason in {
    'link.mp4': 'is a link',
    'hard.mp4': 'is a link',
    'device.mp4': 'is a device',
    'sparse.mp4': 'sparse file',
    '../up.mp4': 'leads upwards',
    '/root.mp4': 'is absolute',
    'twice.mp4': 'comes twice',
    'mute.mp4': 'has no caption',
    'odd.mp4': 'no caption in odd.json among its fields: words',
    'blank.mp4': 'is empty',
    'deep.mp4': 'cannot be read',
    'up': 'has no video',
  }.items():
    assert reason in found.pop(f'a.tar/{name}')
  assert not found
  good = {each.name: each for each in inputs if not isinstance(each, RejectedEntry)}
  assert good['a.tar/good.mp4'].caption == 'good [31mwords'
  assert good['a.tar/twice.mp4'].load() == b'1' and len(good) == 2


def test_a_tar_that_lies_about_sizes_or_breaks_off_gives_what_comes_before(tmp_path):
  whole = make_tar(
    tmp_path / 'a.tar',
    [('a.mp4', b'a'), ('a.txt', b'one'), ('b.mp4', b'b' * 2000), ('b.txt', b'two')],
  ).read_bytes()
  for cut in range(0, 7 * 512 + 1, 100):
    (tmp_path / 'cut.tar').write_bytes(whole[:cut])
    inputs = open_inputs(tmp_path / 'cut.tar')
    assert rejections(inputs), cut
    assert [each.name for each in inputs if not isinstance(each, RejectedEntry)] == (
      ['cut.tar/a.mp4'] if cut >= 3 * 512 + len(b'one') else []
    )
  for size, reason in (
    (b'\x80' + (10**18).to_bytes(11, 'big'), 'is cut off'),
    (b'\xff' + (-512).to_bytes(11, 'big', signed=True), 'is of an unknown kind'),
  ):
    for kind in (b'0', b'x', b'L'):  # a file, and what a name follows of
      bomb = bytearray(whole)
      bomb[124:136], bomb[156:157] = size, kind
      bomb[148:156] = f'{sum(bomb[:148]) + sum(bomb[156:512]) + 256:06o}\0 '.encode()
      (tmp_path / 'bomb.tar').write_bytes(bomb)
      expected = {'bomb.tar': 'is damaged at byte 0, or cut off there'}
      expected = {'bomb.tar/a.mp4': reason} if kind == b'0' else expected
      assert rejections(open_inputs(tmp_path / 'bomb.tar')) == expected
  (tmp_path / 'packed.tar').write_bytes(b'\x1f\x8b' + bytes(2000))
  packed = rejections(open_inputs(tmp_path / 'packed.tar'))['packed.tar']
  assert packed == 'is a gzip archive, not a tar; unpack it'


def test_rows_of_parquet_without_clips_or_captions_are_refused(tmp_path):
  cells = [{'bytes': b'x', 'path': None}, {'bytes': None, 'path': 'far.mp4'}, None]
  texts = ['one', 'two', 'three', None, '', *'abcd']
  in_rows(tmp_path / 'a.parquet', ['clip', 'text'], cells * 3, texts)
  (tmp_path / 'b.parquet').write_bytes(b'PAR1 and nothing that follows')
  inputs = open_inputs(tmp_path)
  found = rejections(inputs)
  assert len(inputs) == 10 and len(found) == 8
  assert 'no bytes' in found['a.parquet row 1: far.mp4'] and 'no bytes' in found['a.parquet row 2']
  assert 'no caption' in found['a.parquet row 3']
  assert 'is not a parquet file' in found['b.parquet']


def test_damage_in_parquet_costs_the_rows_it_is_in(tmp_path):
  in_parquet(tmp_path, row_group_size=1, compression='zstd')
  whole = bytearray((tmp_path / 'part.parquet').read_bytes())
  place = whole.find(b'the bytes of a cat')
  whole[place - 20 : place + 18] = bytes(38)
  (tmp_path / 'part.parquet').write_bytes(whole)
  first, second = open_inputs(tmp_path)
  assert isinstance(first, RejectedEntry) and 'damaged' in first.reason
  assert second.caption == 'a dog runs'


def test_columns_of_parquet_may_be_named(tmp_path):
  in_parquet(tmp_path)
  assert len(open_inputs(tmp_path, media_column='video', caption_column='caption')) == 2
  for wrong in ({'media_column': 'score'}, {'caption_column': 'score'}, {'media_column': 'none'}):
    with pytest.raises(ConfigError, match=r'it has .*caption \(string\), score \(double\)'):
      open_inputs(tmp_path, **wrong)


def test_what_is_unclear_or_not_there_is_a_sentence(tmp_path):
  in_tars(tmp_path / 'tars')
  (tmp_path / 'tars' / 'a.parquet').touch()
  with pytest.raises(ConfigError, match=r'0\.tar and a\.parquet; .* --layout=tar or '):
    open_inputs(tmp_path / 'tars')
  assert len(open_inputs(tmp_path / 'tars', 'tar')) == 2
  with pytest.raises(ConfigError, match='unknown layout'):
    open_inputs(tmp_path, 'zip')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(DataError, match=r'is no \.tar'):
    open_inputs(tmp_path / 'empty', 'tar')
  with pytest.raises(DataError, match='does not exist'):
    open_inputs(tmp_path / 'nowhere')


@pytest.mark.parametrize('lay', [in_tars, in_parquet])
def test_clips_beside_tars_or_parquet_do_not_vanish(tmp_path, lay):
  root = lay(tmp_path / 'set')
  (root / 'extra.mp4').write_bytes(b'x')
  with pytest.raises(ConfigError, match=r'extra\.mp4; say which .*--layout=files'):
    open_inputs(root)
  assert len(open_inputs(root, 'files').uncaptioned) == 1
  assert len(open_inputs(root, 'parquet' if lay is in_parquet else 'tar')) == 2


def test_a_disk_that_is_gone_is_told_from_a_missing_file(tmp_path):
  inputs = open_inputs(in_folder(tmp_path / 'clips'))
  (tmp_path / 'clips' / 'cat.mp4').unlink()
  assert inputs[0] == RejectedEntry('cat.mp4', 'there is no such file')
  (tmp_path / 'clips').rename(tmp_path / 'away')
  with pytest.raises(StorageError, match='is gone'):
    inputs[0]
  tars = open_inputs(in_tars(tmp_path / 'tars'))
  (tmp_path / 'tars' / '0.tar').unlink()
  with pytest.raises(StorageError, match='cannot be read any more'):
    tars[0]


def test_a_pipe_among_the_clips_is_listed_and_never_waited_for(tmp_path):
  for name in ('a.tar', 'b.parquet', 'c.mp4', 'd.csv'):
    os.mkfifo(tmp_path / name)
  inputs = open_inputs(tmp_path)
  assert [each.name for each in inputs.between(0, len(inputs))] == [
    'a.tar',
    'b.parquet',
    'c.mp4',
    'd.csv',
  ]
  assert all(isinstance(each, RejectedEntry) for each in inputs.between(0, len(inputs)))
  for name in ('a.tar', 'b.parquet', 'd.csv'):
    with pytest.raises(DataError, match='neither a folder nor'):
      open_inputs(tmp_path / name)


def test_a_name_in_a_tar_that_is_too_long_costs_its_own_member(tmp_path):
  members = [('a.mp4', b'a'), ('a.txt', b'one'), ('n' * 70_000 + '.mp4', b'x'), ('b.mp4', b'b')]
  inputs = open_inputs(make_tar(tmp_path / 'a.tar', [*members, ('b.txt', b'two')]))
  assert [each.caption for each in inputs if not isinstance(each, RejectedEntry)] == ['one', 'two']
  (reason,) = rejections(inputs).values()
  assert 'has a name of 70' in reason


def test_columns_of_one_name_reject_their_file_and_no_other(tmp_path):
  clips, texts = [b'x', b'y'], ['one', 'two']
  in_rows(tmp_path / 'a.parquet', ['video', 'video', 'caption'], clips, clips, texts)
  in_rows(tmp_path / 'b.parquet', ['video', 'caption', 'caption'], clips, texts, texts)
  in_rows(tmp_path / 'c.parquet', ['video', 'caption', 'x', 'x'], clips, texts, texts, texts)
  inputs = open_inputs(tmp_path)
  assert [each.caption for each in inputs if not isinstance(each, RejectedEntry)] == texts
  assert list(rejections(inputs).values()) == [
    "has several columns named 'video'; rename all but one",
    "has several columns named 'caption'; rename all but one",
  ]
  alone = in_rows(tmp_path / 'd.parquet', ['\x1b[31m', 'caption'], ['x'], ['one'])
  with pytest.raises(DataError, match='no columns named video') as refusal:
    open_inputs(alone)
  assert str(refusal.value).isprintable()


def test_what_parquet_declares_is_not_believed(tmp_path):
  in_rows(tmp_path / 'a.parquet', ['video', 'caption'], [b'x'] * 9000, ['same'] * 9000)
  bomb = [bytes(80 << 20)]
  in_rows(
    tmp_path / 'b.parquet',
    ['video', 'caption'],
    bomb,
    ['zeros'],
    compression='zstd',
    use_dictionary=False,
  )
  rows, bytes_ = open_inputs(tmp_path)
  assert 'declares 9000 rows in' in rows.reason and 'would be unpacked' in bytes_.reason


def test_a_cell_of_parquet_that_is_no_text_costs_its_row(tmp_path):
  pyarrow = pytest.importorskip('pyarrow', reason='pyarrow is of requirements/test.txt')
  raw = pyarrow.array([b'one', b'\xff', b'three'])
  text = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
  inputs = open_inputs(in_rows(tmp_path / 'a.parquet', ['video', 'caption'], [b'x'] * 3, text))
  assert [each.caption for each in inputs if not isinstance(each, RejectedEntry)] == [
    'one',
    'three',
  ]
  assert 'utf-8' in rejections(inputs)['a.parquet row 1']


def test_a_row_group_is_unpacked_once_however_it_is_asked_for(tmp_path, monkeypatch):
  parquet = pytest.importorskip('pyarrow.parquet')
  clips, texts = [b'%d' % index for index in range(100)], [f'text {index}' for index in range(100)]
  inputs = open_inputs(in_rows(tmp_path / 'a.parquet', ['video', 'caption'], clips, texts))
  opened, real = [], parquet.ParquetFile.iter_batches
  monkeypatch.setattr(
    parquet.ParquetFile,
    'iter_batches',
    lambda *arguments, **options: opened.append(1) or real(*arguments, **options),
  )
  for first in (0, 30, 60):  # every other shard, as two processes share them
    found = list(inputs.between(first, first + 15))
    assert [(each.load(), each.caption) for each in found] == list(zip(clips, texts, strict=True))[
      first : first + 15
    ]
  assert len(opened) == 1
  assert inputs[3].caption == 'text 3' and len(opened) == 2  # backwards it begins again


SOUNDS = Captions(CAPTION_COLUMNS, caption_of_row)
STRUCTURED = 'This audio contains speech. This audio has a description: "a crowd".'


def test_captions_of_sounds_are_made_of_the_columns_of_a_list_and_of_the_json_of_a_tar(tmp_path):
  (tmp_path / 'clip.mp4').write_bytes(b'x')
  (tmp_path / 'list.csv').write_text('video,caption,speech\nclip.mp4,a crowd,true\n')
  fields = json.dumps({'caption': 'a crowd', 'speech': True, 'quality': None}).encode()
  members = [
    ('a.mp4', b'x'),
    ('a.txt', b'people'),
    ('a.json', fields),
    ('b.mp4', b'x'),
    ('b.txt', b'rain'),
  ]
  tar = make_tar(tmp_path / 'a.tar', members)
  for path, plain, structured in (
    (tmp_path / 'list.csv', ['a crowd'], [STRUCTURED]),
    (tar, ['people', 'rain'], [STRUCTURED, 'rain']),
  ):
    inputs, others = open_inputs(path), open_inputs(path, captions=SOUNDS)
    assert [each.caption for each in inputs] == plain
    assert [each.caption for each in others] == structured
    assert inputs.identity != others.identity


def test_captions_of_sounds_are_not_made_of_columns_of_parquet(tmp_path):
  in_rows(tmp_path / 'a.parquet', ['video', 'caption'], [b'x'], ['a'])
  with pytest.raises(ConfigError, match='only a column of whole captions is read'):
    open_inputs(tmp_path, captions=SOUNDS)
