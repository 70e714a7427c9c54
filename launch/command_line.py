"""What every binary does with its command line: help, configurations, errors, exit codes."""

import contextlib
import errno
import importlib
import io
import json
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from mgjax.core.config import did_you_mean, flatten
from mgjax.core.config_files import load_config
from mgjax.core.errors import ConfigError, DataError, MgjaxError, StorageError, printable
from mgjax.runtime import compilation_cache
from mgjax.runtime.tpu_presence import leave_out_tpu
from mgjax.runtime.when_imported import when_imported

_CACHE = flags.DEFINE_bool(
  'cache', True, 'Keep compiled programs in ~/.cache/mgjax for the next start; --nocache does not.'
)
_ENTRY = re.compile(r'((?P<name>[^=@]+)=)?(?P<scale>[^=@]+)(@(?P<low>[^-]+)-(?P<high>[^-]+))?')
# As in mgjax.flow, which is not imported only to read flags.
SOLVERS = ('euler', 'midpoint', 'heun', 'dormand_prince')
SCHEDULES = ('linear', 'linear_quadratic')
_MEDIA = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.mp4', '.mov', '.mkv', '.webm', '.wav')
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


flags.disclaim_key_flags()  # what is defined here is a flag of the binary that asked for it


class _Required(NamedTuple):
  example: str
  commands: Sequence[str]  # that need it; all if there are none
  unless: Sequence[str]  # other flags, one of which will do instead


_REQUIRED: dict[str, _Required] = {}


def define_required(
  name: str,
  example: str,
  help: str,
  *,
  commands: Sequence[str] = (),
  unless: Sequence[str] = (),
  define: Callable[..., flags.FlagHolder] = flags.DEFINE_string,
) -> flags.FlagHolder:
  """Defines a flag without which `run` ends before `main`, with a sentence that shows an example.

  Args:
    name: of the flag.
    example: of a value.
    help: of the flag.
    commands: of a binary with commands, those that need it; by default all.
    unless: flags with which it may be missing; --print_config always is one, but for --config.
    define: makes the flag.
  """
  _REQUIRED[name] = _Required(example, commands, unless)
  return define(name, None, help)


def define_config(
  example: str, *, commands: Sequence[str] = (), unless: Sequence[str] = ()
) -> flags.FlagHolder:
  """Defines --config=name[:argument], --config.key=value and --print_config."""
  flags.DEFINE_bool('print_config', False, 'Print the resolved configuration and stop.')
  return define_required(
    'config',
    example,
    'Configuration: a file, or its name in configs/; override keys as in --config.model.depth=8.',
    commands=commands,
    unless=unless,
  )


def define(
  name: str, read: Callable[[str], Any], help: str, *, many: bool = False
) -> flags.FlagHolder:
  """Defines a flag whose value is what `read` makes of the text, or None; with `many` a list."""
  if many:
    return flags.DEFINE_multi(_Parser(read), None, name, [], help)
  return flags.DEFINE(_Parser(read), name, None, help)


class _Parser(flags.ArgumentParser):
  def __init__(self, read: Callable[[str], Any]):
    self._read = read

  def parse(self, argument: str) -> Any:
    return self._read(argument)


def define_solver() -> flags.FlagHolder:
  """Defines --solver."""
  return flags.DEFINE_enum('solver', None, SOLVERS, 'Of the sampler; the run decides if not given.')


def define_steps() -> flags.FlagHolder:
  """Defines --steps."""
  return flags.DEFINE_integer(
    'steps', None, 'Sampling steps; the run decides if not given.', lower_bound=1
  )


def define_guidance() -> flags.FlagHolder:
  """Defines --guidance."""
  told = 'Scale of every condition, or by name in order: source=1.5,text=7@0.2-0.8.'
  return define('guidance', guidance, told)


def define_mesh(help: str = 'Over devices, as context=8; one device if not given.'):
  """Defines --mesh."""
  return define('mesh', mesh, help)


def print_config(config) -> bool:
  """Prints the configuration if --print_config asks for it, and says whether it did."""
  if flags.FLAGS.print_config:
    print(json.dumps(config.to_dict(), indent=2))
  return flags.FLAGS.print_config


def run(main: Callable[[Sequence[str]], None], commands: Sequence[str] = ()) -> None:
  """Runs a binary: `main` gets its name and, if it has `commands`, the one that was given.

  A wrong flag or configuration ends with a sentence and exit code 2, other errors that the user
  can mend with their own codes, without a traceback. `--help` is the binary's docstring, its
  flags and nothing else.
  """
  sys.unraisablehook = _tell_unraisable
  absl_logging.set_verbosity(absl_logging.INFO)
  absl_logging.use_absl_handler()
  for talkative in ('absl', 'jax', 'orbax'):
    logging.getLogger(talkative).setLevel(logging.WARNING)
  logging.getLogger('mgjax').setLevel(logging.INFO)
  handler = absl_logging.get_absl_handler()
  handler.setFormatter(_Formatter('%(message)s'))
  handler.python_handler.setStream(_AboveBars())

  def guarded(arguments: Sequence[str]) -> None:
    words = list(arguments[1:])
    if commands and (not words or words.pop(0) not in commands):
      raise ConfigError(f'expected {" or ".join(commands)} as the first word; see --help')
    if words:
      raise ConfigError(f'unexpected argument {words[0]!r}; flags start with --')
    _check_required(arguments[1] if commands else '')
    # Not before: what needs no JAX, such as most wrong flags, shall not wait for it.
    when_imported('jax', leave_out_tpu, *([compilation_cache.use] if _CACHE.value else []))
    main(arguments)

  module = sys.modules[main.__module__]
  code = None
  try:
    try:
      app.run(
        lambda arguments: _report(guarded, arguments),
        flags_parser=lambda words: _parse(words, module),
      )
    finally:
      sys.stdout.flush()
  except SystemExit as end:
    code = end.code
  except KeyboardInterrupt:
    code = 130
  except BrokenPipeError:  # whoever read what is printed, such as `head`, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 141
  except Exception as error:
    traceback.print_exc()
    from mgjax.parallel import distributed

    if distributed.lost_peer(error):
      name = os.path.basename(sys.argv[0])
      print(f'{name}: {distributed.LOST}', file=sys.stderr)
    code = 1
  if code and 'jax' in sys.modules:
    from mgjax.parallel import distributed

    distributed.leave(code)
  sys.exit(code)


class _AboveBars(io.TextIOBase):
  """The standard error, on which lines go above the bars that stand there."""

  def write(self, text: str) -> int:
    """Writes; whoever drew a bar has imported what draws it."""
    bars = sys.modules.get('tqdm')
    beside = bars.tqdm.external_write_mode(sys.stderr) if bars else contextlib.nullcontext()
    with beside:
      return sys.stderr.write(text)

  def flush(self) -> None:
    """Flushes."""
    sys.stderr.flush()


class _Formatter(logging.Formatter):
  """Lines of the log may name strangers' files."""

  def format(self, record: logging.LogRecord) -> str:
    return printable(super().format(record), keep='\n\t')


def _tell_unraisable(unraisable) -> None:
  # What is left of writing or reading that failed, of which a sentence tells.
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def console() -> None:
  """Runs the binary that a console command names: `mgjax-train` is `python -m launch.train`."""
  name = os.path.basename(sys.argv[0]).partition('-')[2].removesuffix('.exe')
  module = importlib.import_module(f'{__package__}.{name}')
  run(module.main, getattr(module, 'COMMANDS', ()))


def _report(main, arguments) -> None:
  try:
    main(arguments)
  except MgjaxError as error:
    print(f'{os.path.basename(sys.argv[0])}: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
    name = os.path.basename(sys.argv[0])
    print(f'{name}: cannot use {error.filename!r}: {error.strerror}', file=sys.stderr)
    sys.exit(2)
  except OSError as error:
    if error.errno not in _FULL:
      raise
    name, place = os.path.basename(sys.argv[0]), error.filename or 'a file'
    print(f'{name}: cannot write {printable(place)}: {error.strerror}; make room', file=sys.stderr)
    sys.exit(StorageError.exit_code)


def _parse(arguments: Sequence[str], module) -> list[str]:
  if any(argument in ('--help', '-h', '-help', '--helpshort') for argument in arguments[1:]):
    _help(module)
  try:
    own, overrides = _split(arguments)
    words = flags.FLAGS(own)
    if overrides and 'config' not in flags.FLAGS:
      raise ConfigError(f'{overrides[0]}: this command takes no configuration')
    if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
      flags.FLAGS['config'].value = _overridden(flags.FLAGS.config, overrides)
    elif overrides:
      raise ConfigError(f'{overrides[0]} changes a configuration, but there is no --config=...')
    return words
  except MgjaxError as error:
    message, code = str(error), error.exit_code
  except Exception as error:  # a flag of the wrong type, or one that is not there
    message, code = str(error) or type(error).__name__, ConfigError.exit_code
  print(f'{os.path.basename(arguments[0])}: {message}', file=sys.stderr)
  raise SystemExit(code)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """Tells the overrides, --config.key=value or --config.key value, from the binary's own flags."""
  own, overrides = [], []
  words = iter(arguments)
  for word in words:
    if not re.match(r'--?(no)?config\.', word):
      own.append(word)
    elif '=' in word or word.lstrip('-').startswith('no'):
      overrides.append(word)
    else:
      overrides.append(f'{word}={next(words, "")}')
  return own, overrides


def _overridden(name: str, overrides: Sequence[str]):
  """Returns the configuration of a file with the values that the command line gives."""
  config = load_config(name)
  known = flatten(config.to_dict())
  for word in overrides:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', word)
    if match and match[1] not in known and not any(key.startswith(match[1] + '.') for key in known):
      raise ConfigError(did_you_mean(match[1], known))
  values = flags.FlagValues()
  words = ['', *overrides]
  config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=words)
  values(words)
  return values.config


def _help(module) -> None:
  print((module.__doc__ or '').strip(), end='\n\nFlags:\n')
  ours = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)} | {'cache'}
  for name in [*(each for each in _REQUIRED if each in ours), *sorted(ours - set(_REQUIRED))]:
    flag = flags.FLAGS[name]
    if name in _REQUIRED:
      needed = _REQUIRED[name]
      which = f' by {", ".join(needed.commands)}' * bool(needed.commands)
      told = ''.join(f', or --{other}' for other in needed.unless)
      told = f'required{which}{told}; as --{name}={shlex.quote(needed.example)}'
    else:
      told = f'default {flag.default!r}'
    print(f'  --{name} ({told})', ' '.join(flag.help.split()), sep='\n      ')
  raise SystemExit(0)


def _check_required(command: str) -> None:
  """Raises ConfigError for the first flag that the command needs and that is not given."""
  given = {name for name in flags.FLAGS if flags.FLAGS[name].value not in (None, '', [], False)}
  for name, needed in _REQUIRED.items():
    instead = {*needed.unless, *(['print_config'] if name != 'config' else [])}
    if name in given or given & instead or (needed.commands and command not in needed.commands):
      continue
    others = ''.join(f', or --{other}' for other in needed.unless)
    raise ConfigError(
      f'--{name} is missing; for example --{name}={shlex.quote(needed.example)}{others}'
    )


def condition(text: str) -> tuple[str, str]:
  """Reads 'name=value', of which the value may be a file.

  Raises:
    DataError: it is called as one, and there is none.
  """
  name, equals, given = text.partition('=')
  if not (name and equals and given):
    raise ConfigError(f'--condition={text}: expected name=value, as in first_frame=picture.png')
  if os.path.splitext(given)[1].lower() in _MEDIA:
    existing(f'condition {name!r}', given)
  return name, given


def existing(what: str, path: str) -> str:
  """Returns the path of a file or a folder.

  Raises:
    DataError: there is nothing at it.
  """
  if '://' not in path and not os.path.exists(path):
    raise DataError(f'{what}: there is no file {path!r}')
  return path


def file(name: str) -> Callable[[str], str]:
  """Returns what reads the path of a file that must be there, for the flag `name`."""
  return lambda path: existing(f'--{name}', path)


def output(*kinds: str) -> Callable[[str], str]:
  """Returns what reads where to write: a file of one of these kinds, or a folder."""

  def read(path: str) -> str:
    kind = os.path.splitext(path)[1]
    folder = not kind[1:].isalnum() or kind[1:].isdigit() or os.path.isdir(path)
    if not folder and kind not in kinds:
      raise ConfigError(f'--out={path}: {" and ".join(kinds)} can be written; name it so')
    return path

  return read


def size(text: str) -> tuple[int, int]:
  """Reads 'height,width'."""
  found = re.fullmatch(r'\s*([1-9]\d*)\s*,\s*([1-9]\d*)\s*', text)
  if not found:
    raise ConfigError(f'--size={text}: expected height,width in pixels, as in 256,256')
  return int(found[1]), int(found[2])


def mesh(text: str) -> dict[str, int]:
  """Reads 'context=8', sizes of axes of a mesh."""
  from mgjax.parallel.mesh import read_sizes

  return read_sizes(text)


def guidance(text: str | None) -> Any:
  """Reads '3', a scale for every condition, or 'text=3,source=1.5', scales by name in their order.

  An interval of flow time may follow a scale, as in '3@0.2-0.8' or 'text=3@0.2-0.8'.

  Returns:
    What `mgjax.load` takes as `guidance`; None for None.
  """
  if text is None:
    return None
  entries = [_ENTRY.fullmatch(entry.strip()) for entry in text.split(',')]
  try:
    scales = {entry['name']: _scale(entry) for entry in entries}
  except (TypeError, ValueError):  # another form, or no number
    scales = {}
  if len(scales) < len(entries) or (len(scales) > 1 and None in scales):
    raise ConfigError(
      f'--guidance={text}: expected a scale, as in 3, or scales of conditions by name, each once, '
      'as in text=3,source=1.5; an interval of flow time may follow a scale, as in text=3@0.2-0.8'
    )
  return scales.get(None, scales)


def _scale(entry: re.Match[str]) -> float | tuple[float, tuple[float, float]]:
  scale = float(entry['scale'])
  return scale if entry['low'] is None else (scale, (float(entry['low']), float(entry['high'])))
