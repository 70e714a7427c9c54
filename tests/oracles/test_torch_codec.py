"""The codec against PyTorch: frozen vectors made anew, and the layers of transformers' DAC."""

import functools
import types

import jax
import numpy as np
import pytest

from mgjax.models.codec.model import Codec
from mgjax.models.codec.weights import import_transformers
from tests.models.codec.shapes import shapes
from tests.oracles import codec as oracle

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')

pytestmark = pytest.mark.oracle

CODEC = Codec(width=4, strides=(2, 4, 6), latent_channels=3, decoder_width=32)
# What transformers' modules read of their configurations.
CONFIG = types.SimpleNamespace(
  encoder_hidden_size=4,
  downsampling_ratios=[2, 4, 6],
  hidden_size=32,
  decoder_hidden_size=32,
  upsampling_ratios=[6, 4, 2],
)


@pytest.mark.parametrize('name', oracle.MODELS)
def test_frozen_vectors_are_what_pytorch_answers(name):
  with np.load(oracle.VECTORS) as file:
    for key, array in oracle.answers(name).items():
      if key == 'shapes':
        assert str(file[f'{name}/{key}']) == str(array)
      else:
        np.testing.assert_allclose(file[f'{name}/{key}'], array, rtol=1e-6, atol=1e-7)


def sides(side):
  """Transformers' module of a side, with drawn weights, and ours with the same."""
  if side == 'encoder':
    module = pytest.importorskip('transformers.models.pe_audio.modeling_pe_audio')
    theirs = module.PeAudioDacEncoder(CONFIG)
  else:
    theirs = pytest.importorskip('transformers.models.dac.modeling_dac').DacDecoder(CONFIG)
  tensors = {key: oracle.draw(key, tuple(t.shape)) for key, t in theirs.state_dict().items()}
  theirs.load_state_dict({key: torch.tensor(tensor) for key, tensor in tensors.items()})
  params = import_transformers(tensors, shapes(CODEC), side)
  # An input of the side, and not of the whole codec: its features, which no method gives.
  run = functools.partial(CODEC.apply, method=lambda codec, x: getattr(codec, side)(x))
  return theirs.double().eval(), jax.jit(lambda x: run({'params': {side: params[side]}}, x))


@pytest.mark.parametrize(('side', 'shape'), [('encoder', (2, 48 * 5, 1)), ('decoder', (2, 7, 32))])
def test_a_side_answers_as_that_of_transformers_does(side, shape):
  theirs, ours = sides(side)
  x = np.random.RandomState(2).uniform(-1, 1, shape).astype(np.float32)
  with torch.no_grad():
    exact = theirs(torch.tensor(x, dtype=torch.float64).transpose(1, 2)).transpose(1, 2).numpy()
  np.testing.assert_allclose(ours(x), exact, rtol=0, atol=1e-6 * np.abs(exact).max())
