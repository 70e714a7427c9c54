"""A long video is decoded in the memory of a short one: two processes, and what they took."""

import pytest

from tests import binaries

DECODE = """
import resource, sys
import jax, numpy as np
from flax.linen import unbox
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics

frames = int(sys.argv[1])
model = Autoencoder(widths=(16, 16, 16, 16), blocks=1, groups=4)
params = unbox(model.init(jax.random.key(0), np.zeros((1, 8, 8, 8, 3)), jax.random.key(0)))
codec = LatentCodec(model, params['params'], Statistics((0.0,) * 16, (1.0,) * 16))
draw = np.random.default_rng(0)
latents = (draw.normal(size=(1, 1, 16, 16, 16)).astype(np.float32) for _ in range(frames // 8))
assert sum(video.shape[1] for video in codec.decode_stream(latents, frames)) == frames
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mib(frames):
  return float(binaries.python('-c', DECODE, str(frames)).stdout)


@pytest.mark.slow
def test_1024_frames_take_the_memory_of_64():
  short, long = peak_mib(64), peak_mib(1024)
  print(f'{short:.0f} MiB for 64 frames of 128 x 128, {long:.0f} for 1,024')
  assert long <= 1.2 * short
