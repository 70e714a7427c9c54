r"""Completes command lines in bash and zsh: names of flags, configurations and values.

source <(python -m launch.completion bash)
source <(python -m launch.completion zsh)
These lines belong into ~/.bashrc and, after compinit, into ~/.zshrc; where mgjax is installed,
mgjax-completion is the same. Then the tabulator completes mgjax-train, mgjax train and Python with
-m launch.train alike: --wo to --workdir=, --config=digits/v to --config=digits/video,
--config.model.d to the keys of that configuration, --solver= to the solvers.
"""

import importlib
import os
import re
import shlex
from collections.abc import Sequence

from absl import flags

from mgjax.core.config import flatten
from mgjax.core.config_files import all_configs, load_config

from . import command_line

# `words` is for the scripts: it prints what the command line in $MGJAX_LINE may go on with.
COMMANDS = ('bash', 'zsh', 'words')
_CONFIG_KEY = '--config.'

_BASH = r"""_mgjax_complete() {
  local program=${COMP_WORDS[0]/#\~\//$HOME/} line=${COMP_LINE:0:COMP_POINT} word head each
  local -a ask
  if [[ ${program##*/} == mgjax* ]]; then
    ask=("${program%mgjax*}mgjax-completion")
  elif [[ $line =~ \ -m\ +(mgjax\.)?launch\. ]]; then
    ask=("$program" -m "${BASH_REMATCH[1]}launch.completion")
  else
    return 0
  fi
  mapfile -t COMPREPLY < <(GLIBC_TUNABLES= MGJAX_LINE=$line "${ask[@]}" words 2>/dev/null)
  word=${line##*[[:space:]]}
  if [[ $COMP_WORDBREAKS == *=* ]]; then  # bash completes what follows the last of these
    head=${word%"${word##*[=:]}"}
    COMPREPLY=("${COMPREPLY[@]#"$head"}")
  fi
  for each in "${COMPREPLY[@]}"; do
    [[ $each == *[=.] ]] && compopt -o nospace
  done
  return 0
}
"""
_ZSH = r"""_mgjax_complete() {
  local program=${words[1]/#\~\//$HOME/} line="${words[1,CURRENT-1]} $PREFIX"
  local -a ask found open whole
  if [[ ${program:t} == mgjax* ]]; then
    ask=("${program%mgjax*}mgjax-completion")
  elif [[ $line =~ ' -m +(mgjax\.)?launch\.' ]]; then
    ask=($program -m "${match[1]}launch.completion")
  else
    (( $+functions[_python] )) && _python "$@" || _default
    return
  fi
  found=(${(f)"$(GLIBC_TUNABLES= MGJAX_LINE=$line $ask words 2>/dev/null)"})
  if (( $#found )); then
    open=(${(M)found:#*[=.]}) whole=(${found:#*[=.]})
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#whole )) && compadd -Q -S ' ' -- $whole
  else
    compset -P '*='
    _files
  fi
  return 0
}
"""
_PYTHONS = ('python', 'python3', 'python3.11', 'python3.12', 'python3.13')


def script(shell: str) -> str:
  """Returns what the shell is to read.

  Args:
    shell: 'bash' or 'zsh'.
  """
  names = ' '.join(('mgjax', *(f'mgjax-{name}' for name in command_line.binaries()), *_PYTHONS))
  if shell == 'zsh':
    return f'{_ZSH}compdef _mgjax_complete {names}\n'
  return f'{_BASH}complete -o bashdefault -o default -F _mgjax_complete {names}\n'


def candidates(line: str) -> list[str]:
  """Returns what the last word of a command line may become; none where only files will do.

  Args:
    line: up to the cursor, from the name of the program on.
  """
  words = _split(line)
  while words and re.match(r'\w+=', words[0]):  # variables that are set for the command
    words.pop(0)
  program, *words = words or ['']
  name = os.path.basename(program).removesuffix('.exe')
  if name.startswith('python'):
    if '-m' not in words[:-1]:
      return []
    module, *words = words[words.index('-m') + 1 :]
    if not words:
      package = f'{__package__}.'
      return _starting([f'{package}{each}' for each in command_line.binaries()], module)
    name = module.removeprefix('mgjax.').removeprefix('launch.')
  elif name == 'mgjax':
    if len(words) == 1:
      return _starting(command_line.binaries(), words[0])
    name = words.pop(0) if words else ''
  else:
    name = name.removeprefix('mgjax-')
  return _of_binary(name, words) if words and name in command_line.binaries() else []


def _split(line: str) -> list[str]:
  """Splits as a shell would; the last word is what stands before the cursor, maybe nothing."""
  for closing in ('', "'", '"'):  # a quotation may not have come to its end
    try:
      words = shlex.split(line + closing)
    except ValueError:
      continue
    return [*words, ''] if line[-1:].isspace() and not closing else words
  return line.split()


def _of_binary(name: str, words: Sequence[str]) -> list[str]:
  module = importlib.import_module(f'{__package__}.{name}')  # which defines its flags
  own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)} | {'cache'}
  known = {each: flags.FLAGS[each] for each in own}
  *before, last = words
  dashes, flag, equals, _ = re.fullmatch(r'(--?)?([\w.-]*)(=?)(.*)', last, re.DOTALL).groups()
  if dashes and equals:
    head = f'{dashes}{flag}='
    return _starting([f'{head}{value}' for value in _values(known, flag, before)], last)
  if 'config' in known and last.startswith(_CONFIG_KEY):
    return _starting([f'{_CONFIG_KEY}{key}=' for key in _config_of(before)], last)
  if dashes:
    yes = [f'--{each}' + '=' * (not flag.boolean) for each, flag in known.items()]
    no = [f'--no{each}' for each, flag in known.items() if flag.boolean]
    keys = [_CONFIG_KEY] * ('config' in known and last.startswith('--config'))
    return _starting([*yes, *(no if last.startswith('--no') else []), *keys, '--help'], last)
  asks = before[-1].lstrip('-') if before and before[-1].startswith('-') else ''
  if asks in known and not known[asks].boolean:
    return _starting(_values(known, asks, before), last)
  commands = getattr(module, 'COMMANDS', ())
  if before and not all(word.startswith('-') for word in before):
    return []
  return _starting(commands, last)


def _values(known: dict[str, flags.Flag], name: str, before: Sequence[str]) -> list[str]:
  """Returns the values of a flag that can be listed."""
  if name == 'config' and 'config' in known:
    return all_configs()
  if name.startswith('config.'):
    value = _config_of(before).get(name.removeprefix('config.'))
    return ['true', 'false'] if isinstance(value, bool) else []
  if name not in known:
    return []
  return list(getattr(known[name].parser, 'enum_values', ()))


def _config_of(words: Sequence[str]) -> dict:
  """Returns the values of the configuration that a command line names, if it is one of mgjax's."""
  found = re.search(r'(?:^|\n)--?config[=\n]([^\n]+)', '\n'.join(words))
  name = found[1] if found else ''
  if name.partition(':')[0].removesuffix('.py').removeprefix('configs/') not in all_configs():
    return {}  # a file is code, which shall not run before Enter is pressed
  return flatten(load_config(name).to_dict())


def _starting(words: Sequence[str], begin: str) -> list[str]:
  return sorted(word for word in words if word.startswith(begin))


def main(arguments) -> None:
  if arguments[1] != 'words':
    print(script(arguments[1]), end='')
    return
  for each in candidates(os.environ.get('MGJAX_LINE', '')):
    print(each)


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
