"""Every number of every configuration has a range, and its default is written in one place."""

import contextlib
import dataclasses
import math
import pathlib
import sys
import typing
from typing import Annotated

import numpy as np
import pytest
from ml_collections import ConfigDict

from mgjax.apps.encode import EncodeSettings
from mgjax.core import settings
from mgjax.core.configuration.config_files import load_config
from mgjax.core.configuration.keys import flatten
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, fields_of, unpack
from mgjax.data.settings import DataSettings
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.nn.lora import lora_settings
from mgjax.parallel import mesh
from mgjax.registry import find_component, make_section
from mgjax.training import settings as training
from mgjax.training.checkpoints.orbax_io import keep_settings
from tests.tools.compare_checkouts import listed_configs

CHECKOUT = pathlib.Path(__file__).parent.parent

CONFIGURATIONS = (
  'video/t2iv_256:30b',
  'video/t2i_1024:7b,tuning',
  'digits/video',
  'digits/signs',
  'tae/tae',
  'upsampler/image_autoencoder',
  'digits/autoencoder',
  'solids/autoencoder:release',
  'digits/frames',
  'audio/audio',
  'digits/audio',
  'audio/codec',
  'digits/codec',
  'text/ul2',
  'text/metaclip_text',
  'text/metaclip_vision',
  'digits/clip',
)


def read(config: ConfigDict) -> None:
  """Unpacks all that training, encoding and importing read of a configuration."""
  lora_settings(config.to_dict())
  row = find_component(config.component)
  mesh.make_mesh(fields_of(config, 'mesh'), config.rules)
  if row.family == 'encoder':
    from mgjax.lab.planning.forward import make_encoder

    make_encoder(config)
    keep_settings(fields_of(config, 'train'))
    return
  training.run_settings(fields_of(config, 'train'), config.seed)
  training.optimizer_settings(fields_of(config, 'optimizer'))
  make_section(config).outline()
  if 'encode' in config:
    unpack(EncodeSettings, fields_of(config, 'encode'), 'encode')


@pytest.fixture(params=CONFIGURATIONS)
def known(request, monkeypatch):
  """A configuration that fits this machine, and what each of its fields may be."""
  config, found, checked = load_config(request.param), {}, settings.checked
  config.mesh.update(dict.fromkeys(config.mesh, 1))
  config.mesh.data = -1

  def record(hint, value, name):
    if range_of(hint):
      found.setdefault(name, hint)
    return checked(hint, value, name)

  for module in (settings, mesh, training):
    monkeypatch.setattr(module, 'checked', record)
  monkeypatch.setattr('mgjax.lab.planning.forward.checked', record)
  read(config)
  monkeypatch.undo()
  return config, found


def range_of(hint) -> tuple[Range, bool] | None:
  """The range of the numbers in an annotation, and whether they are whole."""
  if typing.get_origin(hint) is Annotated:
    kind, *others = typing.get_args(hint)
    found = [each for each in others if isinstance(each, Range)]
    return (found[0], kind is int) if found else range_of(kind)
  return next(filter(None, map(range_of, typing.get_args(hint))), None)


def candidates(limits: Range) -> list[float]:
  """Numbers at the ends of a range, just beyond them, and far away."""
  ends = [end for end in dataclasses.astuple(limits)[:4] if end is not None]
  near = [number for end in ends for number in (end - 1, end, end + 1, end - 1e-9, end + 1e-9)]
  return [*near, 0, 1, -1, 0.5, 10**20, -(10**20), math.nan, math.inf, -math.inf]


def changed(config: ConfigDict, name: str, value) -> ConfigDict:
  """The configuration with one number replaced; of several, the last one."""
  fields = config.to_dict()
  *path, leaf = name.split('.')
  group = fields
  for key in path:
    group = group[key]

  def replaced(old):
    return (*old[:-1], replaced(old[-1])) if isinstance(old, list | tuple) else value

  group[leaf] = replaced(group[leaf])
  return ConfigDict(fields)


def numbers_of(config: ConfigDict) -> list[str]:
  def is_number(value) -> bool:
    if isinstance(value, list | tuple):
      return bool(value) and is_number(value[-1])
    return isinstance(value, int | float) and not isinstance(value, bool)

  return [name for name, value in flatten(config.to_dict()).items() if is_number(value)]


def test_every_number_has_a_range_and_outside_of_it_is_refused_by_name(known):
  config, hints = known
  names = numbers_of(config)
  assert [name for name in names if name not in hints] in ([], ['seed'])  # encoders draw nothing
  generator = np.random.default_rng(0)
  for name in generator.permutation(sorted(hints.keys() & names))[:40]:
    limits, whole = range_of(hints[name])
    inside = [each for each in candidates(limits) if limits.admits(each, whole)]
    outside = [each for each in candidates(limits) if not limits.admits(each, whole)]
    assert inside and math.nan in outside, name
    with pytest.raises(ConfigError) as refused:
      read(changed(config, name, value := outside[generator.integers(len(outside))]))
    assert name in str(refused.value), f'{name} = {value}: {refused.value}'


def test_a_configuration_file_states_what_differs(monkeypatch):
  """No line gives a field the value that it has, by its default or by the file it begins with."""
  same, others = set(), set()

  def note(group, fields):
    frame = sys._getframe(2)
    while frame and '/configs/' not in frame.f_code.co_filename:
      frame = frame.f_back
    for name, value in fields.items():
      known = dict.get(vars(group)['_fields'], name, group)  # itself: no value of a field
      place = frame and (frame.f_code.co_filename, frame.f_lineno, name)
      (same if type(known) is type(value) and known == value else others).add(place)

  set_one, set_many = ConfigDict.__setattr__, ConfigDict.update

  def set_one_noted(group, name, value):
    if not name.startswith('_') and not isinstance(value, dict | ConfigDict):
      note(group, {name: value})
    return set_one(group, name, value)

  def set_many_noted(group, *other, **fields):
    given = {key: value for each in (*other, fields) for key, value in dict(each).items()}
    note(group, {k: v for k, v in given.items() if not isinstance(v, dict | ConfigDict)})
    return set_many(group, *other, **fields)

  monkeypatch.setattr(ConfigDict, '__setattr__', set_one_noted)
  monkeypatch.setattr(ConfigDict, 'update', set_many_noted)
  for name in (*listed_configs(CHECKOUT), 'scaling/widths:muon'):
    with contextlib.suppress(ConfigError):  # not all that looks like an argument in a text is one
      load_config(name)
  assert len(others) > 500
  said = {f'{path.rpartition("configs/")[2]}:{line}' for path, line, _ in same - others - {None}}
  assert not said


def test_defaults_are_those_of_the_class_in_the_types_of_a_configuration():
  found = settings.defaults(training.OptimizerSettings, learning_rate=1e-4)
  assert unpack(training.OptimizerSettings, found.to_dict(), 'x') == training.OptimizerSettings(
    learning_rate=1e-4
  )
  assert type(training.OptimizerSettings.weight_decay) is type(found.weight_decay) is float
  model = settings.defaults(Transformer, dim=64)
  assert (model.dtype, model.dim, model.remat, 'depth' in model) == (
    'float32',
    64,
    'nothing',
    False,
  )
  assert 'temporal' not in settings.defaults(Autoencoder)  # True or 'full': flags could say one
  assert type(settings.defaults(DataSettings, kind='clips').fps) is float  # which 0 stands for
  with pytest.raises(ConfigError, match=r'unknown key dpeth; did you mean depth\?'):
    settings.defaults(Transformer, dpeth=3)
