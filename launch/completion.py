"""Completes command lines in bash, and in zsh after `autoload -U bashcompinit && bashcompinit`.

`source <(mgjax --completion)` tells the shell. It asks `mgjax --complete LINE` for what may stand
at the end of a line: commands, their flags and first words, values of flags that have a few, names
of configurations, and their keys.
"""

import contextlib
import importlib
from collections.abc import Iterable
from types import ModuleType

from absl import flags

from mgjax.core.configuration.config_files import all_configs, load_config
from mgjax.core.configuration.keys import flatten
from mgjax.core.errors import ConfigError

from .command_line import taken_by

SCRIPT = """_mgjax() {
  local IFS=$'\\n'
  COMPREPLY=($(mgjax --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o default -o nospace -F _mgjax mgjax"""


def complete(line: str, commands: Iterable[str]) -> list[str]:
  """Returns the completions of the last word of a line, or of the value after its `=`.

  What ends a word ends with a space. Without an answer the shell completes names of files.
  """
  _, *words = line.split(' ')
  words = [word for word in words[:-1] if word] + words[-1:]
  if len(words) < 2:
    return _beginning([f'{name} ' for name in (*commands, '--help', '--version')], words)
  if words[0] not in commands:
    return []
  module = importlib.import_module(f'{__package__}.{words[0]}')
  word = words[-1]
  name, equals, _ = word.partition('=')
  if equals:
    candidates = [f'{name}={value} ' for value in _values(name.lstrip('-'))]
    return [candidate.removeprefix(f'{name}=') for candidate in _beginning(candidates, words)]
  if word.startswith('--config.'):
    return _beginning([f'--config.{key}=' for key in _keys(words)], words)
  if word.startswith('-'):
    return _beginning(sorted(_flags(module, words[1])), words)
  return _beginning([f'{command} ' for command in getattr(module, 'COMMANDS', ())], words)


def _beginning(candidates: Iterable[str], words: list[str]) -> list[str]:
  return [candidate for candidate in candidates if candidate.startswith(words[-1] if words else '')]


def _flags(module: ModuleType, word: str) -> Iterable[str]:
  own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)}
  own |= {'config', 'print_config'} & set(flags.FLAGS)
  yield '--help '
  for name in taken_by(word, own) if word in getattr(module, 'COMMANDS', ()) else own:
    yield f'--{name} ' if flags.FLAGS[name].boolean else f'--{name}='


def _values(name: str) -> Iterable[str]:
  if name == 'config':
    return all_configs()
  return getattr(flags.FLAGS[name].parser, 'enum_values', ()) if name in flags.FLAGS else ()


def _keys(words: list[str]) -> Iterable[str]:
  for word in words:
    if word.startswith('--config='):
      with contextlib.suppress(ConfigError):
        return flatten(load_config(word.partition('=')[2]).to_dict())
  return ()
