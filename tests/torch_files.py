"""Files as torch.save writes them, and such as it never would, without PyTorch."""

import io
import pickle
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np


def write(path, found, storages: Sequence[Any] = ()):
  """A file as torch.save zips it: a pickle, and the numbers of each storage."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', found if isinstance(found, bytes) else pickle.dumps(found))
    archive.writestr('archive/byteorder', 'little')
    archive.writestr('archive/version', '3\n')
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


def dumps(found, protocol=2):
  """Pickles with names that need not exist here."""

  class Global:
    def __init__(self, module, name):
      self.module, self.name = module, name

  class Pickler(pickle._Pickler):  # type: ignore[reportAttributeAccessIssue]
    def persistent_id(self, each):
      if isinstance(each, Storage):
        return 'storage', Global('torch', each.kind), str(each.key), 'cpu', each.count
      return None

    def save(self, each, *arguments, **more):
      if isinstance(each, Global) and protocol < 4:
        self.write(pickle.GLOBAL + f'{each.module}\n{each.name}\n'.encode())
      elif isinstance(each, Global):
        self.save(each.module)
        self.save(each.name)
        self.write(pickle.STACK_GLOBAL)
      elif isinstance(each, Named):
        self.save(Global(each.module, each.name))
        self.save(each.arguments)
        self.write(pickle.REDUCE)
      else:
        super().save(each, *arguments, **more)

  buffer = io.BytesIO()
  Pickler(buffer, protocol=protocol).dump(found)
  return buffer.getvalue()


def tensor(storage, offset, shape, strides):
  """A tensor as torch.save pickles it."""
  hooks = Named('collections', 'OrderedDict')
  return Named('torch._utils', '_rebuild_tensor_v2', storage, offset, shape, strides, False, hooks)
