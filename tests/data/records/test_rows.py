"""Rows: what is serialised comes back bit for bit."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.records.rows import decode_row, encode_row
from tests.data.records.record_rows import assert_same_row


@pytest.mark.parametrize(
  'dtype',
  [
    *('bool', 'uint8', 'int32', 'int64', 'float16', 'float32', 'float64', 'complex64'),
    *('bfloat16', 'float8_e4m3fn', 'int4'),
  ],
)
@pytest.mark.parametrize('shape', [(), (0, 3), (2, 3, 4)])
def test_arrays_come_back_bit_for_bit(dtype, shape):
  array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(np.dtype(dtype))
  row = {'before': np.arange(3, dtype=np.uint8), 'array': array, 'after': 'text'}
  result = decode_row(encode_row(row))
  assert_same_row(result, row)
  for array in (
    result['array'],
    decode_row(np.frombuffer(encode_row(row), np.uint8).copy())['array'],
  ):
    assert array.tobytes() == row['array'].tobytes()
    assert array.flags.writeable
    assert array.flags.aligned


def test_strings_numbers_and_odd_layouts_come_back():
  values = {'text': 'naïve ✓\n', 'number': -(10**20), 'real': 1e-300, 'truth': True}
  assert_same_row(decode_row(encode_row(values)), values)
  turned = np.arange(6, dtype='>i4').reshape(2, 3).T
  result = decode_row(encode_row({'turned': turned, 'scalar': np.float32(2.5)}))
  np.testing.assert_array_equal(result['turned'], turned)
  assert result['scalar'].shape == ()
  assert result['scalar'] == 2.5


@pytest.mark.parametrize('value', [None, [1], {}, b'raw', np.array(['a']), np.array([None])])
def test_what_a_row_cannot_hold_is_refused(value):
  with pytest.raises(DataError, match=r"'field'.*numpy arrays of numbers, strings and numbers"):
    encode_row({'field': value})
