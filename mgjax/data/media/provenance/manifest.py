"""Signs files with C2PA manifests (specification 2.4): who says that a model made them.

A manifest is bound to the file's bytes, and writing the file anew drops it: sign last.
"""

import dataclasses
import functools
import io
import json
import logging
import mimetypes
import os
import pathlib
import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from PIL import Image

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, first_line, printable
from mgjax.core.files import replaced
from mgjax.core.plug_ins import load_package
from mgjax.core.version import __version__

VARIABLE = 'MGJAX_C2PA_CERTIFICATE'  # the environment variable that names a folder or a .pem
CHAIN = 'certificate.pem'
KEY_FILE = 'key.pem'
_CURVES = {'secp256r1': 'es256', 'secp384r1': 'es384', 'secp521r1': 'es512'}
# A block of a PEM file, without what else it says; a table of parameters of a curve too.
_BLOCK = re.compile(rb'-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----', re.DOTALL)

# What can carry a manifest, of what pipelines write.
FORMATS = {'.mp4': 'video/mp4', '.png': 'image/png', '.wav': 'audio/wav', '.webp': 'image/webp'}
_SOURCE = 'http://cv.iptc.org/newscodes/digitalsourcetype/'  # IPTC's words for what made a file
MADE = 'trainedAlgorithmicMedia'
CHANGED = 'compositeWithTrainedAlgorithmicMedia'
_MEANT = {MADE: 'made by a trained model', CHANGED: 'changed by a trained model'}
_SETTINGS = {
  'builder': {'thumbnail': {'enabled': False}},  # which would grow small pictures manyfold
  # A file must not cause network requests.
  'verify': {'remote_manifest_fetch': False, 'ocsp_fetch': False},
}
_UNTRUSTED = 'signingCredential.untrusted'
_PARENT = 'parent'  # the ingredient that a file was made from, in its manifest

_log = logging.getLogger(__name__)


def load_c2pa() -> ModuleType:
  """Imports c2pa; ConfigError if c2pa-python is not installed."""
  return load_package('c2pa', 'C2PA needs c2pa-python', 'provenance')


@dataclasses.dataclass(frozen=True)
class Certificate:
  """Certificates in PEM (the one that signs first), its private key, and C2PA's algorithm."""

  chain: bytes
  key: bytes = dataclasses.field(repr=False)
  algorithm: str = 'es256'


def configured() -> Certificate | None:
  """Returns the certificate that `MGJAX_C2PA_CERTIFICATE` names; None where it is not set.
  Raises ConfigError if it cannot be used, or c2pa-python is not installed.
  """
  path = os.environ.get(VARIABLE, '')
  if not path:
    return None
  load_c2pa()
  return _read(path)


@functools.cache
def _read(path: str) -> Certificate:
  """Reads a folder with certificate.pem and key.pem, or a .pem that has both."""
  folder = pathlib.Path(path)
  files = [folder / CHAIN, folder / KEY_FILE] if folder.is_dir() else [folder]
  try:
    blocks = [block for file in files for block in _BLOCK.finditer(file.read_bytes())]
  except OSError as error:
    raise _wrong(path, f'{printable(error.filename)} cannot be read: {error.strerror}') from None
  chain = [block[0] + b'\n' for block in blocks if block[1].endswith(b'CERTIFICATE')]
  keys = [block[0] + b'\n' for block in blocks if block[1].endswith(b'PRIVATE KEY')]
  if not chain or len(keys) != 1:
    contents = 'no certificate' if not chain else f'{len(keys)} private keys'
    raise _wrong(path, f'it holds {contents}, expected certificates and one private key')
  return Certificate(b''.join(chain), keys[0], _algorithm(path, keys[0]))


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
    f'{VARIABLE}={printable(path)!r}: {what}; name a folder with {CHAIN} and {KEY_FILE}, or a .pem '
    'that has both'
  )


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What the manifest of a file that is unchanged since it was signed says.

  Attributes:
    signer: the common name in the certificate.
    trusted: whether one of the authorities that the reader trusts issued the certificate.
    authorities: whether any were given.
    made_by: programs and versions.
    actions: C2PA's names, each with IPTC's word for what did it or ''.
    made_from: names of the files that it was made from.
  """

  file: str
  signer: str
  trusted: bool
  authorities: bool
  made_by: tuple[str, ...]
  actions: tuple[tuple[str, str], ...]
  made_from: tuple[str, ...]

  @property
  def text(self) -> str:
    """The manifest as lines for people."""
    done = [f'{name} ({_MEANT.get(by, by)})' if by else name for name, by in self.actions]
    lines = {
      'file': f'{self.file}: signed, and as it was signed',
      'signed by': f'{self.signer}: {self._trust()}',
      'made by': ', '.join(self.made_by),
      'what was done': ', '.join(done),
      'made from': ', '.join(self.made_from),
    }
    text_lines = [
      lines.pop('file'),
      *(f'{name}: {value}' for name, value in lines.items() if value),
    ]
    return printable('\n'.join(text_lines), keep='\n')

  def _trust(self) -> str:
    if self.trusted:
      return 'trusted, one of the given authorities issued the certificate'
    why = 'no authorities were given that could vouch for it'
    if self.authorities:
      why = 'none of the given authorities issued the certificate'
    return f'UNTRUSTED, {why}; it does not prove who signed'


def check_signing() -> Certificate | None:
  """Returns the configured certificate, or None; ConfigError if it cannot sign one pixel."""
  certificate = configured()
  if certificate is not None:
    _try(certificate)
  return certificate


@functools.cache
def _try(certificate: Certificate) -> None:
  pixel, signed = io.BytesIO(), io.BytesIO()
  Image.new('RGB', (1, 1)).save(pixel, 'PNG')
  pixel.seek(0)
  try:
    _sign(certificate, pixel, signed, 'pixel.png', FORMATS['.png'])
  except load_c2pa().C2paError as error:
    raise ConfigError(
      f'the certificate of {VARIABLE} cannot sign: {first_line(error)}; C2PA wants one that is '
      'valid today and meant for signing'
    ) from None


def sign(
  paths: Iterable[str | os.PathLike[str]], *, made_from: str | os.PathLike[str] | None = None
) -> None:
  """Signs files in place with the configured certificate; without one it does nothing.

  Files of other kinds than `FORMATS` stay as they are. The manifest of `made_from`, the file that
  they were made from, is included.

  Raises:
    ConfigError: the certificate cannot be used.
    DataError: a file cannot be signed.
  """
  certificate = configured()
  if certificate is None:
    return
  for path in map(pathlib.Path, paths):
    kind = FORMATS.get(path.suffix)
    if kind is None:
      continue
    try:
      # From the first byte on in a file of its own: a crash leaves none that is half signed.
      with open(path, 'rb') as file, replaced(path) as temporary, open(temporary, 'w+b') as signed:
        _sign(certificate, file, signed, path.name, kind, made_from)
    except load_c2pa().C2paError as error:
      raise DataError(f'{path}: cannot be signed: {first_line(error)}') from None


def _sign(
  certificate: Certificate,
  file: object,
  signed: object,
  title: str,
  kind: str,
  made_from: str | os.PathLike[str] | None = None,
) -> None:
  """Writes what `file` holds to `signed`, with a manifest inside."""
  c2pa = load_c2pa()
  info = c2pa.C2paSignerInfo(certificate.algorithm, certificate.chain, certificate.key, None)
  with (
    c2pa.Signer.from_info(info) as signer,
    c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)) as context,
    _builder(context, title, made_from) as builder,
  ):
    builder.sign(signer, kind, file, signed)


def _builder(context: object, title: str, made_from: str | os.PathLike[str] | None) -> Any:
  """Makes the manifest's builder, with what the file was made from if C2PA can read that."""
  c2pa = load_c2pa()
  if made_from is None:
    return c2pa.Builder(_definition(title, MADE), context)
  kind = mimetypes.guess_type(made_from)[0] or ''
  name = pathlib.Path(made_from).name
  if kind in c2pa.Reader.get_supported_mime_types():
    builder = c2pa.Builder(_definition(title, CHANGED, parent=True), context)
    parent = {'title': name, 'relationship': 'parentOf', 'instance_id': _PARENT}
    try:
      with open(made_from, 'rb') as source:
        builder.add_ingredient(parent, kind, source)
      return builder
    except c2pa.C2paError:
      builder.close()
  _log.warning('%s is not named in the manifest of %s: C2PA cannot read it', name, title)
  return c2pa.Builder(_definition(title, CHANGED), context)


def _definition(title: str, source: str, parent: bool = False) -> JSON:
  source = _SOURCE + source
  actions: list[JSON] = [{'action': 'c2pa.created', 'digitalSourceType': source}]
  if parent:
    opened = {'action': 'c2pa.opened', 'parameters': {'ingredientIds': [_PARENT]}}
    actions = [opened, {'action': 'c2pa.edited', 'digitalSourceType': source}]
  return {
    'title': title,
    'claim_generator_info': [{'name': 'mgjax', 'version': __version__}],
    'assertions': [{'label': 'c2pa.actions', 'data': {'actions': actions}}],
  }


def read_manifest(
  path: str | os.PathLike[str], authorities: str | os.PathLike[str] | None = None
) -> Manifest:
  """Reads the manifest of a picture, sound or video, and checks the file against it.

  `authorities` is a .pem of certificates of those whom the reader trusts.

  Raises:
    ConfigError: c2pa-python is not installed, or there are no such authorities.
    DataError: the file has no manifest, it was changed after it was signed, or it cannot be read.
  """
  c2pa = load_c2pa()
  settings = dict(_SETTINGS)
  if authorities is not None:
    try:
      anchors = pathlib.Path(authorities).read_text()
    except (OSError, UnicodeDecodeError) as error:
      raise ConfigError(f'authorities {os.fspath(authorities)!r} cannot be read: {error}') from None
    settings = settings | {'trust': {'trust_anchors': anchors}}
  try:
    with (
      open(path, 'rb') as file,
      c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
      c2pa.Reader(None, file, context=context) as reader,
    ):
      report = json.loads(reader.json())
  except OSError as error:
    raise DataError(f'{os.fspath(path)!r} cannot be read: {error.strerror}') from None
  except c2pa.C2paError.ManifestNotFound:
    raise DataError(
      f'{os.fspath(path)!r} has no C2PA manifest: it was not signed, or was written anew since, '
      'which drops the manifest; nothing in it says where it comes from'
    ) from None
  except c2pa.C2paError as error:
    raise DataError(f'{os.fspath(path)!r}: no manifest can be read: {first_line(error)}') from None
  return _parsed(os.fspath(path), report, authorities is not None)


def _parsed(path: str, report: Fields, authorities: bool) -> Manifest:
  wrong = sorted({status['code'] for status in report.get('validation_status', [])} - {_UNTRUSTED})
  if report['validation_state'] not in ('Valid', 'Trusted'):
    changed = any('mismatch' in code.lower() for code in wrong)
    raise DataError(
      f'{path!r} does not verify ({", ".join(wrong)}): '
      + ('it was changed after it was signed' if changed else 'its signature does not hold')
      + '; trust neither the file nor its manifest'
    )
  active = report['manifests'][report['active_manifest']]
  actions = [
    (action['action'], action.get('digitalSourceType', '').removeprefix(_SOURCE))
    for assertion in active.get('assertions', [])
    if assertion['label'].startswith('c2pa.actions')
    for action in assertion['data']['actions']
  ]
  return Manifest(
    path,
    signer=str(active.get('signature_info', {}).get('common_name', 'unknown')),
    trusted=report['validation_state'] == 'Trusted',
    authorities=authorities,
    made_by=tuple(
      f'{generator["name"]} {generator.get("version", "")}'.strip()
      for generator in active.get('claim_generator_info', [])
    ),
    actions=tuple(actions),
    made_from=tuple(
      str(ingredient.get('title', 'unknown')) for ingredient in active.get('ingredients', [])
    ),
  )
