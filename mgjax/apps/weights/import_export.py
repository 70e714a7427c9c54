"""Imports weights of other projects into work directories, exports and publishes work directories.

A file of the format 'mgjax' is one .safetensors with every averaged parameter by its name. In the
metadata of its header the entry 'mgjax' is a JSON object: `component`, `model` (as in the
configuration), `step`, `version` and the notes of the checkpoint, such as `latents` (their
statistics). An encoder of text also has `tokenizer`, its files in base64. Quantised kernels
(`nn/quantize.py`) have `weights`, their type. Equal weights make equal files.
"""

import base64
import functools
import json
import logging
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.apps.weights.cards import CARD, RECORD, make_card
from mgjax.core.configuration.keys import Fields, differences
from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import CheckpointError, ConfigError, first_line
from mgjax.core.files import parse_json, read_json, read_optional_json, write_bytes, write_json
from mgjax.core.precision import BASE, LORA_A, LORA_B, stored_type
from mgjax.core.run_names import RunName, is_name, own_folder, read_name
from mgjax.core.safetensors_files import (
  Tensors,
  are_finite_floats,
  check_tensors,
  read_metadata,
  read_tensors,
  shown,
  unpacked,
  write_tensors,
)
from mgjax.core.settings import check_sizes, fields_of
from mgjax.core.tree import count_parameters, named_leaves, nest
from mgjax.core.version import __version__
from mgjax.models.flow_model.alignment import without_projector
from mgjax.models.foreign_weights.files import INDEX
from mgjax.models.foreign_weights.format import (
  ImportedWeights,
  WeightFormat,
  parameter_shapes,
  understanding,
)
from mgjax.models.foreign_weights.names import arrange
from mgjax.models.foreign_weights.torch_pickle import TORCH_SUFFIXES
from mgjax.models.tae.latents import Statistics
from mgjax.models.text.tokenizer_files import KNOWN_FILES
from mgjax.models.text.vocabulary import WORDS, Vocabulary, words_in
from mgjax.nn.lora import differences_in, lora_settings, pairs
from mgjax.nn.quantize import is_quantised, kernels, quantised_as, store, stored_shapes
from mgjax.registry import weight_format
from mgjax.sections.autoencoder.pipeline import KEPT
from mgjax.sections.flow.files import find_autoencoder
from mgjax.sections.flow.lora_files import (
  ADAPTER_FORMATS,
  AboutAdapters,
  are_adapters,
  read_adapters,
  words_of_adapters,
  write_adapters,
)
from mgjax.sections.text.embeddings import Embedder, TextSettings
from mgjax.sections.text.tokenizer_folder import (
  READERS,
  TOKENIZER_NAMES,
  TokenizerFiles,
  digests,
  find_tokenizer,
  read_tokenizer,
  write_tokenizer,
)
from mgjax.training.checkpoints.find_run import find_run, ships
from mgjax.training.checkpoints.fingerprints import Damaged, fingerprint_of
from mgjax.training.checkpoints.load_params import (
  identity_of,
  load_adapters,
  load_base,
  load_params,
)
from mgjax.training.checkpoints.published import pinned, push
from mgjax.training.checkpoints.run_references import LIST, check_fixed
from mgjax.training.checkpoints.weights_file import ABOUT, WEIGHTS_FILE, WeightsFile, packed
from mgjax.training.checkpoints.workdir import (
  open_checkpoints,
  read_config,
  read_notes,
  write_workdir,
)
from mgjax.training.monitoring.workdir_lock import hold

Complete = Callable[[ImportedWeights], ImportedWeights]

OURS = ('mgjax', 'workdir')
FLOATS = ('float16', 'bfloat16', 'float32', 'float64', 'float8_e4m3fn', 'float8_e5m2')

_log = logging.getLogger(__name__)


def import_weights(
  config: ConfigDict,
  source: str | os.PathLike[str],
  workdir: str | os.PathLike[str],
  tokenizer: str | os.PathLike[str] | None = None,
  complete: Complete | None = None,
) -> None:
  """Makes a work directory of a component from files, as of a run stopped at step 0.

  A file of the format 'mgjax' comes back as it was exported. An image autoencoder is inflated,
  unless `model.temporal` is False; of DAC's encoder or decoder alone the rest is as initialised.
  What the file fixes of `config.model` replaces what stands there; `WeightFormat.how` stays, and so
  do strides that halve the frames as often as the image model does, however they treat time.

  Args:
    config: of such a component; of an encoder `keep_type` says whether parameters stay in the types
      of the files.
    source: a .safetensors file of `export_weights`, or a folder of its format 'workdir'. A
      transformer or autoencoder of Wan may be a folder, or a .safetensors or .pth file. Adapters
      are for the model at `start_from`. An autoencoder may be a folder that diffusers wrote, or its
      .safetensors file. A codec may be a .safetensors or .pth file by the published names of
      DAC-VAE, or by those that transformers gives the encoder or decoder of DAC. An encoder may be
      a folder of transformers, its index or a file of its tensors.
    workdir: new, or what a killed import of the same left.
    tokenizer: of an encoder of text, a file or folder; by default what lies beside the weights.
    complete: adds to what was read from files of another project what they do not hold.

  Raises:
    ConfigError: the files cannot be used, or the work directory is of another run or has
      checkpoints.
  """
  workdir = pathlib.Path(workdir)
  weights = weight_format(config)
  if not os.path.exists(source):
    raise ConfigError(f'--input={os.fspath(source)}: there is no such file or folder')
  if os.path.isfile(inside := os.path.join(source, WEIGHTS_FILE)):  # of the format 'workdir'
    source = inside
  with hold(workdir):
    _import_into(workdir, config.to_dict(), source, weights, tokenizer, complete)


def _import_into(
  workdir: pathlib.Path,
  config: Fields,
  source: str | os.PathLike[str],
  weights: WeightFormat,
  tokenizer: str | os.PathLike[str] | None,
  complete: Complete | None,
) -> None:
  component = config['component']
  old = fields_of(config, 'model')
  if open_checkpoints(workdir, config['train'].get('checkpoints', '')).begun():
    raise ConfigError(f'{os.fspath(workdir)!r} already has checkpoints; take another --workdir')
  if are_adapters(source):
    _import_adapters(workdir, config, source, weights)
    return
  if (ours := _read_ours(source, component, weights)) is not None:
    model, params, notes = _from_ours(weights, old, *ours)
  elif weights.read is not None:
    imported = weights.read(
      old, source, seed=config['seed'], keep_type=config.get('keep_type', False)
    )
    model, params, notes = imported if complete is None else complete(imported)
  else:
    raise ConfigError(
      f'{os.fspath(source)!r} is not of launch.weights export; nothing else is imported for the '
      f'component {component!r}'
    )
  files = {} if ours is None or tokenizer is not None else _unpack(ours[1], source)
  kind = config.get('tokenizer')
  files = files or find_tokenizer(component, kind, model, source, tokenizer)
  if files:
    notes['source'] = notes['source'] | {'tokenizer': digests(files)}
  for name, digest in digests(files).items():
    _log.info('%s  %s', digest, name)
  for changed in differences(old, model):
    _log.info('model.%s, as the weights need it', changed)
  config = ConfigDict({**config, 'model': dict(model)}).to_dict()
  if _is_another_run(workdir, config):
    raise ConfigError(f'{os.fspath(workdir)!r} is of another run; take another --workdir')
  write_tokenizer(workdir, files)
  frozen = weights.frozen or bool(quantised_as(named_leaves(params)))
  write_workdir(config, params, notes, workdir, origin={'order': 'imported'}, frozen=frozen)
  if frozen:
    _log.info('%d parameters in %s', count_parameters(params), workdir)
    return
  _log.info(
    '%d parameters in %s; train them with --config.start_from=%s and another --workdir',
    count_parameters(params),
    workdir,
    workdir,
  )


def _import_adapters(
  workdir: pathlib.Path,
  config: Fields,
  source: str | os.PathLike[str],
  weights: WeightFormat,
) -> None:
  """Writes a run of adapters at step 0, for the model at `config.start_from`."""
  base, meta = load_base(config.get('start_from'), 'adapters are imported')
  adapters = read_adapters(source, base, weights.rows(fields_of(config, 'model')))
  if changes := differences_in(adapters):
    raise ConfigError(
      f'{os.fspath(source)!r} has differences of parameters, as of {next(iter(changes))}, which a '
      'run of adapters cannot train; sample with --lora, or delete them from the file'
    )
  kernels = pairs(adapters)
  padded = {}
  rank = max(b.shape[-2] for _, b in kernels.values())
  for name, (a, b) in kernels.items():  # a run has one rank
    padding = 0, rank - b.shape[-2]
    padded |= {
      f'{name}/{LORA_A}': np.pad(a, {-1: padding}),
      f'{name}/{LORA_B}': np.pad(b, {-2: padding}),
    }
  lora = {'rank': rank, 'alpha': float(rank), 'targets': tuple(kernels)}
  config = ConfigDict({**config, 'lora': {**config.get('lora', {}), **lora}}).to_dict()
  if _is_another_run(workdir, config):
    raise ConfigError(f'{os.fspath(workdir)!r} is of another run; take another --workdir')
  words = Vocabulary()
  for known in (words_in(meta['notes']), words_of_adapters(source)):
    words.add(known)
  notes = {name: note for name, note in meta['notes'].items() if name != WORDS}
  notes |= words.notes() | {BASE: identity_of(base, meta)}
  write_workdir(config, nest(padded), notes, workdir, origin={'order': 'imported'})
  _log.info('adapters of rank %d for %d kernels in %s', rank, len(kernels), workdir)


def _is_another_run(workdir: pathlib.Path, config: Fields) -> bool:
  if not (workdir / 'config.json').exists():
    return False
  try:
    return bool(differences(read_config(workdir).to_dict(), config))
  except ConfigError:  # what is no configuration is not ours to replace
    return True


def _read_ours(
  path: str | os.PathLike[str], expected: str, weights: WeightFormat
) -> tuple[Tensors, dict[str, Any]] | None:
  if os.path.isdir(path) or os.fspath(path).endswith((*TORCH_SUFFIXES, INDEX)):
    return None
  metadata = read_metadata(path)
  if 'mgjax' not in metadata:
    return None
  name = f'the header of {os.fspath(path)!r}'
  mend = 'export the weights again'
  header = parse_json(metadata['mgjax'], name, error=ConfigError, mend=mend)
  component = header.get('component', header.get('part'))
  if component != expected:
    raise ConfigError(
      f'{os.fspath(path)!r} holds the component {component!r:.100}; expected {expected!r}'
    )
  try:
    header = migrate(header)
    if wrong := [key for key in ('model', *weights.noted) if not isinstance(header[key], dict)]:
      raise TypeError(f'{wrong[0]} = {header[wrong[0]]!r:.100}')
    if 'latents' in header:
      channels = header['model'].get('latent_channels')
      header['latents'] = Statistics.from_dict(header['latents'], channels).as_dict()
    if 'weights' in header:
      stored_type(header['weights'])
    _check_notes(header)
  except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
    raise ConfigError(f'{name} is damaged ({error!r:.200}); {mend}') from error
  tensors = unpacked(read_tensors(path, anything=True)[0])
  _check_types(tensors, header.get('weights', ''), path)
  return tensors, header


def _check_types(tensors: Tensors, weights: str, path: str | os.PathLike[str]) -> None:
  """Raises ConfigError unless quantised tensors have their type and others are finite floats."""
  for name, tensor in tensors.items():
    quantised = is_quantised([name])
    is_int8 = quantised and tensor.dtype == np.int8
    wrong = quantised and not (weights and tensor.dtype == stored_type(weights))
    if wrong or not (is_int8 or are_finite_floats(tensor)):
      raise ConfigError(
        f'{shown(name)} in {os.fspath(path)!r} is of {tensor.dtype} or not finite, and its header '
        f'says {weights!r}; export the weights again'
      )


def _check_notes(header: Mapping[str, Any]) -> None:
  """Raises ValueError unless notes have readable types."""
  for name in ('source', 'encoders'):
    if not isinstance(header.get(name, {}), dict):
      raise ValueError(f'{name} = {header[name]!r:.100}')
  types = header.get('source', {}).get('types', {}).values()
  if unknown := [dtype for dtype in types if dtype not in FLOATS]:
    raise ValueError(f'a tensor was of {unknown[0]!r:.100}')
  if wrong := [key for key, value in header.items() if key not in ABOUT and not _is_note(value, 3)]:
    raise ValueError(f'{wrong[0]:.100} = {header[wrong[0]]!r:.100}')


def _is_note(value: Any, depth: int) -> bool:
  if isinstance(value, dict | list):
    inside = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_note(entry, depth - 1) for entry in inside)
  return value is None or isinstance(value, str | int) or math.isfinite(value)


def _from_ours(
  weights: WeightFormat, model: Fields, tensors: Tensors, header: Fields
) -> ImportedWeights:
  fields = header['model'] | {name: model[name] for name in weights.how if name in model}
  notes = {name: value for name, value in header.items() if name not in ABOUT}
  with understanding('the header of the file'):
    check_sizes(fields, {name: tensor.shape for name, tensor in tensors.items()})
    shapes = parameter_shapes(weights, fields, notes)
    shapes = stored_shapes(shapes, header.get('weights', ''))
  names = {name: name for name in named_leaves(shapes)}
  present = {name: tensors[name] for name in names if name in tensors}
  expected = 'those that the header of the file describes; export them again'
  params = arrange(shapes, names, present, tensors, expected)
  return ImportedWeights(fields, params, notes)


def _unpack(header: Mapping[str, Any], path: str | os.PathLike[str]) -> TokenizerFiles:
  """Returns the tokenizer files that an exported encoder brings along."""
  try:
    files = {name: base64.b64decode(text) for name, text in header.get('tokenizer', {}).items()}
    intact = digests(files) == header.get('source', {}).get('tokenizer', {})
  except (AttributeError, TypeError, ValueError):
    intact = False
  if not intact or not all(
    name in KNOWN_FILES or TOKENIZER_NAMES.fullmatch(name) for name in files
  ):
    raise ConfigError(
      f'the tokenizer in the header of {os.fspath(path)!r} is damaged; export the weights again'
    )
  return files


def export_weights(
  workdir: str | os.PathLike[str],
  out: str | os.PathLike[str],
  form: str = 'mgjax',
  *,
  which: str = 'average',
  step: int | None = None,
  weights: str = '',
) -> None:
  """Writes the parameters of one checkpoint of a component.

  Args:
    workdir: of `launch.train` or `import_weights`.
    out: a .safetensors file; for 'workdir', 'diffusers' and 'transformers' a folder.
    form: 'peft', 'comfyui' or 'kohya' for the adapters of a run that trained such. 'mgjax' is for
      all parameters, with adapters merged. 'workdir' is a folder that serves as a work directory,
      see `training/checkpoints/weights_file.py`. 'diffusers' and 'original' are for a transformer
      or an autoencoder of Wan. 'diffusers' is for the image autoencoder among
      those of an autoencoder, and 'dacvae' for a codec by the published names. 'transformers' is
      for an encoder by the names and in the types of its source.
    which: 'average' for the averaged parameters, 'params' for themselves.
    step: of the checkpoint; by default the newest good one.
    weights: the type of a flow model's kernels (`nn/quantize.py`), for our own; '' is the
      one that they are saved in. In a folder all matrices of any model may be int8.

  Raises:
    ConfigError: `workdir` holds none, or none that is what `form` says or `weights` reaches.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  config, out = read_config(workdir), own_folder(out)
  section = weight_format(config)
  if weights and form not in OURS:
    raise ConfigError(
      f'weights = {weights!r} of the format {form!r}; only {" and ".join(OURS)} have such a type'
    )
  if form in ADAPTER_FORMATS:
    adapters, meta = load_adapters(workdir, which, step)
    words = words_in(meta['notes'])
    about = AboutAdapters(config.component, config.start_from, out.stem, words)
    rows = section.rows(fields_of(config, 'model'))
    write_adapters(out, adapters, lora_settings(config.to_dict()), form, about, rows)
    _log.info('adapters of %d kernels in %s', len(pairs(adapters)), out)
    return
  if form not in (known := [*OURS, *section.writers]):
    raise ConfigError(
      f'there is no format {form!r} for the component {config.component!r}; expected '
      f'{" or ".join(known)}, or of adapters {", ".join(ADAPTER_FORMATS)}'
    )
  if form == 'workdir' or (form != 'mgjax' and section.folder):
    if out.exists() and not out.is_dir():
      raise ConfigError(f'--out={out} is a file; expected a folder')
    if (out / 'checkpoints').exists():
      raise ConfigError(f'--out={out} is a run with checkpoints; take another folder')
  elif out.suffix != '.safetensors' or out.is_dir():
    raise ConfigError(f'--out={out}: expected a .safetensors file, as in --out=tae.safetensors')
  params, meta = load_params(workdir, which, step=step)
  notes = meta['notes']
  files = read_tokenizer(workdir) if config.component in READERS else {}
  if form not in OURS:
    written = section.writers[form](params, fields_of(config, 'model'), notes, out)
    for name, data in files.items():
      write_bytes(out / name, data)
    _log.info('%s of step %d in %s', written, meta['step'], out)
    return
  header = {
    'component': config.component,
    'model': fields_of(config, 'model'),
    **notes,
    'step': meta['step'],
    'version': __version__,
  }
  params = without_projector(params)
  names = named_leaves(params)
  if form == 'mgjax' or weights != 'int8' or kernels(names) or is_quantised(names):
    params = store(params, weights)
  if quantised := quantised_as(named_leaves(params)):
    header['weights'] = quantised
  if files:
    header['source'] = header['source'] | {'tokenizer': digests(files)}
    header['tokenizer'] = {name: base64.b64encode(data).decode() for name, data in files.items()}
  leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
  if form == 'workdir':
    write_json(out / 'config.json', config.to_dict())
    card = make_card(out if (out / CARD).exists() else find_run(workdir), out.name)
    write_bytes(out / CARD, card.encode())
    write_tokenizer(out, files)
    before = leaves
    leaves = packed(leaves, weights or quantised)
    out = out / WEIGHTS_FILE
    if 'latents' in notes and not quantised:  # models know an autoencoder by what it was before
      own, now = (fingerprint_of(notes['latents'], nest(t)) for t in (before, unpacked(leaves)))
      header |= {KEPT: [own, *notes.get(KEPT, [])]} if own != now else {}
  write_tensors(out, leaves, {'mgjax': json.dumps(header, sort_keys=True)})
  _log.info('%d parameters of step %d in %s', count_parameters(params), meta['step'], out)


def publish(workdir: str | os.PathLike[str], name: str) -> RunName:
  """Publishes weights with configuration, card, evaluation and samples, on the Hub or at a URL.

  A run is exported first, as the format 'workdir' of `export_weights`; such a folder goes as it is,
  its card with the front matter that follows from it. Its autoencoder and text encoders are
  published in the same folder, unless they ship with mgjax or are published by themselves. Samples
  are those of the newest step, or what `launch.sample` wrote into `samples/`.

  Args:
    workdir: of a run, or of finished weights.
    name: as 'hf://owner/name', or with '@branch'; or a URL, as 's3://bucket/run'.

  Returns:
    The pinned name of what is there now.

  Raises:
    ConfigError: there is no run, a file of it is of a kind that is not fetched, or its autoencoder
      or a text encoder is missing. Or its configuration names an expert or adapters that are
      neither published nor in its folder.
    CheckpointError: weights are damaged.
    DataError: the Hub, or what is at the URL, does not take it.
  """
  target = read_name(name)
  workdir = find_run(workdir)
  if target.place.startswith('file://') and workdir.resolve() == _folder_of(target):
    raise ConfigError(f'--out={name} is the folder of the run itself; give another place')
  config = read_config(workdir).to_dict()
  with tempfile.TemporaryDirectory() as scratch:
    folder = workdir
    if not (workdir / WEIGHTS_FILE).exists():
      export_weights(workdir, folder := pathlib.Path(scratch, 'weights'), 'workdir')
    files = _files_in(folder)
    samples = next(iter(sorted(workdir.glob('samples/step_*'))[::-1]), workdir / 'samples')
    files |= {f'samples/{file}': path for file, path in _files_in(samples, workdir).items()}
    if (record := workdir / RECORD).exists():
      files[RECORD] = _inside(workdir, record)
    needed = pathlib.Path(scratch, 'needed')
    autoencoder = str(config.get('autoencoder') or '')
    find = functools.partial(find_autoencoder, workdir, autoencoder)
    _add_needed(files, autoencoder, find, needed)
    text, learned = TextSettings.of(config), read_notes(workdir).get('encoders', {})
    embedder = Embedder(text, workdir, learned)
    for name_in_text, encoder in text.encoders.items():
      if name_in_text in learned:
        find = functools.partial(embedder.find_encoder, name_in_text)
        _add_needed(files, encoder.workdir, find, needed)
    _fix_names(files, pathlib.Path(scratch, 'fixed'), target)
    files[CARD] = pathlib.Path(scratch, CARD)
    title = target.place.rpartition('/')[2]
    prompts = {file: prompt for file, prompt in _prompts(samples).items() if file in files}
    files[CARD].write_text(make_card(folder, title, prompts))
    for file, path in files.items():
      if file.endswith('.safetensors') and not path.is_relative_to(scratch):  # written just now
        _check_tensors(path)
    done = push(files, name)
  _log.info('%d files in %s', len(files) + 1, done)
  return done


def _add_needed(
  files: dict[str, pathlib.Path],
  place: str,
  find: Callable[[], pathlib.Path],
  scratch: pathlib.Path,
) -> None:
  """Exports a run that a configuration names by a path, unless `files` have it already."""
  inside = pathlib.Path(place).name
  if place and not ships(place) and not is_name(place) and f'{inside}/config.json' not in files:
    export_weights(find(), beside := scratch / inside, 'workdir')
    files |= {f'{inside}/{file}': path for file, path in _files_in(beside).items()}


def _check_tensors(path: pathlib.Path) -> None:
  try:
    if path.name == WEIGHTS_FILE:
      WeightsFile(path.parent).verify(0)
    else:
      check_tensors(path)
  except (ConfigError, Damaged) as error:
    raise CheckpointError(f'{first_line(error)}; nothing was published') from error


def _folder_of(target: RunName) -> pathlib.Path:
  return pathlib.Path(target.place.removeprefix('file://')).resolve()


def _fix_names(files: dict[str, pathlib.Path], scratch: pathlib.Path, target: RunName) -> None:
  """Pins by SHA-256 the published runs that configurations name, in copies in `scratch`.

  Raises ConfigError if a configuration names a path or URL that no SHA-256 pins.
  """
  for name, path in list(files.items()):
    folder, _, file = name.rpartition('/')
    if file != 'config.json':
      continue
    there = f'{folder}/' * bool(folder)
    inside = {key.removeprefix(there).split('/')[0] for key in files if key.startswith(there)}
    config = read_json(path)
    fixed = pinned(config)
    if os.path.isabs(autoencoder := str(config.get('autoencoder') or '')):  # of this machine
      fixed['autoencoder'] = pathlib.Path(autoencoder).name
    for name_in_text, encoder in TextSettings.of(config).encoders.items():
      if os.path.isabs(encoder.workdir):
        fixed['text'][name_in_text]['workdir'] = pathlib.Path(encoder.workdir).name
    if fixed != config:
      write_json(scratch / name, fixed)
      files[name] = scratch / name
    check_fixed(migrate(fixed), inside.__contains__, target.place)


def _files_in(folder: pathlib.Path, root: pathlib.Path | None = None) -> dict[str, pathlib.Path]:
  """Returns the files of a folder by relative name, without hidden ones, samples and the list.

  Raises ConfigError if one is a link that leads out of the folder, or of `root`, which it lies in:
  nobody meant to publish that.
  """
  paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob('*'))}
  own = re.compile(rf'(?!samples/|{LIST})[^.][^/]*(/[^.][^/]*)*')
  paths = {name: path for name, path in paths.items() if own.fullmatch(name)}
  paths = {name: _inside(root or folder, path) for name, path in paths.items()}
  return {name: path for name, path in paths.items() if path.is_file()}


def _inside(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  if not path.is_file() and (path.is_symlink() or not path.is_dir()):
    raise ConfigError(
      f'{os.fspath(path)!r} is neither a file nor a folder (a pipe, a device or a link); delete it'
    )
  if not path.resolve().is_relative_to(folder.resolve()):
    raise ConfigError(
      f'{os.fspath(path)!r} is a link to {os.fspath(path.resolve())!r}, which is not in '
      'the folder; delete the link, or copy what is to be published'
    )
  return path


def _prompts(samples: pathlib.Path) -> dict[str, str]:
  """Reads the prompts of the files that `launch.sample` wrote, by file name."""
  prompts = {}
  for path in sorted(samples.glob('*.json')):
    if record := read_optional_json(path, lambda read: _prompts_in(read) is not None):
      prompts |= _prompts_in(record)
  return prompts


def _prompts_in(record: Fields) -> dict[str, str]:
  return {f'samples/{row["file"]}': str(row['prompt']) for row in record.get('samples', ())}
