"""Files of safetensors: what their headers say is bounded before it is believed."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import listed, read_metadata, read_tensors
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
    ({'\x1b[2J' * 999: EMPTY | {'dtype': 'U8'}}, None, 'is of uint8 or not finite'),
    ({'a': EMPTY | {'dtype': 'F8_E4M3'}}, None, 'is not a readable .safetensors file'),
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
    with pytest.raises(ConfigError, match='there is no such file'):
      read(path)


def test_names_from_files_are_escaped_and_cut():
  said = "3 unknown (a, '\\x1b[31m', " + 'b' * 200 + ')'
  assert listed({'unknown': ['a', '\x1b[31m', 'b' * 999]}) == said
