"""Several sources in one run: clips stay with their own, weights say how often each comes."""

import collections
import json
import shutil

import numpy as np
import pytest

from mgjax.api import train
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.batch_order import describe_data, make_batches, samples_seen
from mgjax.data.ingest.convert import convert
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.loader import StepIterator, data_hash
from mgjax.data.media.video import write_video
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import latent_sources, make_sources
from mgjax.training.checkpoints.resume import check_same
from mgjax.training.settings import bucket_settings
from mgjax.training.spec import make_buckets
from tests import tiny

SMALL = {'height': 8, 'width': 8, 'batch_size': 2}
IMAGE, VIDEO = {'frames': 1, **SMALL}, {'frames': 4, 'fps': 8, **SMALL}


def film(folder, names, brightness):
  """Writes clips of a second, all of one brightness."""
  folder.mkdir()
  for name in names:
    write_video(folder / f'{name}.mp4', np.full((16, 16, 16, 3), brightness, np.uint8), 16)
  (folder / 'broken.mp4').write_bytes(b'no video' * 99)
  return str(folder)


@pytest.fixture(scope='module')
def films(tmp_path_factory):
  """Two folders of clips of one shape, dark ones and bright ones."""
  root = tmp_path_factory.mktemp('films')
  return film(root / 'dark', 'abc', 40), film(root / 'bright', 'def', 200)


@pytest.fixture
def data(films):
  """Digits, with two sources of clips beside them."""
  dark, bright = films
  sources = {
    'dark': {'kind': 'clips', 'path': dark},
    'bright': {'kind': 'clips', 'path': bright},
    'photos': {'digits': {'colours': ('blue',)}},
  }
  return {'kind': 'digits', 'fps': 8, 'digits': {'colours': ('red',)}, 'sources': sources}


def made(data, buckets, report=None, split='train'):
  return make_sources(data_settings(data), video_shapes(buckets, 8), split, report)


def labelled(sample):
  """The pictures of a sample and, as bytes, its caption."""
  caption = sample['caption'].ljust(40).encode()
  return {'video': sample['video'], 'caption': np.frombuffer(caption, np.uint8)}


def source_of(batch):
  """The source that all rows of a batch are from, by their captions."""
  said = [bytes(row).decode().strip() for row in batch['caption']]
  (source,) = {
    'dark' if each in 'abc' else 'bright' if each in 'def' else 'photos' if 'blue' in each else ''
    for each in said
  }
  return source


def training(data, buckets, workdir):
  """The training buckets of a configuration, as a section makes them."""
  settings = data_settings(data)
  make = lambda split, report: made(data, buckets, report, split)  # noqa: E731
  return make_buckets(
    bucket_settings(buckets, settings), workdir, make, labelled, share=settings.share
  )[0]


def test_each_bucket_holds_what_its_own_source_has_and_no_clip_of_another(data, tmp_path):
  buckets = {
    'digits': VIDEO,
    'photos': IMAGE | {'source': 'photos'},
    'dark': VIDEO | {'source': 'dark'},
    # Fits every clip better: of one source the other buckets would have none.
    'bright': VIDEO | {'frames': 8, 'source': 'bright'},
  }
  found = made(data, buckets, tmp_path / 'rejected.jsonl')
  assert list(found) == list(buckets)
  captions = {
    name: {source[i]['caption'] for i in range(min(9, len(source)))}
    for name, source in found.items()
  }
  assert captions['dark'] == set('abc') and captions['bright'] == set('def')
  assert all('red digit' in caption for caption in captions['digits'])
  assert all('a photo of the blue digit' in caption for caption in captions['photos'])
  for name, brightness, frames in (('dark', 40, 4), ('bright', 200, 8)):
    video = found[name][0]['video']
    assert len(video) == frames and abs(video.mean() - brightness) < 4  # 8 bits through a codec
  for name in ('dark', 'bright'):
    (line,) = (tmp_path / f'rejected_{name}.jsonl').read_text().splitlines()
    assert json.loads(line)['entry'] == 'broken.mp4'


MIXES = {
  'image edits 5 : text to video 1': ((IMAGE, 'photos', 5), (VIDEO, '', 1)),
  'paired 1 : cross-paired 1': ((VIDEO, 'dark', 1), (VIDEO, 'bright', 1)),
  'cinematic 10 : sounds 1': ((VIDEO, 'dark', 10), (VIDEO, '', 1)),
}


@pytest.mark.parametrize('share', ['given', 'samples'])
@pytest.mark.parametrize('mix', MIXES)
def test_the_published_mixes_are_exact_over_every_period_and_wherever_a_run_resumes(
  data, tmp_path, mix, share
):
  (one, first, often), (other, second, seldom) = MIXES[mix]
  data['share'] = share
  data['sources'] = {name: data['sources'][name] for name in (first, second) if name}
  # Two buckets share the turns of the first source; of square clips the wide one stays empty.
  half = one | {'weight': often / 2, 'source': first}
  buckets = {
    'wide': half | {'width': 32},
    'square': half,
    'other': other | {'weight': seldom, 'source': second},
  }
  of, period = training(data, buckets, tmp_path), often + seldom
  batches = make_batches(of, seed=3)
  for start in (0, period, 7 * period):
    came = [source_of(batches[step]) for step in range(start, start + period)]
    assert collections.Counter(came) == {first: often, second: seldom}
  for periods in (1, 4):
    seen = samples_seen(of, periods * period)
    assert seen['other'] == 2 * periods * seldom
    assert sum(seen.values()) == 2 * periods * period
  expected = [batches[step]['video'] for step in range(period + 2)]
  for stop in range(period):
    with StepIterator(batches, stop, threads=2) as loader:
      for wanted in expected[stop : stop + 2]:
        np.testing.assert_array_equal(next(loader)['video'], wanted)


def test_sources_that_change_places_are_other_data(data, films, tmp_path):
  data['sources'].pop('photos')
  buckets = {name: VIDEO | {'source': name, 'weight': 1} for name in ('dark', 'bright')}
  first = data_hash(describe_data(training(data, buckets, tmp_path), seed=0))
  assert first == data_hash(describe_data(training(data, buckets, tmp_path), seed=0))
  data['sources'] = {
    'dark': {'kind': 'clips', 'path': films[1]},
    'bright': {'kind': 'clips', 'path': films[0]},
  }
  assert data_hash(describe_data(training(data, buckets, tmp_path), seed=0)) != first


def test_each_source_may_have_its_latents_elsewhere(data, films, tmp_path):
  for name, folder in zip(('dark', 'bright'), films, strict=True):
    convert(open_inputs(folder), tmp_path / name / 'train' / name)  # any rows will do
    data['sources'][name]['latents'] = str(tmp_path / name)
  data['latents'] = str(tmp_path / 'dark')
  data['sources'].pop('photos')
  shapes = video_shapes({name: VIDEO | {'source': name} for name in ('dark', 'bright')}, 8)
  found = latent_sources(data_settings(data), shapes, 'train')
  assert {name: {row['caption'] for row in rows} for name, rows in found.items()} == {
    'dark': set('abc'),
    'bright': set('def'),
  }
  raw = make_sources(data_settings(data).without_latents(), shapes, 'train')
  assert raw['bright'][0]['video'].shape == (4, 8, 8, 3)
  del data['sources']['bright']['latents']
  assert data_settings(data).of('bright').latents == data['latents']
  with pytest.raises(ConfigError, match=r"sources\.dark\.latents = '.*latents = ''.* or of none"):
    data_settings({**data, 'latents': ''})


def test_a_source_has_the_fields_that_it_does_not_replace(data, films):
  data |= {'validation_path': 'held_out/', 'share': 'samples', 'threads': 3}
  settings = data_settings(data)
  dark = settings.of('dark')
  assert (dark.kind, dark.path, dark.share, dark.threads) == ('clips', films[0], 'samples', 3)
  assert dark.validation_path == ''  # that of other clips
  assert settings.of('photos').validation_path == 'held_out/'
  assert settings.of('photos').world == {'colours': ('blue',)}
  assert settings.of('') == data_settings({**data, 'sources': {}})


def test_the_content_of_a_source_is_all_but_where_it_lies_and_how_it_is_read(data):
  content = data_settings(data).of('dark').content()
  assert json.loads(json.dumps(content))['kind'] == 'clips'
  moved = {'path': 'elsewhere', 'validation_path': 'x', 'skip_missing': True}
  data['sources']['dark'] |= moved
  assert data_settings({**data, 'threads': 1}).of('dark').content() == content
  data['sources']['dark'] |= {'intervals': (1, 2)}
  assert data_settings(data).of('dark').content() != content
  assert data_settings({**data, 'fps': 9}).of('photos').content()['fps'] == 9


@pytest.mark.parametrize(
  ('sources', 'named', 'words'),
  [
    ({}, 'drak', r"buckets\.b\.source = 'drak': .*sources\.drak; did you mean data\.sources\.dark"),
    ({}, '', r"no bucket has the source 'dark'.*buckets\.x\.source = 'dark', or take it out"),
    (
      {'dark': {'fps': 9}},
      'dark',
      r'data\.sources\.dark\.fps: all sources have one fps.*data\.fps',
    ),
    ({'dark': {'pth': 'x'}}, 'dark', r'data\.sources\.dark\.pth; did you mean .*dark\.path'),
    ({'dark': {'intervals': (0,)}}, 'dark', r'data\.sources\.dark\.intervals = 0; expected'),
    ({'dark': {'sources': {}}}, 'dark', r'unknown key data\.sources\.dark\.sources'),
    ({'dark': 'a/'}, 'dark', r"data\.sources\.dark = 'a/'; expected fields"),
    ({'a/b': {}}, 'a/b', r'data\.sources\.a/b: a source is named by letters'),
  ],
)
def test_what_is_wrong_with_a_source_is_refused_by_its_name(data, sources, named, words):
  data['sources'] = sources or {'dark': data['sources']['dark']}
  with pytest.raises(ConfigError, match=words):
    bucket_settings({'b': VIDEO | {'source': named}}, data_settings(data))


def test_a_source_without_a_sample_does_not_pass_unseen(data, films, tmp_path):
  data['sources'] = {'dark': data['sources']['dark']}
  buckets = {'digits': VIDEO, 'dark': VIDEO | {'source': 'dark'}}
  settings = bucket_settings(buckets, data_settings(data))
  make = lambda split, report: {'digits': made(data, {'digits': VIDEO})['digits']}  # noqa: E731
  with pytest.raises(DataError, match=r"no bucket of the source 'dark' has a sample left to use"):
    make_buckets(settings, tmp_path, make, dict)


def test_a_run_goes_on_wherever_its_sources_lie_but_with_no_others(data):
  moved = data['sources'] | {'dark': {'kind': 'clips', 'path': 'moved/', 'latents': 'there/'}}
  check_same({'data': data}, {'data': {**data, 'sources': moved}}, 'run')
  moved['dark']['kind'] = 'records'
  with pytest.raises(ConfigError, match=r"data\.sources\.dark\.kind: 'clips' -> 'records'"):
    check_same({'data': data}, {'data': {**data, 'sources': moved}}, 'run')


@pytest.mark.slow
def test_a_run_of_two_sources_resumes_bit_by_bit_wherever_they_lie(films, tmp_path):
  config = tiny.autoencoder(train__steps=4, train__evaluate_every=0, train__save_every=2)
  config.data.sources = {'dark': {'kind': 'clips', 'path': films[0]}}
  config.buckets.filmed = config.buckets.video.to_dict() | {'source': 'dark'}
  whole = train(config, tmp_path / 'whole')
  train(config, tmp_path / 'stopped', stop_at=2)
  shutil.copytree(films[0], tmp_path / 'moved')
  config.data.sources.dark.path = str(tmp_path / 'moved')
  assert tiny.same_state(train(config, tmp_path / 'stopped'), whole)
  config.data.sources.dark.path = films[1]
  with pytest.raises(ConfigError, match='the data have changed'):
    train(config, tmp_path / 'stopped')
