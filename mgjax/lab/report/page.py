"""HTML of a page that needs no other file: its styles, light or dark as the screen, and tables."""

import html
from collections.abc import Mapping, Sequence

from mgjax.lab.report.charts import COLOURS, DARK_COLOURS


def _variables(colours: Sequence[str], **others: str) -> str:
  found = {f'c{index}': colour for index, colour in enumerate(colours)} | others
  return ''.join(f'--{name}:{colour};' for name, colour in found.items())


# Text has a contrast of 4.5 or more to the paper, lines of 3 or more; a test computes them.
LIGHT = _variables(
  COLOURS, paper='#ffffff', ink='#1d1d1f', soft='#5b5b60', grid='#e4e4e4', axis='#767676'
)
DARK = _variables(
  DARK_COLOURS, paper='#17191c', ink='#e8e8ea', soft='#a8acb3', grid='#33383e', axis='#868c94'
)
_STYLE = f"""
:root{{color-scheme:light dark;{LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}
body{{font:15px/1.4 system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;
color:var(--ink);background:var(--paper)}}h1{{overflow-wrap:anywhere}}
.wide{{overflow-x:auto;margin:1em 0}}table{{border-collapse:collapse}}
td,th{{padding:.2em .8em .2em 0;text-align:right;white-space:nowrap}}
td:first-child,th:first-child{{text-align:left}}thead th{{border-bottom:1px solid var(--axis)}}
tbody th{{font-weight:inherit}}caption{{text-align:left;font-weight:600}}
.charts,.shown{{display:flex;flex-wrap:wrap;gap:8px 20px}}.charts>div{{width:520px;max-width:100%}}
figure{{margin:0}}figcaption{{max-width:160px;font-size:13px}}img{{max-width:100%;height:auto}}
video{{width:160px;max-width:100%;image-rendering:pixelated;display:block}}
svg{{width:100%;display:block;fill:none}}
text{{font-size:11px;fill:var(--soft)}}text.title{{font-size:13px;font-weight:600;fill:var(--ink)}}
text.x{{text-anchor:middle}}text.y{{text-anchor:end}}.grid{{stroke:var(--grid)}}
.mark{{stroke:var(--axis);stroke-dasharray:3 3}}
text.mark{{stroke:none;fill:var(--soft)}}
.legend{{font-size:12px}}
.legend span{{display:inline-block;margin-right:1em;overflow-wrap:anywhere}}
.sample{{display:table;width:1px;min-width:140px}}
.sample video,.sample img{{height:128px;width:auto;max-width:calc(100vw - 3em)}}
.sample img{{image-rendering:pixelated}}
.sample figcaption{{max-width:none;display:-webkit-box;-webkit-box-orient:vertical;
-webkit-line-clamp:5;overflow:hidden;overflow-wrap:anywhere;margin:.2em 0 .6em}}
h2{{margin:1.6em 0 .4em;overflow-wrap:anywhere}}h3{{font-size:1em;margin:.8em 0 .4em}}
.warning{{border-left:4px solid var(--c1);padding-left:.7em}}
.note{{color:var(--soft)}}summary{{font-size:1.3em;font-weight:600;margin:.6em 0;cursor:pointer}}
"""


def page(title: str, body: str) -> str:
  """Returns a whole page of a title, as text, and a body, as HTML."""
  title = html.escape(title)
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<title>{title}</title><style>{_STYLE}</style></head>'
    f'<body><main><h1>{title}</h1>{body}</main></body></html>\n'
  )


def section(title: str, *parts: str) -> str:
  """Returns parts, as HTML, below a heading, as text."""
  return f'<section><h2>{html.escape(title)}</h2>{"".join(parts)}</section>'


def table(rows: Sequence[Mapping[str, str]], name: str) -> str:
  """Returns a named table of rows, header -> text; a cell that a row lacks is empty."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  head = ''.join(f'<th scope="col">{html.escape(each)}</th>' for each in names)
  body = ''
  for row in rows:
    first, *cells = (html.escape(row.get(each, '')) for each in names)
    cells = ''.join(f'<td>{cell}</td>' for cell in cells)
    body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
  name = html.escape(name)
  return (
    f'<div class="wide" role="region" aria-label="{name}" tabindex="0"><table>'
    f'<caption>{name}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
  )
