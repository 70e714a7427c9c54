"""CLIP from a configuration to judged weights: training, its pipeline, each tower by itself."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import mgjax
from configs.digits import clip as clip_config
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.tree import named_leaves
from mgjax.data.batch_order import make_ordered_batches
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.models.clip.towers import make_clip_vision
from mgjax.sections.clip.pipeline import FrameEncoder, tower_identity
from mgjax.sections.clip.section import ClipSection
from mgjax.sections.text.encoder import TextEncoder
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests import tiny
from tests.tiny import under

TINY = tiny.RUN | under('train', steps=4, log_every=2, save_every=2, evaluate_every=4)
TINY |= under('buckets.image', height=16, width=16, batch_size=16)
TINY |= under('model.text', dim=8, depth=1, mlp_dim=16, projection=8)
TINY |= under('model.vision', size=16, patch=8, dim=12, depth=1, mlp_dim=16, projection=8)
TINY |= {'model.identity': 6, 'optimizer.warmup': 1, 'data.digits.colours': ('red', 'green')}
TEXTS = ['a photo of the green digit 3', 'a photo of the red digit 0', 'é']


def configuration(**changes):
  config = clip_config.get_config()
  config.update_from_flattened_dict(TINY | changes)
  return config


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A trained CLIP, and both its towers as frozen encoders."""
  runs = tmp_path_factory.mktemp('runs')
  mgjax.train(configuration(), runs / 'clip', stop_at=2)
  mgjax.train(configuration(), runs / 'clip')
  export_weights(runs / 'clip', runs / 'files', 'transformers')
  for part in ('text', 'vision'):
    import_weights(clip_config.get_config(part), runs / 'files', runs / part)
  return runs


@pytest.fixture(scope='module')
def clip(runs):
  return mgjax.load(runs / 'clip')


@pytest.fixture(scope='module')
def images():
  world = Digits(frames=3, size=(16, 16), split='test')
  return np.stack([world[index]['video'] for index in range(2)])


def test_training_goes_on_where_it_stopped_and_validates(runs):
  lines = [json.loads(line) for line in (runs / 'clip/metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'loss' in line] == [2, 4]
  assert np.isfinite([line['excess'] for line in lines if 'excess' in line]).all()
  (validated,) = [line for line in lines if 'validation/image/loss' in line]
  assert validated['step'] == 4 and validated['validation/image/excess'] > 0


def test_frames_images_and_texts_are_compared_by_cosines(clip, images):
  frames, texts = clip.encode_frames(images), clip.encode_texts(TEXTS)
  assert frames.shape == (2, 3, 8) and texts.shape == (3, 8)
  np.testing.assert_allclose(np.linalg.norm(frames, axis=-1), 1, atol=1e-6)
  flat = images.reshape(-1, *images.shape[2:])
  cosines = np.einsum('bp,np->bn', frames.reshape(-1, 8).astype(float), texts.astype(float))
  np.testing.assert_allclose(clip.similarity(flat, TEXTS), cosines, atol=1e-6)
  for row in range(3):  # a vector is its image's alone, whatever stands beside it
    alone = slice(row, row + 1)
    np.testing.assert_allclose(clip.encode_images(flat[alone]), frames[0, alone], atol=1e-6)
    np.testing.assert_allclose(clip.encode_texts(TEXTS[alone]), texts[alone], atol=1e-6)


def test_of_larger_frames_the_middle_square_is_seen_averaged(clip, images):
  small = images[0]
  large = small.repeat(3, axis=1).repeat(3, axis=2)
  wide = np.pad(large, ((0, 0), (0, 0), (9, 9), (0, 0)), constant_values=200)
  for other in (large, wide):
    np.testing.assert_allclose(clip.encode_images(other), clip.encode_images(small), atol=1e-5)


def test_identities_have_unit_vectors_of_their_own(runs, clip, images):
  found = clip.encode_identities(images[0])
  assert clip.identity and found.shape == (3, 6)
  np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
  line = json.loads((runs / 'clip/metrics.jsonl').read_text().splitlines()[-1])
  assert line['validation/image/identity_excess'] > 0


def test_captions_alone_make_a_clip_without_identities(tmp_path, images):
  config = configuration(**{'model.identity': 0, 'data.digits.extras': ()})
  mgjax.train(config, tmp_path, stop_at=2)
  clip = mgjax.load(tmp_path)
  assert not clip.identity and clip.encode_images(images[0]).shape == (3, 8)
  with pytest.raises(ConfigError, match='has no head for identities'):
    clip.encode_identities(images[0])


def test_two_views_of_a_sample_are_rows_beside_each_other_with_their_own_captions(tmp_path):
  config = configuration()
  spec = ClipSection(config).training(tmp_path)
  batch = make_ordered_batches(spec.buckets[0], 1)[0]
  rows = jax.device_get(spec.prepare(batch))
  assert {len(each) for each in rows.values()} == {32}  # of 16 samples
  assert rows['tokens_mask'].dtype == bool and rows['images'].dtype == np.float32
  np.testing.assert_array_equal(rows['identity'][::2], rows['identity'][1::2])
  for place, name in enumerate(('video', 'view')):
    np.testing.assert_allclose(rows['images'][place::2] * 255, batch[name][:, 0], atol=1e-4)
    np.testing.assert_array_equal(rows['tokens'][place::2], batch['tokens'][:, place])
  assert (batch['tokens'][:, 0] != batch['tokens'][:, 1]).any(axis=1).any()  # other colours


def test_an_export_comes_back_bit_by_bit(runs, tmp_path):
  export_weights(runs / 'clip', tmp_path / 'clip.safetensors')
  import_weights(configuration(), tmp_path / 'clip.safetensors', tmp_path / 'again')
  places = (runs / 'clip', tmp_path / 'again')
  before, after = (named_leaves(load_params(place)[0]) for place in places)
  assert before.keys() == after.keys()
  for name, leaf in before.items():
    np.testing.assert_array_equal(leaf, after[name])
  assert mgjax.load(tmp_path / 'again').encode_texts(TEXTS).shape == (3, 8)


def test_each_tower_serves_as_a_frozen_encoder(runs, clip, images):
  params, _ = load_params(runs / 'clip')
  assert load_file(runs / 'files/model.safetensors')['logit_scale'] == params['log_scale']
  encoder = TextEncoder(runs / 'text')
  assert [each['states'].shape for each in encoder(TEXTS)] == [(29, 8), (27, 8), (3, 8)]
  for part in ('text', 'vision'):
    config, tower = read_config(runs / part), load_params(runs / part)[0]
    assert config.model == clip.config.model[part]
    for name, leaf in named_leaves(params[part]).items():
      np.testing.assert_array_equal(named_leaves(tower)[name], leaf)
  vision = make_clip_vision(fields_of(read_config(runs / 'vision'), 'model'))
  _, pooled = jax.jit(vision.apply)({'params': tower}, images[0].astype(np.float32) / 255)
  for place in ('clip', 'vision'):
    np.testing.assert_allclose(FrameEncoder(runs / place)(images[0]), pooled, atol=1e-6)
  assert tower_identity(runs / 'clip') == tower_identity(runs / 'vision')
  pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
  np.testing.assert_allclose(clip.encode_images(images[0]), pooled, atol=1e-6)


def test_the_evaluation_writes_numbers_beside_chance_and_a_sheet(runs):
  found = mgjax.evaluate(runs / 'clip', samples=600)
  sheet, _, record = found.paths
  numbers = json.loads(record.read_text())
  assert numbers['weights']['step'] == 4 and numbers['images'] == 600
  assert numbers['retrieval'].keys() == numbers['chance'].keys()
  assert numbers['chance']['image_to_text'] == 1 / 20 and numbers['chance']['colour'] == 1 / 2
  assert found.table.splitlines()[0].split()[-2:] == ['better', 'chance']
  with Image.open(sheet) as picture:
    assert picture.width > 8 * 32


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'buckets.image.frames': 2}, r'buckets.image has 2 frames of 16 x 16; expected frames = 1'),
    ({'buckets.image.width': 24}, r'1 frames of 16 x 24; .* = model.vision.size = 16'),
    ({'data.digits.extras': ()}, "model.identity = 6, .* data.digits.extras = \\('view',\\)"),
    ({'objective.identity_weight': -1.0}, 'objective.identity_weight = -1.0; expected'),
    ({'model.text.eos': 2}, "the tokenizer 'bytes' ends a text with 1, the encoder expects 2"),
    ({'model.text.vocabulary': 99}, "'bytes' makes tokens up to 258, the encoder has 99"),
    ({'tokenizer': '/nowhere'}, '/nowhere'),
  ],
)
def test_what_does_not_go_together_is_refused_before_training(changes, message):
  with pytest.raises(ConfigError, match=message):
    ClipSection(configuration(**changes))
  with pytest.raises(ConfigError, match="part 'image': expected both, text or vision"):
    clip_config.get_config('image')


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_captions_and_identities_of_unseen_handwriting_are_found(tmp_path):
  mgjax.train(mgjax.config('digits/clip'), tmp_path)
  found = json.loads(mgjax.evaluate(tmp_path).paths[-1].read_text())['retrieval']
  assert found['colour'] > 0.98 and found['digit'] > 0.8
  assert found['text_to_one_image'] > 0.8
  assert found['identity_auc'] > 0.85 and found['identity'] > 0.2  # chance .032
