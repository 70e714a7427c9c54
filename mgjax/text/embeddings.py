"""Embeddings of prompts on their way: from frozen encoders into stores, from stores to models.

A configuration whose model reads them has `text`, the encoders by name: `workdir`, where
`launch.weights import` put one, and `reads`, 'prompt' or 'visual_text', what a prompt quotes; and
`embeddings`, a directory of stores by the same names, by default beside the latents.
"""

import functools
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mgjax.checkpoints.workdir import places_of
from mgjax.core.errors import ConfigError, StorageError
from mgjax.data.mixture import Source
from mgjax.data.records.storage import inside
from mgjax.runtime.metrics import Progress
from mgjax.text.embedding_store import Embeddings, embed, encoder_of
from mgjax.text.encoder import STATES, TextEncoder, identity_of
from mgjax.text.prompts import EMBEDDINGS, prompt_of
from mgjax.text.visual_text import READS

_AT_ONCE = 1024  # texts that are sorted by length
_FOLDER = 'embeddings'  # beside latents

_log = logging.getLogger(__name__)


def store_of(config: ConfigDict, latents: str | os.PathLike[str] = '') -> str:
  """Returns the directory or URL of the stores.

  Args:
    config: `embeddings`; without, they are in a folder beside the latents.
    latents: where they are, if not at `config.data.latents`.

  Raises:
    ConfigError: neither is known.
  """
  latents = os.fspath(latents) or config.data.latents
  given = config.get('embeddings') or ''
  if not (given or latents):
    raise ConfigError(
      'config.embeddings is empty and so is config.data.latents: encode the data with '
      'launch.encode, which stores embeddings of prompts beside the latents, or name a directory '
      'that launch.encode --prompts filled'
    )
  return given or inside(latents, _FOLDER)


def encoders_of(config: ConfigDict) -> dict[str, ConfigDict]:
  """Returns the encoders of a configuration by name; {} if its model reads no stored embeddings.

  Raises:
    ConfigError: one is described wrongly.
  """
  encoders = {name: config.text[name] for name in sorted(config.get('text') or {})}
  for name, encoder in encoders.items():
    if encoder.reads not in READS:
      raise ConfigError(
        f'config.text.{name}.reads = {encoder.reads!r}; expected one of {", ".join(READS)}'
      )
  return encoders


class WithEmbeddings:
  """A source whose samples have 'embeddings' too: {encoder: states (m e)} of their prompts.

  Raises (from `source[i]`):
    StorageError: a text has none, which no other sample can make good.
  """

  def __init__(self, source: Source, lookup: 'Lookup'):
    self.source, self._lookup = source, lookup

  @property
  def fingerprint(self) -> Any:
    """That of the source."""
    return getattr(self.source, 'fingerprint', None)

  @property
  def meta(self) -> dict[str, Any]:
    """That of the records."""
    return self.source.meta

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    sample = self.source[index]
    return {**sample, EMBEDDINGS: self._lookup(prompt_of(sample))}


class Lookup:
  """Finds the states of a prompt by every encoder; of one that has nothing to read, none.

  Attributes:
    identities: encoder -> what made its states.
  """

  def __init__(self, config: ConfigDict):
    """Opens the stores of a configuration.

    Raises:
      ConfigError: nobody filled them.
    """
    self._directory = store_of(config)
    self._reads = {name: encoder.reads for name, encoder in encoders_of(config).items()}
    self._stores, self.identities = {}, {}
    for name in self._reads:
      directory = inside(self._directory, name)
      identity = encoder_of(directory)
      if identity is None:
        raise ConfigError(
          f'there are no embeddings at {directory}; let launch.encode make them, with this '
          'configuration and the encoders that config.text names'
        )
      self._stores[name], self.identities[name] = Embeddings(directory), identity

  def __call__(self, prompt: str) -> dict[str, Any]:
    """Returns {encoder: states (m e)}.

    Raises:
      StorageError: a store lacks the text.
    """
    found = {}
    for name, reads in self._reads.items():
      if not (text := READS[reads](prompt)):
        continue
      arrays = self._stores[name].find(text)
      if arrays is None:
        raise StorageError(
          f'{inside(self._directory, name)} has no embedding of {text!r:.80}; run launch.encode '
          'again, or with --prompts for prompts that are not among the data'
        )
      found[name] = arrays[STATES]
    return found


def stored_encoders(config: ConfigDict) -> dict[str, str]:
  """Returns the identities of the encoders whose stored states a configuration's model reads."""
  return Lookup(config).identities if encoders_of(config) else {}


def with_embeddings(
  config: ConfigDict, make: Callable[..., Mapping[str, Source]]
) -> Callable[..., Mapping[str, Source]]:
  """Returns `make_sources` whose samples have embeddings, if the model of a configuration does."""
  if not encoders_of(config):
    return make
  lookup = Lookup(config)

  @functools.wraps(make)
  def sources(*args: Any) -> dict[str, Source]:
    return {name: WithEmbeddings(source, lookup) for name, source in make(*args).items()}

  return sources


def embed_prompts(
  config: ConfigDict, directory: str, prompts: Iterable[str], process: int = 0, processes: int = 1
) -> bool:
  """Fills the stores with what they lack, one encoder on the devices at a time.

  Args:
    config: with the encoders.
    directory: of the stores.
    prompts: with the frame rate of videos; the same for all processes.
    process: of those that share the work, this one.
    processes: how many they are.

  Returns:
    Whether all is there; otherwise other processes are still at work.

  Raises:
    ConfigError: an encoder cannot be used, or a store was filled by another.
  """
  unique = dict.fromkeys(prompts)
  whole = True
  for name, encoder in encoders_of(config).items():
    texts = {READS[encoder.reads](prompt) for prompt in unique} - {''}
    whole &= _embed(name, encoder.workdir, inside(directory, name), texts, process, processes)
  return whole


def _embed(
  name: str, workdir: str, directory: str, texts: Collection[str], process: int, processes: int
) -> bool:
  """Fills the store of one encoder, which leaves the devices on return."""
  identity, missing = identity_of(workdir), len(Embeddings(directory).missing(texts))
  _log.info('%s: %d texts, of which %d are not in %s', name, len(texts), missing, directory)
  progress = Progress(-(-missing // processes), unit='text')
  done = embed(
    directory, texts, TextEncoder(workdir) if missing else _nothing, encoder=identity,
    batch_size=_AT_ONCE, process=process, processes=processes,
    progress=lambda count, total: progress.report(count, {}),
  )  # fmt: skip
  progress.close()
  if not done:
    _log.warning('%s: other processes are still at work', directory)
  return done


class Embedder:
  """Prompts to what a trained model reads of them: stored states, others encoded now and not kept.

  Encoders are loaded when they are needed, one after another, and leave the devices again.
  """

  def __init__(
    self, config: ConfigDict, workdir: str | os.PathLike[str], identities: Mapping[str, str]
  ):
    """Binds the encoders of a run.

    Args:
      config: of the run.
      workdir: of the run; encoders may also lie beside it.
      identities: of the encoders whose states it learnt.
    """
    self._config, self._workdir, self._identities = config, workdir, identities
    self._encoders = encoders_of(config)

  def __call__(self, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Returns {encoder: states (m e)} of every prompt; {} if the model reads no embeddings.

    Raises:
      ConfigError: an encoder that is needed is not there, or not the one that the model learnt.
    """
    found: list[dict[str, Any]] = [{} for _ in prompts]
    for name, encoder in self._encoders.items():
      texts = [READS[encoder.reads](prompt) for prompt in prompts]
      states = self._states(name, sorted({*texts} - {''}))
      for row, text in zip(found, texts, strict=True):
        if text:
          row[name] = states[text]
    return found

  def _states(self, name: str, texts: Sequence[str]) -> dict[str, Any]:
    stored = self._stored(name)
    known = {text: stored.find(text) for text in texts} if stored is not None else {}
    states = {text: arrays[STATES] for text, arrays in known.items() if arrays is not None}
    if lacking := [text for text in texts if text not in states]:
      place = self._place(name)
      _log.info('%s: encoding %d texts that are not stored', name, len(lacking))
      arrays = TextEncoder(place)(lacking)
      states |= {text: each[STATES] for text, each in zip(lacking, arrays, strict=True)}
    return states

  def _stored(self, name: str) -> Embeddings | None:
    """Opens the store, if it is still there and of the encoder that the model learnt."""
    if not (self._config.get('embeddings') or self._config.data.latents):
      return None
    directory = inside(store_of(self._config), name)
    same = encoder_of(directory) == self._identities[name]
    return Embeddings(directory) if same else None

  def _place(self, name: str) -> os.PathLike[str]:
    given = self._encoders[name].workdir
    places = [place for place in places_of(self._workdir, given) if place.exists()]
    for place in places:
      if identity_of(place) == self._identities[name]:
        return place
    raise ConfigError(
      f'the prompts are not among the stored embeddings, and the encoder {name} at {given!r} '
      + ('is another than the model learnt to read' if places else 'is not there')
      + '; put it there, or beside the work directory of the model'
    )


def _nothing(texts: Sequence[str]) -> list[Mapping[str, Any]]:
  raise ConfigError(f'{len(texts)} texts came up that were stored a moment ago; run it again')
