"""Shows what a run made on its page: pictures, animations, videos and sounds inside the HTML."""

import base64
import html
import pathlib
from collections.abc import Iterable, Sequence

from mgjax.core.errors import printable
from mgjax.media.titles import read_titles

PICTURE = 2**20  # bytes of a file that goes on the page
_ALL = 6 * 2**20  # bytes of all of them
_KINDS = {
  '.webp': 'image/webp', '.png': 'image/png', '.mp4': 'video/mp4', '.wav': 'audio/wav'
}  # fmt: skip


def show_samples(workdir: pathlib.Path) -> str:
  """Returns HTML of the newest samples of a run or a quickstart; '' where there are none.

  Of a folder the animations come first, then the pictures, each the newest first; its videos are
  shown where no animation has them all.
  """
  steps = sorted(workdir.glob('samples/step_*'))[-1:]
  made = {f'Samples, {steps[0].name}': steps} if steps else {}
  made |= {'Samples': [workdir, workdir / 'samples'], 'Evaluation': [workdir / 'evaluation']}
  sections = [_section(name, folders) for name, folders in made.items()]
  return ''.join(sections)


def _section(name: str, folders: Sequence[pathlib.Path]) -> str:
  found = [path for folder in folders for path in _files(folder)]
  animated = any(path.suffix == '.webp' for path in found)
  titles = next((titles for path in found if (titles := read_titles(path))), [])
  videos = [path for path in found if path.suffix == '.mp4']
  told = dict(zip(videos, titles, strict=True)) if len(videos) == len(titles) else {}
  figures, left, total = [], [], 0
  for path in found:
    if path.suffix == '.mp4' and animated:
      continue
    size = path.stat().st_size
    if size > PICTURE or total + size > _ALL:
      left.append(path)
      continue
    total += size
    figures.append(_figure(path, name, titles, told.get(path, path.name)))
  if not figures and not left:
    return ''
  note = f'<p class="note">Too large for this page: {_names(left)}</p>' if left else ''
  items = ''.join(f'<li>{html.escape(title)}</li>' for title in titles)
  items = f'<details><summary>{len(titles)} prompts</summary><ol>{items}</ol></details>'
  return (
    f'<section><h2>{html.escape(name)}</h2><div class="shown">{"".join(figures)}</div>'
    f'{note}{items if titles else ""}</section>'
  )


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Files of a folder that can be shown, by kind; pictures the newest first, others by name."""
  files = [path for path in folder.glob('*') if path.suffix in _KINDS and path.is_file()]
  kinds = list(_KINDS)
  still = ('.webp', '.png')

  def place(path: pathlib.Path) -> tuple[int, float, str]:
    newest = -path.stat().st_mtime if path.suffix in still else 0.0
    return kinds.index(path.suffix), newest, path.name

  return sorted(files, key=place)


def _figure(path: pathlib.Path, name: str, titles: Sequence[str], title: str) -> str:
  data = f'data:{_KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}'
  title = html.escape(printable(title))
  if path.suffix == '.mp4':
    shown = f'<video src="{data}" controls loop preload="auto" aria-label="{title}"></video>'
  elif path.suffix == '.wav':
    shown = f'<audio src="{data}" controls preload="metadata" aria-label="{title}"></audio>'
  else:
    about = '; '.join(read_titles(path) or titles)
    alt = f'{name}, {printable(path.name)}{": " * bool(about)}{about}'
    moving = ' class="moving"' if path.suffix == '.webp' else ''
    return f'<figure{moving}><img src="{data}" alt="{html.escape(alt)}"></figure>'
  return f'<figure>{shown}<figcaption>{title}</figcaption></figure>'


def _names(paths: Iterable[pathlib.Path]) -> str:
  return html.escape(', '.join(printable(path.name) for path in paths))
