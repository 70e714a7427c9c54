"""The audio model trains as video does: on latents or sound, resumed exactly, on its own codec."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.audio import audio
from mgjax.api import train
from mgjax.apps.dry_run import dry_run
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.batch_order import samples_of_batch, samples_seen
from mgjax.data.media.audio import write_wav
from mgjax.data.records.reader import Records
from mgjax.registry import make_spec
from mgjax.sections.audio.captions import AudioCaption
from tests import tiny, tiny_sound
from tests.data.media.audio_files import noise
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
    ConfigError, match=r'sound.*(multiple of 0.04 s.* at most 0.8 s|expected .* above 0)'
  ):
    make_spec(config, tmp_path)


def recordings(tmp_path, codec):
  """The pre-training's data and buckets, without pictures, over sounds of 4 to 31 s."""
  for seconds in (4, 6, 10, 20, 29, 31):
    write_wav(tmp_path / f'{seconds}_seconds.wav', noise(seconds, seed=seconds), 48_000)
  report = audio.get_config('debug')
  config = tiny_sound.audio(codec.parent, latents=False)
  config.data = report.data.to_dict() | {'kind': 'sounds', 'path': str(tmp_path), 'threads': 1}
  config.buckets = {
    name: {'seconds': bucket.seconds, 'weight': bucket.weight, 'batch_size': 8}
    for name, bucket in report.buckets.items()
  }
  config.model.positions = report.model.positions
  return config


def test_sounds_of_4_to_30_s_are_trained_on_and_less_than_a_third_of_any_is_lost(
  tiny_sound_runs, tmp_path
):
  config = recordings(tmp_path, tiny_sound_runs / 'codec')
  spec, homes = make_spec(config, tmp_path / 'run'), {}
  for bucket in spec.buckets:
    for index in range(len(bucket.source)):
      sample = bucket.source[index]
      assert len(sample['audio']) == config.buckets[bucket.name].seconds * 48_000
      homes.setdefault(sample['caption'], []).append(bucket.name)
  assert homes == {
    '4 seconds': ['seconds_4'],
    '6 seconds': ['seconds_6'],
    '10 seconds': ['seconds_10'],
    '20 seconds': ['seconds_20'],
    '29 seconds': ['seconds_20'],
    '31 seconds': ['seconds_30'],
  }
  lengths = np.array(sorted({bucket.seconds for bucket in config.buckets.values()}))
  assert lengths[0] == 4 and lengths[-1] == 30 and np.all(lengths[1:] / lengths[:-1] <= 1.5)
  # Every sound as often as the others: of six batches two are of the two sounds of 20 s.
  assert samples_seen(spec.buckets, 6) == {
    name: 16 if name == 'seconds_20' else 8 for (name,) in homes.values()
  }


@pytest.mark.slow
def test_a_run_over_sounds_of_4_to_30_s_trains_on_every_one(tiny_sound_runs, tmp_path):
  config = recordings(tmp_path, tiny_sound_runs / 'codec')
  config.train.update(steps=6, log_every=1, evaluate_every=0, save_every=0)
  train(config, tmp_path / 'run')
  losses = [row['loss'] for row in tiny.losses(tmp_path / 'run').values()]
  assert len(losses) == 6 and np.isfinite(losses).all()


def test_fine_tuning_has_ten_batches_of_cinematic_sounds_to_one_of_others():
  """Cin-AV : HQ-A, and 5 : 1 of lengths within each (Movie Gen §6)."""
  config = audio.get_config('debug,finetune,hq_audio')
  buckets = training_buckets(
    config, {'seconds_10': 50, 'seconds_30': 7, 'hq_audio_10': 9000, 'hq_audio_30': 900}
  )
  for start in (0, 66, 6600):
    before, after = samples_seen(buckets, start), samples_seen(buckets, start + 66)
    assert {name: (after[name] - before[name]) // 256 for name in after} == {
      'seconds_10': 50,
      'seconds_30': 10,
      'hq_audio_10': 5,
      'hq_audio_30': 1,
    }
  with pytest.raises(ConfigError, match='debug,finetune,hq_audio'):
    audio.get_config('debug,hq_audio')


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


def test_what_would_be_trained_is_said_without_data(tiny_sound_runs, tmp_path):
  config = tiny_sound.audio(tiny_sound_runs)
  assert 'video/gate' in dry_run(config, tmp_path)
  config.autoencoder = str(tmp_path / 'nowhere')
  assert 'latents of 128 channels' in dry_run(config, tmp_path)


def test_a_list_that_says_what_is_heard_trains_on_the_reports_captions(tiny_sound_runs, tmp_path):
  for name in ('waves', 'crowd'):
    write_wav(tmp_path / f'{name}.wav', noise(0.5), 48_000)
  lines = [
    'sound,caption,quality,speech,singing,music,music_description',
    'waves.wav,waves on a shore,8,no,no,0.9,a piano',
    'crowd.wav,a crowd,,yes,,,',
    'crowd.wav,a crowd,12,,,,',
  ]
  (tmp_path / 'list.csv').write_text('\n'.join(lines))
  config = tiny_sound.audio(tiny_sound_runs, latents=False)
  config.data = {'kind': 'sounds', 'path': str(tmp_path / 'list.csv'), 'threads': 1}
  config.buckets = {'sound': {'seconds': 0.4, 'batch_size': 2, 'weight': 1}}
  (bucket,) = make_spec(config, tmp_path).buckets
  waves, crowd = (bucket.source[index]['caption'] for index in range(2))
  assert len(bucket.source) == 2
  assert waves == str(AudioCaption('waves on a shore', 8.0, False, False, 0.9, 'a piano'))
  assert crowd == str(AudioCaption('a crowd', None, True, None, None))
  assert 'quality=12.0 of a sound' in (tmp_path / 'rejected.jsonl').read_text()
