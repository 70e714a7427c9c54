"""What commands write into a checkout is no change of it, and no file of it is hidden."""

import pathlib
import re
import shutil
import subprocess

import pytest

CHECKOUT = pathlib.Path(__file__).parent.parent
WHERE = re.compile(r'--(?:out|output|workdir|report|sheet)=[\'"]?([\w.][\w./-]*+)(?![:$])')
# Of `launch.sample`, `mgjax.show`, `mgjax.save` and `make quickstart`.
BY_DEFAULT = """
  out.mp4 out_sheet.png out.json out.png out.webp out.wav samples/sheet.png samples/samples.json
  samples/0000_12345678.mp4
  mgjax_show.png mgjax_show.mp4 mgjax_show.wav out/clips/0000.mp4 runs/quickstart/report.json
"""
pytestmark = pytest.mark.skipif(
  not (CHECKOUT / '.git').exists() or shutil.which('git') is None, reason='no checkout of git'
)


def git(*arguments: str, given: str = '') -> list[str]:
  run = subprocess.run(
    ['git', *arguments], cwd=CHECKOUT, input=given, capture_output=True, text=True, check=False
  )
  assert run.returncode in (0, 1), run.stderr  # 1: check-ignore found none
  return run.stdout.splitlines()


def ignored(paths: list[str]) -> set[str]:
  """Those of the paths that git leaves out; what it already tracks counts as any other."""
  return set(git('check-ignore', '--no-index', '--stdin', given='\n'.join(paths)))


def examples() -> set[str]:
  """Where the commands write that documents and docstrings show."""
  shown = [CHECKOUT / 'README.md']
  shown += [path for folder in ('docs', 'launch', 'configs') for path in CHECKOUT.glob(folder)]
  files = [file for place in shown for file in ([place] if place.is_file() else place.rglob('*'))]
  texts = [file.read_text() for file in files if file.suffix in ('.md', '.py')]
  found = {place for text in texts for place in WHERE.findall(text) if place[0] != '.'}
  return {place if pathlib.Path(place).suffix else f'{place}/x' for place in found}


def test_what_commands_write_is_ignored():
  wanted = {*BY_DEFAULT.split(), *examples()}
  assert len(wanted) > 60
  assert sorted(wanted - ignored(sorted(wanted))) == []


def test_no_file_of_the_repository_is_ignored():
  assert sorted(ignored(git('ls-files'))) == []
