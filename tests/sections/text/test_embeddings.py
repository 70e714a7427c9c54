"""Frozen encoders read each prompt once, for stores that models read, and others for samples."""

import shutil

import jax
import numpy as np
import pytest

from mgjax.api import train
from mgjax.apps.encode import encode, encode_prompts
from mgjax.core.errors import ConfigError, StorageError
from mgjax.data.sources import SPLITS, stored_latents
from mgjax.models.text.prompts import prompt_of
from mgjax.models.text.t5 import make_t5
from mgjax.models.text.tokenizers import byte_tokens
from mgjax.sections.text.embeddings import Embedder, Embeddings, Lookup, TextSettings
from mgjax.sections.text.encoder import STATES, TextEncoder, encoder_identity
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.load_params import load_params
from tests import tiny, tiny_text

TEXTS = ('a', 'the green digit 3 moves left', 'x' * 100, 'ein Würfel', 'the sign says "407"')


@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
  return tiny_text.make_encoders(tmp_path_factory.mktemp('encoders'))


@pytest.fixture(scope='module')
def latents(tiny_runs, encoders, tmp_path_factory):
  """A copy of the latents with the embeddings of their prompts."""
  directory = tmp_path_factory.mktemp('data') / 'latents'
  shutil.copytree(tiny_runs / 'latents', directory)
  assert encode(tiny_text.video(tiny_runs, encoders, images=True), directory)
  return directory


def config_of(runs, encoders, latents, **changes):
  return tiny_text.video(runs, encoders, **{'data.latents': str(latents), **changes})


def alone(workdir, text):
  """What the encoder says of one text by itself, without padding, on one device."""
  params, _ = load_params(workdir)
  config = tiny_text.encoder_config(seed=params['tokens']['kernel'].shape[-1] - 8)
  model = make_t5(config.model.to_dict())
  tokens = byte_tokens(text, 40)
  tokens = tokens[None, : int((tokens != 0).sum())]
  return jax.jit(model.apply)({'params': params}, tokens, np.ones(tokens.shape, bool))[0]


@pytest.mark.parametrize('name', tiny_text.READS)
def test_states_are_those_of_each_text_alone_on_one_device(encoders, name):
  found = TextEncoder(encoders[name])(TEXTS)
  for text, arrays in [*zip(TEXTS, found, strict=True)][::2]:  # each length is a program
    expected = np.asarray(alone(encoders[name], text))
    # Two layers of some 100 roundings each, of numbers that a norm keeps below sqrt(9) = 3.
    np.testing.assert_allclose(arrays[STATES], expected, atol=200 * 3 * 2**-24 * 4)


def test_another_encoder_has_another_identity(encoders, tmp_path):
  same = tiny_text.make_encoder(tmp_path / 'same')
  assert (
    encoder_identity(same)
    == encoder_identity(encoders['long'])
    != encoder_identity(encoders['quoted'])
  )


def test_encoding_stores_every_prompt_once_with_its_frame_rate(latents, tiny_runs, encoders):
  config = config_of(tiny_runs, encoders, latents, images=True)
  directory = TextSettings.of(config.to_dict()).store()
  store = Embeddings(f'{directory}/long')
  captions = {
    name: {records[index]['caption'] for index in range(len(records))}
    for split in SPLITS
    for name, records in stored_latents(config.data.latents, config.buckets, split).items()
  }
  texts = {f'FPS-8 {caption}' for caption in captions['video']} | captions['image']
  assert len(store) >= len(texts)
  assert all(store.find(text) is not None for text in texts)
  assert not any(store.find(caption) for caption in captions['video'])
  assert len(Embeddings(f'{directory}/quoted')) == 0  # digits quote nothing
  before = sorted(path.name for path in latents.rglob('*'))
  assert encode(tiny_text.video(tiny_runs, encoders, images=True), latents)
  assert sorted(path.name for path in latents.rglob('*')) == before


def test_a_prompt_that_quotes_is_read_by_both(latents, tiny_runs, encoders):
  config = config_of(tiny_runs, encoders, latents)
  assert encode_prompts(config.to_dict(), latents, ['the sign says "407"'])
  found = Lookup(TextSettings.of(config.to_dict()))('FPS-8 the sign says "407"')
  assert {name: states.shape for name, states in found.items()} == {
    'long': (26, 8),
    'quoted': (4, 9),
  }
  expected = TextEncoder(encoders['quoted'])(['407'])[0][STATES]
  np.testing.assert_array_equal(found['quoted'], expected)


def test_a_model_trains_on_stored_states_and_samples_prompts_stored_or_not(
  latents, tiny_runs, encoders, tmp_path
):
  config = config_of(tiny_runs, encoders, latents, train__steps=3, train__evaluate_every=2)
  workdir = tmp_path / 'run'
  train(config, workdir)
  losses = [row['loss'] for row in tiny.metrics(workdir) if 'loss' in row]
  assert len(losses) == 3 and np.isfinite(losses).all()

  prompts = ['the green digit 3 moves left', 'a sign that says "31"']
  stored = VideoPipeline(workdir).generate(prompts, seed=1)
  shutil.move(str(latents / 'embeddings'), str(tmp_path / 'aside'))
  try:
    np.testing.assert_array_equal(VideoPipeline(workdir).generate(prompts, seed=1), stored)
  finally:
    shutil.move(str(tmp_path / 'aside'), str(latents / 'embeddings'))
  # What a prompt quotes matters, though the other encoder reads only bytes of it as well.
  assert (
    VideoPipeline(workdir).generate([prompts[0], 'a sign that says "13"'], seed=1)[1] != stored[1]
  ).any()


def test_a_text_that_is_not_stored_stops_the_run_by_its_name(latents, tiny_runs, encoders):
  lookup = Lookup(TextSettings.of(config_of(tiny_runs, encoders, latents).to_dict()))
  with pytest.raises(StorageError, match=r"no embedding of 'FPS-8 a cat'; run launch\.data encode"):
    lookup('FPS-8 a cat')


def test_without_stores_it_is_said_what_to_do(tiny_runs, encoders, tmp_path):
  config = config_of(tiny_runs, encoders, tiny_runs / 'latents')
  with pytest.raises(ConfigError, match=r'no embeddings at .*long; let launch\.data encode make'):
    train(config, tmp_path / 'run')
  config.text = {}
  with pytest.raises(ConfigError, match=r'name the encoders in config\.text'):
    train(config, tmp_path / 'run')


def test_an_encoder_that_is_not_there_is_said_before_anything_is_encoded(tiny_runs, tmp_path):
  gone = dict.fromkeys(tiny_text.READS, tmp_path / 'gone')
  config = tiny_text.video(tiny_runs, gone, **{'data.latents': ''})
  with pytest.raises(ConfigError, match=r'there is no encoder at .*gone.*launch\.weights import'):
    encode(config, tmp_path / 'latents')
  assert not (tmp_path / 'latents').exists()


def test_stores_of_another_encoder_are_refused(latents, tiny_runs, encoders, tmp_path):
  other = {**encoders, 'long': tiny_text.make_encoder(tmp_path / 'other', seed=2)}
  with pytest.raises(ConfigError, match=r'has embeddings of the encoder .*; name another'):
    encode_prompts(config_of(tiny_runs, other, latents).to_dict(), latents, ['a cat'])
  config = config_of(tiny_runs, encoders, latents)
  learnt = dict.fromkeys(tiny_text.READS, 'another')
  with pytest.raises(ConfigError, match=r'another, of the fingerprint \w{16} .*Put it'):
    Embedder(TextSettings.of(config.to_dict()), tmp_path / 'run', learnt)(
      [prompt_of({'caption': 'a cat'})]
    )
