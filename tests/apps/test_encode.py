"""Latents are encoded once: by many processes, stopped at any moment, with what they depend on."""

import functools
import json
import shutil
import tracemalloc

import jax
import numpy as np
import PIL.Image
import pytest

from mgjax.apps.encode import (
  DTYPES,
  RowEncoder,
  encode,
  read_ahead,
  rows_of_device,
  stored_prompts,
)
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.records.reader import Records
from mgjax.data.records.rows import text_key
from mgjax.models.tae.latents import Statistics, Sums, estimate_statistics
from mgjax.models.text.prompts import prompt_of
from mgjax.parallel.mesh import make_mesh
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.video.section import encode_videos
from tests import tiny
from tests.folders import files_of
from tests.tensors import assert_same

BUCKETS = [('train', 'video'), ('train', 'image'), ('validation', 'video')]


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr('mgjax.apps.encode.ROWS_PER_SHARD', 8)


def same_rows(one, other):
  """Whether two finished directories of latents hold the same bytes in every bucket."""
  for split, name in BUCKETS:
    first, second = (Records(path / split / name) for path in (one, other))
    assert len(first) == len(second) > 0
    for index in range(len(first)):
      assert_same(first[index], second[index])
    for key in ('count', 'mean', 'std'):
      ours, theirs = (records.summary['latents'][key] for records in (first, second))
      np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
  return True


def test_processes_share_the_shards_and_the_last_one_finishes(tiny_runs, tmp_path, small_shards):
  config = tiny.video(tiny_runs, images=True)
  assert not encode(config, tmp_path, process=1, processes=2)
  written = {path.name[:5] for path in (tmp_path / 'train' / 'video').glob('0*.arrayrecord')}
  assert written == {f'0000{shard}' for shard in (1, 3, 5)}
  with pytest.raises(DataError, match='unfinished'):
    Records(tmp_path / 'train' / 'video')
  assert encode(config, tmp_path, process=0, processes=2)
  assert same_rows(tmp_path, tiny_runs / 'latents')


@pytest.mark.slow
def test_shared_and_resumed_the_files_are_those_of_one_process(tiny_runs, tmp_path, small_shards):
  config = tiny.video(tiny_runs, images=True)
  assert encode(config, tmp_path / 'alone')
  assert not encode(config, tmp_path / 'shared', process=1, processes=2)
  for path in list((tmp_path / 'shared').glob('*/*/00001*')):
    path.unlink()
  assert encode(config, tmp_path / 'shared')
  alone, shared = (files_of(tmp_path / name, '*/*/*') for name in ('alone', 'shared'))
  assert alone == shared
  assert len([name for name in alone if '.captions-' in name]) > 3


def test_prompts_are_those_of_all_rows_and_no_row_is_read(tiny_runs, monkeypatch):
  buckets = list(tiny.video(tiny_runs, images=True).buckets)
  every = [*BUCKETS, ('validation', 'image')]
  parts = [Records(tiny_runs / 'latents' / split / name) for split, name in every]
  expected = sorted(prompt_of(part[index]) for part in parts for index in range(len(part)))
  monkeypatch.setattr(Records, '__getitem__', None)
  assert sorted(stored_prompts(buckets, tiny_runs / 'latents')) == expected


def test_data_that_are_refused_leave_finished_latents_as_they_are(tiny_runs, tmp_path):
  config = tiny.video(tiny_runs, images=True, data__kind='clips')
  pictures = tmp_path / 'pictures'
  pictures.mkdir()
  for index in range(2):
    PIL.Image.new('RGB', (24, 24)).save(pictures / f'{index}.png')
  with config.unlocked():
    config.data.path = str(pictures)
  shutil.copytree(tiny_runs / 'latents', tmp_path / 'latents')
  with pytest.raises(ConfigError, match='video holds latents'):
    encode(config, tmp_path / 'latents')
  for split in ('train', 'validation'):
    name = f'{split}/empty.json'
    assert (tmp_path / 'latents' / name).read_text() == (tiny_runs / 'latents' / name).read_text()


def test_records_that_an_earlier_version_began_are_gone_on_with(tiny_runs, tmp_path):
  """It counted fewer fields of the data, moving digits did not name theirs, nor latents theirs."""
  config = tiny.video(tiny_runs, images=True)
  shutil.copytree(tiny_runs / 'latents', tmp_path / 'latents')
  data = config.data.to_dict()
  begun = json.dumps([None, {name: data[name] for name in ('kind', 'digits', 'fps')}])
  other = begun.replace('"fps": 8', '"fps": 9')
  assert begun != other
  manifests = sorted((tmp_path / 'latents').glob('*/*/manifest.json'))
  for said, refused in ((begun, False), (other, True)):
    for path in manifests:
      manifest = json.loads(path.read_text())
      manifest['meta'] |= {'data': said}
      manifest['meta'].pop('autoencoder', None)
      path.write_text(json.dumps(manifest))
    if refused:
      with pytest.raises(ConfigError, match=r'was begun with other values: .*meta\.data'):
        encode(config, tmp_path / 'latents')
    else:
      assert encode(config, tmp_path / 'latents')
      assert same_rows(tmp_path / 'latents', tiny_runs / 'latents')


def test_the_summary_has_the_statistics_of_all_latents(tiny_runs):
  records = Records(tiny_runs / 'latents' / 'train' / 'video')
  rows = [records[index] for index in range(len(records))]
  values = np.concatenate([np.float64(row['latents']).reshape(-1, 4) for row in rows])
  found = records.summary['latents']
  assert found['count'] == len(values)
  np.testing.assert_allclose(found['mean'], values.mean(0), atol=1e-12)
  np.testing.assert_allclose(found['std'], values.std(0), rtol=1e-12)


def test_rows_say_what_they_are(tiny_runs):
  for name, kept in (('video', {'fps'}), ('image', set())):
    records = Records(tiny_runs / 'latents' / 'train' / name)
    assert (
      records[0].keys() == {'latents', 'caption', 'text_key'} | kept
      and records[0]['latents'].dtype == DTYPES['bfloat16']
    )
    assert records.meta['dtype'] == 'bfloat16'


@pytest.fixture(scope='module')
def codec(tiny_runs):
  return load_codec(tiny_runs / 'autoencoder')


def row_encoder(codec, rows=2, dtype='float32', devices=1):
  mesh = make_mesh({'data': -1}, 'single', devices=jax.local_devices()[:devices])
  return RowEncoder(functools.partial(encode_videos, codec), rows, DTYPES[dtype], mesh, 'video')


def video(seed=0, frames=4):
  return np.random.default_rng(seed).integers(0, 256, (frames, 16, 16, 3), np.uint8)


def test_a_row_keeps_its_sources_and_its_key(codec):
  sample = {
    'video': video(),
    'caption': 'a',
    'source': 'a.mp4',
    'fps': np.float64(16.0),
    'start': 3.0,
  }
  (row,) = row_encoder(codec).encode([sample])
  latents = row.pop('latents')
  np.testing.assert_array_equal(latents, codec.encode(np.stack([video()] * 2))[0])
  assert row.pop('text_key') == text_key('a')
  assert row == {key: sample[key] for key in ('caption', 'source', 'fps')}
  assert type(row['fps']) is float


@pytest.mark.parametrize('dtype', DTYPES)
def test_all_devices_encode_what_one_does(codec, tiny_runs, dtype):
  samples = [{'video': video(seed), 'caption': str(seed)} for seed in range(11)]
  alone = list(row_encoder(codec, 8, dtype).encode(samples))
  mesh = make_mesh({'data': -1}, 'single')
  with jax.set_mesh(mesh):
    there = functools.partial(encode_videos, load_codec(tiny_runs / 'autoencoder'))
    spread = RowEncoder(there, 8, DTYPES[dtype], mesh, 'video')
    rows = list(spread.encode(samples))
  assert [row['caption'] for row in rows] == [str(seed) for seed in range(11)]
  # Another order of summation, in numbers of about 1, and the rounding that it may tip over.
  step = {'float32': 0, 'bfloat16': 2**-7, 'float16': 2**-10}[dtype]
  for one, other in zip(alone, rows, strict=True):
    pair = (np.float32(row['latents']) for row in (one, other))
    np.testing.assert_allclose(*pair, rtol=step + 1e-5, atol=1e-5)
  assert spread.take_sums().count == 11 * 2 * 4 * 4 and spread.sums == Sums()


def test_a_video_that_comes_in_chunks_is_never_held_as_a_whole(codec):
  tiles, frames, size = 24, codec.tiling.frames, 64

  def chunks(length):
    for begin in range(0, tiles * frames, length):
      count = min(length, tiles * frames - begin)
      yield np.full((count, size, size, 3), begin // frames, np.uint8)

  whole = tiles * frames * size * size * 3
  list(row_encoder(codec, 1).encode([{'video': next(chunks(frames)), 'caption': ''}]))
  tracemalloc.start()
  try:
    (row,) = row_encoder(codec, 1).encode([{'video': chunks(frames), 'caption': ''}])
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  # The latents of all, in two copies while they are joined, and of the pixels a few tiles.
  assert peak < 2.5 * row['latents'].nbytes + whole / 4
  expected = codec.encode(np.concatenate(list(chunks(frames)))[None])[0]
  np.testing.assert_array_equal(row['latents'], expected)


def test_samples_of_two_shapes_and_latents_without_end_are_refused(codec):
  samples = [{'video': video(frames=frames), 'caption': ''} for frames in (4, 2)]
  with pytest.raises(DataError, match=r'have the shapes .*; expected equal ones'):
    list(row_encoder(codec).encode(samples))
  large = Statistics(codec.statistics.mean, (1e-9,) * len(codec.statistics.std))
  broken = type(codec)(codec.model, codec.params, large)
  with pytest.raises(DataError, match=r"latents of 'a.mp4' are not all finite in float16"):
    list(
      row_encoder(broken, dtype='float16').encode(
        [{'video': video(), 'source': 'a.mp4', 'caption': 'a'}]
      )
    )


def test_sums_of_parts_are_the_statistics_of_the_whole():
  parts = [np.random.default_rng(i).normal(i, 2, (5, 3 + i, 4)) for i in range(3)]
  sums = sum((Sums.from_dict(Sums.of(part).as_dict()) for part in parts), Sums())
  whole = estimate_statistics([np.concatenate([part.reshape(-1, 4) for part in parts])])
  np.testing.assert_allclose(sums.statistics().mean, whole.mean, rtol=1e-12)
  np.testing.assert_allclose(sums.statistics().std, whole.std, rtol=1e-12)


def test_samples_are_read_ahead_but_not_far():
  asked = []

  class Source:
    def __len__(self):
      return 100

    def __getitem__(self, index):
      asked.append(index)
      if index == 90:
        raise DataError('sample 90 is gone')
      return {'index': index}

  samples = read_ahead(Source(), range(100), threads=4, ahead=10)
  assert [next(samples)['index'] for _ in range(5)] == list(range(5))
  assert len(asked) <= 5 + 10
  with pytest.raises(DataError, match='sample 90'):
    list(samples)


def test_a_device_takes_as_many_rows_as_it_may():
  assert rows_of_device((32, 256, 256), 2**21, 64) == 1
  assert rows_of_device((1, 256, 256), 2**21, 64) == 32
  assert rows_of_device((16, 32, 32), 2**21, 64) == 64
  assert rows_of_device((32, 768, 768), 2**21, 64) == 1


@pytest.mark.parametrize(
  ('workdir', 'dtype', 'share', 'message'),
  [
    ('w', 'float32', {'process': 1}, 'go together'),
    ('w', 'float32', {'process': 2, 'processes': 2}, 'expected 0 <= process'),
    ('w', 'float32', {'process': -1, 'processes': 2}, 'expected 0 <= process'),
    ('w', 'int8', {}, r"encode: dtype = 'int8'; expected one of bfloat16"),
    ('gs://bucket/latents', 'float32', {}, 'is a URL; expected a folder'),
  ],
)
def test_what_cannot_be_is_refused(
  tiny_runs, tmp_path, monkeypatch, workdir, dtype, share, message
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match=message):
    encode(tiny.video(tiny_runs, encode__dtype=dtype), workdir, **share)
