"""The audio model trains as video does: on latents or sound, resumed exactly, on its own codec."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.audio import audio
from mgjax.api import train
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.mixture import samples_of_batch
from mgjax.data.records.reader import Records
from mgjax.registry import make_spec
from mgjax.workflows.dry_run import dry_run
from mgjax.workflows.encode import encode
from tests import tiny, tiny_sound
from tests.turns import seen_in_stage, training_buckets


def test_rows_of_latents_hold_what_the_model_reads(tiny_sound_runs):
  row = Records(tiny_sound_runs / 'latents' / 'train' / 'sound')[0]
  assert row['latents'].shape == (10, 4) and row['latents'].dtype == jnp.bfloat16
  assert row['frame_features'].shape == (10, 768)
  assert row['caption'].startswith('the ')


def test_training_from_latents_and_from_sound_read_the_same_batches(tiny_sound_runs, tmp_path):
  """But for the bfloat16 that latents on disk are rounded to."""
  batches = []
  for latents in (True, False):
    config = tiny_sound.audio(tiny_sound_runs, latents=latents)
    part = make_spec(config, tmp_path)
    source, transform = part.validation[0].source, part.validation[0].transform
    rows = [transform(source[index]) for index in range(4)]
    batches.append(part.prepare({key: np.stack([row[key] for row in rows]) for key in rows[0]}))
  stored, fresh = batches
  assert stored.keys() == fresh.keys() == {'latents', 'frame_features', 'text'}
  np.testing.assert_array_equal(stored['text'], fresh['text'])
  for name in ('latents', 'frame_features'):
    assert stored[name].shape == fresh[name].shape
    np.testing.assert_allclose(stored[name], fresh[name], rtol=2**-8, atol=1e-4)


def test_a_resumed_run_is_the_undisturbed_one(tiny_sound_runs, tmp_path):
  config = tiny_sound.audio(tiny_sound_runs)
  train(config, tmp_path / 'audio', stop_at=2)
  state = train(config, tmp_path / 'audio')
  assert tiny.same_state(state, tiny.final_state(tiny_sound_runs / 'audio'))


@pytest.mark.slow
def test_a_run_may_begin_from_another(tiny_sound_runs, tmp_path):
  start = str(tiny_sound_runs / 'audio')
  config = tiny_sound.audio(tiny_sound_runs, start_from=start, train__steps=3)
  assert int(train(config, tmp_path / 'finetuned').step) == 3
  config.start_from = str(tiny_sound_runs / 'codec')
  with pytest.raises(ConfigError, match="trained 'codec', not 'audio'"):
    train(config, tmp_path / 'other')


def test_latents_of_another_length_are_refused(tiny_sound_runs, tmp_path):
  config = tiny_sound.audio(tiny_sound_runs, buckets__sound__seconds=0.2)
  with pytest.raises(DataError, match=r'seconds.*encode the data again'):
    make_spec(config, tmp_path)


@pytest.mark.parametrize('seconds', [0.41, 0.84, 0.0])
def test_lengths_that_the_model_cannot_have_are_refused(tiny_sound_runs, tmp_path, seconds):
  config = tiny_sound.audio(tiny_sound_runs, buckets__sound__seconds=seconds)
  with pytest.raises(
    ConfigError,
    match=r'sound.*(multiple of 0.04 s.* at most 0.8 s|expected .* above 0)',
  ):
    make_spec(config, tmp_path)


@pytest.mark.parametrize('counts', [(1000, 1000), (1000, 5000), (7000, 10)])
def test_fine_tuning_has_five_batches_of_10_s_to_one_of_30_s_whatever_there_is_of_each(counts):
  """The report's 5 : 1, in the turns that the loader takes (Movie Gen §6)."""
  config = audio.get_config('debug,finetune')
  names = ('seconds_10', 'seconds_30')
  buckets = training_buckets(config, dict(zip(names, counts, strict=True)))
  turns = [samples_of_batch(buckets, step, seed=0) for step in range(12)]
  assert all(len(rows) == 256 for _, rows in turns)
  for start in (0, 6):
    came = [bucket.name for bucket, _ in turns[start : start + 6]]
    assert [came.count(name) for name in names] == [5, 1]
  seen = seen_in_stage(config, dict(zip(names, counts, strict=True)))
  assert sum(seen.values()) == 50_000 * 256
  assert seen['seconds_10'] / seen['seconds_30'] == pytest.approx(5, rel=1e-3)


def test_encoding_goes_on_where_it_stopped(tiny_sound_runs):
  before = Records(tiny_sound_runs / 'latents' / 'train' / 'sound')[5]
  encode(tiny_sound.audio(tiny_sound_runs), tiny_sound_runs / 'latents')
  after = Records(tiny_sound_runs / 'latents' / 'train' / 'sound')[5]
  np.testing.assert_array_equal(before['latents'], after['latents'])


def test_what_would_be_trained_is_said_without_data(tiny_sound_runs, tmp_path):
  config = tiny_sound.audio(tiny_sound_runs)
  assert 'video/gate' in dry_run(config, tmp_path)
  config.autoencoder = str(tmp_path / 'nowhere')
  assert 'latents of 128 channels' in dry_run(config, tmp_path)
