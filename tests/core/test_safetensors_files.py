"""Files of safetensors: what their headers say is bounded before it is believed."""

import json
import os
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import (
  StoredTensor,
  check_tensors,
  is_finite,
  listed,
  open_tensors,
  read_metadata,
  read_tensors,
  write_tensors,
)
from mgjax.models.foreign_weights.torch_pickle import read_pickle

EMPTY = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}


def write(path, header, data=b'', size=None):
  header = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes((len(header) if size is None else size).to_bytes(8, 'little') + header + data)
  return path


@pytest.mark.parametrize(
  ('header', 'size', 'message'),
  [
    ({str(i): EMPTY for i in range(40_000)}, None, 'its header has .* commas'),
    ({'__metadata__': dict.fromkeys(map(str, range(140_000)), '')}, None, 'its header has .* comm'),
    ({'a': EMPTY | {'shape': [0] * 140_000}}, None, 'its header has .* commas'),
    (b'{' + b' ' * (21 << 20) + b'}', None, 'its header has .* bytes, at most'),
    ({}, 2**63, 'its header has 9223372036854775808 bytes, at most'),
    ({}, 10**7, 'is not a readable .safetensors file'),
    ({'a': EMPTY | {'dtype': 'F' * 10**5}}, None, 'is not a readable .safetensors file'),
    ({'a': EMPTY | {'dtype': '\x1b[31m'}}, None, 'is not a readable .safetensors file'),
    ({'\x1b[2J' * 999: EMPTY | {'dtype': 'U8'}}, None, 'is of uint8; expected finite floats'),
    ({'a': EMPTY | {'dtype': 'F6_E2M3'}}, None, 'is not a readable .safetensors file'),
    ({'a': EMPTY | {'shape': [0] * 65}}, None, 'is not a readable .safetensors file'),
    ({'a': EMPTY | {'shape': [2**63, 2]}}, None, 'is not a readable .safetensors file'),
    ({'a': EMPTY | {'shape': [2**40, 0]}}, None, 'is empty and of shape'),
    (b'[' * 10**6, None, 'is not a readable .safetensors file'),
  ],
)
def test_a_header_that_is_no_header_is_a_sentence(header, size, message, tmp_path):
  path = write(tmp_path / 'a.safetensors', header, size=size)
  with pytest.raises(ConfigError, match=message) as caught:
    read_tensors(path)
  assert len(str(caught.value)) < 700 and str(caught.value).isprintable()


def test_a_tensor_larger_than_the_memory_is_a_sentence(tmp_path):
  """A sparse file of a few blocks may say so."""
  size = 1 << 42
  header = {'a': EMPTY | {'shape': [size // 4], 'data_offsets': [0, size]}}
  path = write(tmp_path / 'a.safetensors', header)
  os.truncate(path, path.stat().st_size + size)
  with pytest.raises(ConfigError, match=r"^a in '.*' has 4,398,046,511,104 bytes, and this"):
    check_tensors(path)


def test_a_header_of_a_whole_tokenizer_is_read(tmp_path):
  """Of 28 MB as long as the tensors are larger by as much, as those of its encoder are."""
  metadata = {'mgjax': 'a' * (28 << 20)}
  save_file({'a': np.zeros(1, np.float32)}, tmp_path / 'small.safetensors', metadata)
  with pytest.raises(ConfigError, match='its header has'):
    read_metadata(tmp_path / 'small.safetensors')
  large = EMPTY | {'shape': [1 << 26], 'data_offsets': [0, 1 << 28]}
  header = {'__metadata__': metadata, 'a': large}
  path = write(tmp_path / 'large.safetensors', header)
  os.truncate(path, path.stat().st_size + (1 << 28))
  assert read_metadata(path) == metadata


@pytest.mark.parametrize('read', [read_tensors, read_pickle])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path, read):
  os.mkfifo(tmp_path / 'a')
  for path in (tmp_path / 'a', tmp_path, '/dev/zero'):
    with pytest.raises(ConfigError, match=r'no regular file|there is no such file'):
      read(path)


def test_names_from_files_are_escaped_and_cut():
  said = "3 unknown (a, '\\x1b[31m', " + 'b' * 200 + ')'
  assert listed({'unknown': ['a', '\x1b[31m', 'b' * 999]}) == said


FLOAT8 = [
  *('float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz', 'float8_e8m0fnu'),
]


@pytest.mark.parametrize('dtype', FLOAT8)
def test_numbers_of_one_byte_are_read_bit_by_bit(tmp_path, dtype):
  numbers = np.arange(256, dtype=np.uint8).view(dtype)
  good = numbers[np.isfinite(numbers)]
  tensors = {'a': np.ones(3, np.float32), 'b': good[:200].reshape(5, 40), 'c': good[:0], 'd': good}
  save_file(tensors, tmp_path / 'file.safetensors')
  found, _ = read_tensors(tmp_path / 'file.safetensors')
  for name, tensor in tensors.items():
    assert found[name].dtype == tensor.dtype and found[name].tobytes() == tensor.tobytes()
  save_file(tensors | {'b': numbers}, tmp_path / 'file.safetensors')
  with pytest.raises(ConfigError, match=r'b in .* has NaN or infinite numbers'):
    read_tensors(tmp_path / 'file.safetensors')
  with open_tensors(tmp_path / 'file.safetensors') as file:
    assert file.read('b', anything=True).tobytes() == numbers.tobytes()


@pytest.mark.parametrize('dtype', [*FLOAT8, 'bfloat16', 'float16', 'float32', 'float64'])
def test_of_all_bits_those_of_nan_and_infinity_are_not_finite(dtype):
  dtype = jnp.dtype(dtype)
  size, high = dtype.itemsize, np.arange(2**8 if dtype.itemsize == 1 else 2**16, dtype=np.uint64)
  for low in (0, 1, 2 ** max(8 * size - 16, 0) - 1):  # all exponents, and mantissas at their ends
    bits = (high << max(8 * size - 16, 0)) + low if size > 2 else high
    numbers = bits.astype(f'u{size}').view(dtype)
    with np.errstate(over='ignore', invalid='ignore'):
      wanted = np.isfinite(numbers.astype(np.float32))
    assert not wanted.all()
    found = [is_finite(numbers[i : i + 1]) for i in range(0, len(numbers), 97)]
    assert found == wanted[::97].tolist()
    assert is_finite(numbers[wanted]) and not is_finite(numbers)
    for wrong in numbers[~wanted][:: max((~wanted).sum() // 7, 1)]:
      several = np.zeros((4, 6), dtype)
      several[2, 3] = wrong
      assert not is_finite(several) and not is_finite(several.T[2:]) and is_finite(several[:2])


def test_integers_and_nothing_are_finite():
  assert is_finite(np.full(3, -1)) and is_finite(np.zeros((0, 3), np.float32))
  assert not is_finite(np.array(np.nan))


def test_a_number_that_is_not_finite_is_refused_by_the_name_of_its_tensor(tmp_path):
  tensors = {'a/good': np.ones(4, np.float32), 'b': np.array([[1, -np.inf]], np.float16)}
  save_file(tensors, tmp_path / 'file.safetensors')
  with open_tensors(tmp_path / 'file.safetensors') as file:
    assert sorted(file.names) == ['a/good', 'b'] and file.describe('b') == ('F16', (1, 2))
    np.testing.assert_array_equal(file.read('a/good'), tensors['a/good'])
    np.testing.assert_array_equal(file.read('b', anything=True), tensors['b'])
    with pytest.raises(ConfigError, match=r"^b in '.*file.safetensors' has NaN or infinite"):
      file.read('b')
  with pytest.raises(ConfigError, match=r"^b in '.*file.safetensors' has NaN or infinite"):
    read_tensors(tmp_path / 'file.safetensors')


TENSORS = {
  'a/kernel': np.arange(12, dtype=np.float32).reshape(3, 4).astype(jnp.bfloat16),
  'b': np.arange(10, dtype=np.int8),
  'scalar of ö': np.array(3, np.float32),
  'empty': np.zeros((0, 3), np.float32),
}
ABOUT = {'mgjax': '{"quoted": "ü"}', 'format': 'pt', 'checksum': 'of somebody else'}


def test_what_is_written_is_read_and_other_readers_read_it(tmp_path):
  path, other = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
  write_tensors(path, TENSORS, ABOUT)
  write_tensors(other, dict(reversed(TENSORS.items())), dict(reversed(ABOUT.items())))
  assert path.read_bytes() == other.read_bytes()
  ours, about = read_tensors(path, anything=True)
  assert about == ABOUT
  for found in (ours, load_file(path)):
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
      assert found[name].dtype == tensor.dtype
      np.testing.assert_array_equal(found[name], tensor)


def test_tensors_are_written_one_by_one_and_a_failure_leaves_the_old_file(tmp_path):
  path = tmp_path / 'a.safetensors'
  write_tensors(path, TENSORS, ABOUT)
  size, made = 1 << 10, []

  def load():
    assert not any(tensor() is not None for tensor in made)
    tensor = np.ones(size, np.float32)
    made.append(weakref.ref(tensor))
    return tensor

  def fail():
    raise ConfigError('damaged')

  stored = {str(index): StoredTensor((size,), np.dtype('float32'), load) for index in range(3)}
  write_tensors(tmp_path / 'b.safetensors', stored)
  assert load_file(tmp_path / 'b.safetensors').keys() == stored.keys()
  before = path.read_bytes()
  with pytest.raises(ConfigError, match='damaged'):
    write_tensors(path, stored | {'a': StoredTensor((size,), np.dtype('float32'), fail)})
  assert path.read_bytes() == before
  assert sorted(each.name for each in tmp_path.iterdir()) == ['a.safetensors', 'b.safetensors']


def test_every_bit_that_changed_is_found(tmp_path):
  """Of the length, the header, its padding, the checksums and their name, and the tensors."""
  path = tmp_path / 'a.safetensors'
  write_tensors(path, TENSORS, ABOUT)
  data = path.read_bytes()
  for bit in range(8 * len(data)):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    with pytest.raises(ConfigError):
      read_tensors(path, anything=True)


@pytest.mark.parametrize(
  'change',
  [
    lambda data: data[:-1],
    lambda data: data + b'\0',
    lambda data: data.replace(b'"a/kernel"', b'"b/kernel"'),
    lambda data: data.replace(b'[3,4]', b'[4,3]'),
    lambda data: data.replace(b'"I8"', b'"U8"'),
    lambda data: data.replace(b'crc32:', b'crc32:00000000'),
    lambda data: data[:-10] + bytes(reversed(data[-10:])),
  ],
)
def test_larger_damage_is_found(change, tmp_path):
  path = tmp_path / 'a.safetensors'
  write_tensors(path, TENSORS, ABOUT)
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(ConfigError):
    read_tensors(path, anything=True)


def test_a_file_without_checksums_is_read(tmp_path):
  save_file(TENSORS, tmp_path / 'a.safetensors', ABOUT)
  assert read_tensors(tmp_path / 'a.safetensors', anything=True)[1] == ABOUT


@pytest.mark.parametrize(
  ('data', 'told'),
  [
    (
      b'version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n',
      'a pointer of Git LFS',
    ),
    (b'<!DOCTYPE html><html>', 'a web page'),
    (b'\n <html>', 'a web page'),
    (b'\xef\xbb\xbf<!doctype html>', 'a web page'),
    (b'{"error":"Repository not found"}', 'a text file that begins \'{"error'),
    (b'Access to model a/b is restricted', "a text file that begins 'Access to model"),
    (b'/annex/objects/SHA256E-s1--ab', 'a pointer of git-annex'),
    (b'\x1f\x8b\x08', 'a gzip archive'),
    (b'\x80\x04\x95\x10\x00', 'a pickle'),
    (b'\x80\x02}q', 'a pickle'),
    (b'PK\x03\x04', 'a pickle'),
  ],
)
def test_what_lies_in_place_of_weights_is_called_by_its_name(data, told, tmp_path):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(data)
  with pytest.raises(ConfigError, match=f"^'.*a.safetensors' is {told}"):
    read_tensors(path)
