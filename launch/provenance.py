"""Says where a file comes from, and makes a certificate to try signing with.

python -m launch.provenance show --file=out.mp4
python -m launch.provenance show --file=out.mp4 --authorities=certificate/authority.pem
python -m launch.provenance watermark --file=out.mp4
python -m launch.provenance make-test-certificate --out=certificate/
With MGJAX_C2PA_CERTIFICATE=certificate/ in the environment every file that a command or a pipeline
writes is signed (C2PA). show checks a file against what was signed, and ends with exit code 3 where
it was changed or has no manifest. Certificates are untrusted unless --authorities issued them; a
test certificate proves nothing to anybody. watermark reads the bits that the example of a watermark
writes. Needs the extra: pip install 'mgjax[provenance]'.
"""

from absl import flags

from . import command_line, flag_values

COMMANDS = _SHOW, _WATERMARK, _MAKE = ('show', 'watermark', 'make-test-certificate')

_FILE = command_line.define_required(
  'file', 'out.mp4', 'A video, a picture or a sound.', commands=(_SHOW, _WATERMARK)
)
_AUTHORITIES = flag_values.define(
  'authorities',
  flag_values.file('authorities'),
  'show: a .pem with certificates of those whom you trust to issue others.',
)
_OUT = flags.DEFINE_string(
  'out', 'certificate', 'make-test-certificate: the folder for it and its key.'
)


def main(arguments) -> None:
  {_SHOW: _show, _WATERMARK: _watermark, _MAKE: _make}[arguments[1]]()


def _show() -> None:
  from mgjax.media.provenance.manifest import read_manifest

  print(read_manifest(_FILE.value, _AUTHORITIES.value).text)


def _watermark() -> None:
  from mgjax.media.provenance.watermark import find

  print(f'{_FILE.value}: {find(_FILE.value)}')


def _make() -> None:
  from mgjax.media.provenance.certificate import VARIABLE, make_test_certificate

  for path in make_test_certificate(_OUT.value):
    print(path)
  print(f'To sign with it: export {VARIABLE}={_OUT.value}')
  print('It is for tries: every reader calls it untrusted, and rightly so.')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
