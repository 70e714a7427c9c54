"""Tars and parquet files of clips, damaged: what is undamaged in them comes through."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.hostile.family import Family
from tests.hostile.manifests import FIELDS, ROWS, caption, clip, convert_all, put
from tests.hostile.mutations import Rng, mutate_bytes, pick

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
  put(target, bytes(data), intact)


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
        return put(target, file.getvalue(), intact)
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
  put(target, data, [])


FAMILIES = (
  Family('tar', _tar_seeds, _mutate_tar, convert_all),
  Family('parquet', _parquet_seeds, _mutate_parquet, convert_all),
)
