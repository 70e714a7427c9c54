r"""Compares what two checkouts of mgjax compute on one machine: every byte must be the same.

git worktree add ../base a3e41b9d
python tests/tools/compare_checkouts.py compare ../base .
python tests/tools/compare_checkouts.py compare ../base . --only='samples/digits*'

Each checkout runs in processes of its own, with this interpreter, XLA's default flags and one CPU
device, and is found by PYTHONPATH alone. Both use the weights of the first checkout, or those of
--weights. The sections are:

  configs  every configuration file, and every argument that the first checkout's pages and
           docstrings show, as it is resolved; a key may be new in the second checkout if it says
           what runs did before (mgjax/core/configuration/renamed_keys.py)
  digests  the digest of every run of the experiments in configs/scaling and of every record
  claims   the page of claims, made of the checkout's records
  plans    the text of plans of 30B models
  train    every trainable component after two steps: state, metrics, saved configuration
  methods  the same of further objectives and optimizers, which needs `train`; only if --sections
           names it
  samples  a sample of every shipped model
  weights  the shipped files themselves, each checkout's own; only if --sections names it

Prints a line an item. Ends with 0 if all are equal, 1 if one differs or fails, 2 if the arguments
are wrong. `compare X X --fresh` says whether a checkout agrees with itself.

Results are kept in --keep by commit, so comparing with the same base again takes half the time. A
checkout with uncommitted changes is always computed anew.

python tests/tools/compare_checkouts.py record . --out=/tmp/items --sections=train

records one checkout.

python tests/tools/compare_checkouts.py golden ../base --out=/tmp/items

records what the suite keeps of a release and writes tests/golden/shipped.npz, the work directories
tests/golden/workdirs and, of these, workdirs.npz; see tests/golden/test_releases.py.
"""

import argparse
import concurrent.futures
import difflib
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
KEYS = HERE.parent.parent / 'mgjax/core/configuration/renamed_keys.py'
GOLDEN = HERE.parent / 'golden'
WORKER = HERE / 'checkout_items.py'
USUAL = ('configs', 'digests', 'claims', 'plans', 'train', 'samples')
SECTIONS = (*USUAL, 'methods', 'golden', 'weights')
# Settings that would make a process compute otherwise than a user's does.
UNSET = re.compile(r'XLA_|JAX_|MGJAX_|PYTHON|LIBTPU_|TF_')
WORKERS: list[subprocess.Popen] = []  # that were started
# Half of the time of compiling; what the suite keeps is compared within a tolerance.
QUICK = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
CONFIG = 'config.json'  # a run's, beside its arrays
SHOWN = 12  # lines of a difference
ARGUMENT = re.compile(r'(?<![\w/])(?:configs/)?((?:\w+/)*\w+)(?:\.py)?:([\w./,-]+)')


class UsageError(Exception):
  """The arguments are wrong."""


def listed_configs(checkout: pathlib.Path) -> list[str]:
  """Lists configuration files, and name:argument for every argument that a text shows."""
  root = checkout / 'configs'
  files = {
    path.relative_to(root).with_suffix('').as_posix()
    for path in root.rglob('*.py')
    if 'def get_config' in path.read_text()
  }
  texts = [*checkout.glob('*.md'), checkout / 'Makefile']
  for folder, kind in (('docs', '*.md'), ('configs', '*.py'), ('launch', '*'), ('mgjax', '*.py')):
    texts += [path for path in (checkout / folder).rglob(kind) if path.suffix != '.pyc']
  shown = set()
  for path in filter(pathlib.Path.is_file, texts):
    for name, argument in ARGUMENT.findall(path.read_text()):
      if name in files:
        shown.add(f'{name}:{argument.rstrip(".,")}')
  return sorted(files | shown)


def git(checkout: pathlib.Path, *words: str) -> str:
  """Returns what git prints, '' if that fails."""
  asked = ['git', '-C', os.fspath(checkout), *words]
  return subprocess.run(asked, capture_output=True, text=True).stdout.strip()


def fingerprint(folder: pathlib.Path) -> str:
  """Returns a digest of the names and bytes of all files below a folder."""
  found = hashlib.sha256()
  for path in sorted(path for path in folder.rglob('*') if path.is_file()):
    found.update(path.relative_to(folder).as_posix().encode() + b'\0')
    found.update(hashlib.sha256(path.read_bytes()).digest())
  return found.hexdigest()


def machine() -> list[str]:
  """Lists what results may depend on besides the checkout."""
  packages = (f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'jaxlib', 'numpy'))
  cpu = pathlib.Path('/proc/cpuinfo')
  flags = re.findall(r'^(?:flags|model name).*$', cpu.read_text(), re.M) if cpu.exists() else []
  cores = str(os.cpu_count())
  return [sys.version, platform.platform(), cores, *packages, *sorted(set(flags))]


def make_view(checkout: pathlib.Path, weights: pathlib.Path, view: pathlib.Path) -> None:
  """Makes a folder of links that is the checkout, but for its weights."""
  shutil.rmtree(view, ignore_errors=True)
  (view / 'mgjax').mkdir(parents=True)
  for path in checkout.iterdir():
    if path.name not in ('mgjax', '.git', '.venv'):
      (view / path.name).symlink_to(path)
  for path in (checkout / 'mgjax').iterdir():
    if path.name != 'weights':
      (view / 'mgjax' / path.name).symlink_to(path)
  (view / 'mgjax' / 'weights').symlink_to(weights)


def record(
  checkout: pathlib.Path,
  weights: pathlib.Path,
  configs: Sequence[str],
  sections: Sequence[str],
  only: str,
  out: pathlib.Path,
  compiled: pathlib.Path | None = None,
  jobs: int = 1,
  flags: str = '',
) -> None:
  """Makes the items of a checkout in `out`, each section in a process; those there are kept."""
  out.mkdir(parents=True, exist_ok=True)
  (out / 'configs.json').write_text(json.dumps(list(configs)))
  with tempfile.TemporaryDirectory() as folder:
    view = pathlib.Path(folder) / 'view'
    make_view(checkout, weights, view)
    environment = {name: text for name, text in os.environ.items() if not UNSET.match(name)}
    environment |= {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.fspath(view)}
    environment |= {'XLA_FLAGS': flags} if flags else {}
    if compiled:
      environment['JAX_COMPILATION_CACHE_DIR'] = os.fspath(compiled)
    else:
      environment['JAX_ENABLE_COMPILATION_CACHE'] = '0'

    def run(section: str) -> None:
      asked = [sys.executable, WORKER, section, f'--out={out}', f'--weights={weights}']
      asked += [f'--checkout={checkout}', f'--configs={out / "configs.json"}', f'--only={only}']
      log = out / f'{section}.log'
      with log.open('w') as errors:
        worker = subprocess.Popen(asked, cwd=view, env=environment, stderr=errors)
        WORKERS.append(worker)
        code = worker.wait()
      if code:
        print(f'  {section}: ended with {code}:\n{log.read_text()[-3000:]}')
        (out / section).mkdir(exist_ok=True)
        (out / section / 'process.error').write_text(log.read_text()[-3000:])

    chosen = [section for section in sections if wanted(section, only)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      list(pool.map(run, chosen))


def end(*_) -> None:
  """Ends with what was started here; threads would wait for it."""
  for worker in WORKERS:
    worker.kill()  # training takes SIGTERM for a notice to stop after this step
  sys.exit(143)


def wanted(section: str, only: str) -> bool:
  """Says whether a section may have items that a pattern names."""
  return fnmatch.fnmatch(section, only.partition('/')[0])


def items(folder: pathlib.Path, sections: Sequence[str], only: str) -> dict[str, pathlib.Path]:
  """Returns the files of recorded items by section/name."""
  found = {}
  section, slash, item = only.partition('/')
  pattern = f'{section}{slash}{item.replace("/", ".")}'
  for section in sections:
    for path in sorted((folder / section).glob('*')):
      name = f'{section}/{path.stem}'
      if path.suffix in ('.txt', '.npz', '.error') and fnmatch.fnmatch(name, pattern):
        found[name] = path
  return found


def difference(first: pathlib.Path, second: pathlib.Path) -> str:
  """Says how two items differ; '' if they are equal."""
  for which, path in (('first', first), ('second', second)):
    if path.suffix == '.error':
      return f'failed in the {which} checkout: {path.read_text().strip()[-1500:]}'
  if first.suffix != second.suffix:
    return f'{first.suffix} in the first checkout, {second.suffix} in the second'
  if first.suffix == '.txt':
    old, new = (path.read_text().splitlines() for path in (first, second))
    if first.read_bytes() == second.read_bytes():
      return ''
    if first.parent.name == 'configs' and '{' in (old[0], new[0]):
      old, new = (json.loads(path.read_text()) for path in (first, second))
      new = without_new(new, old, added_keys())
      if old == new:  # 1 and 1.0 as well
        return ''
      old, new = (json.dumps(each, indent=1).splitlines() for each in (old, new))
    lines = list(difflib.unified_diff(old, new, 'first', 'second', lineterm='', n=1))
    return '\n'.join(
      lines[:SHOWN] + [f'... {len(lines) - SHOWN} more lines'] * (len(lines) > SHOWN)
    )
  with np.load(first) as old, np.load(second) as new:
    arrays, others = dict(old), dict(new)
  saved = [json.loads(bytes(each.pop(CONFIG, b'{}'))) for each in (arrays, others)]
  saved[1] = without_new(saved[1], saved[0], added_keys())
  told = [f'{CONFIG}: other fields'] * (saved[0] != saved[1])
  return '\n'.join([*told, *array_differences(arrays, others)][:SHOWN])


def added_keys() -> dict[str, Any]:
  """Returns keys that configurations have gained, with what runs did before."""
  usual: dict[str, Any] = {}
  for rows in runpy.run_path(str(KEYS))['ADDED'].values():
    usual |= rows
  return usual


def without_new(fields: Any, before: Any, usual: dict[str, Any], path: str = '') -> Any:
  """Returns a configuration without keys that `before` lacks and that say what runs did then."""
  if not isinstance(fields, dict):
    return fields
  before = before if isinstance(before, dict) else {}
  kept = {}
  for key, value in fields.items():
    value = without_new(value, before.get(key), usual, f'{path}.{key}')
    names = (name for name in usual if f'{path}.{key}'.endswith(f'.{name}'))
    if key in before or not (value == {} or any(value == usual[name] for name in names)):
      kept[key] = value
  return kept


def array_differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> Iterator[str]:
  """Yields a line an array that differs."""
  for name in sorted(old.keys() | new.keys()):
    if name not in new or name not in old:
      yield f'{name}: only in the {"first" if name in old else "second"} checkout'
      continue
    a, b = old[name], new[name]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
      yield f'{name}: {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}'
    elif a.tobytes() != b.tobytes():
      place = np.unravel_index(np.argmax(np.atleast_1d(a != b)), np.atleast_1d(a).shape)
      most = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
      share = np.mean(a != b)
      yield (
        f'{name}: {share:.2%} of {a.size} numbers differ, by at most {most:.3g}; first at '
        f'{tuple(map(int, place))}: {np.atleast_1d(a)[place]} and {np.atleast_1d(b)[place]}'
      )


def checkout_of(path: str) -> pathlib.Path:
  """Returns an absolute path. Raises UsageError if no checkout is there."""
  found = pathlib.Path(path).resolve()
  if not (found / 'mgjax' / 'api.py').is_file():
    raise UsageError(f'{path!r} is not a checkout of mgjax: it has no mgjax/api.py')
  return found


def weights_of(given: str, checkout: pathlib.Path) -> pathlib.Path:
  """Returns the folder of weights. Raises UsageError if there are none."""
  found = pathlib.Path(given).resolve() if given else checkout / 'mgjax' / 'weights'
  if not any(found.rglob('weights.safetensors')):
    raise UsageError(f'--weights={found}: there is no weights.safetensors below it')
  return found


def sections_of(given: str) -> list[str]:
  """Returns the names of sections. Raises UsageError if one is unknown."""
  names = given.split(',')
  if not set(names) <= set(SECTIONS):
    raise UsageError(f'--sections={given}: expected some of {",".join(SECTIONS)}')
  return names


def kept_folder(
  keep: pathlib.Path, checkout: pathlib.Path, weights: pathlib.Path, configs: Sequence[str]
) -> tuple[pathlib.Path, pathlib.Path | None]:
  """Returns where results of a checkout are kept, and its compiled programs.

  Both are new for a checkout with changes, which no commit names.
  """
  commit = git(checkout, 'rev-parse', 'HEAD')
  if not commit or git(checkout, 'status', '--porcelain', '--', '.', ':!.jax_cache'):
    keep.mkdir(parents=True, exist_ok=True)
    folder = keep / f'changed_{hashlib.sha256(os.fsencode(checkout)).hexdigest()[:8]}'
    shutil.rmtree(folder, ignore_errors=True)
    return folder, None
  about = [*machine(), WORKER.read_text(), fingerprint(weights), *configs]
  digest = hashlib.sha256('\n'.join(about).encode()).hexdigest()
  return keep / f'{commit[:12]}_{digest[:12]}', keep / 'compiled' / commit[:12]


def compare(own: argparse.Namespace) -> int:
  """Compares two checkouts; returns the exit code."""
  checkouts = [checkout_of(own.first), checkout_of(own.second)]
  weights, sections = weights_of(own.weights, checkouts[0]), sections_of(own.sections)
  configs, folders = listed_configs(checkouts[0]), []
  keep = pathlib.Path(own.keep).expanduser().resolve()
  for number, checkout in enumerate(checkouts):
    begun = time.perf_counter()
    folder, compiled = kept_folder(keep, checkout, weights, configs)
    if own.fresh:
      folder, compiled = keep / f'fresh_{number}', None
      shutil.rmtree(folder, ignore_errors=True)
    print(f'{checkout} -> {folder}', flush=True)
    record(checkout, weights, configs, sections, own.only, folder, compiled, own.jobs)
    print(f'{checkout}: {time.perf_counter() - begun:.0f} s', flush=True)
    folders.append(folder)
  first, second = (items(folder, sections, own.only) for folder in folders)
  if not first:
    raise UsageError(f'--only={own.only} names no item of {own.sections}')
  wrong = []
  for name in sorted(first.keys() | second.keys()):
    if name not in first or name not in second:
      said = f'only in the {"first" if name in first else "second"} checkout'
    else:
      said = difference(first[name], second[name])
    wrong += [name] if said else []
    print(f'{"differs" if said else "equal  "}  {name}')
    if said:
      print(''.join(f'    {line}\n' for line in said.splitlines()), end='')
  total = len(first.keys() | second.keys())
  print(f'{total - len(wrong)} of {total} items are equal')
  if wrong:
    print(f'different: {", ".join(wrong)}')
  return 1 if wrong else 0


def record_one(own: argparse.Namespace) -> int:
  """Records a checkout; returns the exit code."""
  checkout, sections = checkout_of(own.first), sections_of(own.sections)
  weights, out = weights_of(own.weights, checkout), pathlib.Path(own.out).resolve()
  record(checkout, weights, listed_configs(checkout), sections, own.only, out, jobs=own.jobs)
  failed = [
    name for name, path in items(out, sections, own.only).items() if path.suffix == '.error'
  ]
  if failed:
    print(f'failed: {", ".join(failed)}')
  return 1 if failed else 0


def write_golden(own: argparse.Namespace) -> int:
  """Writes what the suite keeps of a release; returns the exit code."""
  checkout, out = checkout_of(own.first), pathlib.Path(own.out).resolve()
  for section in ('train', 'golden', 'samples'):  # in this order: golden goes on where train ended
    record(checkout, checkout / 'mgjax' / 'weights', [], [section], '*', out, flags=QUICK)
  found = items(out, ('train', 'golden', 'samples'), '*')
  if failed := [name for name, path in found.items() if path.suffix == '.error']:
    print(f'failed: {", ".join(failed)}')
    return 1
  for section, file in (('samples', 'shipped.npz'), ('golden', 'workdirs.npz')):
    kept = {}
    for name, path in found.items():
      if name.startswith(f'{section}/'):
        with np.load(path) as arrays:
          kept |= {f'{path.stem}/{key}': portable(arrays[key]) for key in arrays.files}
    np.savez_compressed(GOLDEN / file, **kept)
  (GOLDEN / 'workdirs').mkdir(exist_ok=True)
  for folder in sorted((out / 'kept' / 'runs').iterdir()):
    pack(folder, GOLDEN / 'workdirs' / f'{folder.name}.tar.xz')
  return 0


def portable(array: np.ndarray) -> np.ndarray:
  """Returns the part of an item that the suite keeps: small, and the same but for rounding.

  Of videos three frames of the first one, at most 32 pixels wide; of other arrays at most 1,024
  numbers, evenly spread, as float32.
  """
  if array.dtype == np.uint8 and array.ndim == 5:
    frames = array[0, [0, array.shape[1] // 2, -1]].astype(np.float64)
    count, height, width, _ = frames.shape
    block = max(1, width // 32)
    blocks = frames.reshape(count, height // block, block, width // block, block, 3)
    return blocks.mean((2, 4)).round().astype(np.uint8)
  flat = np.asarray(array, np.float32).reshape(-1)
  return flat[:: max(1, -(-flat.size // 1024))]


def pack(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Packs a work directory, without what nothing reads that loads it or goes on with it."""
  unread = {'tensorboard', 'samples', 'mgjax.lock', 'run.json'}  # the last one has local paths

  def bare(about: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if unread & set(about.name.split('/')):
      return None
    about.mtime = about.uid = about.gid = 0
    about.uname = about.gname = ''
    return about

  with tarfile.open(path, 'w:xz', preset=9) as packed:
    packed.add(folder, folder.name, filter=bare)


def main(arguments: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  commands = parser.add_subparsers(dest='command', required=True)
  for name in ('compare', 'record'):
    added = commands.add_parser(name)
    added.add_argument('first', help='a checkout')
    added.add_argument('--weights', default='', help='folder of weights; by default the first')
    added.add_argument('--sections', default=','.join(USUAL), help=f'some of {",".join(SECTIONS)}')
    added.add_argument('--only', default='*', help="pattern of items, as 'samples/digits*'")
    added.add_argument('--jobs', type=int, default=1, help='sections at a time')
    if name == 'compare':
      added.add_argument('second', help='another one')
      added.add_argument('--keep', default='~/.cache/mgjax_compare', help='where results are kept')
      added.add_argument('--fresh', action='store_true', help='use no result that is kept')
    else:
      added.add_argument('--out', required=True, help='folder of the items')
  added = commands.add_parser('golden')
  added.add_argument('first', help='a checkout of the release')
  added.add_argument('--out', required=True, help='folder of the items')
  own = parser.parse_args(arguments)
  signal.signal(signal.SIGTERM, end)
  try:
    return {'compare': compare, 'record': record_one, 'golden': write_golden}[own.command](own)
  except UsageError as error:
    print(f'compare_checkouts.py: {error}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
