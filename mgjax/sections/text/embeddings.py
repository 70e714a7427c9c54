"""Text embeddings of frozen encoders: computed once, stored on disk, looked up by prompt.

A store is a directory or URL of parts, each of them records of embeddings of texts that no earlier
part had. A part is named by its texts: a process that was killed resumes it when the same texts are
asked for again, and incomplete parts are never read. A store belongs to one encoder.
"""

import dataclasses
import functools
import hashlib
import itertools
import logging
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, StorageError, check_one_of
from mgjax.core.plug_ins import Later
from mgjax.core.settings import unpack
from mgjax.core.typing import Sample
from mgjax.data.records.reader import Records
from mgjax.data.records.rows import text_key
from mgjax.data.records.storage import inside, open_storage
from mgjax.data.records.writer import ALONE, RecordWriter, Share
from mgjax.data.source import Source
from mgjax.models.text.prompts import EMBEDDINGS, prompt_of
from mgjax.models.text.visual_text import READS
from mgjax.training.checkpoints.find_run import find_run, read_needed
from mgjax.training.checkpoints.run_references import is_pinned, is_published
from mgjax.training.monitoring.progress import Progress

if TYPE_CHECKING:
  from mgjax.sections.text import encoder as frozen
else:
  frozen = Later('mgjax.sections.text.encoder')  # most models read no frozen encoder

_AT_ONCE = 1024  # texts that are sorted by length
_FOLDER = 'embeddings'  # beside latents

_ENCODER = 'encoder.json'  # of a store, which names the encoder
_KEY = 'key'
_TEXT = 'text'

_log = logging.getLogger(__name__)

# texts -> arrays of each by name, such as {'states': (m e)}
Embed = Callable[[Sequence[str]], Sequence[Mapping[str, np.ndarray]]]


class EncoderSettings(NamedTuple):
  """One entry of `config.text`: the encoder's work directory, and what it reads.

  `reads` is 'prompt', or 'visual_text' for what a prompt quotes.
  """

  workdir: str
  reads: str


@dataclasses.dataclass(frozen=True)
class TextSettings:
  """The frozen text encoders of a configuration and where their embeddings are stored.

  Attributes:
    encoders: name -> encoder; empty if the model reads no stored embeddings.
    embeddings: directory or URL of the stores, one a name; '' for a folder beside the latents.
    latents: directory or URL of the latents, '' where there are none.

  Raises:
    ConfigError: an encoder reads something unknown.
  """

  encoders: Mapping[str, EncoderSettings] = dataclasses.field(default_factory=dict)
  embeddings: str = ''
  latents: str = ''

  def __post_init__(self):
    for name, encoder in self.encoders.items():
      check_one_of(f'config.text.{name}.reads = {encoder.reads!r}', encoder.reads, READS)

  @classmethod
  def of(cls, config: Fields) -> 'TextSettings':
    """Reads `text`, `embeddings` and `data.latents` of a configuration as a plain dictionary."""
    text = config.get('text') or {}
    encoders = {name: unpack(EncoderSettings, text[name], f'text.{name}') for name in sorted(text)}
    return cls(
      encoders, config.get('embeddings') or '', (config.get('data') or {}).get('latents') or ''
    )

  def store(self, latents: str | os.PathLike[str] = '') -> str:
    """Returns the directory or URL of the stores; `latents`, if given, replaces that setting.
    Raises ConfigError if neither `embeddings` nor `latents` is known.
    """
    latents = os.fspath(latents) or self.latents
    if not (self.embeddings or latents):
      raise ConfigError(
        'config.embeddings is empty and so is config.data.latents: encode the data with '
        'launch.data encode, which stores embeddings of prompts beside the latents, or name a '
        'directory that launch.data encode --prompts filled'
      )
    return self.embeddings or inside(latents, _FOLDER)


class Embeddings:
  """The embeddings in a store, by text; parts that are finished later need a new instance.

  A lookup costs a search among 8 bytes a text and one row that is read.
  """

  def __init__(self, directory: str):
    """Opens a store, which may be empty."""
    self._directory = directory
    done = sorted(name for name in open_storage(directory).names() if name.endswith('.done'))
    self._parts = [Records(inside(directory, name.removesuffix('.done'))) for name in done]
    keys = [part.column(_KEY) for part in self._parts] or [np.zeros(0, np.int64)]
    locations = [
      np.stack([np.full(len(part), number), np.arange(len(part))])
      for number, part in enumerate(self._parts)
    ] or [np.zeros((2, 0), np.int64)]
    self._keys = np.concatenate(keys)
    self._locations = np.concatenate(locations, axis=1)
    order = np.argsort(self._keys, kind='stable')
    self._keys = self._keys[order]
    self._locations = self._locations[:, order]

  def __len__(self) -> int:
    return len(self._keys)

  def find(self, text: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a text, or None.

    Raises:
      StorageError: a shard is gone.
      DataError: the row is damaged.
    """
    key = _key(text)
    for index in range(*np.searchsorted(self._keys, [key, key + 1]).tolist()):
      part, row = self._locations[:, index].tolist()
      arrays = self._parts[part][row]
      if arrays.pop(_TEXT) == text:
        del arrays[_KEY]
        return arrays
    return None

  def missing(self, texts: Iterable[str]) -> list[str]:
    """Returns the texts that are not there, each once, in order.

    Texts are told apart by 63 bits: among a hundred million, two have the same in fewer than one of
    a thousand stores.
    """
    texts = list(dict.fromkeys(texts))
    keys = np.array([_key(text) for text in texts], np.int64)
    known = np.isin(keys, self._keys)
    return list(itertools.compress(texts, ~known))


def encoder_of(directory: str) -> str | None:
  """Returns the name of the encoder of a store's embeddings; None for an empty store."""
  encoder = open_storage(directory).read(_ENCODER)
  return None if encoder is None else encoder.decode()


def embed(
  directory: str,
  texts: Iterable[str],
  embed: Embed,
  *,
  encoder: str,
  batch_size: int = 64,
  rows_per_shard: int = 4096,
  share: Share = ALONE,
) -> bool:
  """Adds the texts that a store lacks; resumes after a kill.

  Every process that has a `share` is given the same texts, repeated or not. Returns whether the
  store now has all; otherwise other processes are still at work.

  Args:
    directory: of the store, a path or URL.
    embed: computes the arrays of a batch of texts.
    encoder: names the encoder, such as a hash of its weights.
    rows_per_shard: at most; a kill loses no more than a shard of each process.

  Raises:
    ConfigError: the store has embeddings of another encoder.
    DataError: `embed` gave another number of results.
  """
  storage = open_storage(directory)
  storage.create(_ENCODER, encoder.encode())
  if (known := encoder_of(directory)) != encoder:
    raise ConfigError(
      f'{directory} has embeddings of the encoder {known}, not of {encoder}; name another directory'
    )
  lacking = sorted(Embeddings(directory).missing(texts))
  if not lacking:
    return True
  rows_per_shard = min(rows_per_shard, -(-len(lacking) // share.processes))
  name = _part_name(lacking, rows_per_shard)
  writer = RecordWriter(
    inside(directory, name),
    rows=len(lacking),
    rows_per_shard=rows_per_shard,
    meta={'encoder': encoder},
    columns=[_KEY],
  )
  mine = writer.missing_shards(*share)

  def rows(indices: range):
    for first in range(indices.start, indices.stop, batch_size):
      batch = lacking[first : min(first + batch_size, indices.stop)]
      results = embed(batch)
      if len(results) != len(batch):
        raise DataError(f'{len(results)} embeddings were made of {len(batch)} texts')
      for text, arrays in zip(batch, results, strict=True):
        yield {_TEXT: text, _KEY: _key(text), **arrays}

  for shard in mine:
    writer.write_shard(shard, rows(writer.shard_rows(shard)))
  if writer.missing_shards():
    return False
  writer.finish()
  storage.create(f'{name}.done', b'')
  return True


def _part_name(texts: Sequence[str], rows_per_shard: int) -> str:
  digest = hashlib.sha256()
  for text in texts:
    digest.update(text.encode('utf-8', 'surrogatepass') + b'\0')
  return f'{digest.hexdigest()[:16]}_{rows_per_shard}'


def _key(text: str) -> int:
  return int(text_key(text)[:16], 16) >> 1


class WithEmbeddings:
  """A source whose samples have 'embeddings' too: {encoder: states (m e)} of their prompts.

  `source[i]` raises StorageError where a text has none, which no other sample can make good.
  """

  def __init__(self, source: Source, lookup: 'Lookup'):
    self.source, self._lookup = source, lookup

  @property
  def fingerprint(self) -> object:
    """That of the source."""
    return getattr(self.source, 'fingerprint', None)

  @property
  def meta(self) -> JSON:
    """That of the records."""
    return self.source.meta

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Sample:
    sample = self.source[index]
    return {**sample, EMBEDDINGS: self._lookup(prompt_of(sample))}


class Lookup:
  """Finds the states of a prompt by every encoder that has something to read in it.

  `identities` maps encoders to the hashes of what made their states.
  """

  def __init__(self, text: TextSettings):
    """Opens the stores; ConfigError if nobody filled them."""
    self._directory = text.store()
    self._reads = {name: encoder.reads for name, encoder in text.encoders.items()}
    self._stores = {}
    self.identities = {}
    for name in self._reads:
      directory = inside(self._directory, name)
      identity = encoder_of(directory)
      if identity is None:
        raise ConfigError(
          f'there are no embeddings at {directory}; let launch.data encode make them, with this '
          'configuration and the encoders that config.text names'
        )
      self._stores[name] = Embeddings(directory)
      self.identities[name] = identity

  def __call__(self, prompt: str) -> JSON:
    """Returns {encoder: states (m e)}; StorageError if a store lacks the text."""
    states = {}
    for name, reads in self._reads.items():
      if not (text := READS[reads](prompt)):
        continue
      arrays = self._stores[name].find(text)
      if arrays is None:
        raise StorageError(
          f'{inside(self._directory, name)} has no embedding of {text!r:.80}; run launch.data '
          'encode again, or with --prompts for prompts that are not among the data'
        )
      states[name] = arrays[frozen.STATES]
    return states


def stored_encoders(text: TextSettings) -> dict[str, str]:
  """Returns the identities of the encoders whose stored states the model reads."""
  return Lookup(text).identities if text.encoders else {}


def with_embeddings(
  text: TextSettings, make: Callable[..., Mapping[str, Source]]
) -> Callable[..., Mapping[str, Source]]:
  """Returns `make_sources` whose samples have embeddings, if the model reads any."""
  if not text.encoders:
    return make
  lookup = Lookup(text)

  @functools.wraps(make)
  def sources(*args: object) -> dict[str, Source]:
    return {name: WithEmbeddings(source, lookup) for name, source in make(*args).items()}

  return sources


def embed_prompts(
  text: TextSettings, directory: str, prompts: Iterable[str], share: Share = ALONE
) -> bool:
  """Adds missing embeddings to the stores, one encoder on the devices at a time.

  `prompts`, with the frame rate of videos, are the same for every process that has a `share`.
  Returns whether all is there; otherwise other processes are still at work.
  Raises ConfigError if an encoder cannot be used, or a store was filled by another.
  """
  unique = dict.fromkeys(prompts)
  complete = True
  for name, encoder in text.encoders.items():
    texts = {READS[encoder.reads](prompt) for prompt in unique} - {''}
    complete &= _embed(name, encoder.workdir, inside(directory, name), texts, share)
  return complete


def _embed(name: str, workdir: str, directory: str, texts: Collection[str], share: Share) -> bool:
  """Fills the store of one encoder, which leaves the devices on return."""
  identity = frozen.encoder_identity(workdir)
  missing = len(Embeddings(directory).missing(texts))
  _log.info('%s: %d texts, of which %d are not in %s', name, len(texts), missing, directory)
  progress = Progress(-(-missing // share.processes), unit='text')
  states = frozen.TextEncoder(workdir) if missing else lambda _: []
  count = 0

  def counted(batch: Sequence[str]) -> Sequence[Mapping[str, np.ndarray]]:
    nonlocal count
    arrays = states(batch)
    count += len(batch)
    progress.report(count)
    return arrays

  done = embed(
    directory,
    texts,
    counted,
    encoder=identity,
    batch_size=_AT_ONCE,
    share=share,
  )
  progress.close()
  if not done:
    _log.warning('%s: other processes are still at work', directory)
  return done


class Embedder:
  """Gives a trained model the embeddings of prompts: stored ones, or encoded now and not kept.

  Encoders are loaded when they are needed, one after another, and leave the devices again.
  """

  def __init__(
    self, text: TextSettings, workdir: str | os.PathLike[str], identities: Mapping[str, str]
  ):
    """Binds the encoders of the run in `workdir`, which may also lie beside it.

    `identities` are those of the encoders whose states the model was trained on. Of a run that its
    name fixes, stored embeddings are not read: they may change.
    """
    if is_pinned(workdir) or is_published(find_run(workdir).absolute()):
      text = TextSettings(text.encoders)
    self._text, self._workdir, self._identities = text, workdir, identities

  def __call__(self, prompts: Sequence[str]) -> list[JSON]:
    """Returns {encoder: states (m e)} of every prompt; {} if the model reads no embeddings.

    Raises ConfigError if an encoder that is needed is missing, or not the one of the model's
    training.
    """
    embeddings: list[dict[str, Any]] = [{} for _ in prompts]
    for name, encoder in self._text.encoders.items():
      texts = [READS[encoder.reads](prompt) for prompt in prompts]
      states = self._states(name, sorted({*texts} - {''}))
      for row, text in zip(embeddings, texts, strict=True):
        if text:
          row[name] = states[text]
    return embeddings

  def find_encoder(self, name: str) -> pathlib.Path:
    """Returns the work directory of an encoder; raises as a call."""
    workdir = self._text.encoders[name].workdir
    read = lambda path: (path, [frozen.encoder_identity(path)])  # noqa: E731
    return read_needed(self._workdir, workdir, f'the {name} encoder', self._identity(name), read)

  def _states(self, name: str, texts: Sequence[str]) -> JSON:
    stored = self._stored(name)
    known = {text: stored.find(text) for text in texts} if stored is not None else {}
    states = {text: arrays[frozen.STATES] for text, arrays in known.items() if arrays is not None}
    if lacking := [text for text in texts if text not in states]:
      _log.info('%s: encoding %d texts that are not stored', name, len(lacking))
      workdir = self.find_encoder(name)
      arrays = frozen.TextEncoder(workdir)(lacking)
      states |= {
        text: encoded[frozen.STATES] for text, encoded in zip(lacking, arrays, strict=True)
      }
    return states

  def _stored(self, name: str) -> Embeddings | None:
    """Opens the store, if it is still there and of the encoder that the model was trained on."""
    if not (self._text.embeddings or self._text.latents):
      return None
    directory = inside(self._text.store(), name)
    same = encoder_of(directory) == self._identity(name)
    return Embeddings(directory) if same else None

  def _identity(self, name: str) -> str:
    if name not in self._identities:
      raise ConfigError(
        f'config.text names the encoder {name!r}; expected one that the weights learned with '
        f'({", ".join(self._identities) or "none"})'
      )
    return self._identities[name]
