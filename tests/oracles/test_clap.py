"""The script that scores with CLAP against transformers' model called directly."""

import os
import sys

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.evaluation.external_scorers import CommandScorer
from tests.tiny import CHECKOUT

torch = pytest.importorskip('torch', reason='CLAP needs torch: pip install -e .[oracle]')
transformers = pytest.importorskip('transformers')

pytestmark = pytest.mark.oracle

RATE = 48_000
SCRIPT = CHECKOUT / 'examples' / 'score_clap.py'
CAPTIONS = ['rain on a roof', 'a dog barks', 'rain on a roof']


def clap(weights):
  return CommandScorer((sys.executable, os.fspath(SCRIPT), f'--weights={weights}'), 'clap')


def small_clap(folder, truncation):
  """Saves a model with drawn weights and its processor; returns both."""
  torch.manual_seed(0)
  width = {'hidden_size': 16, 'intermediate_size': 16, 'num_attention_heads': 2}
  config = transformers.ClapConfig(
    text_config={**width, 'num_hidden_layers': 1, 'vocab_size': 300},
    audio_config={
      'patch_embeds_hidden_size': 8,
      'hidden_size': 64,
      'depths': [1, 1, 1, 1],
      'num_attention_heads': [1, 1, 2, 2],
      'enable_fusion': truncation == 'fusion',
    },
    projection_dim=12,
  )
  model = transformers.ClapModel(config).eval()
  letters = [*sorted(set(''.join(CAPTIONS)) - {' '}), '\u0120']  # the last writes a space
  names = ['<s>', '<pad>', '</s>', '<unk>', *letters, '<mask>']
  tokenizer = transformers.RobertaTokenizer(
    vocab={name: number for number, name in enumerate(names)}, merges=[]
  )
  extractor = transformers.ClapFeatureExtractor(truncation=truncation, max_length_s=1)
  processor = transformers.ClapProcessor(extractor, tokenizer)
  model.save_pretrained(folder)
  processor.save_pretrained(folder)
  return model, processor


@pytest.mark.parametrize('truncation', ['fusion', 'rand_trunc'])
def test_a_score_is_the_cosine_that_the_model_gives(tmp_path, truncation):
  model, processor = small_clap(tmp_path, truncation)
  now = np.arange(2 * RATE) / RATE
  long = np.sin(2 * np.pi * 200 * now**2)
  noise = np.random.default_rng(0).uniform(-1, 1, RATE // 2)
  # Of 16 bits from the start, as the script gets them: 1 is written as 32767 and read as 32768.
  long, noise = (np.rint(2**14 * sound).astype(np.float32) / 2**15 for sound in (long, noise))
  sounds = [long[:RATE], noise, long]
  found = clap(tmp_path).score(
    [sound[:, None] * np.float32(2**15 / (2**15 - 1)) for sound in sounds], RATE, captions=CAPTIONS
  )

  def cosine(sound, caption):
    tokens = processor.tokenizer(caption, return_tensors='pt')
    features = processor.feature_extractor(sound, sampling_rate=RATE, return_tensors='pt')
    with torch.no_grad():
      answer = model(**tokens, **features)
    return torch.nn.functional.cosine_similarity(answer.audio_embeds, answer.text_embeds).item()

  wanted = [cosine(sounds[0], CAPTIONS[0]), cosine(sounds[1], CAPTIONS[1])]
  wanted.append(np.mean([cosine(half, CAPTIONS[2]) for half in (long[:RATE], long[RATE:])]))
  np.testing.assert_allclose(found, wanted, atol=1e-5)  # float32
  assert np.ptp(wanted) > 0.01  # so that a mixed-up order would show
  with pytest.raises(ConfigError, match=r'failed with 1; .*16000'):
    clap(tmp_path).score([noise[:, None]], 16_000, captions=['rain'])


def test_stereo_is_heard_as_the_mean_of_its_channels(tmp_path):
  small_clap(tmp_path, 'rand_trunc')
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 1)).astype(np.float32)
  both = np.concatenate([noise, np.zeros_like(noise)], axis=1)
  scorer = clap(tmp_path)
  one, two = scorer.score([noise / 2, both], RATE, captions=['rain'] * 2)
  assert one == pytest.approx(two, abs=1e-3)  # 16 bits
