"""How many bytes a clone takes: of all tracked files together, and of each.

What git tracks is counted as it is checked out. Before a limit is raised, re-encode what is large:
weights by `launch.weights export --format=workdir --weights=int8`, pictures of few colours with a
palette, animations as lossy WebP.
"""

import pathlib
import shutil
import subprocess

import pytest

CHECKOUT = pathlib.Path(__file__).parent.parent
MOST_OF_ALL = 56 * 2**20  # bytes
MOST_OF_WEIGHTS, MOST_OF_OTHERS = 8_000_000, 500_000  # of one file


def tracked_files(root: pathlib.Path) -> dict[str, int]:
  """Returns the files that git tracks below `root`, with bytes; skips without git."""
  if shutil.which('git') is None or not (root / '.git').exists():
    pytest.skip('this is no checkout of git, so nothing says which files a clone has')
  command = ['git', '-C', str(root), 'ls-files', '-z']
  listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
  files = [name for name in listed.split('\0') if name]
  return {name: (root / name).lstat().st_size for name in files if (root / name).is_file()}


def too_large(sizes: dict[str, int]) -> list[str]:
  """Returns what breaks a limit, largest first."""
  found = []
  for name, size in sorted(sizes.items(), key=lambda each: -each[1]):
    most = MOST_OF_WEIGHTS if name.endswith('.safetensors') else MOST_OF_OTHERS
    if size > most:
      found.append(f'{name}: {size:,} bytes, at most {most:,}')
  if (total := sum(sizes.values())) > MOST_OF_ALL:
    found.append(f'all tracked files: {total:,} bytes, at most {MOST_OF_ALL:,}')
  return found


def test_a_clone_is_light():
  assert not too_large(tracked_files(CHECKOUT))


def test_large_files_are_counted(tmp_path):
  if shutil.which('git') is None:
    pytest.skip('git is not installed')
  subprocess.run(['git', 'init', '-q', str(tmp_path)], check=True)
  for name, size in (('a.png', 500_001), ('b.safetensors', 8_000_000), ('ignored.png', 500_001)):
    (tmp_path / name).write_bytes(bytes(size))
  subprocess.run(['git', '-C', str(tmp_path), 'add', 'a.png', 'b.safetensors'], check=True)
  sizes = tracked_files(tmp_path)
  assert sizes == {'a.png': 500_001, 'b.safetensors': 8_000_000}
  assert too_large(sizes) == ['a.png: 500,001 bytes, at most 500,000']
  heavy = too_large({f'{k}.safetensors': 7_900_000 for k in range(8)})
  assert heavy == ['all tracked files: 63,200,000 bytes, at most 58,720,256']


def test_without_git_there_is_nothing_to_count(tmp_path):
  with pytest.raises(pytest.skip.Exception, match='no checkout of git'):
    tracked_files(tmp_path)
