"""A pinned run fixes what it names: fields are known, a name without a SHA-256 is refused."""

import ast
import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save

import mgjax
from mgjax.apps.weights.import_export import publish
from mgjax.core.configuration.config_files import load_config
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.safetensors_files import read_metadata
from mgjax.models.flow_model.settings import SampleSettings
from mgjax.training.checkpoints import published
from mgjax.training.checkpoints.find_run import SHIPPED, find_run
from mgjax.training.checkpoints.run_references import DATA, RUNS, check_fixed, names_in
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE

PROMPT = ['the green digit 3 moves left']
HASH = '#' + 'a' * 64
# Texts of checked settings that are words or captions.
WORDS = {
  'Alignment': ('features',),
  'AudioShape': ('source',),
  'BucketSettings': ('source',),
  'CaptionSettings': ('kind', 'template'),
  'DataSettings': ('kind', 'only', 'share'),
  'Digits': ('background', 'captions', 'reference', 'split'),
  'Edited': ('how', 'task'),
  'Edits': ('prefix',),
  'EncodeSettings': ('dtype',),
  'EndpointSettings': ('key_variable', 'model', 'url'),
  'Extension': ('how', 'weights'),
  'Faces': ('name',),
  'Lora': ('weights',),
  'OptimizerSettings': ('name', 'schedule'),
  'PersonalSamples': ('negative',),
  'References': ('faces',),
  'ReviewSettings': ('undecided',),
  'SampleSettings': ('solver', 'weights'),
  'Samples': ('negative',),
  'Shape': ('source',),
  'Solids': ('split', 'wording'),
}
# Of suites, studies, votes and services, which are no part of a run's configuration.
ELSEWHERE = ('About', 'Decision', 'Published', 'Question', 'Row', 'Study', 'SuiteSettings', 'Vote')
# Fields of a configuration that no checked settings have.
ALONE = (
  *('component', 'rules', 'autoencoder', 'start_from', 'vision', 'embeddings', 'tokenizer'),
  *('perceptual_weights', 'workdir'),
)


@pytest.fixture(autouse=True)
def _nothing_there(tmp_path, monkeypatch):
  monkeypatch.setattr(constants, 'HF_HOME', str(tmp_path / 'home'))
  monkeypatch.chdir(tmp_path)
  forget()


def forget():
  published.fetch_run.cache_clear()
  published._check_pinned.cache_clear()


def texts_of_settings():
  """Class and name of every text in classes that check their fields, or are made of such a one."""
  checked = {'Checked'}
  for path in sorted(pathlib.Path(mgjax.__file__).parent.rglob('*.py')):
    text = path.read_text()
    if not re.search(r'\(Checked\)|\bcheck\(self\)', text):
      continue
    for kind in (each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.ClassDef)):
      bases = {ast.unparse(base) for base in kind.bases}
      if not checked & bases and 'check(self)' not in ast.unparse(kind):
        continue
      checked.add(kind.name)
      for field in (each for each in kind.body if isinstance(each, ast.AnnAssign)):
        if ast.unparse(field.annotation) in ('str', 'str | None'):
          yield kind.name, field.target.id


def test_the_tables_have_every_field_that_names_a_place():
  """A new text in settings belongs into a table of `named.py`, or among the words above."""
  found = list(texts_of_settings())
  assert {'SampleSettings.expert', 'RunSettings.checkpoints'} <= {'.'.join(each) for each in found}
  last = {key.rpartition('.')[2] for key in (*RUNS, *DATA)}
  unknown = {
    f'{kind}.{name}'
    for kind, name in found
    if kind not in ELSEWHERE and name not in WORDS.get(kind, ()) and name not in last
  }
  assert not unknown
  assert last <= {name for _, name in found} | {*ALONE}  # nothing is in a table that is no field
  for name in ('digits/video', 'digits/audio', 'digits/upsampler', 'digits/personalization'):
    config = load_config(name).to_dict()
    tops = {key for key, value in config.items() if isinstance(value, str)}
    assert tops <= {*ALONE}, name


@pytest.mark.parametrize(
  ('config', 'names'),
  [
    ({'sample': {'expert': 'file:///a@0.3'}}, ['file:///a']),
    ({'sample': {'expert': f'hf://a/b@main{HASH}@0.3'}}, [f'hf://a/b@main{HASH}']),
    ({'sample': {'lora': 'a.safetensors:0.5,s3://b/c,d:-1'}}, ['a.safetensors', 's3://b/c', 'd']),
    ({'start_from': 'file:///a:text,x=s3://b/c'}, ['file:///a', 's3://b/c']),
    ({'start_from': {'': 's3://b/c:backbone'}}, ['s3://b/c']),
    ({'text': {'ul2': {'workdir': 'runs/ul2', 'reads': 'prompt'}}}, ['runs/ul2']),
    ({'objective': {'few_steps': {'teacher': 's3://b/c'}}}, ['s3://b/c']),
    ({'stages': {'a': {'autoencoder': 'x'}}, 'lora': {'weights': 'int8'}}, ['x']),
  ],
)
def test_names_are_found_and_the_rest_of_the_text_is_kept(config, names, monkeypatch):
  assert [name for _, name, _ in names_in(config)] == names
  monkeypatch.setattr(published, 'pin', lambda name: name.upper())
  changed = json.dumps(config)
  for name in names:
    if ':/' in name:
      changed = changed.replace(name, name.upper())
  assert published.pinned(config) == json.loads(changed)


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    ({'sample': {'expert': 'file:///moving@0.3'}}, r"sample.expert = 'file:///moving', which can"),
    ({'sample': {'expert': 'runs/late@0.3'}}, r"sample.expert = 'runs/late', which can change"),
    ({'sample': {'expert': '/tmp/..@0.3'}}, r"sample.expert = '/tmp/..'"),
    ({'sample': {'lora': f's3://b/c{HASH}:0.5,s3://moving'}}, r"sample.lora = 's3://moving'"),
    ({'sample': {'lora': 'style.safetensors'}}, r"sample.lora = 'style.safetensors'"),
    ({'sample': {'expert_lora': 'low.safetensors'}}, r"sample.expert_lora = 'low.safetensors'"),
    ({'autoencoder': 'hf://a/b@v1'}, r"autoencoder = 'hf://a/b@v1'"),
    ({'vision': 's3://b/c'}, r"vision = 's3://b/c'"),
    ({'text': {'ul2': {'workdir': 's3://b/c'}}}, r"text.ul2.workdir = 's3://b/c'"),
    ({'start_from': 's3://b/c:text'}, r"start_from = 's3://b/c'"),
    ({'objective': {'few_steps': {'teacher': 's3://b/c'}}}, r'objective.few_steps.teacher = '),
  ],
)
def test_what_may_change_is_refused_by_its_field(config, message):
  with pytest.raises(ConfigError, match=rf'^run: its config.json names {message}.*publish it with'):
    check_fixed(config, {'config.json', WEIGHTS_FILE}.__contains__, 'run')


def test_checkpoints_elsewhere_are_refused_where_they_would_be_read():
  config = {'train': {'checkpoints': 'gs://b/c'}}
  check_fixed(config, {WEIGHTS_FILE}.__contains__, 'run')
  with pytest.raises(ConfigError, match=r"train.checkpoints = 'gs://b/c'.*weights.safetensors"):
    check_fixed(config, {'config.json'}.__contains__, 'run')


def test_what_is_fixed_is_let_through():
  config = {
    'sample': {'expert': 'runs/late@0.3', 'lora': f's3://b/c{HASH}:0.5,style.safetensors'},
    'autoencoder': 'digits/autoencoder',
    'start_from': 'runs/bounce/video',
    'data': {'path': 's3://b/data'},
    'train': {'checkpoints': ''},
  }
  check_fixed(config, {WEIGHTS_FILE, 'late', 'style.safetensors'}.__contains__, 'run')


def test_every_model_that_ships_can_be_pinned():
  for path in SHIPPED.rglob('config.json'):
    has = lambda part, here=path.parent: (here / part).exists()  # noqa: E731
    check_fixed(json.loads(path.read_text()), has, path.parent.name)


def copied(place, *, sign=1, **sample):
  """A copy of a model that ships with other settings of sampling, and norms of a sign."""
  shutil.copytree(SHIPPED / 'digits' / 'video', place)
  config = json.loads((place / 'config.json').read_text())
  config['sample'] |= {'steps': 2, **sample}
  (place / 'config.json').write_text(json.dumps(config))
  tensors, about = load_file(place / WEIGHTS_FILE), read_metadata(place / WEIGHTS_FILE)
  turned = {name: sign * each if 'norm' in name else each for name, each in tensors.items()}
  (place / WEIGHTS_FILE).write_bytes(save(turned, about))
  return place


def pushed(folder, url):
  """Publishes a folder as it is."""
  return str(published.push({path.name: path for path in folder.iterdir()}, url))


def test_a_pinned_run_makes_the_same_pixels_when_its_expert_is_published_anew(tmp_path):
  moving = (tmp_path / 'moving').as_uri()
  first = pushed(copied(tmp_path / 'late'), moving)
  run = copied(tmp_path / 'run', expert=f'{moving}@0.001')
  unfixed = pushed(run, (tmp_path / 'unfixed').as_uri())
  for refuse in (mgjax.load, find_run, lambda name: published.pull(name, tmp_path / 'pulled')):
    with pytest.raises(ConfigError, match=rf"sample.expert = '{moving}', which can change"):
      refuse(unfixed)
  find_run(unfixed.partition('#')[0])  # which promises nothing

  name = str(publish(run, (tmp_path / 'fixed').as_uri()))
  config = json.loads((find_run(name) / 'config.json').read_text())
  assert config['sample']['expert'] == f'{first}@0.001'
  before = mgjax.load(name).generate(PROMPT)
  other = pushed(copied(tmp_path / 'other', sign=-1), moving)
  assert not np.array_equal(mgjax.load(run, expert=f'{other}@0.001').generate(PROMPT), before)
  forget()
  np.testing.assert_array_equal(mgjax.load(name).generate(PROMPT), before)
  shutil.rmtree(tmp_path / 'home')
  forget()
  with pytest.raises(DataError, match='the run changed: the SHA-256'):
    mgjax.load(name)


def test_an_expert_in_the_folder_goes_along_and_one_beside_it_is_not_published(tmp_path):
  run = copied(tmp_path / 'run', expert='late@0.3')
  with pytest.raises(ConfigError, match=r"sample.expert = 'late', which can change"):
    publish(run, (tmp_path / 'place').as_uri())
  copied(run / 'late')
  copied(tmp_path / 'late', sign=-1)  # where one stands
  name = str(publish(run, (tmp_path / 'place').as_uri()))
  pipeline = mgjax.load(name)
  assert pipeline.settings['expert'] == f'{find_run(name) / "late"}@0.3'


def test_own_places_of_a_run_are_found_and_weights_kept():
  settings = SampleSettings(
    guidance=(), schedule={'name': 'linear'}, solver='euler', steps=2, lora='a:0.5,b'
  )
  assert settings.placed(lambda place: place) == settings
  assert settings.placed(lambda place: f'/x/{place}').lora == '/x/a:0.5,/x/b:1.0'
  expert = dataclasses.replace(settings, lora='', expert='late@0.3')
  assert expert.placed(lambda place: f'/x/{place}').expert == '/x/late@0.3'
