"""The codec's opponents and distances against PyTorch: frozen vectors made anew."""

import numpy as np
import pytest

from tests.oracles import sound_opponents as oracle

pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')
pytest.importorskip('transformers', reason='the filters of pitch are those of transformers')

pytestmark = pytest.mark.oracle


def test_frozen_vectors_are_what_pytorch_answers():
  found = oracle.answers()
  with np.load(oracle.VECTORS) as file:
    assert set(file) == found.keys()
    for name, array in found.items():
      np.testing.assert_allclose(file[name], array, rtol=1e-6, atol=1e-7, err_msg=name)
