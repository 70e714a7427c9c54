"""Files of PyTorch without PyTorch: what it saves is read, and nothing in it runs."""

import io
import pickle
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.weights.torch_pickle import read_pickle


def write(path, found, storages=()):
  """A file as torch.save zips it: a pickle, and the numbers of each storage."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', found if isinstance(found, bytes) else pickle.dumps(found))
    for key, array in enumerate(storages):
      archive.writestr(f'archive/data/{key}', np.asarray(array).tobytes())
  return path


class Named:
  """Pickles as a call of something that is named."""

  def __init__(self, module, name, *arguments):
    self.module, self.name, self.arguments = module, name, arguments


class Storage:
  """Pickles as a reference to the numbers of a storage."""

  def __init__(self, kind, key, count):
    self.kind, self.key, self.count = kind, key, count


def dumps(found):
  """Pickles with names that need not exist here."""

  class Global:
    def __init__(self, module, name):
      self.module, self.name = module, name

  class Pickler(pickle._Pickler):
    def persistent_id(self, each):
      if isinstance(each, Storage):
        return 'storage', Global('torch', each.kind), str(each.key), 'cpu', each.count
      return None

    def save(self, each, *arguments, **more):
      if isinstance(each, Global):
        self.write(pickle.GLOBAL + f'{each.module}\n{each.name}\n'.encode())
      elif isinstance(each, Named):
        self.save(Global(each.module, each.name))
        self.save(each.arguments)
        self.write(pickle.REDUCE)
      else:
        super().save(each, *arguments, **more)

  buffer = io.BytesIO()
  Pickler(buffer, protocol=2).dump(found)
  return buffer.getvalue()


def tensor(storage, offset, shape, strides):
  return Named('torch._utils', '_rebuild_tensor_v2', storage, offset, shape, strides, False, {})


def test_tensors_are_read_with_their_strides_and_types(tmp_path):
  numbers = np.arange(12, dtype=np.float32)
  halves = np.array([1, 2, 3], jnp.bfloat16)
  found = {
    'state_dict': {
      'plain': tensor(Storage('FloatStorage', 0, 12), 0, (3, 4), (4, 1)),
      'turned': tensor(Storage('FloatStorage', 0, 12), 1, (2, 3), (1, 4)),
      'halves': tensor(Storage('BFloat16Storage', 1, 3), 0, (3,), (1,)),
      'one': tensor(Storage('FloatStorage', 0, 12), 5, (), ()),
    },
    'metadata': {'rates': [2, 8], 'name': 'dac'},
  }
  read = read_pickle(write(tmp_path / 'a.pth', dumps(found), (numbers, halves)))
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
def test_what_pytorch_saves_is_read(tmp_path):
  torch = pytest.importorskip('torch')
  state = {
    'turned': torch.arange(12.0).reshape(3, 4).T, 'half': torch.ones(3, dtype=torch.float16),
    'wide': torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)), 'whole': torch.tensor(3),
  }  # fmt: skip
  torch.save({'state_dict': state, 'metadata': {'kwargs': {'strides': [2, 8]}}}, tmp_path / 'a.pth')
  read = read_pickle(tmp_path / 'a.pth')
  for name, tensor in state.items():
    np.testing.assert_array_equal(read[name].astype(np.float64), tensor.detach().double().numpy())


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
    (crafted(FOUR, 0.0, (4,), (1,)), 'of no whole sizes'),
    (crafted(FOUR, 0, (True,), (1,)), 'of no whole sizes'),
    (crafted(FOUR, 0, (4.0,), (1,)), 'of no whole sizes'),
    (crafted('1234', 0, (4,), (1,)), 'of no storage'),
    (Named('torch._utils', '_rebuild_parameter', Storage('FloatStorage', 0, 4)), 'no dictionary'),
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


@pytest.mark.parametrize('put', [b'r\xff\xff\xff\x0f', b'p268435455\n'])
def test_a_place_of_the_memo_that_would_take_gigabytes_is_refused(put, tmp_path):
  with pytest.raises(ConfigError, match=r'at place 268435455 of its memo'):
    read_pickle(write(tmp_path / 'a.pth', b'\x80\x02}' + put + b'.'))
