"""What every command does with its command line: help, configurations, errors, exit codes."""

import ast
import contextlib
import errno
import gc
import importlib
import io
import json
import logging
import os
import pathlib
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from mgjax.core.configuration.config_files import load_config
from mgjax.core.configuration.keys import LARGEST_INTEGER, did_you_mean, flatten
from mgjax.core.errors import ConfigError, MgjaxError, StorageError, printable
from mgjax.core.version import __version__
from mgjax.parallel import compilation_cache
from mgjax.parallel.tpu_presence import leave_out_tpu
from mgjax.training.checkpoints.run_references import ALLOW

from . import flag_values, moved

_CACHE = flags.DEFINE_bool(
  'cache', True, 'Keep compiled programs in ~/.cache/mgjax for the next start; --nocache does not.'
)
_ALLOW = flags.DEFINE_bool(
  'allow_outside',
  False,
  'Let a published run read what its config.json names in other folders and at other hosts.',
)
_HERE = pathlib.Path(__file__).parent
# Files here that are no commands.
_SHARED = ('__init__', 'command_line', 'completion', 'flag_values', 'moved')
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HELP = ('--help', '-h', '-help', '--helpshort')
_VERSION = ('--version', '-version', '-V')

flags.disclaim_key_flags()  # what is defined here is a flag of the command that asked for it


class _Required(NamedTuple):
  example: str
  commands: Sequence[str]  # the first words that need it; all if there are none
  unless: Sequence[str]  # other flags, one of which will do instead


_REQUIRED: dict[str, _Required] = {}
_WORDS_OF: dict[str, list[str]] = {}  # flag -> first words that take it; all if it is not here


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

  `commands` are first words of the command that need it, by default all; `unless` are flags with
  which it may be missing: --print_config always is one, but for --config.
  """
  _REQUIRED[name] = _Required(example, commands, unless)
  return define(name, None, help)


def flags_of(words: Mapping[str, Sequence[flags.FlagHolder]]) -> None:
  """Says which flags each first word of a command takes; with another word they are refused."""
  for word, holders in words.items():
    names = [holder.name for holder in holders]
    for name in [*names, *(['print_config'] if 'config' in names else [])]:
      _WORDS_OF.setdefault(name, []).append(word)


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


def print_config(config) -> bool:
  """Prints the configuration if --print_config asks for it, and says whether it did."""
  if flags.FLAGS.print_config:
    print(json.dumps(config.to_dict(), indent=2))
  return flags.FLAGS.print_config


def config_words() -> list[str]:
  """Returns --config=... and its overrides from the command line, for another command."""
  own, overrides = _split(sys.argv[1:])
  index = next(at for at, word in enumerate(own) if re.fullmatch('--?config(=.*)?', word))
  return [f'--config={own[index].partition("=")[2] or own[index + 1]}', *overrides]


def define_fields(name: str, help: str, **limits: tuple[type, float, float]) -> flags.FlagHolder:
  """Defines a flag of several numbers, as in --reencode=gop=16: name=(type, least, most)."""

  def read(text: str) -> dict[str, Any]:
    values = {}
    for key, equals, value in (entry.partition('=') for entry in text.split(',')):
      kind, least, most = limits.get(key, (str, 0, 0))
      try:
        values[key] = kind(value)
        right = bool(equals) and least <= values[key] <= min(most, LARGEST_INTEGER)
      except (ValueError, TypeError):
        right = False
      if not right:
        known = ', '.join(f'{field}={a:g} to {b:g}' for field, (_, a, b) in limits.items())
        raise ConfigError(f'--{name}={text}: expected some of {known}')
    return values

  return flag_values.define(name, read, help)


def run(
  main: Callable[[Sequence[str]], None], commands: Sequence[str] = (), usual: str = ''
) -> None:
  """Runs a command: `main` gets its name and, if it has `commands`, the word given or `usual`.

  A wrong flag or configuration ends with a sentence and exit code 2, other errors that the user
  can mend with their own codes, without a traceback. `--help` is the docstring of the file, its
  flags and nothing else.
  """
  sys.unraisablehook = _tell_unraisable
  gc.set_threshold(20_000, 10, 10)  # of 700, imports and tracing make a tenth of a start
  _log_in_sentences()
  module = sys.modules[main.__module__]
  code = None

  def guarded(arguments: Sequence[str]) -> None:
    arguments = [*arguments, usual] if usual and len(arguments) == 1 else arguments
    words = list(arguments[1:])
    if commands and not words:
      moved.tell_word(_name_of(module), sys.argv[1:])
    if commands and (not words or words.pop(0) not in commands):
      raise ConfigError(f'expected {" or ".join(commands)} as the first word; see --help')
    if words:
      raise ConfigError(f'unexpected argument {words[0]!r}; flags start with --')
    command = arguments[1] if commands else ''
    _check_taken(command)
    _check_required(command)
    if _ALLOW.value:
      os.environ[ALLOW] = '1'
    _set_up_jax()
    main(arguments)

  try:
    try:
      app.run(
        lambda arguments: _in_sentences(guarded, arguments),
        flags_parser=lambda words: _parse(words, module),
      )
    finally:
      sys.stdout.flush()
  except SystemExit as end:
    code = end.code
  except KeyboardInterrupt:
    code = 130
  except BrokenPipeError:  # who reads what is printed, such as `head`, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 141
  except Exception as error:
    with contextlib.suppress(OSError):
      traceback.print_exc()
    from mgjax.parallel import distributed

    if distributed.lost_peer(error):
      _say(distributed.LOST)
    code = 1
  if code and 'jax' in sys.modules:
    from mgjax.parallel import distributed

    distributed.leave(code)
  sys.exit(code)


def _set_up_jax() -> None:
  """Has JAX keep compiled programs and leave alone a TPU that is not there."""
  try:
    leave_out_tpu()
  except Exception:  # a damaged installation, of which launch.doctor tells
    return
  if _CACHE.value:
    compilation_cache.use()
  else:
    compilation_cache.leave_out()


def _say(sentence: str) -> None:
  sentence = re.sub(r'(\S{1000})\S+', r'\1...', printable(sentence, '\n'))  # or it goes on and on
  with contextlib.suppress(OSError):  # a log on a disk that is full
    print(f'{os.path.basename(sys.argv[0])}: {sentence}', file=sys.stderr)


def _log_in_sentences() -> None:
  absl_logging.set_verbosity(absl_logging.INFO)
  absl_logging.use_absl_handler()
  for talkative in ('absl', 'jax', 'orbax', 'httpx', 'httpx2'):
    logging.getLogger(talkative).setLevel(logging.WARNING)
  logging.getLogger('mgjax').setLevel(logging.INFO)
  handler = absl_logging.get_absl_handler()
  handler.setFormatter(_Formatter('%(message)s'))
  handler.python_handler.setStream(_AboveBars())


class _AboveBars(io.TextIOBase):
  """The standard error, on which lines go above the bars that stand there."""

  def write(self, text: str) -> int:
    """Writes; a process that drew a bar has imported what draws it."""
    bars = sys.modules.get('tqdm')
    beside = bars.tqdm.external_write_mode(sys.stderr) if bars else contextlib.nullcontext()
    with beside:
      return sys.stderr.write(text)

  def flush(self) -> None:
    """Flushes."""
    sys.stderr.flush()


class _Formatter(logging.Formatter):
  """Lines of the log may name untrusted files."""

  def format(self, record: logging.LogRecord) -> str:
    return printable(super().format(record), keep='\n\t')


def _tell_unraisable(unraisable) -> None:
  # What is left of writing or reading that failed, of which a sentence tells.
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def console() -> None:
  """Runs the command that a console script names: `mgjax-train` is `python -m launch.train`.

  `mgjax train` is the same; `mgjax` alone lists the commands.
  """
  name = os.path.basename(sys.argv[0]).removesuffix('.exe').partition('-')[2]
  if not name:
    name = sys.argv.pop(1) if len(sys.argv) > 1 else '--help'
    _tell_version([name])
    _complete(name)
    if name in _HELP:
      print(
        'mgjax COMMAND --help has the flags of a command; source <(mgjax --completion) has bash '
        'complete them:'
      )
      print(*(f'  {command:12}  {_summary(command)}' for command in binaries()), sep='\n')
      raise SystemExit(0)
    sys.argv[0] = f'mgjax-{name}'
  if name in moved.MOVED:
    moved.tell(name, sys.argv[1:], 'mgjax ')
  if name not in binaries():
    hint = did_you_mean(name, binaries()).partition('; ')[2] or 'mgjax --help lists them'
    print(f'mgjax: there is no command {printable(name)}; {hint}', file=sys.stderr)
    raise SystemExit(ConfigError.exit_code)
  module = importlib.import_module(f'{__package__}.{name}')
  run(module.main, getattr(module, 'COMMANDS', ()), getattr(module, 'USUAL', ''))


def _complete(name: str) -> None:
  if name in ('--completion', '--complete'):
    from . import completion

    line = ' '.join(sys.argv[1:])
    print(
      *([completion.SCRIPT] if name == '--completion' else completion.complete(line, binaries())),
      sep='\n',
    )
    raise SystemExit(0)


def _tell_version(words: Sequence[str]) -> None:
  if any(word in _VERSION for word in words):
    print(f'mgjax {__version__}')
    raise SystemExit(0)


def binaries() -> list[str]:
  """Lists the names of the commands, the files beside this one but for what they share."""
  return sorted(path.stem for path in _HERE.glob('*.py') if path.stem not in _SHARED)


def _summary(name: str) -> str:
  text = ast.get_docstring(ast.parse((_HERE / f'{name}.py').read_text())) or ''
  return text.partition('\n')[0]


def _in_sentences(main, arguments) -> None:
  """Runs `main`; an error that the user can mend ends with a sentence and its exit code."""
  try:
    main(arguments)
  except MgjaxError as error:
    _say(str(error))
    sys.exit(error.exit_code)
  except OSError as error:
    named = f'{os.fsdecode(error.filename)!a:.200}' if error.filename is not None else 'a file'
    if error.errno in _FULL:
      _say(f'cannot write {named}: {error.strerror}; make room')
      sys.exit(StorageError.exit_code)
    if error.filename is None:
      raise
    _say(f'cannot use {named}: {error.strerror}; give another path')
    sys.exit(ConfigError.exit_code)


def _parse(arguments: Sequence[str], module) -> list[str]:
  _tell_version(arguments[1:])
  if any(argument in _HELP for argument in arguments[1:]):
    _help(module, next((word for word in arguments[1:] if not word.startswith('-')), ''))
  try:
    own, overrides = _split(arguments)
    words = flags.FLAGS(own)
    _check_numbers()
    if overrides and 'config' not in flags.FLAGS:
      raise ConfigError(f'{overrides[0]}: this command takes no configuration')
    if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
      flags.FLAGS['config'].value = _overridden(flags.FLAGS.config, overrides)
    elif overrides:
      raise ConfigError(f'{overrides[0]} changes a configuration, but there is no --config=...')
    return words
  except MgjaxError as error:
    message = str(error)
    code = error.exit_code
  except Exception as error:  # a flag of the wrong type, or one that is not there
    message = str(error) or type(error).__name__
    code = ConfigError.exit_code
  _say(message)
  raise SystemExit(code)


def _check_numbers() -> None:
  """Raises ConfigError for a flag with a number that no device has."""
  for name in flags.FLAGS:
    value = flags.FLAGS[name].value
    own = getattr(flags.FLAGS[name].parser, 'upper_bound', None)  # checked as it was read
    most = own or (LARGEST_INTEGER if isinstance(value, int) else sys.float_info.max)
    if isinstance(value, int | float) and not abs(value) <= most:
      raise ConfigError(f'--{name}={value}: expected a number up to {most:g}')


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """Tells the overrides, --config.key=value or --config.key value, from the command's own flags."""
  own = []
  overrides = []
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
  # The last of a key counts; of tuples `config_flags` would join all.
  last = {word.partition('=')[0].lstrip('-').removeprefix('no'): word for word in overrides}
  for word in overrides:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', word)
    if match and match[1] not in known and not any(key.startswith(match[1] + '.') for key in known):
      raise ConfigError(did_you_mean(match[1], known))
  values = flags.FlagValues()
  words = ['', *last.values()]
  config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=words)
  values(words)
  return values.config


def _help(module, command: str) -> None:
  print(_about(module, command), end='\n\nFlags:\n')
  ours = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)} | {'cache'}
  commands = getattr(module, 'COMMANDS', ())
  if command in commands:
    ours = taken_by(command, ours)
  first = [*getattr(module, 'FIRST', ()), *_REQUIRED]
  for name in sorted(ours, key=lambda name: (first.index(name) if name in first else 99, name)):
    flag = flags.FLAGS[name]
    needed = _REQUIRED.get(name)
    if needed and (command not in commands or not needed.commands or command in needed.commands):
      which = f' by {", ".join(needed.commands)}' * (bool(needed.commands) and not command)
      details = ''.join(f', or --{other}' for other in needed.unless if other in ours)
      details = f'required{which}{details}; as --{name}={shlex.quote(needed.example)}'
    else:
      details = f'default {flag.default!r}'
    words = _WORDS_OF.get(name, commands)
    if command not in commands and len(words) < len(commands):
      details = f'{details}; of {", ".join(words)}'
    print(f'  --{name} ({details})', ' '.join(flag.help.split()), sep='\n      ')
  raise SystemExit(0)


def _name_of(module) -> str:
  return pathlib.Path(module.__file__).stem


def _about(module, command: str) -> str:
  """Returns what a command does; of a first word its own paragraphs, where there are such."""
  first, *others = (module.__doc__ or '').strip().split('\n\n')
  own = [part for part in others if f'{_name_of(module)} {command} --' in part]
  return '\n\n'.join([first, *(own if command and own else others)])


def taken_by(command: str, names: Iterable[str]) -> set[str]:
  """Returns the flags that the first word of a command takes."""
  return {name for name in names if command in _WORDS_OF.get(name, [command])}


def _check_taken(command: str) -> None:
  """Raises ConfigError for a flag that this first word of the command does not take."""
  for name, words in _WORDS_OF.items():
    if flags.FLAGS[name].present and command not in words:
      raise ConfigError(
        f'--{name} is a flag of {", ".join(words)}; {command} does not take it. '
        f'{command} --help lists what it takes'
      )


def _check_required(command: str) -> None:
  """Raises ConfigError for the first flag that the command needs and that is not given."""
  values = {name: flags.FLAGS[name].value for name in flags.FLAGS}
  set_flags = {
    name for name, value in values.items() if value or (value == 0 and value is not False)
  }
  for name, needed in _REQUIRED.items():
    instead = {*needed.unless, *(['print_config'] if name != 'config' else [])}
    if (
      name in set_flags
      or set_flags & instead
      or (needed.commands and command not in needed.commands)
    ):
      continue
    others = ''.join(f', or --{other}' for other in needed.unless)
    raise ConfigError(
      f'--{name} is missing; for example --{name}={shlex.quote(needed.example)}{others}'
    )
