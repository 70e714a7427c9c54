"""Flags that are checked as they are read, before anything slow is imported."""

import contextlib
import os
import re
import shlex
from collections.abc import Callable
from typing import Any

from absl import flags

from mgjax.core.configuration.keys import LARGEST_INTEGER, LARGEST_SEED, join_list, split_list
from mgjax.core.errors import ConfigError, DataError
from mgjax.training.checkpoints.find_run import coming_with_mgjax, find_run, runs_near

flags.disclaim_key_flags()  # what is defined here is a flag of the binary that asked for it

_ENTRY = re.compile(r'((?P<name>[^=@]+)=)?(?P<scales>[^=]+)')
_SCALE = re.compile(r'(?P<scale>[^@]+)(@(?P<low>[^-]+)-(?P<high>[^-]+))?')
# As in mgjax.flow, which is not imported only to read flags.
SOLVERS = ('euler', 'midpoint', 'heun', 'unipc', 'dormand_prince')
SCHEDULES = ('linear', 'linear_quadratic', 'wan', 'diffusers')
# As in mgjax.sections.audio.extend.
WAYS = ('multi_diffusion', 'autoregressive', 'concatenate', 'whole')
# As in mgjax.core.precision, which brings JAX along.
WEIGHTS = ('float32', 'bfloat16', 'int8', 'fp8')
_MEDIA = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.mp4', '.mov', '.mkv', '.webm', '.wav')


def define(
  name: str, read: Callable[[str], Any], help: str, *, many: bool = False, default: Any = None
) -> flags.FlagHolder:
  """Defines a flag whose value is what `read` makes of the text; with `many` a list."""
  if many:
    return flags.DEFINE_multi(_Parser(read), None, name, [], help)
  return flags.DEFINE(_Parser(read), name, default, help)


def least(name: str, lowest: int, help: str) -> flags.FlagHolder:
  """Defines a flag of a whole number from `lowest` on, None if not given."""
  return flags.DEFINE_integer(name, None, help, lower_bound=lowest)


def seed(name: str, help: str) -> flags.FlagHolder:
  """Defines a flag of a seed of noise, 0 if not given."""
  return flags.DEFINE_integer(name, 0, help, lower_bound=0, upper_bound=LARGEST_SEED)


def within(name: str, lowest: float, highest: float | None, help: str) -> flags.FlagHolder:
  """Defines a flag of a number in a range, None if not given."""
  return flags.DEFINE_float(name, None, help, lower_bound=lowest, upper_bound=highest)


class _Parser(flags.ArgumentParser):
  def __init__(self, read: Callable[[str], Any]):
    self._read = read

  def parse(self, argument: str) -> Any:
    return self._read(argument)


def expert(text: str) -> str:
  """Reads 'directory@time' of --expert; the directory must hold a run."""
  directory, _, time = text.rpartition('@')
  return f'{run("expert")(directory or text)}@{time}'


def define_weights(help: str = 'Type of the kernels; as saved if not given.') -> flags.FlagHolder:
  """Defines --weights."""
  return flags.DEFINE_enum('weights', None, WEIGHTS, help)


def define_sampling(*names: str) -> tuple[flags.FlagHolder, ...]:
  """Defines those flags of `config.sample` that a command takes, all if none is named."""
  return tuple(_SAMPLING[name]() for name in names or _SAMPLING)


def define_mesh(help: str = 'Over devices, as context=8 (-1: all); one device if not given.'):
  """Defines --mesh."""
  return define('mesh', mesh, help)


def condition(text: str) -> tuple[str, str]:
  """Reads 'name=value'; raises DataError if the value is named like a file and there is none."""
  name, equals, value = text.partition('=')
  if not (name and equals and value):
    raise ConfigError(f'--condition={text}: expected name=value, as in first_frame=picture.png')
  if os.path.splitext(value)[1].lower() in _MEDIA:
    existing(f'condition {name!r}', value)
  return name, value


def existing(what: str, path: str) -> str:
  """Returns the path of a file or a folder; raises DataError if there is nothing at it."""
  if '://' not in path and not os.path.exists(path):
    raise DataError(f'{what}: there is no file {path!r}')
  return path


def file(name: str) -> Callable[[str], str]:
  """Returns what reads the path of a file that must be there, for the flag `name`."""
  return lambda path: existing(f'--{name}', path)


def files(name: str) -> Callable[[str], tuple[str, ...]]:
  """Returns what reads paths of files that must be there, 'a.jpg,b.jpg', for the flag `name`."""
  return lambda text: tuple(existing(f'--{name}', path) for path in paths(text))


def paths(text: str) -> list[str]:
  """Splits at commas, except escaped ones and those within an existing path."""
  parts = split_list(text)
  joined = []
  while parts:
    candidates = [','.join(parts[:count]) for count in range(1, len(parts) + 1)]
    there = [n for n, path in enumerate(candidates) if _is_there(path)]
    joined.append(candidates[max(there, default=0)])
    del parts[: max(there, default=0) + 1]
  return joined


def _is_there(path: str) -> bool:
  return os.path.exists(path) or os.path.exists(path.rpartition(':')[0])  # before a weight


def factor(text: str) -> int | float:
  """Reads the number of --factor: an int if it has digits alone."""
  try:
    number = int(text) if text.strip().isdecimal() else float(text)
    if 0 < number <= LARGEST_INTEGER:
      return number
  except ValueError:
    pass
  raise ConfigError(f'--factor={text:.80}: expected a number above 0, as in 2')


def price(text: str) -> float:
  """Reads dollars as '2.5' or '$2.5'."""
  with contextlib.suppress(ValueError):
    if 0 <= (number := float(text.removeprefix('$'))) <= LARGEST_INTEGER:
      return number
  raise ConfigError(f'--price={text:.80}: expected dollars a chip-hour, as in 2.5')


def share(text: str) -> tuple[int, int]:
  """Reads '0/4', the first of four shares."""
  match = re.fullmatch(r'(\d+)/([1-9]\d*)', text)
  if not match or int(match[1]) >= int(match[2]):
    raise ConfigError(f'--process={text}: expected one of four shares as 0/4 to 3/4')
  return int(match[1]), int(match[2])


def spans(text: str) -> list[tuple[float, float]]:
  """Reads '0-4,6-8', seconds of a sound."""
  try:
    pairs = [tuple(float(value) for value in span.split('-')) for span in text.split(',')]
    if all(0 <= begin < end <= LARGEST_INTEGER for begin, end in pairs):
      return [(begin, end) for begin, end in pairs]
  except ValueError:
    pass
  raise ConfigError(f'--known={text:.80}: expected seconds, as in 0-4,6-8')


def scorer(text: str) -> Any:
  """Reads a command that scores audio."""
  from mgjax.lab.evaluation.external_scorers import CommandScorer

  return CommandScorer(shlex.split(text))


def run(name: str) -> Callable[[str], str]:
  """Returns a parser of the work directory of another run, or of a name in `mgjax/weights`."""

  def read(path: str) -> str:
    workdir = os.fspath(find_run(path))
    if '://' not in path and not os.path.exists(workdir):
      raise ConfigError(
        f'--{name}: there is no run {path!r}; {runs_near(path) or coming_with_mgjax()}'
      )
    return workdir

  return read


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
  match = re.fullmatch(r'\s*([1-9]\d*)\s*,\s*([1-9]\d*)\s*', text)
  if not match:
    raise ConfigError(f'--size={text}: expected height,width in pixels, as in 256,256')
  return int(match[1]), int(match[2])


def mesh(text: str) -> dict[str, int]:
  """Reads 'context=8', sizes of axes of a mesh."""
  from mgjax.parallel.mesh import read_sizes

  return read_sizes(text)


def guidance(text: str | None) -> Any:
  """Reads '3', a scale for every condition, or 'text=3,source_video=1.5', scales by name in order.

  An interval of flow time may follow a scale, as in `3@0.2-0.8` or `text=3@0.2-0.8`, and a plus
  another one: `4@0-0.125+3@0.125-1`. Returns what `mgjax.load` takes as `guidance`; None for None.
  """
  if text is None:
    return None
  entries = [_ENTRY.fullmatch(entry.strip()) for entry in text.split(',')]
  try:
    scales = {entry['name']: _scales(entry['scales']) for entry in entries}
  except (TypeError, ValueError):  # another form, or no number
    scales = {}
  if len(scales) < len(entries) or (len(scales) > 1 and None in scales):
    raise ConfigError(
      f'--guidance={text}: expected a scale, as in 3, or scales of conditions by name, each once, '
      'as in text=3,source_video=1.5; an interval of flow time may follow a scale, as in '
      'text=3@0.2-0.8 or text=4@0-0.125+3@0.125-1'
    )
  return scales.get(None, scales)


def _scales(text: str) -> Any:
  """Returns a scale, one in an interval, or several of these."""
  scales = [_scale(_SCALE.fullmatch(part.strip())) for part in text.split('+')]
  if len(scales) > 1 and not all(isinstance(scale, tuple) for scale in scales):
    raise ValueError(text)
  return tuple(scales) if len(scales) > 1 else scales[0]


def _scale(part: re.Match[str] | None) -> float | tuple[float, tuple[float, float]]:
  if part is None:
    raise ValueError
  scale, *interval = (float(group or 0) for group in part.group('scale', 'low', 'high'))
  if not abs(scale) <= LARGEST_INTEGER or not 0 <= interval[0] <= interval[1] <= 1:
    raise ValueError(part[0])
  return scale if part['low'] is None else (scale, (interval[0], interval[1]))


_SAMPLING = {
  'steps': lambda: least('steps', 1, 'Sampling steps; the run decides if not given.'),
  'guidance': lambda: define(
    'guidance',
    guidance,
    'Scale of every condition, or by name in order: source_video=1.5,text=7@0.2-0.8.',
  ),
  'solver': lambda: flags.DEFINE_enum('solver', None, SOLVERS, 'The run decides if not given.'),
  'schedule': lambda: flags.DEFINE_enum(
    'schedule', None, SCHEDULES, 'Of the steps; the run decides if not given.'
  ),
  'reuse': lambda: within(
    'reuse',
    0,
    None,
    'Video: relative change of the velocity below which a step takes the last one, as .2.',
  ),
  'shifts': lambda: least(
    'shifts', 0, 'Video: so many times sampled again with the tokens half a block further; even.'
  ),
  'lora': lambda: define(
    'lora',
    lambda text: join_list(paths(text)),
    'Adapters: files, folders or runs, as style.safetensors:0.8,runs/other:0.5.',
  ),
  'expert': lambda: define(
    'expert',
    expert,
    'A run of the same model and from which flow time on it answers: runs/late@0.4.',
  ),
  'expert_lora': lambda: define(
    'expert_lora',
    lambda text: join_list(paths(text)),
    'Adapters of the expert, written as those of --lora, which change the run alone.',
  ),
  'weights': define_weights,
}
