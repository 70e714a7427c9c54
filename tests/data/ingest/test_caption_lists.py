"""Folders as other tools write them: every caption is the right one, or the refusal says why."""

import json
import os
import re
import unicodedata

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.ingest.entries import RejectedEntry, list_entries, spoken
from mgjax.data.ingest.open_inputs import open_inputs
from tests.data.ingest.test_open_inputs import in_rows, make_tar

CAT, DOG = 'a cat sleeps, “größe”', 'a dog runs; fast'
RIGHT = {'clips/a.mp4': CAT, 'clips/b.mp4': DOG}


def lines(*rows):
  return '\n'.join(json.dumps(row) for row in rows)


def both(name, text, **more):
  """Objects with a file and a caption, as `name` and `text` call them."""
  return [{**more, name: f'clips/{c}.mp4', text: said} for c, said in (('a', CAT), ('b', DOG))]


# What a tool writes beside clips/a.mp4 and clips/b.mp4: name of the file -> its text.
FOLDERS = {
  'videofolder jsonl': {'metadata.jsonl': lines(*both('file_name', 'text'))},
  'videofolder csv': {'metadata.csv': f'file_name,text\nclips/a.mp4,"{CAT}"\nclips/b.mp4,{DOG}\n'},
  'videofolder in a split': {
    'clips/metadata.jsonl': lines(
      {'file_name': 'a.mp4', 'caption': CAT}, {'file_name': './b.mp4', 'caption': DOG}
    )
  },
  'two modalities of videofolder': {'metadata.jsonl': lines(*both('video_file_name', 'prompt'))},
  'finetrainers': {
    'prompts.txt': f'{CAT}\n{DOG}\n',
    'videos.txt': 'clips/a.mp4\nclips/b.mp4\n',
  },
  'cogkit': {'prompt.txt': f'{CAT}\r\n{DOG}', 'video.txt': 'clips/a.mp4\r\nclips/b.mp4\r\n'},
  'swapped lines': {'captions.txt': f'{DOG}\n{CAT}', 'videos.txt': 'clips/b.mp4\nclips/a.mp4'},
  'diffusion-pipe': {'clips/captions.json': json.dumps({'a.mp4': [CAT, 'x'], 'b.mp4': [DOG]})},
  'kohya': {'clips/a.caption': CAT, 'clips/b.caption': DOG},
  'kohya metadata': {
    'clips/meta_cap.json': json.dumps({'a': {'caption': CAT}, 'b': {'caption': DOG}})
  },
  'musubi': {'list.jsonl': lines(*both('video_path', 'caption'))},
  'musubi with absolute paths': {
    'list.jsonl': lines(
      {'video_path': '{ROOT}/clips/a.mp4', 'caption': CAT},
      {'video_path': '{ROOT}/clips/b.mp4', 'caption': DOG},
    )
  },
  'ltx trainer': {'dataset.json': json.dumps(both('media_path', 'caption'))},
  'diffsynth': {'metadata.csv': f'video,prompt\nclips/a.mp4,"{CAT}"\nclips/b.mp4,{DOG}\n'},
  'open-sora': {'meta.csv': f'id,relpath,text\n1,clips/a.mp4,"{CAT}"\n2,clips/b.mp4,{DOG}\n'},
  'open-sora plan': {
    'list.json': json.dumps([{**r, 'cap': [r['cap']]} for r in both('path', 'cap')])
  },
  'videox-fun': {'metadata.json': json.dumps(both('file_path', 'text', type='video'))},
  'fastvideo': {
    'videos2caption.json': json.dumps(both('path', 'cap', fps=24, resolution={'w': 1}))
  },
  'fastvideo beside its folder': {
    'videos2caption.json': json.dumps(
      [{'path': 'a.mp4', 'cap': [CAT]}, {'path': 'b.mp4', 'cap': [DOG]}]
    )
  },
  'names of clips beside their folder': {'list.csv': f'video,caption\na,"{CAT}"\nb,{DOG}\n'},
  'pandas by columns in another order': {
    'table.json': json.dumps(
      {'video': {'0': 'clips/a.mp4', '1': 'clips/b.mp4'}, 'caption': {'1': DOG, '0': CAT}}
    )
  },
  'columns beside a version': {
    'table.json': json.dumps(
      {'version': 3, 'video': ['clips/a.mp4', 'clips/b.mp4'], 'caption': [CAT, DOG], 'x': None}
    )
  },
  'an object of one clip': {
    'a.json': json.dumps(both('path', 'caption')[0]),
    'b.json': json.dumps(both('path', 'caption')[1]),
  },
  'pandas by columns': {
    'table.json': json.dumps(
      {'video': {'0': 'clips/a.mp4', '1': 'clips/b.mp4'}, 'caption': {'0': CAT, '1': DOG}}
    )
  },
  'an object around a list': {
    'all.json': json.dumps({'version': 1, 'items': both('clip', 'text')})
  },
  'a json of splits': {
    'all.json': json.dumps({'train': both('video', 'text')[:1], 'test': both('video', 'text')[1:]})
  },
  'more lines at the end': {
    'prompts.txt': f'{CAT}\n{DOG}\n\n',
    'videos.txt': 'clips/a.mp4\nclips/b.mp4',
  },
  'json lines called json': {'train.json': lines(*both('File Name', 'Long Caption'))},
  'a table of tabs': {'list.tsv': f'path\tcaption\nclips/a.mp4\t{CAT}\nclips/b.mp4\t{DOG}\n'},
  'a spreadsheet of semicolons': {
    'list.csv': f'Video;Caption\nclips/a.mp4;{CAT}\nclips/b.mp4;"{DOG}"\n'
  },
  'paths of windows': {
    'list.jsonl': lines(
      {'video': 'clips\\A.MP4', 'caption': CAT}, {'video': 'clips\\b.mp4', 'caption': DOG}
    )
  },
  'names in capitals': {'clips/a.TXT': CAT, 'clips/b.Txt': DOG},
  'the whole name': {'clips/a.mp4.txt': CAT, 'clips/b.mp4.txt': DOG},
  'cogvideox': {'labels/a.txt': CAT, 'labels/b.txt': DOG},
  'a json beside each': {
    'clips/a.json': json.dumps({'caption': CAT, 'fps': 2}),
    'clips/b.json': json.dumps({'caption': [DOG], 'key': 1}),
  },
  'list and texts agree': {
    'metadata.jsonl': lines(*both('file_name', 'text')),
    'clips/a.txt': CAT,
    'clips/b.txt': DOG,
  },
}


def lay(root, files, encoding='utf-8'):
  (root / 'clips').mkdir(parents=True)
  for name in ('a.mp4', 'b.mp4'):
    (root / 'clips' / name).write_bytes(b'x')
  for name, text in files.items():
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(text.replace('{ROOT}', str(root)).encode(encoding))
  return root


def captions(inputs):
  """Name of the file -> caption; a clip without a caption of its own fails."""
  assert not inputs.uncaptioned
  assert not [each for each in inputs if isinstance(each, RejectedEntry)]
  return {each.name: each.caption for each in inputs}


@pytest.mark.parametrize('tool', FOLDERS)
def test_captions_lie_where_a_tool_leaves_them(tmp_path, tool):
  assert captions(open_inputs(lay(tmp_path / 'set', FOLDERS[tool]))) == RIGHT


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32'])
@pytest.mark.parametrize(
  'tool', ['videofolder csv', 'finetrainers', 'kohya', 'ltx trainer', 'musubi']
)
def test_text_with_a_byte_order_mark_is_read(tmp_path, tool, encoding):
  assert captions(open_inputs(lay(tmp_path / 'set', FOLDERS[tool], encoding))) == RIGHT


@pytest.mark.parametrize('encoding', ['utf-16-be', 'utf-16-le', 'utf-32-le', 'latin-1'])
def test_text_of_another_encoding_is_refused(tmp_path, encoding):
  texts = {'clips/a.txt': 'größer', 'clips/b.txt': 'a "größer" dog'}
  first, second = open_inputs(lay(tmp_path / 'set', texts, encoding))
  for each in (first, second):
    assert isinstance(each, RejectedEntry) and 'UTF-8' in each.reason
  listed = lay(tmp_path / 'list', {'list.csv': 'video,caption\nclips/a.mp4,größer\n'}, encoding)
  inputs = None
  try:
    inputs = open_inputs(listed / 'list.csv')
  except DataError as error:
    assert 'UTF-8' in str(error)
  assert inputs is None or 'UTF-8' in inputs[0].reason


@pytest.mark.parametrize('name', ['metadata.parquet', 'clips.parquet'])
def test_a_parquet_of_paths_is_a_list(tmp_path, name):
  root = lay(tmp_path / 'set', {})
  in_rows(root / name, ['file_name', 'caption', 'score'], list(RIGHT), [[CAT], [DOG]], [1, 2])
  assert captions(open_inputs(root)) == RIGHT
  assert [each.caption for each in open_inputs(root / name)] == [CAT, DOG]


def test_a_column_of_categories_holds_captions(tmp_path):
  arrow, parquet = (pytest.importorskip(name) for name in ('pyarrow', 'pyarrow.parquet'))
  said = arrow.array([CAT, DOG]).dictionary_encode()
  parquet.write_table(arrow.table({'video': [b'x', b'y'], 'caption': said}), tmp_path / 'a.parquet')
  assert list(captions(open_inputs(tmp_path / 'a.parquet')).values()) == [CAT, DOG]


def test_columns_go_by_one_table_and_may_be_named_in_every_kind_of_list(tmp_path):
  rows = both('datei', 'beschreibung')
  for name, text in {
    'list.jsonl': lines(*rows),
    'list.json': json.dumps(rows),
    'list.csv': f'datei,beschreibung\nclips/a.mp4,"{CAT}"\nclips/b.mp4,{DOG}\n',
  }.items():
    root = lay(tmp_path / name.replace('.', '_'), {name: text})
    named = {'media_column': 'datei', 'caption_column': 'beschreibung'}
    assert captions(open_inputs(root, **named)) == RIGHT
    assert [each.caption for each in open_inputs(root / name, **named)] == [CAT, DOG]
    for given in ({}, named | {'media_column': 'file'}, named | {'caption_column': 'text'}):
      assert len(open_inputs(root, **given).uncaptioned) == 2
      found = [each for each in open_inputs(root, **given) if isinstance(each, RejectedEntry)]
      assert any('datei, beschreibung' in each.reason for each in found), found


def test_members_of_tars_go_by_the_same_table(tmp_path):
  said = [('a.mp4', b'x'), ('a.json', json.dumps({'long_caption': CAT}).encode())]
  said += [('b.mp4', b'x'), ('b.caption', DOG.encode())]
  assert list(captions(open_inputs(make_tar(tmp_path / 'a.tar', said))).values()) == [CAT, DOG]
  fields = json.dumps({'beschreibung': CAT, 'caption': 'x'}).encode()
  path = make_tar(tmp_path / 'b.tar', [('a.mp4', b'x'), ('a.txt', b'x'), ('a.json', fields)])
  assert open_inputs(path, caption_column='beschreibung')[0].caption == CAT


def test_captions_that_differ_or_do_not_match_are_refused(tmp_path):
  root = lay(tmp_path / 'a', {**FOLDERS['videofolder jsonl'], 'clips/a.txt': 'another'})
  first, second = open_inputs(root)
  assert first == RejectedEntry(
    'clips/a.mp4',
    'has captions that differ, in clips/a.txt and in metadata.jsonl; leave one of them',
  )
  assert second.caption == DOG


def test_columns_of_unequal_length_reject_the_rows_that_lack_one(tmp_path):
  table = {'video': ['clips/a.mp4', 'clips/b.mp4'], 'caption': [CAT]}
  first, second = open_inputs(lay(tmp_path, {'table.json': json.dumps(table)}))
  assert first.caption == CAT and 'has no caption' in second.reason


@pytest.mark.parametrize(
  ('name', 'text', 'said'),
  [
    *((f'{value}.json', value, 'is not a JSON object') for value in ('3', 'null', '"x"', '[1, 2]')),
    ('a.json', '[{"path": "9.mp4", "caption": "x"}]', 'names no video that is there; .* 9.mp4'),
    ('shards.tar.gz', '', r'is an archive \(.tar.gz\), which is not read; unpack it'),
    ('clips.ZIP', '', 'is an archive .*unpack it'),
  ],
)
def test_what_is_no_list_costs_no_clip_and_is_told(tmp_path, name, text, said):
  clips = {'clips/a.txt': CAT, 'clips/b.txt': DOG}
  *found, refused = open_inputs(lay(tmp_path, {name.strip('"'): text, **clips}))
  *found, refused = sorted([*found, refused], key=lambda each: isinstance(each, RejectedEntry))
  assert [each.caption for each in found] == [CAT, DOG]
  assert re.search(said, refused.reason) and not refused.is_clip
  if not text:
    with pytest.raises(DataError, match=said):
      open_inputs(tmp_path / name)


def test_a_list_of_two_folders_of_clips_names_neither(tmp_path):
  root = lay(tmp_path, {'videos/a.mp4': 'x', 'list.csv': 'video,caption\na.mp4,which one\n'})
  assert not [each for each in open_inputs(root) if getattr(each, 'caption', '') == 'which one']


@pytest.mark.parametrize(
  ('said', 'count'), [(CAT, 1), (f'{CAT}\n', 1), (f'{CAT}\n{DOG}\nanother\n', 3)]
)
def test_lists_of_unequal_length_are_refused(tmp_path, said, count):
  root = lay(tmp_path, {'prompts.txt': said, 'videos.txt': 'clips/a.mp4\nclips/b.mp4\n'})
  with pytest.raises(DataError, match=rf'prompts.txt has {count} lines and videos.txt 2'):
    open_inputs(root)


@pytest.mark.parametrize(
  ('cell', 'caption'),
  [
    (f"\"['{DOG}', 'another']\"", DOG),
    (f'"[""{DOG}"", ""another""]"', DOG),
    (f'"[laughs] {DOG}"', f'[laughs] {DOG}'),
    ('"[1, 2]"', '[1, 2]'),
  ],
)
def test_of_several_captions_in_a_cell_the_first_is_read(tmp_path, cell, caption):
  root = lay(
    tmp_path, {'metadata.csv': f'file_name,text\nclips/a.mp4,"{CAT}"\nclips/b.mp4,{cell}\n'}
  )
  _, second = open_inputs(root)
  assert second.caption == caption


def test_a_clip_in_several_rows_of_a_list_gives_an_entry_each(tmp_path):
  rows = [{'video': 'clips/a.mp4', 'caption': CAT, 'start': 0}]
  rows += [{'video': 'clips/a.mp4', 'caption': DOG, 'start': 2}]
  root = lay(tmp_path / 'a', {'list.jsonl': lines(*rows), 'clips/b.txt': DOG})
  found = list(open_inputs(root))
  assert [(each.caption, each.start) for each in found] == [(CAT, 0), (DOG, 2), (DOG, None)]
  assert len({each.name for each in found}) == 3


def test_clips_without_a_caption_are_known_before_anything_is_read(tmp_path):
  root = lay(tmp_path / 'a', {'clips/a.txt': CAT})
  inputs = open_inputs(root)
  assert inputs.uncaptioned == [RejectedEntry('clips/b.mp4', 'has no caption')]
  assert inputs[1].caption == 'b'
  root = lay(tmp_path / 'b', {'metadata.jsonl': lines({'file_name': 'clips/a.mp4', 'text': CAT})})
  assert [each.name for each in open_inputs(root).uncaptioned] == ['clips/b.mp4']


@pytest.mark.parametrize('blank', ['', ' ', '\u200b\u200d\ufeff', '\u202e', '\ufe0f'])
def test_a_caption_that_cannot_be_seen_is_none(tmp_path, blank):
  rows = [{'video': 'clips/a.mp4', 'caption': blank}, {'video': 'clips/b.mp4', 'caption': '🐕'}]
  for root in (
    lay(tmp_path / 'text', {'clips/a.txt': blank, 'clips/b.txt': '🐕'}),
    lay(tmp_path / 'list', {'list.jsonl': lines(*rows)}),
    lay(tmp_path / 'alone', {'list.jsonl': lines(*rows)}) / 'list.jsonl',
  ):
    inputs = open_inputs(root)
    (lacking,) = inputs.uncaptioned
    assert 'a.mp4' in lacking.name and lacking.reason == 'its caption is empty'
    assert [each.caption for each in inputs] == ['a', '🐕']


def test_what_is_no_clip_is_not_counted_as_one(tmp_path):
  more = {'list.csv': 'id,text\n1,x\n', 'README.md': 'x', 'Thumbs.db': 'x', 'c.txt': 'of no clip'}
  inputs = open_inputs(lay(tmp_path / 'a', {'clips/a.txt': CAT, **more}))
  assert (len(inputs), inputs.clips, len(inputs.uncaptioned)) == (6, 2, 1)


@pytest.mark.parametrize('column', ['start_time', 'End Time', 'end', 'timestamp', 'segments'])
@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'parquet'])
def test_a_part_of_a_clip_is_refused_by_the_name_of_its_column(tmp_path, kind, column):
  root = lay(tmp_path / 'a', {})
  rows = [('clips/a.mp4', CAT, '1.5'), ('clips/b.mp4', DOG, '')]
  names = ['video', 'caption', column]
  if kind == 'parquet':
    in_rows(root / 'list.parquet', names, *map(list, zip(*rows, strict=True)))
  elif kind == 'csv':
    (root / 'list.csv').write_text('\n'.join(f'{v},"{c}",{s}' for v, c, s in [names, *rows]))
  else:
    (root / 'list.jsonl').write_text(lines(*(dict(zip(names, r, strict=True)) for r in rows)))
  first, second = open_inputs(root / f'list.{kind}')
  assert first.reason.startswith(f"{column} = '1.5' is a part of a clip")
  assert second.caption == DOG


def test_names_are_the_same_however_their_accents_are_written(tmp_path):
  root = tmp_path / 'a'
  root.mkdir()
  (root / unicodedata.normalize('NFD', 'größe.mp4')).touch()
  (root / unicodedata.normalize('NFC', 'größe.txt')).write_text(CAT)
  (root / unicodedata.normalize('NFD', 'käse.mp4')).touch()
  (root / 'metadata.jsonl').write_text(lines({'file_name': 'käse.mp4', 'text': DOG}))
  assert sorted(captions(open_inputs(root)).values()) == [CAT, DOG]


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    (unicodedata.normalize('NFD', 'größe_012'), 'größe'),
    ('हिन्दी_में-वीडियो 3', 'हिन्दी में वीडियो'),
    ('ตัวอย่าง_วิดีโอ', 'ตัวอย่าง วิดีโอ'),
    ('\u0645\u06cc\u200c\u062e\u0648', '\u0645\u06cc\u200c\u062e\u0648'),
    ('red_ball-bounces_012', 'red ball bounces'),
  ],
)
def test_names_keep_their_accents_and_vowels(name, said):
  assert spoken(name) == said


def test_a_snapshot_of_the_hub_is_read_through_its_links(tmp_path):
  cache = tmp_path / 'datasets--a--b'
  snapshot = cache / 'snapshots' / 'rev' / 'train'
  (cache / 'blobs').mkdir(parents=True)
  snapshot.mkdir(parents=True)
  files = {
    'a.mp4': b'x',
    'b.mp4': b'y',
    'metadata.jsonl': lines(
      {'file_name': 'a.mp4', 'text': CAT}, {'file_name': 'b.mp4', 'text': DOG}
    ).encode(),
  }
  for name, data in files.items():
    (cache / 'blobs' / f'{name}0').write_bytes(data)
    (snapshot / name).symlink_to(f'../../../blobs/{name}0')
  (tmp_path / 'secret.mp4').touch()
  (snapshot / 'c.mp4').symlink_to(tmp_path / 'secret.mp4')
  for root, below in ((snapshot, ''), (snapshot.parent, 'train/')):
    inputs = open_inputs(root)
    assert [(i.caption, i.load()) for i in list(inputs)[:2]] == [(CAT, b'x'), (DOG, b'y')]
    assert inputs[2] == RejectedEntry(f'{below}c.mp4', 'is a link that leaves the folder')
  assert [each.load() for each in open_inputs(snapshot / 'metadata.jsonl')] == [b'x', b'y']
  away = tmp_path / 'plain'
  away.mkdir()
  (away / 'a.mp4').symlink_to(cache / 'blobs' / 'a.mp40')
  assert 'leaves the folder' in open_inputs(away)[0].reason


@pytest.mark.parametrize(
  ('begin', 'told'),
  [
    ('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n', 'pointer of Git LFS'),
    ('<!DOCTYPE html><html>', 'web page'),
  ],
)
@pytest.mark.parametrize('name', ['list.csv', 'list.jsonl', 'list.json', 'a.tar', 'a.parquet'])
def test_a_list_that_was_not_downloaded_is_called_by_its_name(tmp_path, name, begin, told):
  (tmp_path / name).write_text(begin * 20)
  try:
    reasons = [each.reason for each in open_inputs(tmp_path / name)]
  except DataError as error:
    reasons = [str(error)]
  assert len(reasons) == 1 and told in reasons[0]


def test_a_folder_of_many_clips_is_listed_with_few_looks_at_the_disk(tmp_path, monkeypatch):
  (tmp_path / 'clips').mkdir()
  for number in range(200):
    (tmp_path / f'clips/{number}.mp4').touch()
  rows = [{'file_name': f'clips/{number}.mp4', 'text': CAT} for number in range(200)]
  (tmp_path / 'metadata.jsonl').write_text(lines(*rows))
  looks = []
  look = os.listdir
  monkeypatch.setattr(os, 'listdir', lambda *given: looks.append(given) or look(*given))
  assert len(list_entries(tmp_path)) == 200 and len(looks) < 4
  assert np.all([entry.caption == CAT for entry in list_entries(tmp_path)])


def test_a_folder_for_each_clip_may_hold_its_caption(tmp_path):
  for name, caption in (('1', CAT), ('2', DOG)):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'video.mp4').touch()
    (tmp_path / name / 'prompt.txt').write_text(caption)
  assert list(captions(open_inputs(tmp_path)).values()) == [CAT, DOG]
