"""Packs arrays, strings and numbers of a row into bytes, and unpacks them.

A row is the length of its header (4 bytes, little endian), the header, and the bytes of the arrays
in the order of the header, C order, little endian. The header is JSON: name -> {"dtype", "shape"}
or {"value"}. It is padded with spaces so that the arrays begin at a multiple of 16 bytes, and can
be used in the buffer that they were read into. Nothing is pickled: reading records never runs code
from them.
"""

import hashlib
import json

import ml_dtypes
import numpy as np

from mgjax.core.configuration.keys import JSON, Sample
from mgjax.core.errors import DataError

_ALIGNMENT = 16  # of numpy's own memory


def encode_row(row: JSON) -> bytes:
  """Serialises a row: numpy arrays (also bfloat16 and its kin), strings, numbers, truth values."""
  header = {}
  arrays = []
  for name, value in row.items():
    if isinstance(value, np.ndarray | np.generic) and (
      value.dtype.kind in 'biufc' or hasattr(ml_dtypes, value.dtype.name)
    ):
      header[name] = {'dtype': value.dtype.name, 'shape': value.shape}
      arrays.append(value.astype(value.dtype.newbyteorder('<'), copy=False).tobytes())
    elif isinstance(value, str | int | float):
      header[name] = {'value': value}
    else:
      raise DataError(
        f'the field {name!r} of a row is of type {type(value).__name__}; '
        'a row holds numpy arrays of numbers, strings and numbers only'
      )
  text = json.dumps(header).encode()
  text += b' ' * (-(4 + len(text)) % _ALIGNMENT)
  return b''.join([len(text).to_bytes(4, 'little'), text, *arrays])


def decode_row(data: bytes | np.ndarray) -> Sample:
  """Inverts `encode_row`; numpy scalars are returned as arrays without axes.

  For a writable uint8 array the arrays of the row are views if they are aligned.
  """
  view = memoryview(data)
  end = 4 + int.from_bytes(view[:4], 'little')
  row = {}
  for name, field in json.loads(bytes(view[4:end])).items():
    if 'value' in field:
      row[name] = field['value']
    else:
      dtype = np.dtype(field['dtype'])
      shape = tuple(field['shape'])
      count = int(np.prod(shape, dtype=np.int64))
      array = np.frombuffer(view, dtype, count, end).reshape(shape)
      is_usable = array.flags.writeable and array.flags.aligned
      row[name] = array if is_usable else array.copy()
      end += count * dtype.itemsize
  return row


def text_key(caption: str) -> str:
  """Returns a key of a caption: 32 hexadecimal digits of a stable hash."""
  return hashlib.blake2b(caption.encode(), digest_size=16).hexdigest()
