"""Files of PyTorch without PyTorch: what it saves is read, and nothing in it runs."""

import struct
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.foreign_weights.pickles import LARGEST_PICKLE_BYTES, MOST_INSTRUCTIONS
from mgjax.models.foreign_weights.torch_pickle import read_pickle
from tests.torch_files import Storage, dumps, tensor, write


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_tensors_are_read_with_their_strides_and_types(protocol, tmp_path):
  numbers = np.arange(12, dtype=np.float32)
  halves = np.array([1, 2, 3], jnp.bfloat16)
  found = {
    'state_dict': {
      'plain': tensor(Storage('FloatStorage', 0, 12), 0, (3, 4), (4, 1)),
      'turned': tensor(Storage('FloatStorage', 0, 12), 1, (2, 3), (1, 4)),
      'halves': tensor(Storage('BFloat16Storage', 1, 3), 0, (3,), (1,)),
      'one': tensor(Storage('FloatStorage', 0, 12), 5, (), ()),
    },
    'metadata': {'rates': [2, 8], 'name': 'dac', 'seed': 2**40, 0: (None, True), 1: (0.5, [], ())},
  }
  read = read_pickle(write(tmp_path / 'a.pth', dumps(found, protocol), (numbers, halves)))
  np.testing.assert_array_equal(read['plain'], numbers.reshape(3, 4))
  np.testing.assert_array_equal(read['turned'], numbers.reshape(3, 4)[:, 1:3].T)
  np.testing.assert_array_equal(read['halves'], halves)
  assert read['one'] == 5 and read['one'].shape == ()


def test_a_state_may_be_the_whole_file(tmp_path):
  found = OrderedDict(bias=tensor(Storage('FloatStorage', 0, 2), 0, (2,), (1,)))
  read = read_pickle(write(tmp_path / 'a.pth', dumps(found), [np.ones(2, np.float32)]))
  assert read['bias'].tolist() == [1, 1]


def push(text):
  return b'X' + struct.pack('<I', len(text)) + text


FOUR = Storage('FloatStorage', 0, 4)
# Pieces of pickles that leave one value.
STORAGE = dumps(FOUR)[2:-1]
TENSOR = dumps(tensor(FOUR, 0, (4,), (1,)))[2:-1]
LONG = dumps(tensor(FOUR, 0, (3, 0), (1, 1)))[2:-1]
ORDERED = b'ccollections\nOrderedDict\n'
REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'
DEEP = b')' + b'\x85' * 100_000  # as a key its hash overflows the stack
TWICE = b')' + b''.join(b'q%ch%ch%c\x86' % (i, i, i) for i in range(99))  # takes 2^99 steps
OUTSIDE, SIZES = 'lies outside of its storage', 'of no whole sizes'
KEYS = 'with other keys than texts and numbers'
UNREADABLE = 'is not a readable file of tensors of PyTorch'


@pytest.mark.parametrize(
  ('stream', 'message'),
  [
    (b'', UNREADABLE),
    (b'B\xff\xff\xff\x7fabc.', UNREADABLE),  # bytes of 2 GB that are not there
    (b'\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.', UNREADABLE),  # more than there can be
    (b'j\x07\x00\x00\x00.', UNREADABLE),  # what nothing was remembered as
    (b'(' * 100_000 + b'.', 'no dictionary|is not a readable file'),
    (b'}p268435455\n.', 'the instruction PUT'),
    (b'}2.', 'the instruction DUP'),
    (b'ios\nsystem\n.', 'the instruction INST'),
    (b'(cos\nsystem\no.', 'the instruction OBJ'),
    (ORDERED + b')\x81.', 'the instruction NEWOBJ'),
    (b'\x82\x01.', 'the instruction EXT1'),
    (b'Px\n.', 'the instruction PERSID'),
    (b'\x8b\x00\x00\x00\x00.', 'the instruction LONG4'),
    (b'\x96' + bytes(8) + b'.', 'the instruction BYTEARRAY8'),
    (b'\x8a\xff' + b'\x7f' * 255 + b'.', 'a number of 2039 bits'),
    (b'L' + b'9' * 5000 + b'L\n.', 'is not a readable file'),
    (b'}K\x01.', 'holds no dictionary of tensors'),
    (b'}' + b'N' * MOST_INSTRUCTIONS + b'.', f'more than {MOST_INSTRUCTIONS} instructions'),
    (push(bytes(LARGEST_PICKLE_BYTES)) + b'.', f'at most {LARGEST_PICKLE_BYTES} are read'),
    (b'\x8c\x02os\x8c\x06sys\ntm\x93)R.', r'it asks for os\.sys'),
    *[(b'}' + key + b'Ns.', KEYS) for key in (DEEP, TWICE, b')', b'cos\nsystem\n', TENSOR)],
    (b'}(' + TWICE + b'Nu.', KEYS),
    *[
      (where % values, 'PyTorch|pickle|dictionary')
      for values in (DEEP, TWICE, b']q\x00h\x00a')
      for where in (b'%b.', b'%bb.', REBUILD + b'%bR.', STORAGE + b'%bR.', b'%bQ.')
    ],
  ],
)
def test_instructions_that_pytorch_does_not_write_are_refused(stream, message, tmp_path):
  path = write(tmp_path / 'a.pth', b'\x80\x02' + stream, [np.ones(4, np.float32)])
  with pytest.raises(ConfigError, match=message) as caught:
    read_pickle(path)
  assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


def test_a_place_of_the_memo_takes_no_memory(tmp_path):
  """Five bytes took 6 GB."""
  assert read_pickle(write(tmp_path / 'a.pth', b'\x80\x02}r\xff\xff\xff\x0f.')) == {}


@pytest.mark.parametrize('target', [STORAGE, TENSOR, REBUILD, b']'])
@pytest.mark.parametrize('name', [b'numbers', b'__class__'])
@pytest.mark.parametrize('slots', [False, True])
def test_no_attribute_of_anything_can_be_set(target, name, slots, tmp_path):
  """A storage whose numbers were set to those of a tensor without bytes was read outside of it."""
  state = b'}' + push(name) + LONG + b's'
  stream = b'\x80\x02' + target + (b'N' + state + b'\x86' if slots else state) + b'b.'
  with pytest.raises(ConfigError, match=r'its pickle takes a \w+ for a dict'):
    read_pickle(write(tmp_path / 'a.pth', stream, [np.ones(4, np.float32)]))


def test_an_empty_tensor_inside_its_storage_is_read(tmp_path):
  found = {'a': tensor(FOUR, 0, (0,), (1,)), 'b': tensor(FOUR, 0, (3, 0), (0, 1))}
  read = read_pickle(write(tmp_path / 'a.pth', dumps(found), [np.ones(4, np.float32)]))
  assert read['a'].shape == (0,) and read['b'].shape == (3, 0)


def test_one_storage_is_no_bomb(tmp_path):
  """Tied weights are two tensors of one storage; a thousand are an attack."""
  tied = {str(i): tensor(Storage('FloatStorage', 0, 4), 0, (4,), (1,)) for i in range(2)}
  numbers = [np.ones(4, np.float32)]
  assert len(read_pickle(write(tmp_path / 'tied.pth', dumps(tied), numbers))) == 2
  many = {str(i): tensor(Storage('FloatStorage', 0, 4), 0, (4,), (1,)) for i in range(1000)}
  with pytest.raises(ConfigError, match='larger than twice its storages'):
    read_pickle(write(tmp_path / 'many.pth', dumps(many), numbers))
  types = [Storage('FloatStorage', 0, 4), Storage('HalfStorage', 0, 8)]
  two = {str(i): tensor(each, 0, (4,), (1,)) for i, each in enumerate(types)}
  with pytest.raises(ConfigError, match='has two types'):
    read_pickle(write(tmp_path / 'two.pth', dumps(two), numbers))


@pytest.mark.oracle
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_what_pytorch_saves_is_read(protocol, tmp_path):
  torch = pytest.importorskip('torch')
  state = {
    'turned': torch.arange(12.0).reshape(3, 4).T,
    'half': torch.ones(3, dtype=torch.float16),
    'wide': torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    'whole': torch.tensor(3),
  }
  found = {'state_dict': state, 'metadata': {'kwargs': {'strides': [2, 8]}}}
  torch.save(found, tmp_path / 'a.pth', pickle_protocol=protocol)
  read = read_pickle(tmp_path / 'a.pth')
  for name, each in state.items():
    np.testing.assert_array_equal(read[name].astype(np.float64), each.detach().double().numpy())
  module = torch.nn.BatchNorm2d(3)  # whose state has attributes
  torch.save(module.state_dict(), tmp_path / 'b.pth', pickle_protocol=protocol)
  assert read_pickle(tmp_path / 'b.pth').keys() == module.state_dict().keys()
