"""The weights of a finished run in one file, which stands in a work directory for checkpoints.

`launch.weights export --format=workdir` writes such a directory: config.json as of any run, and
`WEIGHTS_FILE`, the averaged parameters by their names. The entry 'mgjax' of the file's metadata is
a JSON object: `component`, `model` (as in the configuration), `step`, `version`, of quantised
kernels `weights` (`nn/quantize.py`), and the notes of the checkpoint.

Quantised kernels stay what they are; other floats are float32 once they are read. In the file these
are bfloat16. With --weights=int8, matrices and convolutions are int8 (`in_int8` of
`core/safetensors_files.py`), and what is read and written again is the same bytes. The last
convolution of an autoencoder's decoder stays in bfloat16, because int8 shows in flat pixels (SSIM
of digits/autoencoder 0.968 instead of 0.976). Nothing trains in such a directory;
`config.start_from` takes it.
"""

import os
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import CheckpointError, ConfigError, first_line
from mgjax.core.files import parse_json
from mgjax.core.safetensors_files import (
  SCALE_SUFFIX,
  TensorFile,
  Tensors,
  check_scales,
  in_int8,
  open_tensors,
  shown,
  unpacked,
)
from mgjax.core.tree import named_leaves, nest, subtrees
from mgjax.core.typing import Tree
from mgjax.nn.quantize import is_of_quantised
from mgjax.training.checkpoints.fingerprints import Damaged, Descriptions, check_same_leaves
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Target

WEIGHTS_FILE = 'weights.safetensors'
ABOUT = ('component', 'model', 'step', 'version', 'tokenizer', 'weights')  # others are notes


class WeightsFile(Checkpoints):
  """Reads the one state of a work directory with `WEIGHTS_FILE`, asked as checkpoints are."""

  MEND = 'export or download the folder again'

  def __init__(self, workdir: str | os.PathLike[str]):
    """Binds to a work directory; reads nothing yet."""
    super().__init__(workdir)
    self._path = pathlib.Path(workdir) / WEIGHTS_FILE

  def steps(self) -> list[int]:
    """Returns the step that the weights are of; raises CheckpointError if the header is damaged."""
    try:
      return [self.restore_record()['meta']['step']]
    except ConfigError as error:
      raise CheckpointError(first_line(error)) from error

  def path_of(self, step: int) -> epath.Path:
    """Returns the file. Raises CheckpointError if it is of another step."""
    super().path_of(step)
    return epath.Path(self._path)

  def look_at(self, step: int) -> JSON:
    """Returns what `restore_record` returns: the file is one."""
    return self.restore_record()

  def verify(self, step: int) -> None:
    """Reads all as `restore_params` does. Raises Damaged if that would refuse a tensor."""
    try:
      leaves = self.restore_record()['leaves']['average']
      with open_tensors(self._path) as file:
        names = {*file.names}
        for name in leaves:
          self._read(file, names, name)
        for name in names - {*leaves, *(leaf + SCALE_SUFFIX for leaf in leaves)}:
          file.read(name)  # scales of nothing
    except ConfigError as error:
      raise Damaged(first_line(error)) from error

  def begun(self) -> bool:
    """Raises ConfigError: who asks wants to train here."""
    raise ConfigError(
      f'{os.fspath(self._path.parent)!r} holds finished weights, in which nothing trains; take '
      f'another --workdir, and --config.start_from={self._path.parent} to go on from them'
    )

  def restore_record(self) -> JSON:
    """Returns `meta` and `leaves` as a checkpoint has them, and none of the arrays."""
    name = f'the header of {os.fspath(self._path)!r}'
    mend = 'install mgjax again, or export the weights again'
    with open_tensors(self._path) as file:
      text = file.metadata.get('mgjax')
      described = {tensor: file.describe(tensor) for tensor in file.names}
    if text is None:
      raise ConfigError(f"{name} has no entry 'mgjax', which launch.weights export writes; {mend}")
    header = parse_json(text, name, error=ConfigError, mend=mend)
    for key, kind in (('step', int), ('version', str)):
      if type(header.get(key)) is not kind:
        actual = repr(header[key]) if key in header else 'missing'
        raise ConfigError(f'{name}: {key} is {actual:.80}; expected {kind.__name__}, {mend}')
    notes = {key: value for key, value in header.items() if key not in ABOUT}
    model_fields = {key: header[key] for key in ('component', 'model') if key in header}
    meta = {**model_fields, 'step': header['step'], 'version': header['version'], 'notes': notes}
    leaves = {
      tensor: [self._type_of(tensor, described), list(shape), '']
      for tensor, (_, shape) in described.items()
      if not tensor.endswith(SCALE_SUFFIX)
    }
    if both := sorted(leaves.keys() & set(subtrees(leaves))):
      raise ConfigError(
        f'{os.fspath(self._path)!r} has {shown(both[0])} as a tensor and as a group of tensors; '
        f'{mend}'
      )
    return {'meta': meta, 'leaves': {'average': leaves}}

  def _type_of(self, name: str, described: Mapping[str, tuple[str, object]]) -> str:
    """Returns the type that a tensor is read in. Raises ConfigError if no weights are of its."""
    if name + SCALE_SUFFIX in described:
      return 'float32'
    kind = described[name][0]
    known = _TYPES if is_of_quantised(name) else _FLOATS
    if kind not in known:
      raise ConfigError(
        f'{shown(name)} in {os.fspath(self._path)!r} is of {kind}; expected {" or ".join(known)}, '
        'export the weights again'
      )
    return known[kind]

  def newest_record(self) -> JSON | None:
    """Returns what `restore_record` returns."""
    return self.restore_record()

  def restore_params(
    self, abstract_params: Target, which: str = 'average', step: int | None = None
  ) -> tuple[Tree, JSON]:
    """Reads parameters as `Checkpoints.restore_params`; there is none but the average."""
    record = self.restore_record()
    there = record['meta']['step']
    if which != 'average' or step not in (None, there):
      raise ConfigError(
        f'{os.fspath(self._path)!r} holds the averaged weights of step {there} alone, and '
        f'{which!r} of step {there if step is None else step} were asked for'
      )
    saved: Descriptions = record['leaves']['average']
    target = abstract_params
    if callable(abstract_params):
      target = abstract_params(saved)
    else:
      check_same_leaves(os.fspath(self._path), which, saved, target, cast=True)
    leaves = {}
    with open_tensors(self._path) as file:
      names = {*file.names}
      for name, leaf in named_leaves(target).items():
        value = self._read(file, names, name).astype(leaf.dtype)
        leaves[name] = jax.device_put(value, leaf.sharding)
    return nest(leaves), record['meta']

  def _read(self, file: TensorFile, names: set[str], name: str) -> np.ndarray:
    """Reads a tensor with its scales, if it has some. Raises ConfigError if they are wrong."""
    parts = {key: file.read(key) for key in (name, *({name + SCALE_SUFFIX} & names))}
    if is_of_quantised(name):
      if len(parts) > 1:
        raise ConfigError(
          f'{name + SCALE_SUFFIX!r} in {os.fspath(self._path)!r} scales what has scales of its own'
        )
      if name.endswith('/scale'):
        check_scales(name, parts[name])
    return unpacked(parts)[name]


def inner_folders(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the runs inside a folder of finished weights, such as its autoencoder; else none."""
  if not os.path.lexists(workdir / WEIGHTS_FILE):
    return []
  return [path.parent for path in sorted(workdir.rglob('config.json')) if path.parent != workdir]


# Of the file -> of the arrays.
_FLOATS = {'BF16': 'float32', 'F32': 'float32'}
_TYPES = _FLOATS | {'I8': 'int8', 'F8_E4M3': 'float8_e4m3fn'}  # of quantised kernels
_LAST = 'decoder/conv_out/kernel'  # makes the pixels


def packed(leaves: Tensors, weights: str = '') -> Tensors:
  """Returns tensors as the file has them; matrices as q and s where `weights` is 'int8'."""
  tensors = {}
  for name, leaf in leaves.items():
    if is_of_quantised(name):
      tensors[name] = leaf
    elif weights == 'int8' and name != _LAST:
      tensors |= in_int8(name, leaf, jnp.bfloat16)
    else:
      tensors[name] = leaf.astype(jnp.bfloat16)
  return tensors
