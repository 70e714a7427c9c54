"""The certificate that files are signed with, and a test certificate that anybody can make."""

import dataclasses
import datetime
import functools
import importlib
import os
import pathlib
from typing import Any

from mgjax.core.errors import ConfigError, first_line, printable
from mgjax.core.files import write_bytes

VARIABLE = 'MGJAX_C2PA_CERTIFICATE'  # the environment variable that names a folder or a .pem
CHAIN, KEY, AUTHORITY = 'certificate.pem', 'key.pem', 'authority.pem'
TEST = 'mgjax test certificate'  # its common name, by which it is told from others
_DAYS = 365
_CURVES = {'secp256r1': 'es256', 'secp384r1': 'es384', 'secp521r1': 'es512'}
_BEGIN, _END = b'-----BEGIN ', b'-----END '


def load_c2pa() -> Any:
  """Imports c2pa, which the distribution c2pa-python brings.

  Raises:
    ConfigError: it is not installed.
  """
  try:
    return importlib.import_module('c2pa')
  except ImportError:
    raise ConfigError(
      "C2PA needs c2pa-python, which is not installed: pip install 'mgjax[provenance]'"
    ) from None


@dataclasses.dataclass(frozen=True)
class Certificate:
  """What signs.

  Attributes:
    chain: certificates in PEM, first the one that signs, then those of who issued it.
    key: the private key in PEM.
    algorithm: of the signature, by its name in C2PA.
  """

  chain: bytes
  key: bytes = dataclasses.field(repr=False)
  algorithm: str = 'es256'


def configured() -> Certificate | None:
  """Returns the certificate that `MGJAX_C2PA_CERTIFICATE` names; None where nothing is named.

  Raises:
    ConfigError: it cannot be used, or c2pa-python is not installed.
  """
  path = os.environ.get(VARIABLE, '')
  if not path:
    return None
  load_c2pa()
  return _read(path)


@functools.cache
def _read(path: str) -> Certificate:
  """Reads a folder with certificate.pem and key.pem, or a .pem that has both."""
  place = pathlib.Path(path)
  files = [place / CHAIN, place / KEY] if place.is_dir() else [place]
  try:
    blocks = [block for file in files for block in _blocks(file.read_bytes())]
  except OSError as error:
    raise _wrong(path, f'{printable(error.filename)} cannot be read: {error.strerror}') from None
  chain = b''.join(block for block in blocks if b'CERTIFICATE' in block.splitlines()[0])
  keys = [block for block in blocks if b'PRIVATE KEY' in block.splitlines()[0]]
  if not chain or len(keys) != 1:
    held = 'no certificate' if not chain else f'{len(keys)} private keys'
    raise _wrong(path, f'it holds {held}, expected certificates and one private key')
  return Certificate(chain, keys[0], _algorithm(path, keys[0]))


def _blocks(pem: bytes) -> list[bytes]:
  """The blocks of a PEM file, without what else it says; a table of parameters of a curve too."""
  blocks, lines = [], None
  for line in pem.splitlines():
    if line.startswith(_BEGIN):
      lines = []
    if lines is not None:
      lines.append(line)
      if line.startswith(_END):
        blocks.append(b'\n'.join(lines) + b'\n')
        lines = None
  return blocks


def _algorithm(path: str, pem: bytes) -> str:
  from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
  from cryptography.hazmat.primitives.serialization import load_pem_private_key

  try:
    key = load_pem_private_key(pem, None)
  except TypeError:
    raise _wrong(path, 'its key is locked by a password; unlock it with openssl pkey') from None
  except Exception as error:  # of many kinds, for damaged and for unknown keys
    raise _wrong(path, f'its key cannot be read: {first_line(error)}') from None
  if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
    return _CURVES[key.curve.name]
  if isinstance(key, ed25519.Ed25519PrivateKey):
    return 'ed25519'
  if isinstance(key, rsa.RSAPrivateKey):
    return 'ps256'
  raise _wrong(path, 'its key is of a kind that C2PA does not know; take ES256, Ed25519 or RSA')


def _wrong(path: str, what: str) -> ConfigError:
  return ConfigError(
    f'{VARIABLE}={printable(path)!r}: {what}; name a folder with {CHAIN} and {KEY}, or a .pem that '
    'has both'
  )


def make_test_certificate(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Makes a certificate for tries, valid for a year, whose authority is made up beside it.

  Nobody trusts it, and nobody should: anybody can make one that says the same.

  Args:
    folder: that gets certificate.pem, key.pem and, for readers that shall trust it, authority.pem.

  Returns:
    What was written.

  Raises:
    ConfigError: a certificate is there already, or c2pa-python is not installed.
  """
  load_c2pa()
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.hazmat.primitives.asymmetric import ec
  from cryptography.x509.oid import ExtendedKeyUsageOID

  paths = [pathlib.Path(folder, name) for name in (CHAIN, KEY, AUTHORITY)]
  if there := [path for path in paths if path.exists()]:
    raise ConfigError(f'{there[0]} is there already; give another --out, or delete it')
  now = datetime.datetime.now(datetime.UTC)
  usages = (
    'content_commitment', 'data_encipherment', 'key_encipherment', 'key_agreement', 'encipher_only',
    'decipher_only',
  )  # fmt: skip

  def named(common: str) -> x509.Name:
    oid = x509.NameOID
    return x509.Name(
      [
        x509.NameAttribute(oid.ORGANIZATION_NAME, 'nobody: for tests'),
        x509.NameAttribute(oid.COMMON_NAME, common),
      ]
    )

  def issued(common: str, key: Any, by: Any) -> bytes:
    authority = key is by
    builder = (
      x509.CertificateBuilder(named('mgjax test authority'), named(common), key.public_key())
      .serial_number(x509.random_serial_number())
      .not_valid_before(now - datetime.timedelta(hours=1))  # of clocks that are behind
      .not_valid_after(now + datetime.timedelta(days=_DAYS))
      .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
      .add_extension(
        x509.KeyUsage(
          digital_signature=not authority, key_cert_sign=authority, crl_sign=authority,
          **dict.fromkeys(usages, False),
        ),
        critical=True,
      )
      .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
      .add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
      )
    )  # fmt: skip
    if not authority:  # without a purpose that C2PA knows a signature is refused
      purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
      builder = builder.add_extension(purpose, critical=False)
    signed = builder.sign(by, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)

  authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
  root = issued('mgjax test authority', authority, authority)
  secret = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
  )
  write_bytes(paths[0], issued(TEST, key, authority) + root)
  write_bytes(paths[2], root)
  with open(os.open(paths[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as file:
    file.write(secret)
  return paths
