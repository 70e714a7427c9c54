"""Files of PyTorch without PyTorch: what it saves is read, and nothing in it runs."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.weights.pickles import LARGEST, MOST_INSTRUCTIONS
from mgjax.core.weights.torch_pickle import read_pickle
from tests.torch_files import Named, Storage, dumps, tensor, write


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


@pytest.mark.parametrize(
  ('found', 'message'),
  [
    (Named('builtins', 'print', 'harm'), r'it asks for .*\.print; save the state of the model'),
    (Named('os', 'system', 'true'), 'it asks for os.system'),
    (tensor(Storage('FloatStorage', 0, 4), 0, (3, 2), (2, 1)), 'lies outside of its storage'),
    (tensor(Storage('FloatStorage', 0, 4), -1, (2,), (1,)), 'lies outside of its storage'),
    (tensor(Storage('FloatStorage', 7, 4), 0, (2,), (1,)), 'is not a readable file'),
    (tensor(Storage('FloatStorage', 0, 4), 0, (10**9, 10**9), (0, 0)), 'lies outside of its stor'),
    ('text', 'holds no dictionary of tensors'),
  ],
)
def test_what_is_no_tensor_is_refused(found, message, tmp_path, capfd):
  path = write(tmp_path / 'a.pth', dumps({'a': found}), [np.ones(4, np.float32)])
  with pytest.raises(ConfigError, match=message):
    read_pickle(path)
  assert capfd.readouterr().out == ''


def test_what_is_no_such_file_is_a_sentence(tmp_path):
  (tmp_path / 'text.pth').write_text('no zip')
  with pytest.raises(ConfigError, match='is not a readable file of tensors of PyTorch'):
    read_pickle(tmp_path / 'text.pth')
  with pytest.raises(ConfigError, match='is not a readable file of tensors of PyTorch'):
    read_pickle(tmp_path / 'absent.pth')


@pytest.mark.oracle
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_what_pytorch_saves_is_read(protocol, tmp_path):
  torch = pytest.importorskip('torch')
  state = {
    'turned': torch.arange(12.0).reshape(3, 4).T, 'half': torch.ones(3, dtype=torch.float16),
    'wide': torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)), 'whole': torch.tensor(3),
  }  # fmt: skip
  found = {'state_dict': state, 'metadata': {'kwargs': {'strides': [2, 8]}}}
  torch.save(found, tmp_path / 'a.pth', pickle_protocol=protocol)
  read = read_pickle(tmp_path / 'a.pth')
  for name, each in state.items():
    np.testing.assert_array_equal(read[name].astype(np.float64), each.detach().double().numpy())
  module = torch.nn.BatchNorm2d(3)  # whose state has attributes
  torch.save(module.state_dict(), tmp_path / 'b.pth', pickle_protocol=protocol)
  assert read_pickle(tmp_path / 'b.pth').keys() == module.state_dict().keys()


@pytest.mark.parametrize(
  'stream',
  [
    b'\x80\x02B\xff\xff\xff\x7fabc.',  # bytes of 2 GB that are not there
    b'\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.',  # and more than there can be
    b'\x80\x02j\x07\x00\x00\x00.',  # what nothing was remembered as
    b'\x80\x02).' + b'(' * 9,
    b'\x80\x02' + b'(' * 100_000 + b'.',
    b'',
  ],
)
def test_a_stream_of_nonsense_is_a_sentence(stream, tmp_path):
  with pytest.raises(
    ConfigError, match=r'is not a readable file of|holds no dictionary of tensors'
  ):
    read_pickle(write(tmp_path / 'a.pth', stream))


@pytest.mark.parametrize(('at', 'value'), [(10, 99), (8, 1), (6, 200)])
def test_an_archive_in_ways_unknown_is_a_sentence(at, value, tmp_path):
  """Of another compression, encrypted, of a later version: what zipfile does not read."""
  path = write(tmp_path / 'a.pth', dumps({}))
  data = bytearray(path.read_bytes())
  data[data.index(b'PK\x01\x02') + at] = value
  data[at - 2] = value
  path.write_bytes(data)
  with pytest.raises(ConfigError, match='is not a readable file of tensors of PyTorch'):
    read_pickle(path)


def crafted(storage, *sizes):
  return Named('torch._utils', '_rebuild_tensor_v2', storage, *sizes, False, {})


FOUR = Storage('FloatStorage', 0, 4)
EMPTY = tensor(FOUR, 0, (2**40, 0), (1, 1))


@pytest.mark.parametrize(
  ('found', 'message'),
  [
    # The result of one tensor as the storage of another has any length and no bytes behind it.
    (tensor(EMPTY, 0, (250_000,), (1,)), 'lies outside of its storage'),
    (tensor(tensor(FOUR, 0, (3, 0), (0, 1)), 0, (250_000,), (1,)), 'of no storage'),
    (tensor(tensor(FOUR, 0, (4,), (1,)), 0, (4,), (1,)), 'of no storage'),
    (EMPTY, 'lies outside of its storage'),
    (tensor(FOUR, 0, (2**40, 0), (0, 1)), 'lies outside of its storage'),
    (crafted(FOUR, 0.0, (4,), (1,)), 'of no whole sizes'),
    (crafted(FOUR, 0, (True,), (1,)), 'of no whole sizes'),
    (crafted(FOUR, 0, (4.0,), (1,)), 'of no whole sizes'),
    (crafted('1234', 0, (4,), (1,)), 'of no storage'),
    (Named('torch._utils', '_rebuild_parameter', FOUR), 'asks for torch._utils._rebuild_parameter'),
    (Named('collections', 'OrderedDict', [('a', 1)]), 'it asks for collections.OrderedDict'),
  ],
)
def test_a_tensor_reads_its_own_storage_and_nothing_else(found, message, tmp_path):
  path = write(tmp_path / 'a.pth', dumps({'a': found}), [np.ones(4, np.float32)])
  with pytest.raises(ConfigError, match=message):
    read_pickle(path)


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


def test_compressed_members_are_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', dumps({'a': tensor(FOUR, 0, (4,), (1,))}))
    archive.writestr('archive/data/0', bytes(2**20))
  with pytest.raises(ConfigError, match='its members are compressed'):
    read_pickle(tmp_path / 'a.pth')


def push(text):
  return b'X' + struct.pack('<I', len(text)) + text


# Pieces of pickles that leave one value.
STORAGE = dumps(FOUR)[2:-1]
TENSOR = dumps(tensor(FOUR, 0, (4,), (1,)))[2:-1]
LONG = dumps(tensor(FOUR, 0, (3, 0), (1, 1)))[2:-1]
ORDERED = b'ccollections\nOrderedDict\n'
REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'


@pytest.mark.parametrize('target', [STORAGE, TENSOR, ORDERED, REBUILD, b')', b']', push(b'x')])
@pytest.mark.parametrize('name', [b'numbers', b'data', b'left', b'__code__', b'__class__'])
@pytest.mark.parametrize('slots', [False, True])
def test_no_attribute_of_anything_can_be_set(target, name, slots, tmp_path):
  """A storage whose numbers were set to those of a tensor without bytes was read outside of it."""
  state = b'}' + push(name) + LONG + b's'
  stream = b'\x80\x02' + target + (b'N' + state + b'\x86' if slots else state) + b'b.'
  with pytest.raises(ConfigError, match=r'its pickle takes a \w+ for a dict'):
    read_pickle(write(tmp_path / 'a.pth', stream, [np.ones(4, np.float32)]))


@pytest.mark.parametrize(
  'key',
  [
    b')' + b'\x85' * 100_000,  # its hash overflows the stack
    b')' + b''.join(b'q%ch%ch%c\x86' % (i, i, i) for i in range(99)),  # its hash takes 2^99 steps
    b')',
    b'cos\nsystem\n',
    b'}q\x00',
    TENSOR,
  ],
)
@pytest.mark.parametrize('put', [b'Ns', b'Nu'])
def test_a_key_is_a_text_or_a_number(key, put, tmp_path):
  stream = b'\x80\x02}' + (b'(' if put == b'Nu' else b'') + key + put + b'.'
  with pytest.raises(ConfigError, match='with other keys than texts and numbers'):
    read_pickle(write(tmp_path / 'a.pth', stream, [np.ones(4, np.float32)]))


@pytest.mark.parametrize(
  'values',
  [
    b']q\x00h\x00a',
    b'}q\x00' + push(b'x') + b'h\x00s',
    b')' + b'\x85' * 10_000,
    b')' + b''.join(b'q%ch%ch%c\x86' % (i, i, i) for i in range(99)),
  ],
)
@pytest.mark.parametrize('where', [b'%b.', REBUILD + b'%bR.', STORAGE + b'%bR.', b'%bQ.',
                                   b'(' + push(b'storage') + b'%b' + push(b'0') + b'NNtQ.',
                                   REBUILD + b'(' + STORAGE + b'K\x00%b)\x89NtR.'])  # fmt: skip
def test_what_holds_itself_or_is_deep_is_a_sentence(values, where, tmp_path):
  path = write(tmp_path / 'a.pth', b'\x80\x02' + where % values, [np.ones(4, np.float32)])
  with pytest.raises(ConfigError) as caught:
    read_pickle(path)
  assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
  ('stream', 'message'),
  [
    (b'}r\xff\xff\xff\x0f.', None),  # a place of the memo: 5 bytes took 6 GB
    (b'}p268435455\n.', 'the instruction PUT'),
    (b'}2.', 'the instruction DUP'),
    (b'}0.', 'the instruction POP'),
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
    (push(bytes(LARGEST)) + b'.', f'at most {LARGEST} are read'),
    (b'}K\x01N' + TENSOR + b'u.', 'is not a readable file'),
    (b'}K\x01' + TENSOR + b's.', 'holds no dictionary of tensors'),
    (b'\x8c\x02os\x8c\x06sys\ntm\x93)R.', r"it asks for os\.sys"),
  ],
)  # fmt: skip
def test_instructions_that_pytorch_does_not_write_are_refused(stream, message, tmp_path):
  path = write(tmp_path / 'a.pth', b'\x80\x02' + stream, [np.ones(4, np.float32)])
  if message is None:
    assert read_pickle(path) == {}
    return
  with pytest.raises(ConfigError, match=message) as caught:
    read_pickle(path)
  assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'archive/byteorder': b'big'}, 'its numbers begin with their highest bytes'),
    ({'archive/data/0': bytes(12)}, "the storage '0' has another size than the pickle says"),
    ({'archive/data/0': bytes(17)}, "the storage '0' has another size than the pickle says"),
    ({'another/data.pkl': dumps({})}, 'it holds 2 pickles'),
    ({'archive/data.pkl': None}, 'it holds 0 pickles'),
    ({'archive/data/0': None}, 'There is no item named'),
    ({'archive/data/0': None, 'archive/data/\x1b[31m': bytes(16)}, 'There is no item named'),
  ],
)
def test_members_that_do_not_fit_the_pickle_are_refused(changes, message, tmp_path):
  path = write(tmp_path / 'a.pth', dumps({'a': tensor(FOUR, 0, (4,), (1,))}), [np.ones(4, 'f')])
  with zipfile.ZipFile(path) as archive:
    members = {each: archive.read(each) for each in archive.namelist()} | changes
  with zipfile.ZipFile(path, 'w') as archive:
    for name, data in members.items():
      if data is not None:
        archive.writestr(name, data)
  with pytest.raises(ConfigError, match=message):
    read_pickle(path)


def test_members_that_lie_about_themselves_are_refused(tmp_path):
  """Two of one name, one range of the file by two names, two sizes, and a list of a million."""
  path = write(tmp_path / 'a.pth', dumps({'a': tensor(FOUR, 0, (4,), (1,))}), [np.ones(4, 'f')])
  data = path.read_bytes()

  def refused(changed, message):
    path.write_bytes(changed)
    with pytest.raises(ConfigError, match=message):
      read_pickle(path)

  refused(data.replace(b'archive/data/0', b'archive/version'[:14]), 'is not a readable file')
  at = data.index(b'PK\1\2')
  entry = data[at : data.index(b'PK\1\2', at + 1)]

  def listed(entries):
    end = data.index(b'PK\5\6')
    size = end - at + len(entries)
    return data[:end] + entries + data[end : end + 12] + struct.pack('<IIH', size, at, 0)

  refused(listed(entry), 'two of its members have one name')
  renamed = b''.join(entry.replace(b'data.pkl', b'%08d' % i) for i in range(9))
  refused(listed(renamed), 'its members are larger than the file')
  refused(listed(entry.replace(b'data.pkl', b'%08d' % 0) * 40_000), 'its list of members has')
  first = at + 20  # of the compressed size
  larger = struct.pack('<I', 10**9)
  refused(data[:first] + larger + data[first + 4 :], 'a member has two sizes')
  refused(data[:first] + larger * 2 + data[first + 8 :], 'its members are larger than the file')


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'a.pth')
  for path in (tmp_path / 'a.pth', tmp_path, '/dev/zero'):
    with pytest.raises(ConfigError, match='there is no such file'):
      read_pickle(path)


def test_a_program_that_the_standard_library_runs_is_not_run(tmp_path):
  for protocol in range(6):
    stream = pickle.dumps({'a': os.system}, protocol)
    with pytest.raises(ConfigError, match=r'holds no dictionary of tensors|the instruction'):
      read_pickle(write(tmp_path / 'a.pth', stream))
