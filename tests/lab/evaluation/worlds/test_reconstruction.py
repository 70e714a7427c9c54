"""What a judge reads through an autoencoder: all if it keeps all, less through a poor one."""

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.lab.evaluation.worlds.reconstruction import judge_reconstruction
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges import video
from mgjax.lab.worlds.solids.judges.video import make_judge
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics


class Keeper(LatentCodec):
  """Stands for an autoencoder whose latents are the pixels, averaged over `block` pixels."""

  def __init__(self, block):
    self.block = block
    self.model = make_autoencoder({'widths': (8,), 'strides': (), 'groups': 4})
    self.statistics = Statistics.neutral(3)

  def encode(self, video):
    b, t, h, w, c = video.shape
    k = self.block
    means = jnp.asarray(video, jnp.float32).reshape(b, t, h // k, k, w // k, k, c).mean((3, 5))
    return means

  def decode(self, latents, frames, size):
    k = self.block
    return jnp.round(latents.repeat(k, 2).repeat(k, 3)).astype(jnp.uint8)


@pytest.fixture(scope='module')
def measurements():
  judge = make_judge(Solids())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(video, '_REFERENCES', 16)
    return [judge_reconstruction(Keeper(block), judge, 8).record for block in (1, 16)]


def test_what_comes_back_whole_is_read_as_before(measurements):
  whole, poor = measurements
  assert whole['psnr_inside'] > 70 and set(whole['groups']) == {
    'in distribution',
    'new combination',
    'new value',
  }
  for group, its in whole['groups'].items():
    assert its['alignment']['colour'] > 0.9 and its['alignment']['shape'] > 0.7
    assert poor['groups'][group]['alignment']['shape'] < its['alignment']['shape']


def test_errors_inside_of_solids_are_told_from_those_of_the_whole(measurements):
  _, poor = measurements
  assert poor['psnr_inside'] + 3 < poor['psnr_whole'] < 40
  assert np.isfinite(poor['psnr_inside'])
