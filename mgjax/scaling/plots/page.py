"""laws.html: the pictures of laws, their numbers and what spoils them, on a page of its own."""

import base64
import html
import os
import pathlib
from collections.abc import Mapping, Sequence

from mgjax.core.errors import printable
from mgjax.core.files import write_bytes, write_json
from mgjax.runtime.report.page import page, table
from mgjax.scaling.comparison import Comparison
from mgjax.scaling.findings import LawFindings
from mgjax.scaling.held_out import HeldOut
from mgjax.scaling.plots.laws import draw_laws
from mgjax.scaling.published import PUBLISHED, rows_at

PAGE = 'laws.html'
_ABOUT = (
  'L(N, D) = E + A / N^alpha + B / D^beta of N parameters and D tokens. Intervals are of 80%, from '
  'fits to runs drawn again. Stars and bars are the minima of the parabolas, shaded bands the law. '
  'Published laws are extrapolated where their budgets end, and count tokens of their own kind.'
)


def write_laws(
  arms: Mapping[str, LawFindings],
  folder: str | os.PathLike[str],
  *,
  tests: Mapping[str, HeldOut] = {},
  comparison: tuple[Comparison, tuple[str, str]] | None = None,
  compute: float | None = None,
) -> list[pathlib.Path]:
  """Writes the pictures as PNG and SVG, laws.html with all of them, and laws.json.

  Args:
    arms: name -> what was found of its runs.
    folder: of the files.
    tests: name -> predictions of budgets that were left out.
    comparison: of two arms, with their names.
    compute: FLOPs at which published laws are told; the largest budget by default.

  Returns:
    The page, then the other files.

  Raises:
    ConfigError: matplotlib is not installed.
  """
  folder = pathlib.Path(folder)
  pictures = draw_laws(arms, folder)
  body = f'<p class="note">{_ABOUT}</p>'
  body += ''.join(_picture(title, paths[1]) for title, paths in pictures.items())
  body += ''.join(_arm(name, found, tests.get(name)) for name, found in arms.items())
  if comparison is not None:
    body += _comparison(*comparison)
  most = compute or max(found.records.compute.max() for found in arms.values())
  body += '<section><h2>Published laws</h2>' + _table(rows_at(most), f'At {most:.3g} FLOPs')
  sources = [('law', 'source'), *((law.name, law.source) for law in PUBLISHED)]
  body += f'{_table(sources, "Sources")}</section>'
  write_bytes(folder / PAGE, page('Scaling laws', body).encode())
  write_json(folder / 'laws.json', {name: found.as_dict() for name, found in arms.items()})
  drawn = [path for paths in pictures.values() for path in paths]
  return [folder / PAGE, folder / 'laws.json', *drawn]


def _picture(title: str, path: pathlib.Path) -> str:
  data = base64.b64encode(path.read_bytes()).decode()
  return (
    f'<section><h2>{title}</h2><img src="data:image/svg+xml;base64,{data}" alt="{title}"></section>'
  )


def _arm(name: str, found: LawFindings, test: HeldOut | None) -> str:
  numbers = [('', 'value [80%]'), *((each, str(told)) for each, told in found.numbers().items())]
  parts = [_table(numbers, 'Law'), _note(found.spread())]
  if found.minima:
    parts.append(_table(found.minima_rows(), 'IsoFLOP minima'))
  parts += map(_note, found.powers())
  if test is not None:
    left = f'Predicted by the {len(test.found.fit.residuals)} runs of smaller budgets'
    parts += [_table(test.rows(), left), _note(test.summary())]
    if test.sizes:
      parts.append(_table(test.size_rows(), 'Best sizes, predicted'))
  parts += [f'<p class="warning">{html.escape(each)}.</p>' for each in found.warnings]
  title = html.escape(printable(name or 'Law and minima'))
  return f'<section><h2>{title}</h2>{"".join(parts)}</section>'


def _comparison(found: Comparison, names: tuple[str, str]) -> str:
  first, second = map(printable, names)
  rows = [('FLOPs', f'compute of {first} for the loss of {second}, as a factor')]
  rows += [(f'{compute:.3g}', str(each)) for compute, each in found.multipliers.items()]
  note = (
    f'Exponent of the best size, {second} less {first}: {found.exponent}. Both laws share E; '
    f'intervals are of 95%, from {found.resamples} draws.'
  )
  return (
    f'<section><h2>Comparison</h2>{_table(rows, f"{first} and {second}")}{_note(note)}</section>'
  )


def _table(rows: Sequence[Sequence[str]], name: str) -> str:
  header, *others = rows
  return table([dict(zip(header, row, strict=True)) for row in others], name)


def _note(text: str) -> str:
  return f'<p class="note">{html.escape(text)}</p>'
