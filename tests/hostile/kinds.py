"""Kinds of files that mgjax reads: how a whole one is made, how it is damaged, how it is read.

`read` reads through a public function and returns nothing; it raises a MgjaxError, or `Silent`
where the answer cannot be right.
"""

import io
import json
import mmap
import resource
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save, save_file

import mgjax
from configs.text import t5_base
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import read_metadata, read_tensors
from mgjax.core.tree import named_leaves
from mgjax.data.buckets import Shape
from mgjax.data.clip_index import IndexedClip, index_of_clips
from mgjax.data.clips import VideoClips, probe_video
from mgjax.data.ingest.clip_check import make_row, open_row
from mgjax.data.ingest.convert import Workers, convert
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.media.audio import probe_audio, read_audio, stream_audio, write_wav
from mgjax.data.media.containers import Blob, Limits
from mgjax.data.media.transcode import reencode
from mgjax.data.media.video import write_video
from mgjax.data.records.reader import Records
from mgjax.models.foreign_weights.torch_pickle import read_pickle
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.text.tokenizers import load_tokenizer
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config, write_workdir
from mgjax.training.monitoring.metrics import JsonLines, read_metrics
from tests import tiny
from tests.data.media.audio_files import encode_sound
from tests.data.media.hostile_clips import encoded
from tests.hostile import adapters, damage
from tests.hostile.adapters import Silent
from tests.hostile.media_formats import (
  boxes,
  checked_png,
  chunks_of_png,
  chunks_of_riff,
  elements,
  entries_of_zip,
  head,
  steps_of_pickle,
)
from tests.models.text.test_t5_weights import folder as t5_folder
from tests.oracles import tokens as oracle
from tests.random_parameters import random_parameters
from tests.torch_files import Storage, dumps, tensor, write

LIMITS = Limits(pixels=1 << 20, wall_seconds=10.0)
BESIDE = 100 << 20  # bytes that a reader of tensors may need beside three times the file


class Kind(NamedTuple):
  """Files of one kind.

  Attributes:
    make: writes a whole file, or a folder with one, into an empty folder and returns it.
    damage: of the file's bytes.
    read: of the file or folder.
    file: the file of a folder that is damaged, as a pattern; '' where `make` returns a file.
  """

  make: Callable[[Path], Path]
  damage: damage.Damage
  read: Callable[[Path], Any]
  file: str = ''


# Pictures and sound

_PICTURES = np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3)).astype(np.uint8)
_WAVE = np.sin(np.arange(9600, dtype=np.float32) / 6)[:, None] / 2
_SHAPES = (Shape(4, 16, 16, (8.0, 8.0)), Shape(1, 16, 16, (1.0, 1.0)))


def _video(container: str, codec: str) -> Callable[[Path], Path]:
  def make(folder: Path) -> Path:
    path = folder / f'a.{container}'
    path.write_bytes(encoded(_PICTURES, container, codec, 'yuv420p', None, {}))
    return path

  return make


def _still(name: str, **options: Any) -> Callable[[Path], Path]:
  def make(folder: Path) -> Path:
    frames = [Image.fromarray(frame) for frame in _PICTURES]
    more = {'save_all': True, 'append_images': frames[1:], 'duration': 50} if options else {}
    frames[0].save(folder / f'a.{name}', **more)
    return folder / f'a.{name}'

  return make


def _sound(name: str, codec: str) -> Callable[[Path], Path]:
  def make(folder: Path) -> Path:
    if name == 'wav':
      write_wav(folder / 'a.wav', _WAVE, 16_000)
      return folder / 'a.wav'
    return encode_sound(folder / f'a.{name}', _WAVE, 16_000, codec)

  return make


def _read_pictures(path: Path) -> None:
  """Reads as training and conversion do: by path, and from memory all of it, encoded anew."""
  known = probe_video(path, {str(shape.frames): shape for shape in _SHAPES}, limits=LIMITS)
  if not 0 < known['fps'] <= 1000 or not 0 < known['seconds'] <= LIMITS.seconds:
    raise Silent(f'a clip is {known}')
  for shape in _SHAPES:
    windows = VideoClips(
      index_of_clips([IndexedClip(str(path), 'c', **known)]), shape, limits=LIMITS
    )
    if known['seconds'] > 0.5 or shape.frames == 1:
      for index in {0, len(windows) - 1}:
        if windows[index]['video'].shape != (shape.frames, 16, 16, 3):
          raise Silent(f'a window has the shape {windows[index]["video"].shape}')
  row = make_row(path.read_bytes(), 'c', path.name, full=True, limits=LIMITS)
  for name in ('seconds', 'height', 'width'):
    if row[name] != known[name]:
      raise Silent(f'in memory {name} is {row[name]}, on the disk {known[name]}')
  make_row(reencode(open_row(row), side=16, limits=LIMITS), 'c', 'anew', limits=LIMITS)


def _read_sound(path: Path) -> None:
  info = probe_audio(path, LIMITS)
  blob = Blob(path.name, path.read_bytes())
  heard = sum(map(len, stream_audio(blob, rate=8000, limits=LIMITS))) / 8000
  if heard > info.seconds + 1 or not 0 < info.rate < 1 << 24:
    raise Silent(f'{info} is {heard} s long')
  sound = read_audio(path, seconds=min(0.25, info.seconds / 2), rate=8000, limits=LIMITS)
  if not np.isfinite(sound).all() or np.abs(sound).max() > 1:
    raise Silent('samples are beyond full scale')


MEDIA = {
  'mp4': Kind(_video('mp4', 'libx264'), damage.parts(boxes), _read_pictures),
  'mov': Kind(_video('mov', 'libx264'), damage.parts(boxes), _read_pictures),
  'webm': Kind(_video('webm', 'libvpx-vp9'), damage.parts(elements), _read_pictures),
  'avi': Kind(_video('avi', 'mpeg4'), damage.parts(chunks_of_riff), _read_pictures),
  'gif': Kind(_still('gif', moving=True), damage.parts(head), _read_pictures),
  'jpg': Kind(_still('jpg'), damage.parts(head), _read_pictures),
  'png': Kind(_still('png'), damage.parts(chunks_of_png, checked_png), _read_pictures),
  'webp': Kind(_still('webp'), damage.parts(chunks_of_riff), _read_pictures),
  'wav': Kind(_sound('wav', ''), damage.parts(chunks_of_riff), _read_sound),
  'flac': Kind(_sound('flac', 'flac'), damage.parts(head), _read_sound),
  'ogg': Kind(_sound('ogg', 'libopus'), damage.parts(head), _read_sound),
  'mp3': Kind(_sound('mp3', 'libmp3lame'), damage.parts(head), _read_sound),
  'm4a': Kind(_sound('m4a', 'aac'), damage.parts(boxes), _read_sound),
}


# Weights


def _make_pickle(folder: Path) -> Path:
  numbers, halves = np.arange(1, 25, dtype=np.float32), np.arange(1, 9).astype(jnp.bfloat16)
  found = {
    'plain': tensor(Storage('FloatStorage', 0, 24), 0, (2, 3, 4), (12, 4, 1)),
    'turned': tensor(Storage('FloatStorage', 0, 24), 1, (2, 3), (1, 4)),
    'tied': tensor(Storage('BFloat16Storage', 1, 8), 4, (4,), (1,)),
    'empty': tensor(Storage('BFloat16Storage', 1, 8), 0, (0, 3), (3, 1)),
  }
  state = {'state_dict': found, 'metadata': {'strides': [2, 8], 'name': 'x' * 300, 'big': 2**40}}
  return write(folder / 'a.pt', dumps(state, 4), (numbers, halves))


def _pickle_of(data: bytes) -> bytes:
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    return archive.read('archive/data.pkl')


def _with_pickle(data: bytes, pickled: bytes) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, 'w') as new:
    for each in old.namelist():
      new.writestr(each, pickled if each.endswith('.pkl') else old.read(each))
  return file.getvalue()


def _make_safetensors(folder: Path) -> Path:
  tensors = {
    'weight': np.arange(1, 25, dtype=np.float32).reshape(4, 6),
    'halves': np.arange(1, 9).astype(jnp.bfloat16),
    'empty': np.zeros((0, 3), np.float32),
    'whole': np.arange(10**9, 10**9 + 4),
  }
  save_file(tensors, folder / 'a.safetensors', {'format': 'pt'})
  return folder / 'a.safetensors'


def _header_of(data: bytes) -> bytes:
  return data[8 : 8 + int.from_bytes(data[:8], 'little')]


def _with_header(data: bytes, header: bytes) -> bytes:
  return len(header).to_bytes(8, 'little') + header + data[8 + len(_header_of(data)) :]


def _tensors(read: Callable[[Path], dict[str, np.ndarray]]) -> Callable[[Path], None]:
  """Reads with the memory that it may have; every number must stand in the file."""

  def read_limited(path: Path) -> None:
    size, data = path.stat().st_size, path.read_bytes()
    used = int(Path('/proc/self/statm').read_text().split()[0]) * mmap.PAGESIZE
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * size + BESIDE, before[1]))
    try:
      found = read(path)
    except ConfigError as error:
      if isinstance(error.__cause__, MemoryError):
        raise Silent('the memory that it may have was not enough') from error
      raise
    finally:
      resource.setrlimit(resource.RLIMIT_AS, before)
    if sum(array.nbytes for array in found.values()) > 2 * size:
      raise Silent('the tensors are larger than twice the file')
    for name, array in found.items():
      held = array.tobytes()
      for at in range(0, len(held), array.itemsize):
        if held[at : at + array.itemsize] not in data:
          raise Silent(f'{name[:80]!r} has a number that is not in the file')

  return read_limited


def _make_exported(folder: Path) -> Path:
  import_weights(t5_base.get_config(), t5_folder(folder / 'given', 't5_1_1'), folder / 'run')
  export_weights(folder / 'run', folder / 'out.safetensors')
  return folder / 'out.safetensors'


def _note_of(data: bytes) -> bytes:
  return json.loads(_header_of(data))['__metadata__']['mgjax'].encode()


def _with_note(data: bytes, note: bytes) -> bytes:
  header = json.loads(_header_of(data))
  header['__metadata__']['mgjax'] = note.decode(errors='replace')
  return _with_header(data, json.dumps(header).encode())


def _import(path: Path) -> None:
  workdir = path.with_name('imported')
  import_weights(t5_base.get_config(), path, workdir)
  params, _ = load_params(workdir)
  read_config(workdir)
  for name, leaf in named_leaves(params).items():
    if not leaf.size or not np.isfinite(np.asarray(leaf, np.float32)).all():
      raise Silent(f'{name} {leaf.shape} is not whole')


def _make_folder(folder: Path) -> Path:
  return t5_folder(folder / 'given', 't5_1_1')


def _damage_tensors(data: bytes, draw: damage.Draw) -> bytes:
  """Drops, renames, reshapes, empties or spoils a tensor of a published encoder."""
  path = Path('/dev/shm' if Path('/dev/shm').is_dir() else '/tmp', 'hostile.safetensors')
  path.write_bytes(data)
  tensors, metadata = dict(load_file(path)), read_metadata(path)
  path.unlink()
  name = draw.pick(sorted(tensors))
  one = tensors.pop(name)
  more = name.replace('0', draw.pick(('1', '7', str(10**9), '9' * 5000, '-1', '00')), 1)
  shapes = (one[None], one.T, one.ravel(), one[..., :1], one[:0], np.repeat(one, 3, 0))
  new = draw.pick(
    (
      {},
      {more: one},
      {more: one, name: one},
      {name: draw.pick(shapes)},
      {name: one.astype(draw.pick((np.int32, np.float16, np.float64, np.complex64, np.bool_)))},
      {name: np.full_like(one, draw.pick((np.nan, np.inf)))},
    )
  )
  whole = {key: np.ascontiguousarray(each) for key, each in (tensors | new).items()}
  return save(whole, metadata or None)


WEIGHTS = {
  'pt': Kind(
    _make_pickle,
    damage.inside(
      _pickle_of, _with_pickle, damage.parts(steps_of_pickle), damage.parts(entries_of_zip)
    ),
    _tensors(read_pickle),
  ),
  'safetensors': Kind(
    _make_safetensors,
    damage.inside(_header_of, _with_header, damage.damage_json),
    _tensors(lambda path: read_tensors(path, anything=True)[0]),
  ),
  'exported weights': Kind(
    _make_exported,
    damage.inside(_note_of, _with_note, damage.damage_json, _damage_tensors),
    _import,
  ),
  'encoder config': Kind(_make_folder, damage.damage_json, _import, 'config.json'),
  'encoder tensors': Kind(_make_folder, _damage_tensors, _import, 'model.safetensors'),
}

# Adapters, by byte, by header, by tensor and by settings

_DAMAGED = damage.inside(_header_of, _with_header, damage.damage_json, adapters.damage_tensors)
_SETTINGS = damage.inside(adapters.said_in, adapters.with_said, damage.damage_json, _DAMAGED)
ADAPTERS = {
  'adapters of peft': Kind(
    adapters.make_peft, _DAMAGED, adapters.check, 'adapter_model.safetensors'
  ),
  'settings of peft': Kind(
    adapters.make_peft, damage.damage_json, adapters.check, 'adapter_config.json'
  ),
  'adapters of diffusers': Kind(adapters.make_diffusers, _SETTINGS, adapters.check),
  'adapters of kohya': Kind(adapters.make_kohya, _DAMAGED, adapters.check),
}


# Tokenizers

_TEXTS = ('', 'a cat', 'the sign says "407"', '猫' * 50, 'e\u0301' * 20, '\ud800', ' ' * 300)


def _tokenizer(name: str) -> Callable[[Path], Path]:
  def make(folder: Path) -> Path:
    with np.load(oracle.VECTORS) as file:
      pieces, merges = oracle.give_pieces(file), json.loads(str(file['merges']))
    place = oracle.write_vocabularies(folder / 'all', pieces, merges)
    (place / 't5/tokenizer.json').write_text(json.dumps(oracle.unigram_json(pieces)))
    oracle.write_merges(place / 'bpe.txt.gz', merges)
    return place / name

  return make


def _read_tokens(path: Path) -> None:
  tokenizer = load_tokenizer(path)
  for text in _TEXTS:
    tokens = tokenizer(text)
    if not len(tokens) or tokens.min() < 0 or tokens.max() >= tokenizer.size:
      raise Silent(f'{tokens!r:.100} of {text[:20]!a}')


TOKENIZERS = {
  'spiece.model': Kind(_tokenizer('t5/spiece.model'), damage.parts(head), _read_tokens),
  'tokenizer.json': Kind(_tokenizer('t5/tokenizer.json'), damage.damage_json, _read_tokens),
  'vocab.json': Kind(_tokenizer('clip'), damage.damage_json, _read_tokens, 'vocab.json'),
  'merges.txt': Kind(_tokenizer('clip'), damage.lines(), _read_tokens, 'merges.txt'),
  'bpe.txt.gz': Kind(_tokenizer('bpe.txt.gz'), damage.parts(head), _read_tokens),
}


# Lists of clips, and records of them

_ROWS = 6


def _clips(folder: Path) -> list[dict[str, Any]]:
  write_video(folder / 'a.mp4', np.zeros((2, 16, 16, 3), np.uint8), 8)
  return [{'video': 'a.mp4', 'caption': f'clip {number}, "so"'} for number in range(_ROWS)]


def _make_jsonl(folder: Path) -> Path:
  rows = _clips(folder)
  (folder / 'list.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  return folder


def _make_csv(folder: Path) -> Path:
  cells = [
    f'{row["video"]},"{row["caption"].replace(chr(34), chr(34) * 2)}"' for row in _clips(folder)
  ]
  (folder / 'list.csv').write_text('\n'.join(['video,caption', *cells]))
  return folder


def _make_tar(folder: Path) -> Path:
  _make_jsonl(folder)
  for number in range(_ROWS):
    (folder / f'{number}.mp4').write_bytes((folder / 'a.mp4').read_bytes())
    (folder / f'{number}.txt').write_text(f'clip {number}')
  (folder / 'a.mp4').unlink()
  (folder / 'list.jsonl').unlink()
  return Path(shutil.make_archive(str(folder.with_name('a')), 'tar', folder))


def _make_parquet(folder: Path) -> Path:
  import pyarrow
  import pyarrow.parquet

  rows = _clips(folder)
  clip = (folder / 'a.mp4').read_bytes()
  table = pyarrow.table({'video': [clip] * _ROWS, 'caption': [row['caption'] for row in rows]})
  pyarrow.parquet.write_table(table, folder / 'a.parquet')
  return folder / 'a.parquet'


def _convert(path: Path) -> None:
  """Converts what a list names: each entry is a row, or has a reason."""
  if path.is_dir():
    path = next(path.glob('list.*'))
  inputs = open_inputs(path)
  result = convert(inputs, path.with_name('out'), workers=Workers(threads=1))
  rows = [row['caption'] for row in Records(path.with_name('out'))]
  if not len(rows) + len(result.rejected) == result.inputs == len(inputs):
    raise Silent(f'{len(inputs)} inputs, but {result}')


def _make_records(folder: Path) -> Path:
  _convert(_make_jsonl(folder))
  return folder / 'out'


LISTS = {
  'jsonl': Kind(_make_jsonl, damage.lines(damage.damage_json), _convert, 'list.jsonl'),
  'csv': Kind(_make_csv, damage.lines(), _convert, 'list.csv'),
  'tar': Kind(_make_tar, damage.parts(head), _convert),
  'parquet': Kind(_make_parquet, damage.parts(head), _convert),
  'records': Kind(
    _make_records, damage.damage_json, lambda path: [*Records(path)], 'manifest.json'
  ),
}


# Work directories


def _make_run(folder: Path) -> Path:
  config = tiny.autoencoder()
  model = make_autoencoder(config.model.to_dict())
  clip = np.zeros((1, 4, 16, 16, 3), np.float32)
  params = random_parameters(model.init, clip, jax.random.key(0))
  notes = {'latents': {'mean': [0.5, -1.0, 0.0, 2.0], 'std': [1.0, 2.0, 0.5, 1.5]}}
  write_workdir(config.to_dict(), params, notes, folder / 'run', origin={'order': 'made'})
  writer = JsonLines(folder / 'run')
  for step in range(1, 9):
    writer.write(step, {'loss': 1 / step, 'learning_rate': 1e-4})
  return folder / 'run'


def _read_run(workdir: Path) -> None:
  """Reads as `load` and a restart do; a checkpoint that is not damaged is never lost."""
  read_config(workdir)
  params, meta = load_params(workdir)
  mgjax.load(workdir)
  if meta['step'] != 0 or not open_checkpoints(workdir).begun():
    raise Silent(f'step {meta["step"]} of a checkpoint of step 0')
  if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(params)):
    raise Silent('parameters that were never saved')


def _read_metrics(workdir: Path) -> None:
  JsonLines(workdir, resume_step=4).write(5, {'loss': 1.0})
  for step, values in read_metrics(workdir):
    if not 0 <= step < 2**53 or not all(isinstance(value, float) for value in values.values()):
      raise Silent(f'{step}: {values}')


def _checkpoint(name: str) -> Kind:
  return Kind(_make_run, damage.damage_bytes, _read_run, f'checkpoints/0/{name}')


RUNS = {
  'config.json': Kind(_make_run, damage.damage_json, _read_run, 'config.json'),
  'run.json': Kind(_make_run, damage.damage_json, _read_run, 'run.json'),
  'parameters.json': Kind(_make_run, damage.damage_json, _read_run, 'parameters.json'),
  'metrics.jsonl': Kind(
    _make_run, damage.lines(damage.damage_json), _read_metrics, 'metrics.jsonl'
  ),
  'checkpoint': _checkpoint('**/d/*'),
  'meta of a checkpoint': _checkpoint('meta/*'),
}

KINDS: dict[str, Kind] = MEDIA | WEIGHTS | ADAPTERS | TOKENIZERS | LISTS | RUNS
warnings.filterwarnings('ignore', message='Duplicate name', module='zipfile')
