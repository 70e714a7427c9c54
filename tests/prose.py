"""Checks prose: words with plainer rivals, long sentences, numbers, pages above their budget.

`python -m tests.prose [paths]` prints what it finds in these files or folders, or in everything.
Read are README, CONTRIBUTING, the pages of docs/, the cards of weights, and of Python files
docstrings and the texts of exceptions. Code, tables, shapes, section numbers, versions, dates and
arXiv numbers are exempt.
"""

import ast
import collections
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

CHECKOUT = pathlib.Path(__file__).parent.parent
PAGES = ('README.md', 'CONTRIBUTING.md', 'docs')
PACKAGES = ('mgjax', 'launch', 'configs')
# Generated, historical, or not read as prose.
SKIPPED = (
  'docs/experiments/',
  'docs/results/claims.md',
  'docs/reference/configuration.md',
  'docs/_build/',
)
LONGEST = 35  # words of a sentence
MOST_NUMBERS = 2  # of a sentence
# Words of a page outside of code blocks: the first row whose prefix fits.
BUDGETS = (
  ('README.md', 700),
  ('docs/how_to/', 900),
  ('docs/decisions/', 300),
  ('docs/explanation/', 700),
  ('docs/reference/map.md', 3_500),
)
TOTAL = 38_000  # of all pages that are written by hand and are no decisions

# (expression, what to write instead); see the style of the project in CONTRIBUTING.md.
WORDS = (
  (r'(?:comes?|came|coming) along', 'is included'),
  (r'(?:comes?|came|coming) with (?:mgjax|the package|it)', 'ships with mgjax'),
  (r'(?:models?|networks?|encoders?|judges?|CLIP) knows?(?! (?:how|arrays))', 'was trained on'),
  (r'learnt|taught', 'trained on; learned'),
  (r'(?:is|are|was|were|(?<!cannot )be) told(?! apart)|told (?:of|by|what)', 'conditioned on'),
  (
    r'(?:\d+|two|three|four|eight|few|fewer|many|more) (?:passes|turns)(?! (?:over|through))',
    'steps',
  ),
  (r'the report(?!(?:s|ed|ing)\b)(?! (?:page|of the run|file))', 'the Movie Gen paper'),
  (r'(?:the|a|this) race(?! condition)', 'the speedrun'),
  (r'worn', 'degraded'),
  (r'(?:same|another|whose|a new) hands?', 'handwriting style'),
  (r'(?:the|their|its|whose|of|by) looks(?! (?:at|up|for|like)\b)', 'appearance'),
  (r'(?<!baseline with the )reference pasted(?! into)', 'baseline: reference pasted into the clip'),
  (r'chosen tiles|tiles (?:that are )?chosen', 'block-sparse attention, selected blocks'),
  (r'(?:in|of) one byte|one byte a (?:number|weight)', 'int8, fp8'),
  (r'steps of grids?', 'time steps of a grid'),
  (r'(?:come|comes|coming) and (?:go|goes|going)', 'elastic training'),
  (r'sounds(?! (?:like|good|right)\b)', 'audio'),
  (r'(?:is|are|be|been|was|were) noticed|aloud', 'logged as a warning'),
  (r'to be had|at hand', 'available'),
  (r'likewise', 'works the same way'),
  (r'in turns', 'interleaved'),
  (r'islands?', 'shard_map region'),
  (r'(?:of|what) before', 'previous'),
  (r'(?:front )?doors?', 'entry point, public API'),
  (r'(?:a|this|another|each|every|its|their|which|other) rooms?|(?:the|of the) house', 'package'),
  (r'whole (?:checkpoint|state|file|folder)s?', 'complete, valid'),
  (r'(?:checkpoint|state|file|folder|it|they)s? (?:is|are) whole', 'complete, valid'),
  (r'(?<!video )(?<!media )players?', 'generator and discriminator'),
  (r'(?:small|both|other|all|every|each|two) worlds?', 'synthetic dataset'),
  (r'(?:the|a|of|in|this|new|own) worlds?', 'synthetic dataset'),
  (r'whoever|strangers?|somebody|somebody\'s|anybody', 'you'),
  (r'some \d[\d,.]*(?! of\b)', 'about'),
  (r'where (?:it is|they are|that is) asked for', ''),
)
ANY = '|'.join(f'(?P<w{index}>{expression})' for index, (expression, _) in enumerate(WORDS))
LIST = re.compile(rf'\b(?:{ANY})\b', re.IGNORECASE)
BARE = re.compile(r'(?<![\w.,)\]/*-])[-+]?\.\d+')

# Names in which a word of the list is right; single words or short names, never sentences.
ALLOWED = (
  'media player',
  'real world',
  'world model',
  'World Model',
  'a door',
  'any player',
  'a player',
)

CODE = 'Code'  # in place of code; a letter before a full stop would be an initial
FENCE = re.compile(r'^( *)```.*?^\1```\s*$', re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"``[^`]+``|`[^`]+`|(?<!\w)'[\w./-]+'")  # code, and names in quotes
IMAGE = re.compile(r'!\[[^\]]*\]\([^)]*\)')
TARGET = re.compile(r'\]\([^)\s]*\)')
ENTRY = re.compile(r' {2}[*\w][\w, *]*(?: \([^)]*\))?: ')
BLOCK = re.compile(r'#|\s*(?:[-*]|\d+\.) |\s*>| {2,}[*\w][\w, *]*(?: \([^)]*\))?: ')
END = re.compile(r'(?<=[.!?])["\')*]*(?=\s+\S)')
ABBREVIATION = re.compile(r'\b(?:e\.g|i\.e|et al|vs|cf|Eqs?|Figs?|no|approx|App|ca|[A-Z])\.$')
YEAR = r'(?:19|20)\d\d'
MONTH = '(?:January|February|March|April|May|June|July|August|September|October|November|December)'
EXEMPT = re.compile(
  r'§+ ?\d[\d.]*(?:(?: and |, | ?- ?)§?\d[\d.]*)*'  # sections
  r'|(?:Tables?|Figures?|Eq\.|Equation|Part|Step|[Ss]tage|decision) [\d.]+(?: and \d+)?'
  r'|arXiv:? ?\d{4}\.\d{4,5}(?:v\d+)?'
  rf'|(?:\d\d? {MONTH}|{MONTH} \d\d?,?) {YEAR}|{YEAR}-\d\d(?:-\d\d)?|{MONTH} {YEAR}'
  rf'|\([^()]*\b{YEAR}\b[^()]*\)|\b{YEAR}\b[a-z]?'  # citations
  r'|(?i:mgjax|python|jax|jaxlib|libtpu|cuda|flax|orbax|grain|version|versions|release) \d[\d.]*'
  r'(?:(?:, | or | and | until )\d[\d.]*)*'
  r'|\d+ ?: ?\d+(?: ?: ?\d+)*|\d[\d,]* px'  # ratios, sizes
  r'|\d[\d,.]* ?x ?\d[\d,.]*(?: ?x ?\d[\d,.]*)*'  # shapes
  r'|\([^()]*\b[bthwcndmkgfslB] \d[^()]*\)|\(\d[\d,. ]*,[\d,. ]*\)|\[[-\d.]+, [-\d.]+\]'
  r'|\b(?:exit codes?|codes?|seed|seeds|HTTP) \d+(?:(?:, | or | and )\d+)*'
  r'|\b\d{4}(?=[-\w]*\.md)|\b\d+(?:B|M|K|D|p|-D|-bit|th|st|nd|rd)\b|#\d+'
)
# A number beside an operator is part of a formula; 0 and 1 are names of bounds and states.
NUMBER = re.compile(
  r'(?<![\w.§^_/|-])(?<![=+*/<>^-] )(?<!\d,)(?!-?[01]\b(?![.,]\d|%))'
  r'-?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e-?\d+)?%?(?![\w^.]?\w)(?! [=+*/<>^-] )'
)


class Finding(NamedTuple):
  """One place that breaks a rule."""

  path: str
  line: int
  rule: str
  words: str
  suggestion: str

  def __str__(self) -> str:
    advice = f' -> {self.suggestion}' if self.suggestion else ''
    return f'{self.path}:{self.line}: {self.rule}: {self.words}{advice}'


def blank(match: re.Match[str]) -> str:
  """Returns the lines of a match without their characters."""
  return '\n' * match[0].count('\n')


def prose_of_page(text: str) -> str:
  """Returns a page of Markdown without code blocks and tables, with code spans as one word."""
  text = FENCE.sub(blank, text)
  text = re.sub(
    r'<!--.*?-->|^---\n.*?^---$|\$\$.*?\$\$', blank, text, flags=re.DOTALL | re.MULTILINE
  )
  lines = ['' if line.lstrip().startswith('|') else line for line in text.split('\n')]
  return inline('\n'.join(lines))


def inline(text: str) -> str:
  """Returns text with images, code spans, targets of links and formulas replaced."""
  text = IMAGE.sub(blank, text)
  text = SPAN.sub(spans, text)
  text = TARGET.sub(']', text)
  return re.sub(r'https?://\S+', CODE, text)


def spans(match: re.Match[str]) -> str:
  """Returns a word in place of a code span, with its line breaks behind it."""
  return CODE + '\n' * match[0].count('\n')


def words_of_page(text: str) -> int:
  """Returns the words of a page outside of code blocks; cells of tables count."""
  text = TARGET.sub(']', IMAGE.sub('', FENCE.sub('', text)))
  return len([word for word in re.split(r'[\s|]+', text) if re.search(r'\w', word)])


def blocks(text: str) -> Iterator[tuple[int, str]]:
  """Yields (line, text) of each paragraph, item of a list and heading."""
  begin, lines = 1, []
  for number, line in enumerate([*text.split('\n'), ''], 1):
    if lines and (not line.strip() or BLOCK.match(line)):
      yield begin, '\n'.join(lines)
      lines = []
    if line.strip():
      begin = begin if lines else number
      lines.append(line)
      if line.startswith('#'):
        yield begin, line
        lines = []


def sentences(text: str) -> Iterator[tuple[int, str]]:
  """Yields (line, sentence) of a text."""
  for line, block in blocks(text):
    begin = 0
    for end in [*(match.end() for match in END.finditer(block)), len(block)]:
      sentence = block[begin:end]
      if ABBREVIATION.search(sentence) and end < len(block):
        continue
      if sentence.strip():
        lead = sentence[: len(sentence) - len(sentence.lstrip())]
        yield line + block[:begin].count('\n') + lead.count('\n'), ' '.join(sentence.split())
      begin = end


def check(path: str, text: str, first: int = 1, lengths: bool = True) -> Iterator[Finding]:
  """Yields what a text without code breaks."""
  for name in ALLOWED:
    text = text.replace(name, CODE)
  for line, sentence in sentences(text):
    line += first - 1
    for match in LIST.finditer(sentence):
      yield Finding(path, line, 'word', match[0], WORDS[int(match.lastgroup[1:])][1])
    for match in BARE.finditer(sentence):
      yield Finding(path, line, 'decimal', match[0], match[0].replace('.', '0.', 1))
    if not lengths:
      continue
    plain = re.sub(r'^(?:[-*#>]|\d+\.)+ ', '', sentence)
    count = len([word for word in plain.split() if re.search(r'\w', word)])
    begin = ' '.join(plain.split()[:8])
    if count > LONGEST:
      yield Finding(path, line, 'long', f'{begin} ... ({count} words)', 'two sentences')
    numbers = NUMBER.findall(EXEMPT.sub(CODE, plain))
    if len(numbers) > MOST_NUMBERS:
      yield Finding(path, line, 'numbers', f'{begin} ... ({", ".join(numbers)})', 'a table')


def check_page(path: str, text: str) -> Iterator[Finding]:
  """Yields what a page of Markdown breaks."""
  # The lines of numbers in the cards of weights are written by `launch.weights check`.
  yield from check(path, prose_of_page(text), lengths=not path.startswith('mgjax/weights/'))
  most = next((most for prefix, most in BUDGETS if path.startswith(prefix)), None)
  if most is not None and (count := words_of_page(text)) > most:
    yield Finding(path, 1, 'page', f'{count:,} words', f'at most {most:,}')


def texts_of_exception(node: ast.Raise) -> Iterator[tuple[int, str]]:
  """Yields (line, text) of the literals that an exception is made of."""
  if not isinstance(node.exc, ast.Call):
    return
  pieces = list(node.exc.args)
  while pieces:
    piece = pieces.pop(0)
    if isinstance(piece, ast.JoinedStr):
      parts = [each.value if isinstance(each, ast.Constant) else CODE for each in piece.values]
      yield piece.lineno, ''.join(parts)
    elif isinstance(piece, ast.Constant) and isinstance(piece.value, str):
      yield piece.lineno, piece.value
    elif isinstance(piece, ast.BinOp):
      pieces += [piece.left, piece.right]
    elif isinstance(piece, ast.IfExp):
      pieces += [piece.body, piece.orelse]


def prose_of_docstring(text: str) -> str:
  """Returns a docstring without indented formulas and tables."""
  text = FENCE.sub(blank, text)
  lines: list[str] = []
  before = ''
  in_entry = False  # of Args or Attributes, whose next lines are indented as formulas are
  for line in text.split('\n'):
    goes_on, before = before.endswith('\\'), line
    in_entry = bool(ENTRY.match(line)) or (in_entry and line.startswith('    '))
    formula = not in_entry and re.search(r'^ {4}(?! *[*\w]+:)', line)
    drawn = goes_on or formula or re.search(r'\S {3,}\S|^\s*[|>]|^\s*python -m |\\$', line)
    lines.append('' if drawn else line)
  named = re.sub(
    r'^( {2,}\**)[\w, *]+(?=(?: \([^)]*\))?: )', rf'\1{CODE}', '\n'.join(lines), flags=re.M
  )
  return inline(named)


def check_module(path: str, text: str) -> Iterator[Finding]:
  """Yields what docstrings and texts of exceptions of a Python file break."""
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, documented) and (written := ast.get_docstring(node)):
      yield from check(path, prose_of_docstring(written), node.body[0].lineno)
    if isinstance(node, ast.Raise):
      for line, literal in texts_of_exception(node):
        yield from check(path, inline(literal), line, lengths=False)


def files(paths: tuple[str, ...] = (*PAGES, *PACKAGES)) -> Iterator[str]:
  """Yields the files below these paths that are checked."""
  for name in paths:
    path = CHECKOUT / name
    for each in sorted(path.rglob('*')) if path.is_dir() else [path]:
      relative = each.relative_to(CHECKOUT).as_posix()
      suffixes = ('.py', '.md') if relative.startswith(PACKAGES) else '.md'
      checked = relative.endswith(suffixes) and each.is_file()
      if checked and not relative.startswith(SKIPPED):
        yield relative


def findings(paths: tuple[str, ...] = (*PAGES, *PACKAGES)) -> Iterator[Finding]:
  """Yields what the files below these paths break."""
  for path in files(paths):
    text = (CHECKOUT / path).read_text()
    yield from check_module(path, text) if path.endswith('.py') else check_page(path, text)


def total_words() -> int:
  """Returns the words of all pages that are written by hand, without decisions."""
  counted = [path for path in files(PAGES) if not path.startswith('docs/decisions/')]
  return sum(words_of_page((CHECKOUT / path).read_text()) for path in counted)


def main(paths: tuple[str, ...]) -> None:
  """Prints what is found, and how much of it lies in each folder."""
  found = list(findings(paths or (*PAGES, *PACKAGES)))
  print(*found, sep='\n')
  folders = collections.defaultdict(collections.Counter)
  for each in found:
    folders[each.path.rpartition('/')[0] or '.'][each.rule] += 1
  for folder, rules in sorted(folders.items()):
    listed = ', '.join(f'{count} {rule}' for rule, count in sorted(rules.items()))
    print(f'{rules.total():6,} {folder} ({listed})')
  print(f'{len(found):6,} in all; {total_words():,} words of pages, at most {TOTAL:,}')


if __name__ == '__main__':
  main(
    tuple(pathlib.Path(name).resolve().relative_to(CHECKOUT).as_posix() for name in sys.argv[1:])
  )
