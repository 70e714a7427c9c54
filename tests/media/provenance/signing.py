"""What tests of signed files share: a certificate, a film with sound, and one byte flipped."""

import importlib.util
import pathlib

import numpy as np
import pytest

from mgjax.media.audio import write_soundtrack
from mgjax.media.provenance import certificate
from mgjax.media.video import write_video

RATE = 48_000
needs_c2pa = pytest.mark.skipif(
  importlib.util.find_spec('c2pa') is None,
  reason="c2pa-python is not installed: pip install 'mgjax[provenance]'",
)


def configure(monkeypatch, folder) -> pathlib.Path:
  """Makes a test certificate with which everything is signed from here on; its authority."""
  *_, authority = certificate.make_test_certificate(folder)
  monkeypatch.setenv(certificate.VARIABLE, str(folder))
  return authority


def film(path, seconds=1, side=64) -> pathlib.Path:
  """A video of waves with a tone."""
  t, y, x = np.meshgrid(np.arange(8 * seconds), *[np.arange(side)] * 2, indexing='ij')
  planes = [np.sin((x + 2 * t) / 5), np.cos((y - t) / 6), np.sin((x + y) / 9)]
  write_video(path, (127.5 + 100 * np.stack(planes, -1)).astype(np.uint8), 8)
  tone = 0.1 * np.sin(np.arange(seconds * RATE) / 20)
  write_soundtrack(path, path, [tone[:, None].astype(np.float32)], RATE)
  return path


def flip(path, place, to) -> pathlib.Path:
  """Copies a file with one bit of the byte at `place` changed."""
  data = bytearray(path.read_bytes())
  data[place] ^= 1
  to.write_bytes(data)
  return to
