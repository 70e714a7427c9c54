"""Bodies and pictures that cost a server more than they cost who sends them."""

import base64
import io
import json
import zlib

from PIL import Image

SIDE = 7000  # 49 megapixels, fewer than are refused for their number


def progressive_jpeg(scans: int, side: int = SIDE) -> bytes:
  """A grey JPEG of about 100 kB in which each of many scans goes over all pixels."""

  def segment(marker, data):
    return b'\xff' + bytes([marker]) + (len(data) + 2).to_bytes(2) + data

  def huffman(kind, symbol):  # one code of one bit
    return segment(0xC4, bytes([kind, 1, *[0] * 15, symbol]))

  def scan(first, last, data):
    return segment(0xDA, bytes([1, 1, 0, first, last, 0])) + data

  blocks = (-(-side // 8)) ** 2
  frame = b'\x08' + side.to_bytes(2) * 2 + bytes([1, 1, 0x11, 0])
  runs = '0' + '01' * 7  # 21,845 blocks without a coefficient
  bits = runs * (blocks // 21_845 + 1)
  bits += '0' * (-len(bits) % 8)
  empty = int(bits, 2).to_bytes(len(bits) // 8)
  parts = [b'\xff\xd8', segment(0xDB, bytes([0, *[1] * 64])), segment(0xC2, frame)]
  parts += [huffman(0, 0), huffman(0x10, 0xE0), scan(0, 0, bytes(blocks // 8 + 1))]
  parts += [scan(1 + each % 63, 1 + each % 63, empty) for each in range(scans - 1)]
  return b''.join(parts) + b'\xff\xd9'


def png_bomb(side: int, interlaced: bool = False, chunk: bytes = b'') -> bytes:
  """A PNG of zeros: a thousandth of the bytes of its pixels; `chunk` stands before them."""

  def part(name, data):
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

  rows = zlib.compressobj(9)
  data = b''.join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
  header = side.to_bytes(4) + side.to_bytes(4) + bytes([8, 0, 0, 0, interlaced])
  more = part(chunk[:4], chunk[4:]) if chunk else b''
  parts = [part(b'IHDR', header), more, part(b'IDAT', data), part(b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def encoded(kind: str, size=(40, 30), **options) -> bytes:
  """A red picture in a format of Pillow."""
  buffer = io.BytesIO()
  Image.new('RGB', size, 'red').save(buffer, kind, **options)
  return buffer.getvalue()


def text_bomb() -> bytes:
  """A small PNG with text that is a thousand times larger than its bytes."""
  return png_bomb(16, chunk=b'zTXtx\0\0' + zlib.compress(bytes(200_000_000), 9))


PICTURES = {
  'progressive': lambda: progressive_jpeg(400),
  'fewer scans': lambda: progressive_jpeg(100),
  'largest progressive': lambda: progressive_jpeg(99, 65_000),
  'multi-picture': lambda: encoded('MPO') + progressive_jpeg(400),
  'png': lambda: png_bomb(12_000),
  'interlaced png': lambda: png_bomb(7000, True),
  'text of a png': text_bomb,
  'webp': lambda: encoded('WEBP', (8000, 8000), method=0),
  'animated webp': lambda: encoded(
    'WEBP', (900, 900), save_all=True, append_images=[Image.new('RGB', (900, 900))] * 100
  ),
  'gif': lambda: encoded('GIF', (4000, 4000)),
  'tiff': lambda: encoded('TIFF', (9000, 9000), compression='tiff_deflate'),
}


def body(picture: bytes, **fields) -> bytes:
  """A body of JSON with a picture."""
  url = 'data:image/png;base64,' + base64.b64encode(picture).decode()
  return json.dumps({'prompt': 'x', **fields, 'input_reference': url}).encode()


def large_bodies(size: int = 22_000_000) -> dict[str, tuple[str, bytes]]:
  """Bodies of that size that hold no picture: name -> content type, body."""
  most = size * 8 // 11  # of a form, which has no base64
  json_type, form = 'application/json', 'multipart/form-data; boundary=x'
  head = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
  file = b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="a"\r\n\r\n'
  return {
    'numbers': (json_type, b'{"prompt": "x", "seed": [' + b'1,' * (size // 2) + b'1]}'),
    'nested': (json_type, b'[' * size),
    'text': (json_type, b'{"prompt": "' + b'x' * size + b'"}'),
    'escapes': (json_type, b'{"prompt": "' + b'\\u0061' * (size // 6) + b'"}'),
    'keys': (json_type, b'{' + b'"a":1,' * (size // 6) + b'"a":1}'),
    'digits': (json_type, b'{"seed": ' + b'9' * size + b'}'),
    'quoted': (json_type, b'{"prompt": "' + b'\\"data:image' * (size // 12) + b'"}'),
    'mark': (json_type, b'{"prompt": "data:image/png;base64,' + b'A' * size + b'"}'),
    'no base64': (json_type, body(b'')[:-2] + b'-' * size + b'"}'),
    'field': (form, head + b'x' * most + b'\r\n--x--\r\n'),
    'fields': (form, (head + b'x\r\n') * (most // len(head) + 1) + b'--x--\r\n'),
    'lines': (form, file + b'\r\n-' * (most // 3) + b'\r\n--x--\r\n'),
    'headers': (form, b'--x\r\n' + b'a: b\r\n' * (most // 6)),
    'nothing': (form, bytes(most)),
  }
