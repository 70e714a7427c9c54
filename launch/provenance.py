"""Says where a file comes from.

python -m launch.provenance show --file=out.mp4
python -m launch.provenance show --file=out.mp4 --authorities=certificate/authority.pem
With MGJAX_C2PA_CERTIFICATE=certificate/ in the environment every file that a command or a pipeline
writes is signed (C2PA). show checks a file against what was signed, and ends with exit code 3 where
it was changed or has no manifest. Certificates are untrusted unless --authorities issued them.
Needs the extra: pip install 'mgjax[provenance]'.
"""

from . import command_line, flag_values

COMMANDS = (_SHOW,) = ('show',)

_FILE = command_line.define_required(
  'file', 'out.mp4', 'A video, a picture or a sound.', commands=(_SHOW,)
)
_AUTHORITIES = flag_values.define(
  'authorities',
  flag_values.file('authorities'),
  'show: a .pem with certificates of those whom you trust to issue others.',
)


def main(arguments) -> None:
  from mgjax.media.provenance.manifest import read_manifest

  print(read_manifest(_FILE.value, _AUTHORITIES.value).text)


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
