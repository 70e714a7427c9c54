"""Lists of clips, damaged: an undamaged row comes through, any other is a row or a reason."""

import collections
import functools
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mgjax.core.errors import MgjaxError
from mgjax.data.ingest.convert import convert
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.records.reader import Records
from mgjax.media.video import write_video
from mgjax.video.files import read_prompts
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


def _put(target: Path, data: bytes, intact: list[int]) -> None:
  """Writes a damaged list, with the clips and traps that it may name."""
  target.write_bytes(data)
  (target.parent / INTACT).write_text(json.dumps([caption(number) for number in intact]))
  (target.parent / 'a.mp4').write_bytes(clip())
  (target.parent / 'loop.mp4').symlink_to('loop.mp4')
  os.mkfifo(target.parent / 'pipe.mp4')


def _read(path: Path) -> None:
  """Converts what a list names."""
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
  _put(target, data, intact)


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
  _put(target, b'\n'.join(lines), intact)


def _read_txt(path: Path) -> None:
  prompts = read_prompts(None, path)
  wanted = json.loads((path.parent / INTACT).read_text())
  if missing := set(wanted) - set(prompts):
    raise Silent(f'undamaged prompts are lost: {missing!r:.300}')
  if not all(prompt.strip() and prompt.encode() for prompt in prompts):
    raise Silent('a prompt without text')


# Tars


def _members(number: int) -> list[tuple[str, bytes]]:
  name, text = f'set/{number:03d}', caption(number)
  told = (f'{name}.txt', text.encode())
  if number % 2:
    told = (f'{name}.json', json.dumps({'caption': text}).encode())
  return [(f'{name}.mp4', clip()), told]


def _tar_seeds(folder: Path) -> list[Path]:
  kinds = {'ustar': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}
  for name, kind in kinds.items():
    with tarfile.open(folder / f'{name}.tar', 'w', format=kind) as tar:
      for number in range(ROWS):
        for path, data in _members(number):
          info = tarfile.TarInfo(path)
          info.size = len(data)
          tar.addfile(info, io.BytesIO(data))
  return [folder / f'{name}.tar' for name in kinds]


def _checksum(header: bytearray) -> None:
  header[148:156] = b' ' * 8
  header[148:156] = b'%06o\0 ' % sum(header)


def _pax(fields: dict[bytes, bytes]) -> bytes:
  """A PAX header with its block, some of whose lengths may lie."""
  text = b''
  for name, value in fields.items():
    text += b'%d %s=%s\n' % (len(name) + len(value) + 3 + len(str(len(value))), name, value)
  header = bytearray(512)
  header[:4], header[124:136], header[156:157] = b'long', b'%011o\0' % len(text), b'x'
  header[257:265] = b'ustar\x0000'
  _checksum(header)
  return bytes(header) + text + bytes(-len(text) % 512)


def _mutate_tar(source: Path, rng: Rng, target: Path) -> None:
  data = bytearray(source.read_bytes())
  with tarfile.open(source) as tar:
    members = tar.getmembers()
  at = int(rng.integers(len(members)))
  member, hurt = members[at], at // 2
  place = member.offset_data - 512  # of its own header, after one of PAX
  header = bytearray(data[place : place + 512])
  before, others = list(range(hurt)), [number for number in range(ROWS) if number != hurt]
  names = [pick(rng, FIELDS).encode('utf-8', 'surrogatepass') for _ in range(3)]
  kind = pick(
    rng,
    ('name', 'type', 'size', 'sum', 'prefix', 'pax', 'long', 'data', 'cut', 'bytes', 'twice',
     'drop', 'end', 'packed', 'big'),
  )  # fmt: skip
  intact = others
  match kind:
    case 'name':
      header[:100] = names[0][:100].ljust(100, b'\0')
    case 'type':
      header[156] = int(rng.integers(256))
      header[157:257] = names[0][:100].ljust(100, b'\0')
      # Others say that a header of another kind, with another meaning, is in front of the next one.
      intact = before if header[156:157] in (b'x', b'L', b'g', b'K') else others
    case 'size':
      size = pick(
        rng, (b'77777777777\0', b'00000000000\0', b'-0000000001\0', b' ' * 12, b'999999999999',
              b'\x80' + b'\xff' * 11, b'\xff' * 12, b'%011o\0' % int(rng.integers(10_000))),
      )  # fmt: skip
      header[124:136], intact = size, before
    case 'sum':
      header[int(rng.integers(148))] ^= 1 << int(rng.integers(8))
      intact = before
    case 'prefix':
      header[345:500] = names[0][:155].ljust(155, b'\0')
    case 'pax' | 'long' | 'big':
      fields = {
        'pax': {b'path': names[0][:5000], b'size': names[1][:30], b'mtime': names[2][:90]},
        'long': {b'path': b'l' * int(rng.integers(60_000, 70_000)) + b'.mp4'},
        'big': {pick(rng, (b'GNU.sparse.size', b'size')): b'9' * int(rng.integers(1, 30))},
      }[kind]
      data[place:place] = _pax(fields)
      intact = before if b'size' in fields and fields[b'size'].isdigit() else others
    case 'data':
      end = member.offset_data + member.size
      data[member.offset_data : end] = rng.bytes(member.size)
    case 'cut':
      del data[int(rng.integers(place, member.offset_data + 512)) :]
      intact = before
    case 'bytes':
      data[place:] = mutate_bytes(bytes(data[place:]), rng)
      intact = before
    case 'twice':
      data[place:place] = data[place : member.offset_data + -(-member.size // 512) * 512]
      intact = list(range(ROWS))
    case 'drop':
      del data[place : member.offset_data + -(-member.size // 512) * 512]
    case 'end':
      data[place:place] = bytes(pick(rng, (1, 511, 512, 1024)))
      intact = before
    case 'packed':
      data, intact = bytearray(b'\x1f\x8b' + bytes(data[2:])), []
  if kind in ('name', 'type', 'size', 'prefix'):
    _checksum(header)
  if kind in ('name', 'type', 'size', 'prefix', 'sum'):
    data[place : place + 512] = header
  _put(target, bytes(data), intact)


# Parquet


def _parquet_seeds(folder: Path) -> list[Path]:
  import pyarrow
  import pyarrow.parquet

  cells = {
    'flat': [clip() for _ in range(ROWS)],
    'nested': [{'bytes': clip(), 'path': f'{number}.mp4'} for number in range(ROWS)],
  }
  for name, values in cells.items():
    table = pyarrow.table({'video': values, 'caption': [caption(n) for n in range(ROWS)]})
    options = {'compression': 'none' if name == 'flat' else 'zstd', 'row_group_size': 3}
    pyarrow.parquet.write_table(table, folder / f'{name}.parquet', **options)
  return [folder / f'{name}.parquet' for name in cells]


def _strange_table(rng: Rng) -> tuple[Any, list[int]]:
  """A whole table whose schema or cells no one expects, and which rows of it are good."""
  import pyarrow as pa

  clips = pa.array([clip()] * ROWS)
  texts = pa.array([caption(number) for number in range(ROWS)])
  at, intact = int(rng.integers(ROWS)), list(range(ROWS))
  others = [number for number in intact if number != at]
  odd = pick(rng, [each for each in FIELDS if each.isprintable()])
  inner = pa.StructArray.from_arrays([clips, texts], ['bytes', 'path'])
  cases: dict[str, Any] = {
    'media twice': ([clips, clips, texts], ['video', 'video', 'caption'], []),
    'captions twice': ([clips, texts, texts], ['video', 'caption', 'caption'], []),
    'others twice': ([clips, texts, texts, texts], ['video', 'caption', 'x', 'x'], intact),
    'a name': ([clips, texts, texts], ['video', 'caption', odd], intact),
    'dots': ([clips, texts, clips], ['video', 'caption', 'video.caption'], intact),
    'bytes twice': (
      [pa.StructArray.from_arrays([clips, clips], ['bytes', 'bytes']), texts],
      ['video', 'caption'], [],
    ),
    'paths twice': (
      [pa.StructArray.from_arrays([clips, texts, texts], ['bytes', 'path', 'path']), texts],
      ['video', 'caption'], [],
    ),
    'bytes of bytes': (
      [pa.StructArray.from_arrays([inner], ['bytes']), texts], ['video', 'caption'], [],
    ),
    'lists': ([pa.array([[clip()]] * ROWS), texts], ['video', 'caption'], []),
    'dictionary': ([clips.dictionary_encode(), texts], ['video', 'caption'], []),
    'large': ([clips.cast(pa.large_binary()), texts.cast(pa.large_string())],
              ['video', 'caption'], intact),
    'nulls': ([clips, pa.nulls(ROWS, pa.string())], ['video', 'caption'], []),
    'no rows': ([clips[:0], texts[:0]], ['video', 'caption'], []),
    'numbers': ([clips, pa.array(range(ROWS))], ['video', 'caption'], []),
    'nested': ([inner, pa.StructArray.from_arrays([inner], ['caption']), texts],
               ['video', 'other', 'caption'], intact),
  }  # fmt: skip
  kind = pick(rng, (*cases, 'text', 'text', 'cell', 'cell', 'wide'))
  if kind == 'text':  # not UTF-8, in one row
    raw = [text.encode() for text in texts.to_pylist()]
    raw[at] = pick(rng, (b'\xff\xfe', b'\xed\xa0\x80', b'\xc3', b'ok \x80', b''))
    binary = pa.array(raw, pa.binary())
    broken = pa.Array.from_buffers(pa.string(), ROWS, binary.buffers())
    return pa.table([clips, broken], ['video', 'caption']), others
  if kind == 'cell':
    values: list[Any] = clips.to_pylist()
    values[at] = pick(rng, (None, b'', b'\0' * 1000, mutate_bytes(clip(), rng), rng.bytes(5000)))
    words: list[Any] = texts.to_pylist()
    words[at] = pick(rng, (None, '', '\0', 'x' * 200_000, '\x1b[31m', words[at]))
    return pa.table([pa.array(values, pa.binary()), pa.array(words)], ['video', 'caption']), others
  if kind == 'wide':
    names = ['video', 'caption', *(f'{odd[:20]}{index}' for index in range(500))]
    return pa.table([clips, *[texts] * 501], names), intact
  columns, names, good = cases[kind]
  return pa.table(columns, names), good


def _mutate_parquet(source: Path, rng: Rng, target: Path) -> None:
  import pyarrow.parquet

  data, footer = source.read_bytes(), int.from_bytes(source.read_bytes()[-8:-4], 'little')
  start = len(data) - 8 - footer
  match pick(rng, ('table', 'table', 'footer', 'footer', 'pages', 'length', 'cut', 'swap')):
    case 'table':
      table, intact = _strange_table(rng)
      with io.BytesIO() as file:
        options = {'compression': pick(rng, ('none', 'zstd', 'snappy', 'gzip'))}
        rows = int(rng.integers(1, ROWS + 1))
        pyarrow.parquet.write_table(table, file, row_group_size=rows, **options)
        return _put(target, file.getvalue(), intact)
    case 'footer':
      end = mutate_bytes(data[start:-8], rng)
      data = data[:start] + end + len(end).to_bytes(4, 'little') + b'PAR1'
    case 'pages':
      at = int(rng.integers(4, start))
      few = mutate_bytes(data[at : at + 200], rng)[:200].ljust(200, b'\0')
      data = data[:at] + few[: start - at] + data[at + 200 if at + 200 < start else start :]
    case 'length':
      size = int(rng.choice([0, 1, footer - 1, footer + 1, 2**31 - 1, 2**32 - 1, len(data)]))
      data = data[:-8] + size.to_bytes(4, 'little') + b'PAR1'
    case 'cut':
      data = data[: int(rng.integers(len(data)))]
    case _:
      data = mutate_bytes(data, rng)
  _put(target, data, [])


FAMILIES = (
  Family('list.csv', _csv_seeds, _mutate_csv, _read),
  Family('list.jsonl', _json_seeds, _mutate_json, _read),
  Family('prompts.txt', _txt_seeds, _mutate_txt, _read_txt),
  Family('tar', _tar_seeds, _mutate_tar, _read),
  Family('parquet', _parquet_seeds, _mutate_parquet, _read),
)
