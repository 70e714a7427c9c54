"""What tests of signed files share: a certificate, a film with sound, and one byte flipped."""

import datetime
import importlib.util
import pathlib

import numpy as np
import pytest

from mgjax.data.media.audio import write_soundtrack
from mgjax.data.media.provenance.manifest import CHAIN, KEY_FILE, VARIABLE
from mgjax.data.media.video import write_video

RATE = 48_000
needs_c2pa = pytest.mark.skipif(
  importlib.util.find_spec('c2pa') is None,
  reason="c2pa-python is not installed: pip install 'mgjax[provenance]'",
)


def configure(monkeypatch, folder) -> pathlib.Path:
  """Makes a test certificate with which everything is signed from here on; its authority."""
  *_, authority = make_certificate(folder)
  monkeypatch.setenv(VARIABLE, str(folder))
  return authority


def make_certificate(folder) -> list[pathlib.Path]:
  """Makes certificate.pem, key.pem and the authority.pem that issued it."""
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.hazmat.primitives.asymmetric import ec
  from cryptography.x509.oid import ExtendedKeyUsageOID

  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  paths = [pathlib.Path(folder, name) for name in (CHAIN, KEY_FILE, 'authority.pem')]
  now = datetime.datetime.now(datetime.UTC)
  usages = (
    'content_commitment',
    'data_encipherment',
    'key_encipherment',
    'key_agreement',
    'encipher_only',
    'decipher_only',
  )

  def named(common):
    oid = x509.NameOID
    return x509.Name(
      [
        x509.NameAttribute(oid.ORGANIZATION_NAME, 'nobody: for tests'),
        x509.NameAttribute(oid.COMMON_NAME, common),
      ]
    )

  def issued(common, key, by):
    authority = key is by
    builder = (
      x509.CertificateBuilder(named('test authority'), named(common), key.public_key())
      .serial_number(x509.random_serial_number())
      .not_valid_before(now - datetime.timedelta(hours=1))  # of clocks that are behind
      .not_valid_after(now + datetime.timedelta(days=365))
      .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
      .add_extension(
        x509.KeyUsage(
          digital_signature=not authority,
          key_cert_sign=authority,
          crl_sign=authority,
          **dict.fromkeys(usages, False),
        ),
        critical=True,
      )
      .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
      .add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
      )
    )
    if not authority:  # without a purpose that C2PA knows a signature is refused
      purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
      builder = builder.add_extension(purpose, critical=False)
    signed = builder.sign(by, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)

  authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
  root = issued('test authority', authority, authority)
  secret = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
  )
  paths[0].write_bytes(issued('test certificate', key, authority) + root)
  paths[2].write_bytes(root)
  paths[1].write_bytes(secret)
  return paths


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


def check(prompt) -> str | None:
  """A `MGJAX_CHECK` for tests."""
  return "'cannon' is on the list of denied words" if 'cannon' in prompt.lower() else None


def postprocess(video, audio):
  """A `MGJAX_POSTPROCESS` for tests: the upper left corner turns white."""
  if video is not None:
    video = video.copy()
    video[:, : video.shape[1] // 4, : video.shape[2] // 4] = 255
  return video, audio
