"""Opens a path of files, WebDataset tars or parquet as inputs of one kind."""

import os
import pathlib
import urllib.parse
from collections.abc import Callable

from mgjax.core.errors import ConfigError, DataError, check_one_of
from mgjax.data.ingest.entries import PLAIN, VIDEO, Captions, list_entries
from mgjax.data.ingest.inputs import FileInputs, Inputs
from mgjax.data.ingest.object_inputs import ObjectInputs
from mgjax.data.ingest.parquet import ParquetInputs, holds_clip_bytes
from mgjax.data.ingest.tar import TarInputs

LAYOUTS = ('auto', 'files', 'tar', 'parquet')


def open_inputs(
  path: str | os.PathLike[str],
  layout: str = 'auto',
  *,
  media_column: str = '',
  caption_column: str = '',
  captions: Captions = PLAIN,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inputs:
  """Opens the clips at `path` without reading any.

  Args:
    path: a folder of clips, a manifest, a tar, a parquet file, or a folder of those; or the URL of
      clips in a bucket. Parquet without bytes is a manifest.
    layout: one of LAYOUTS; 'auto' goes by the ends of the names.
    media_column: of a manifest or parquet, the one of clips; by default by its name.
    caption_column: of those or the json of a tar's clip, the one of captions.
    captions: of the rows of a manifest, or the json of a tar's clip.
    progress: called with how many lines, tars or parquet files are looked at, and of how many.

  Raises:
    ConfigError: the layout is unknown, a folder holds several, or captions shall be made of other
      columns of parquet.
    DataError: there is nothing at `path`.
  """
  check_one_of(f'unknown layout {layout!r}', layout, LAYOUTS)
  if str(path).startswith('file://'):
    path = urllib.parse.unquote(str(path).removeprefix('file://'))
  if '://' in str(path):
    if layout not in ('auto', 'files') or captions != PLAIN or media_column or caption_column:
      raise ConfigError(f'{path}: of a bucket clips with .txt captions are read; mount it instead')
    return ObjectInputs(str(path))
  path = pathlib.Path(path)
  tars, parquets = _ending(path, ('.tar',)), _ending(path, ('.parquet',))
  if layout == 'auto' and parquets and not holds_clip_bytes(parquets[0]):
    parquets = []
  if layout == 'auto':
    by_layout = {'tar': tars, 'parquet': parquets}
    by_layout['files'] = _ending(path, VIDEO.suffixes) if tars or parquets else [path]
    held = {name: files[0].name for name, files in by_layout.items() if files}
    if len(held) > 1:
      ways = ' or '.join(f'--layout={name}' for name in held)
      raise ConfigError(f'{path} holds {" and ".join(held.values())}; say which are read: {ways}')
    (layout,) = held
  if layout == 'files':
    columns = {'media_column': media_column, 'caption_column': caption_column}
    entries = list_entries(path, progress=progress, captions=captions, **columns)
    return _written(captions, FileInputs(path, entries))
  paths = tars if layout == 'tar' else parquets
  if not paths:
    raise DataError(f'{path} is no .{layout} and holds none')
  if layout == 'tar' and media_column:
    raise ConfigError(
      f'{path}: --media_column is of lists and parquet; clips of a tar are its files'
    )
  if layout == 'tar':
    return _written(captions, TarInputs(paths, progress, captions, caption_column))
  if captions != PLAIN:
    raise ConfigError(
      f'{path}: of parquet only a column of whole captions is read; write them into one, or give a '
      '.csv or .jsonl that names the clips'
    )
  return ParquetInputs(paths, media_column, caption_column, progress)


def _written(captions: Captions, inputs: Inputs) -> Inputs:
  """Notes how captions are made: records that were begun in another way are refused."""
  if captions != PLAIN:
    inputs.identity |= {'captions': list(captions.columns)}
  return inputs


def _ending(path: pathlib.Path, suffixes: tuple[str, ...]) -> list[pathlib.Path]:
  """The files at or below a path whose names end so, but hidden ones and pipes, in order."""
  if path.is_file():
    return [path] if path.suffix.lower() in suffixes else []
  return sorted(
    pathlib.Path(here, name)
    for here, folders, names in os.walk(path)
    for name in names
    if name.lower().endswith(suffixes)
    and not name.startswith('.')
    and os.path.isfile(os.path.join(here, name))  # opening a pipe could wait for ever
    and not any(part.startswith('.') for part in pathlib.Path(here).relative_to(path).parts)
  )
