"""A configuration names a conditioning by a short name, and only what is known is ever built."""

import importlib.metadata

import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.conditioning import kinds
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.conditioning.frame_features import FrameFeatures


class Label(Conditioning):
  dim: int


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  monkeypatch.setattr(kinds, '_registered', {})


def test_a_conditioning_is_found_by_the_name_of_its_file():
  made = kinds.make_conditioning({'kind': 'byte_text', 'width': 16}, 'text', dim=8, patch=(1, 2, 2))
  assert made == ByteText(dim=8, width=16, name='text')
  assert isinstance(
    kinds.make_conditioning({'kind': 'frame_features'}, 'video', dim=8), FrameFeatures
  )


@pytest.mark.parametrize(
  'kind',
  [
    '',
    'os.path.join',
    'mgjax.nn.norm.RMSNorm',
    '../byte_text',
    'contract',
    'kinds',
    'ports',
    '__init__',
  ],
)
def test_what_is_no_kind_is_never_imported(kind):
  with pytest.raises(
    ConfigError, match=r'unknown conditioning .*known: byte_text, edit_task, encoded_text'
  ):
    kinds.make_conditioning({'kind': kind}, 'a', dim=8)


def test_fields_that_it_does_not_take_are_refused():
  with pytest.raises(ConfigError, match=r'conditionings\.text\.widht; .*text\.width\?'):
    kinds.make_conditioning({'kind': 'byte_text', 'widht': 16}, 'text', dim=8)


def test_another_package_registers_its_own():
  with pytest.raises(ConfigError, match='install that package, or import it first'):
    kinds.make_conditioning({'kind': 'label'}, 'a', dim=8)
  assert kinds.register('label')(Label) is Label
  assert kinds.make_conditioning({'kind': 'label'}, 'a', dim=8) == Label(8, name='a')
  kinds.register('label')(Label)  # a configuration file that is read twice
  for taken in ('label', 'byte_text'):
    with pytest.raises(ConfigError, match=f'already is a conditioning of the kind {taken!r}'):
      kinds.register(taken)(FrameFeatures)


def test_an_installed_package_is_found_by_its_entry_point(monkeypatch):
  entry = importlib.metadata.EntryPoint('label', f'{__name__}:Label', kinds.ENTRY_POINTS)
  monkeypatch.setattr(importlib.metadata.EntryPoint, 'load', lambda _: Label)
  monkeypatch.setattr(
    importlib.metadata, 'entry_points', lambda group: [entry] if group == kinds.ENTRY_POINTS else []
  )
  assert kinds.make_conditioning({'kind': 'label'}, 'a', dim=8) == Label(8, name='a')
