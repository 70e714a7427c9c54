"""Runs frozen text encoders from their work directories: texts in, states out."""

import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Positive, checked, fields_of
from mgjax.core.typing import Array
from mgjax.models.clip.towers import make_clip_text
from mgjax.models.text.t5 import make_t5
from mgjax.models.text.tokenizers import encode_texts
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_place, put_batch
from mgjax.sections.text.tokenizer_folder import READERS, digests, load_tokenizer_of, read_tokenizer
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config

STATES = 'states'
_MAKERS = {'t5': make_t5, 'clip_text': make_clip_text}
_BATCH_SIZE = 64  # texts at once; of UL2 some GB of activations
_SHORTEST = 16  # tokens; from here on the lengths of batches double, for each is a program


def encoder_identity(workdir: str | os.PathLike[str]) -> str:
  """Returns a hash of everything that an encoder's states depend on, except the text.

  Weights and tokenizer by the SHA-256 of their source files, the model's fields with its compute
  type, and the length at which texts are cut.

  Raises:
    ConfigError: the directory does not hold an encoder of texts.
    CheckpointError: it has no checkpoint that can be trusted.
  """
  config = _read_config(workdir)
  notes = open_checkpoints(workdir).restore_record()['meta']['notes']
  tokenizer = digests(read_tokenizer(workdir))
  model = fields_of(config, 'model')
  # Hashed with the names of version 0.1, so that old embeddings stay valid.
  model |= {'hidden': model.pop('mlp_dim'), 'compute': model.pop('dtype')}
  parts = [config.component, model, config.length, notes, tokenizer]
  return fingerprint_of(parts)


class TextEncoder:
  """A frozen encoder, its weights sharded over the devices of this process."""

  def __init__(self, workdir: str | os.PathLike[str]):
    """Reads an encoder that `launch.weights import` made.

    Raises:
      ConfigError: the directory does not hold an encoder of texts, or has no tokenizer.
      CheckpointError: it has no checkpoint that can be trusted.
    """
    config = _read_config(workdir)
    self._tokenizer = load_tokenizer_of(workdir)
    self._length = checked(Positive, config.length, 'length')
    model = _MAKERS[config.component](fields_of(config, 'model'))
    nothing = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    boxed = jax.eval_shape(model.init, jax.random.key(0), *nothing)['params']
    self._mesh = make_mesh({'fsdp': -1}, config.rules, devices=jax.local_devices())
    self._params, _ = load_params(workdir, sharding_of=make_place(boxed, self._mesh))

    @jax.jit
    def states(params, batch) -> Array:
      outputs = model.apply({'params': params}, batch['tokens'], batch['mask'])
      # CLIP returns the vector of the text as well.
      return outputs[0] if config.component == 'clip_text' else outputs

    self._states = states

  def __call__(self, texts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Returns {'states': (m e)} of every text, without padding, in the encoder's compute type.
    Raises DataError if states are not finite, as float16 may give them.
    """
    tokens, mask = encode_texts(self._tokenizer, texts, self._length)
    counts = mask.sum(axis=1)
    order = np.argsort(counts, kind='stable')  # short texts share batches
    states_by_index: dict[int, np.ndarray] = {}
    for first in range(0, len(texts), _BATCH_SIZE):
      chosen = order[first : first + _BATCH_SIZE]
      width = min(_doubled(_SHORTEST, int(counts[chosen].max())), self._length)
      rows = np.resize(chosen, _doubled(self._mesh.size, len(chosen)))  # some of them repeated
      batch = {'tokens': tokens[rows, :width], 'mask': mask[rows, :width]}
      with jax.set_mesh(self._mesh):
        states = np.asarray(self._states(self._params, put_batch(batch, self._mesh)))
      for row, index in enumerate(chosen.tolist()):
        states_by_index[index] = states[row, : counts[index]]
        if not np.isfinite(states_by_index[index]).all():
          raise DataError(f'the states of {texts[index]!r:.60} are not finite; compute in bfloat16')
    return [{STATES: states_by_index[index]} for index in range(len(texts))]


def _read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
  if not os.path.exists(os.path.join(workdir, 'config.json')):
    raise ConfigError(
      f'there is no encoder at {os.fspath(workdir)!r}; import one with launch.weights import '
      f'--input=... --config=configs/text/... --workdir={os.fspath(workdir)}, or mend config.text'
    )
  config = read_config(workdir)
  if config.component not in READERS:
    raise ConfigError(
      f'{os.fspath(workdir)!r} is of the component {config.component!r}; expected '
      f'{" or ".join(READERS)}, as launch.weights import makes'
    )
  return config


def _doubled(number: int, least: int) -> int:
  """Returns the number, doubled until it is at least so large."""
  while number < least:
    number *= 2
  return number
