"""Metrics of sets and pairs against torchmetrics, prdc and transformers on drawn numbers."""

import jax
import numpy as np
import pytest

from configs.text import metaclip_text, metaclip_vision
from mgjax.apps.weights.import_export import import_weights
from mgjax.lab.evaluation.metrics.embeddings import clip_score
from mgjax.lab.evaluation.metrics.frechet import frechet_distance, kernel_distance, neighbourhood
from mgjax.lab.evaluation.metrics.similarity import decibels, squared_errors, structural_similarity
from mgjax.models.clip.towers import make_clip_text, make_clip_vision
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests.oracles import clip as oracle

torch = pytest.importorskip('torch', reason='torchmetrics needs torch: pip install -e .[oracle]')
transformers = pytest.importorskip('transformers')
torchmetrics = pytest.importorskip('torchmetrics')
prdc = pytest.importorskip('prdc')

pytestmark = pytest.mark.oracle

WIDTH = 12


class Given(torch.nn.Module):
  """Features that are there already."""

  num_features = WIDTH

  def forward(self, rows):
    return rows


def sets(seed, rows=(70, 50)):
  generator = np.random.default_rng(seed)
  turn = generator.normal(size=(WIDTH, WIDTH))
  return generator.normal(size=(rows[0], WIDTH)) @ turn, 1 + generator.normal(size=(rows[1], WIDTH))


def answer(metric, x, y):
  metric.set_dtype(torch.float64)
  metric.update(torch.tensor(x), real=True)
  metric.update(torch.tensor(y), real=False)
  return metric.compute()


@pytest.mark.parametrize('seed', [0, 1])
def test_the_frechet_distance_is_that_of_torchmetrics(seed):
  from torchmetrics.image.fid import FrechetInceptionDistance

  x, y = sets(seed)
  theirs = answer(FrechetInceptionDistance(feature=Given()), x, y)
  # Sums of products around 1e3 less as large ones in float64, and roots of eigenvalues: 1e-16
  # times 1e3 times the square root of a condition of 1e6.
  assert frechet_distance(x, y) == pytest.approx(float(theirs), rel=1e-9)


@pytest.mark.filterwarnings('ignore:Metric .* will save all extracted features')
def test_the_kernel_distance_is_that_of_torchmetrics():
  from torchmetrics.image.kid import KernelInceptionDistance

  x, y = sets(2, (60, 60))
  metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=60)
  mean, _ = answer(metric, x, y)
  # Torchmetrics keeps its list of results in float32.
  assert kernel_distance(x, y) == pytest.approx(float(mean), rel=2e-7)


@pytest.mark.parametrize('nearest', [1, 3, 5])
def test_neighbours_are_those_of_prdc(nearest):
  y, x = sets(3)
  y = np.concatenate([y, x[:20] + 0.1])
  theirs = prdc.compute_prdc(real_features=x, fake_features=y, nearest_k=nearest)
  found = neighbourhood(x, y, nearest)._asdict()
  assert found == pytest.approx(theirs, rel=1e-12)  # shares of counts
  assert 0 < found['precision'] < 1 and 0 < found['coverage'] < 1


def test_distortion_and_structure_are_those_of_torchmetrics():
  from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
  )

  generator = np.random.default_rng(5)
  x = generator.integers(0, 256, (3, 40, 48, 3)).astype(np.uint8)
  y = np.clip(x + generator.normal(0, 20, x.shape), 0, 255).astype(np.uint8)
  a, b = (torch.tensor(each / 255).permute(0, 3, 1, 2) for each in (x, y))
  levels = [
    float(peak_signal_noise_ratio(one[None], other[None], data_range=1.0))
    for one, other in zip(a, b, strict=True)
  ]
  np.testing.assert_allclose(decibels(squared_errors(x, y)), levels, rtol=1e-6)
  _, places = structural_similarity_index_measure(
    a, b, sigma=1.5, kernel_size=11, data_range=1.0, reduction='none', return_full_image=True
  )
  # Their mean takes in the borders, where the window sees reflected pixels; ours does not.
  within = places[..., 5:-5, 5:-5].mean((1, 2, 3))
  np.testing.assert_allclose(structural_similarity(x, y), within.numpy(), rtol=1e-6)


def test_the_clip_score_is_that_of_transformers_with_the_same_weights(tmp_path):
  theirs = oracle.make_clip(tmp_path / 'given')
  tokens, mask = oracle.draw_prompts('metaclip')['right']
  images = oracle.draw_images('metaclip')
  with torch.no_grad():
    answered = theirs(
      input_ids=torch.tensor(tokens).long(),
      attention_mask=torch.tensor(mask).long(),
      pixel_values=torch.tensor((images - oracle.MEAN) / oracle.STD).permute(0, 3, 1, 2),
    )
  cosine = (answered.logits_per_text / theirs.logit_scale.detach().exp()).numpy()
  wanted = 100 * np.maximum(cosine, 0).mean(1)

  inputs = {'text': (tokens, mask), 'vision': (images,)}
  make = {
    'text': (make_clip_text, metaclip_text.get_config()),
    'vision': (make_clip_vision, metaclip_vision.get_config()),
  }
  vectors = {}
  for tower, (module, ours) in make.items():
    import_weights(ours, tmp_path / 'given', tmp_path / tower)
    model = module(read_config(tmp_path / tower).model.to_dict() | {'dtype': 'float32'})
    params, _ = load_params(tmp_path / tower)
    vectors[tower] = np.asarray(jax.jit(model.apply)({'params': params}, *inputs[tower])[1])
  found = [clip_score(vectors['vision'], text) for text in vectors['text']]
  # Vectors differ by 3e-6 a number at most, of 16: that over the lengths is the cosine's error.
  shortest = [np.linalg.norm(each, axis=-1).min() for each in vectors.values()]
  within = 100 * 3e-6 * 4 * sum(1 / length for length in shortest)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=within)
  assert np.ptp(wanted) > 10 * within
