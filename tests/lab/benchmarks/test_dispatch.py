"""One function times every component: by its family, with the options that the family has."""

import pytest

from configs.digits import autoencoder, clip, video
from configs.text import t5_base
from mgjax.core.errors import ConfigError
from mgjax.lab.benchmarks.dispatch import bench_any
from tests import tiny_upsampler


@pytest.mark.slow
def test_the_training_step_of_an_upsampler_is_timed(tmp_path):
  config = tiny_upsampler.upsampler(tmp_path, buckets__video__batch_size=8)
  answer = bench_any(config, rounds=1, latents=(8, 6, 2, 2, 4))
  assert answer.numbers['programs']['mgjax']['step']['flops'] > 0
  assert answer.numbers['latents'] == [8, 6, 2, 2, 4]


@pytest.mark.parametrize(
  ('config', 'options', 'sentence'),
  [
    (video.get_config(), {'video': (1, 1, 8, 8)}, '--video is for configurations of another part'),
    (autoencoder.get_config(), {'layers': 0}, '--layers is for configurations of another part'),
    (t5_base.get_config(), {'what': 'step'}, "no 'step' of 't5' to time; expected one of encode"),
    (clip.get_config(), {}, "no benchmark of the family 'contrastive': flow model, autoenc"),
  ],
)
def test_what_a_family_does_not_have_is_refused(config, options, sentence):
  with pytest.raises(ConfigError, match=sentence):
    bench_any(config, **options)
