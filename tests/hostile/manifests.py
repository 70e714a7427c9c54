"""Lists of clips, damaged: an undamaged row comes through, any other is a row or a reason."""

import collections
import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mgjax.core.errors import MgjaxError
from mgjax.data.ingest.convert import convert
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.records.reader import Records
from mgjax.flow_models.requests import read_prompts
from mgjax.media.video import write_video
from tests.hostile.family import Family, Silent
from tests.hostile.mutations import STRANGE, Rng, mutate_bytes, mutate_value, pick

ROWS = 8
INTACT = 'intact.json'  # beside a damaged list: the captions that must come through
TEXTS = (
  'a ball, falling', 'plain words', 'says "hello" twice', 'un chat è là', '猫が走る', 'two\nlines',
  'x' * 300, ' spaces  inside ',
)  # fmt: skip
# What a field is replaced by: half a character, numbers, paths and texts that no list should have.
FIELDS = (
  *(each for each in STRANGE if isinstance(each, str)),
  '1' + '0' * 400, '1e999', 'nan', '-5', '"', '""', '"""', 'a"b', 'a,b,c,d', '\0', '\r', '\u2028',
  'd/' * 2500 + 'a.mp4', 'n' * 300 + '.mp4', 'x' * 140_000, 'y' * 1_100_000, '../a.mp4',
  '/etc/passwd', 'file:///etc/passwd', 'concat:a.mp4|a.mp4', 'loop.mp4', 'pipe.mp4', '.', '/', ' ',
  '\udcff.mp4', 'ü' * 200, '=cmd()', '\x1b]0;title\x07', '\ufeff', "'; drop table clips",
)  # fmt: skip


@functools.cache
def clip() -> bytes:
  """A tiny video."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, 'a.mp4')
    write_video(path, np.zeros((2, 16, 16, 3), np.uint8), 8)
    return path.read_bytes()


def caption(number: int) -> str:
  """The caption of a row: unique, as it is after cleaning."""
  return f'{number} ' + ' '.join(TEXTS[number % len(TEXTS)].split())


def put(target: Path, data: bytes, intact: list[int]) -> None:
  """Writes a damaged list, with the clips and traps that it may name."""
  target.write_bytes(data)
  (target.parent / INTACT).write_text(json.dumps([caption(number) for number in intact]))
  (target.parent / 'a.mp4').write_bytes(clip())
  (target.parent / 'loop.mp4').symlink_to('loop.mp4')
  os.mkfifo(target.parent / 'pipe.mp4')


def convert_all(path: Path) -> None:
  """Converts what a list names, and looks for what must have come through."""
  wanted = json.loads((path.parent / INTACT).read_text())
  try:
    inputs = open_inputs(path)
    result = convert(inputs, path.parent / 'out', threads=1)
  except MgjaxError as error:
    if wanted:
      raise Silent(f'{len(wanted)} undamaged rows are lost: {error}') from error
    raise
  found = collections.Counter()
  for row in Records(path.parent / 'out'):
    found[row['caption']] += 1
    if row['caption'] in wanted and row['media'].tobytes() != clip():
      raise Silent(f'the clip of {row["caption"]!r} is another')
  if missing := collections.Counter(wanted) - found:
    raise Silent(f'of {len(inputs)} inputs undamaged ones are lost: {list(missing)!r:.300}')
  if not result.rows + len(result.rejected) == result.inputs == len(inputs) >= len(wanted):
    raise Silent(f'{len(inputs)} inputs, but {result}')
  if not str(result).isprintable():
    raise Silent(f'a summary that is not printable: {str(result)!r}')


# Lines: .csv and .jsonl


def _fields(number: int) -> dict[str, Any]:
  text = caption(number).replace('two lines', 'two\nlines')
  return {'video': 'a.mp4', 'caption': text, 'start': '' if number % 2 else '0.0'}


def _csv_line(values: list[Any], quoted: bool = True) -> bytes:
  def cell(value: Any) -> str:
    text = str(value)
    special = quoted and any(each in text for each in ',"\n\r')
    return '"' + text.replace('"', '""') + '"' if special else text

  return ','.join(map(cell, values)).encode('utf-8', 'surrogatepass')


def _json_line(fields: dict[str, Any]) -> bytes:
  return json.dumps(fields).encode()


def _csv_seeds(folder: Path) -> list[Path]:
  lines = [b'video,caption,start', *(_csv_line([*_fields(n).values()]) for n in range(ROWS))]
  (folder / 'list.csv').write_bytes(b'\n'.join(lines) + b'\n')
  return [folder / 'list.csv']


def _json_seeds(folder: Path) -> list[Path]:
  lines = [_json_line(_fields(n)) for n in range(ROWS)]
  (folder / 'list.jsonl').write_bytes(b'\n'.join(lines) + b'\n')
  return [folder / 'list.jsonl']


def _damage_csv_line(number: int, rng: Rng) -> bytes:
  values = [*_fields(number).values()]
  match pick(rng, ('field', 'field', 'field', 'bytes', 'quote', 'more', 'less', 'raw', 'any')):
    case 'field':
      values[int(rng.integers(3))] = pick(rng, FIELDS)
      return _csv_line(values, quoted=bool(rng.random() < 0.5)).replace(b'\n', b' ')
    case 'quote':  # one that nothing closes, or that closes nothing
      line = bytearray(_csv_line(values, quoted=False).replace(b'\n', b' '))
      line.insert(int(rng.integers(len(line) + 1)), ord('"'))
      return bytes(line)
    case 'more':
      return _csv_line(values + [pick(rng, FIELDS)] * int(rng.integers(1, 2000)))
    case 'less':
      return _csv_line(values[: int(rng.integers(3))])
    case 'raw':
      return rng.bytes(int(rng.integers(1, 400))).replace(b'\n', b' ')
    case 'any':
      return pick(rng, FIELDS).encode('utf-8', 'surrogatepass')
  return mutate_bytes(_csv_line(values), rng)


def _damage_json_line(number: int, rng: Rng) -> bytes:
  fields = _fields(number)
  match pick(rng, ('value', 'value', 'field', 'field', 'twice', 'bytes', 'number', 'raw', 'deep')):
    case 'value':
      return json.dumps(mutate_value(fields, rng)).encode()
    case 'field':
      fields[pick(rng, list(fields))] = pick(rng, FIELDS)
      text = json.dumps(fields, ensure_ascii=bool(rng.random() < 0.5))
      return text.encode('utf-8', 'surrogatepass')
    case 'twice':
      return _json_line(fields)[:-1] + b', "video": "b.mp4"}'
    case 'number':
      digits = pick(rng, ('1' + '0' * 400, '9' * 5000, '1e400', '-1e400', 'Infinity', '1E+', '0x1'))
      return _json_line(fields | {'start': 77}).replace(b'77', digits.encode())
    case 'raw':
      return rng.bytes(int(rng.integers(1, 400))).replace(b'\n', b' ')
    case 'deep':
      return b'[' * int(rng.integers(1, 100_000))
  return mutate_bytes(_json_line(fields), rng).replace(b'\n', b' ')


def _mutate_lines(header: list[bytes], make, damage, source: Path, rng: Rng, target: Path) -> None:
  """Damages lines of their own; the rest of the list must not suffer."""
  del source
  hurt = {int(rng.integers(ROWS)) for _ in range(int(rng.integers(1, 4)))}
  lines = [damage(n, rng) if n in hurt else make(n) for n in range(ROWS)]
  intact = [number for number in range(ROWS) if number not in hurt]
  data = b'\n'.join([*header, *lines]) + b'\n'
  match pick(
    rng, ('', '', '', '', '', '', 'mark', 'crlf', 'wide', 'cut', 'head', 'bytes', 'empty')
  ):
    case 'mark':
      data = b'\xef\xbb\xbf' + data
    case 'crlf':
      data = data.replace(b'\n', b'\r\n')
    case 'wide':
      data, intact = data.decode('utf-8', 'replace').encode('utf-16'), []
    case 'cut':
      end = int(rng.integers(len(lines[-1]) + 2))
      data, intact = data[: len(data) - end], [n for n in intact if n < ROWS - 1]
    case 'head' if header:
      names = header[0].split(b',')
      names.insert(int(rng.integers(4)), pick(rng, (*names, b'', b'x', b'"', b'\xff')))
      lines = [pick(rng, (b','.join(names), mutate_bytes(header[0], rng))), *lines]
      data, intact = b'\n'.join(lines), []
    case 'bytes':
      data, intact = mutate_bytes(data, rng), []
    case 'empty':
      data, intact = pick(rng, (b'', b'\n', b'\0', b'\xff\xfe', b'"', b'{', b',,,\n' * 9)), []
  put(target, data, intact)


_mutate_csv = functools.partial(
  _mutate_lines, [b'video,caption,start'], lambda n: _csv_line([*_fields(n).values()]),
  _damage_csv_line,
)  # fmt: skip
_mutate_json = functools.partial(
  _mutate_lines, [], lambda n: _json_line(_fields(n)), _damage_json_line
)


# Prompts, one a line


def _txt_seeds(folder: Path) -> list[Path]:
  (folder / 'prompts.txt').write_text('\n'.join(caption(number) for number in range(ROWS)))
  return [folder / 'prompts.txt']


def _mutate_txt(source: Path, rng: Rng, target: Path) -> None:
  lines: list[bytes] = source.read_bytes().split(b'\n')
  at, intact = int(rng.integers(ROWS)), list(range(ROWS))
  lines[at] = pick(
    rng, (mutate_bytes(lines[at], rng), pick(rng, FIELDS).encode('utf-8', 'surrogatepass'))
  )
  intact.remove(at)
  put(target, b'\n'.join(lines), intact)


def _read_txt(path: Path) -> None:
  prompts, _ = read_prompts(path)
  wanted = json.loads((path.parent / INTACT).read_text())
  if missing := set(wanted) - set(prompts):
    raise Silent(f'undamaged prompts are lost: {missing!r:.300}')
  if not all(prompt.strip() and prompt.encode() for prompt in prompts):
    raise Silent('a prompt without text')


FAMILIES = (
  Family('list.csv', _csv_seeds, _mutate_csv, convert_all),
  Family('list.jsonl', _json_seeds, _mutate_json, convert_all),
  Family('prompts.txt', _txt_seeds, _mutate_txt, _read_txt),
)
