"""Tiles of time are decoded on all devices of a mesh, the next ones while the caller works."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.parallel.mesh import make_mesh
from mgjax.tae.autoencoder import Autoencoder
from mgjax.tae.latents import LatentCodec, Statistics, to_unit
from mgjax.tae.tiling import Tiling
from tests.random_parameters import random_parameters

MODEL = Autoencoder(latent_channels=4, widths=(8, 8), strides=((2, 2, 2),), blocks=0, groups=4)
STATISTICS = Statistics((0.5, -1.0, 0.0, 2.0), (0.5, 1.0, 2.0, 4.0))
IN_TIME = Tiling(frames=8, overlap=4)  # 4 latents, of which 2 are shared


def movie(rows, frames):
  shape = (rows, frames, 8, 8, 3)
  return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope='module')
def tiled():
  params = random_parameters(MODEL.init, to_unit(jnp.asarray(movie(1, 3))), jax.random.key(0))
  return LatentCodec(MODEL, params, STATISTICS, IN_TIME)


@pytest.mark.parametrize('mesh', [{'data': 8}, {'data': 2, 'context': 4}], ids=str)
@pytest.mark.parametrize('rows', [1, 2])
def test_tiles_of_time_over_eight_devices_are_those_of_one(tiled, mesh, rows):
  # More than one group for eight devices, and a shorter tile at the end.
  latents = np.asarray(tiled.encode(movie(rows, 48)))[:, :-1]
  alone = np.asarray(tiled.decode(latents))
  with jax.set_mesh(make_mesh(mesh)):
    shared = np.asarray(tiled.decode(latents))
    chunks = [latents[:, :3], latents[:, 3:]]
    pieces = [np.asarray(piece) for piece in tiled.decode_stream(chunks)]
  # Sums may be taken in another order, so that what lies between two bytes goes to either.
  assert np.abs(shared.astype(np.int32) - alone).max() <= 1
  assert (shared == alone).mean() > 0.999
  np.testing.assert_array_equal(np.concatenate(pieces, axis=1), shared)
  assert len(pieces) > 8


def test_the_next_tile_is_begun_before_a_piece_is_handed_over(tiled, monkeypatch):
  latents, decode, begun = np.asarray(tiled.encode(movie(1, 24))), tiled._decode, []
  monkeypatch.setattr(tiled, '_decode', lambda *a, **k: begun.append(1) or decode(*a, **k))
  seen = [len(begun) for _ in tiled.decode_stream([latents])]
  # Two are begun when the first piece comes; the last piece is what the last tile left over.
  assert seen == [*range(2, len(begun) + 1), len(begun), len(begun)]
