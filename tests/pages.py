"""Reads pages of HTML that mgjax writes."""

import html.parser


class Page(html.parser.HTMLParser):
  """What a page holds; raises where elements are not closed in the order they were opened.

  Attributes:
    elements: (tag, attributes) of all.
    text: of the page, without its scripts.
    rows: cells of all tables, row by row.
    tables: caption -> rows of that table.
  """

  VOID = ('meta', 'img', 'input', 'br', 'source')

  def __init__(self, text):
    super().__init__()
    self.open, self.elements, self.text, self.scripts = [], [], '', ''
    self.rows, self.tables, self._table = [], {}, []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag == 'tr':
      self.rows.append([])
      self._table.append(self.rows[-1])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    if tag not in self.VOID:
      assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] == 'script':
      self.scripts += data
    elif 'style' not in self.open:
      self.text += data
      if 'td' in self.open or 'th' in self.open:
        self.rows[-1][-1] += data
    if self.open and self.open[-1] == 'caption':
      self.tables[data] = self._table = []
