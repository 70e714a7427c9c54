"""Pages of HTML that need no other file, from the templates beside this module.

Every page extends `templates/base.html`, which has the styles, light or dark as the screen.
`templates/parts.html` has tables, notes and charts. All values are escaped, except the SVG of
`mgjax.lab.report.charts`.
"""

import base64
import functools

import jinja2

Rows = list[dict[str, str]]  # of a table: header -> text


def render(template: str, title: str, **values: object) -> str:
  """Returns the page of a title that a template makes of its values.

  Raises `jinja2.UndefinedError` if the template uses a value that is not given.
  """
  return _environment().get_template(template).render(title=title, **values)


def data_url(mime: str, data: bytes) -> str:
  """Returns a URL that holds the bytes of a file."""
  return f'data:{mime};base64,{base64.b64encode(data).decode()}'


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('mgjax.lab.report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters['headers'] = _headers
  return environment


def _headers(rows: Rows) -> list[str]:
  return list(dict.fromkeys(name for row in rows for name in row))
