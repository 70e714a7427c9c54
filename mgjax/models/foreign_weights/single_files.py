"""Opens weights as ComfyUI has them, and fills parameters from a table of names.

One file may hold a model behind one of `PREFIXES`, and float8 weights q beside scales s, which are
read as q s.
"""

import functools
import logging
import os
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import AnyTensor, StoredTensor, listed
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.files import WeightFile, read_weights
from mgjax.models.foreign_weights.names import LAYER, TensorName, import_tensors

PREFIXES = ('model.diffusion_model.', 'diffusion_model.')
_WEIGHT, _SCALE = '.weight', '.scale_weight'
_FLOAT8 = ('float8_e4m3fn', 'float8_e5m2')
# Of float8 files: a marker, and scales of what is multiplied with the weights.
_LEFT_OUT = (TensorName(None, 'scaled_fp8'), TensorName(None, '*.scale_input'))

_log = logging.getLogger(__name__)


def open_weights(path: str | os.PathLike[str], *, keep_type: bool = False) -> WeightFile:
  """Opens files as `read_weights`, without prefixes, and with float8 weights as products.

  These are float32, or bfloat16 with `keep_type`. Raises ConfigError as `read_weights`.
  """
  weights = read_weights(path)
  tensors = {_without_prefix(name): tensor for name, tensor in weights.tensors.items()}
  dtype = np.dtype(jnp.bfloat16 if keep_type else np.float32)
  scales = {}
  for name, tensor in tensors.items():
    if tensor.dtype.name in _FLOAT8 and name.endswith(_WEIGHT):
      scale = name.removesuffix(_WEIGHT) + _SCALE
      load = functools.partial(_product, name, tensor, tensors.get(scale), dtype)
      tensors[name] = StoredTensor(tensor.shape, dtype, load)
      scales[scale] = name
  return weights._replace(tensors={n: each for n, each in tensors.items() if n not in scales})


def _without_prefix(name: str) -> str:
  for prefix in PREFIXES:
    if name.startswith(prefix):
      return name.removeprefix(prefix)
  return name


def _product(
  name: str, tensor: StoredTensor, scale: StoredTensor | None, dtype: np.dtype
) -> np.ndarray:
  product = np.asarray(tensor).astype(np.float32)
  if scale is not None:
    if scale.size != 1:
      raise ConfigError(f'the scale of {name} has the shape {scale.shape}; expected one number')
    product *= np.asarray(scale).astype(np.float32).reshape(())
  return product.astype(dtype)


def shape_of(
  tensors: Mapping[str, AnyTensor], rows: Sequence[TensorName], ours: str, rank: int
) -> tuple[int, ...]:
  """Returns the shape of the tensor of a parameter, in the first layer.

  Raises ConfigError if there is no such tensor of `rank` axes.
  """
  (row,) = (row for row in rows if row.ours == ours)
  theirs = [name.replace(LAYER, '0') for name in row.names]
  for name in theirs:
    if name in tensors and tensors[name].ndim == rank:
      return tensors[name].shape
  raise ConfigError(
    f'there is no tensor {" or ".join(theirs)} of {rank} axes among {listed({"tensors": tensors})};'
    ' give the weights of this model'
  )


def fill_parameters(
  weights: WeightFile, rows: Sequence[TensorName], shapes: Tree, expected: str, keep_type: bool
) -> tuple[Tree, JSON]:
  """Returns parameters as `import_tensors`, and notes of the files that they are from."""
  params, left_out = import_tensors(
    (*rows, *_LEFT_OUT), weights.tensors, shapes, expected=expected, keep_type=keep_type
  )
  digests = weights.digests()
  for name, digest in digests.items():
    _log.info('%s  %s', digest, name)
  types = {name: dtype for name, dtype in weights.types().items() if name not in left_out}
  return params, {'source': {'sha256': digests, 'types': types}}
