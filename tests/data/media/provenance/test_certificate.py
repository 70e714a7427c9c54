"""A certificate is read from a folder or a file, or a sentence says what is wrong with it."""

import importlib

import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.media.provenance.manifest import VARIABLE, check_signing, configured, load_c2pa
from tests.data.media.provenance.signing import make_certificate, needs_c2pa


def of(monkeypatch, path):
  monkeypatch.setenv(VARIABLE, str(path))
  return configured()


@needs_c2pa
def test_a_folder_and_a_file_with_both_are_the_same_certificate(tmp_path, monkeypatch):
  chain, key, _ = make_certificate(tmp_path / 'made')
  both = tmp_path / 'both.pem'
  both.write_bytes(b'Bag Attributes: none\n' + key.read_bytes() + chain.read_bytes())
  assert of(monkeypatch, tmp_path / 'made') == of(monkeypatch, both)
  assert check_signing() is not None


@needs_c2pa
@pytest.mark.parametrize(
  ('kind', 'algorithm'),
  [
    ('SECP256R1', 'es256'),
    ('SECP384R1', 'es384'),
    ('SECP521R1', 'es512'),
    ('ed25519', 'ed25519'),
    ('rsa', 'ps256'),
  ],
)
def test_the_key_says_which_signature(tmp_path, monkeypatch, kind, algorithm):
  chain, _, _ = make_certificate(tmp_path / 'made')
  path = tmp_path / 'own.pem'
  path.write_bytes(chain.read_bytes() + private(kind))
  assert of(monkeypatch, path).algorithm == algorithm


def private(kind, password=b''):
  from cryptography.hazmat.primitives import serialization
  from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

  if kind == 'ed25519':
    key = ed25519.Ed25519PrivateKey.generate()
  elif kind == 'rsa':
    key = rsa.generate_private_key(65537, 2048)
  else:
    key = ec.generate_private_key(getattr(ec, kind)())
  return key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
  )


@needs_c2pa
@pytest.mark.parametrize(
  ('written', 'told'),
  [
    (lambda chain, _: chain, '0 private keys'),
    (lambda _, key: key, 'no certificate'),
    (lambda chain, key: chain + key + key, '2 private keys'),
    (lambda *_: b'', 'no certificate'),
    (lambda chain, _: chain + private('SECP256R1', b'word'), 'locked by a password'),
    (lambda chain, key: chain + key.replace(b'M', b'', 1), 'cannot be read'),
    (lambda chain, _: chain + private('SECP256K1'), 'of a kind that C2PA does not know'),
  ],
  ids=['no_key', 'no_chain', 'two_keys', 'empty', 'locked', 'damaged', 'curve'],
)
def test_what_is_no_certificate_is_a_sentence(tmp_path, monkeypatch, written, told):
  chain, key, _ = make_certificate(tmp_path / 'made')
  path = tmp_path / 'own.pem'
  path.write_bytes(written(chain.read_bytes(), key.read_bytes()))
  with pytest.raises(ConfigError, match=f'{VARIABLE}=.*own.pem.*{told}'):
    of(monkeypatch, path)


@needs_c2pa
def test_a_folder_without_a_certificate_is_a_sentence(tmp_path, monkeypatch):
  with pytest.raises(ConfigError, match=r'certificate\.pem cannot be read: No such file'):
    of(monkeypatch, tmp_path)


def test_a_certificate_without_c2pa_python_says_what_to_install(tmp_path, monkeypatch):
  real = importlib.import_module

  def missing(name, *rest):
    if name == 'c2pa':
      raise ImportError(name)
    return real(name, *rest)

  monkeypatch.setattr(importlib, 'import_module', missing)
  with pytest.raises(ConfigError, match=r"pip install 'mgjax\[provenance\]'"):
    load_c2pa()
  with pytest.raises(ConfigError, match=r"pip install 'mgjax\[provenance\]'"):
    of(monkeypatch, tmp_path)  # and does not write unsigned files
