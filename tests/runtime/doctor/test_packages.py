"""Versions that are wrong, missing or only wanted by an extra are told as such."""

import email.message
import importlib.metadata
import runpy

import pytest
import setuptools

from mgjax.runtime.doctor.finding import State
from mgjax.runtime.doctor.packages import PURPOSES, look_at_packages
from tests.tiny import CHECKOUT


class Fake:
  """What importlib.metadata says of a distribution."""

  def __init__(self, version, *requires, extras=(), python='>=3.8'):
    self.version, self.requires = version, list(requires)
    self.metadata = email.message.Message()
    self.metadata['Requires-Python'] = python
    for extra in extras:
      self.metadata['Provides-Extra'] = extra


def found(**packages):
  def find(name):
    if name not in packages:
      raise importlib.metadata.PackageNotFoundError(name)
    return packages[name]

  return [(each.what, each.state, f'{each.told}; {each.advice}') for each in look_at_packages(find)]


def test_what_fits_is_one_line():
  lines = found(
    mgjax=Fake('0.2.0', 'jax>=0.10', 'tqdm'), jax=Fake('0.10.2', 'ml-dtypes'), tqdm=Fake('4'),
    **{'ml-dtypes': Fake('1')},
  )  # fmt: skip
  assert [line[:2] for line in lines] == [('Python', State.RIGHT), ('packages', State.RIGHT)]
  assert 'all 2' in lines[1][2] and 'jax 0.10.2' in lines[1][2]


@pytest.mark.parametrize(
  ('jax', 'told'),
  [
    ({}, "jax is not installed; python -m pip install 'jax>=0.10'"),
    ({'jax': Fake('0.9')}, "jax 0.9 is not >=0.10; python -m pip install 'jax>=0.10'"),
    (
      {'jax': Fake('0.10', 'einops>1')},
      "einops is not installed; python -m pip install 'einops>1'",
    ),
  ],
  ids=['missing', 'old', 'what it needs is missing'],
)
def test_what_is_needed_and_does_not_fit_is_wrong(jax, told):
  lines = found(mgjax=Fake('0.2.0', 'jax>=0.10'), **jax)
  assert ('packages', State.WRONG, told) in lines
  assert not any(line[:2] == ('packages', State.RIGHT) for line in lines)


def test_an_extra_that_is_missing_is_told_with_its_purpose():
  extras = ('plots', 'cuda', 'faces')
  lines = found(
    mgjax=Fake(
      '0.2.0', 'jax', 'matplotlib>=3; extra == "plots"', 'jax[cuda13]; extra == "cuda"',
      'tqdm; extra == "faces"', extras=extras,
    ),
    jax=Fake('1', 'jax-cuda13-plugin; extra == "cuda13"', extras=['cuda13']), tqdm=Fake('1'),
  )  # fmt: skip
  told = {line[2] for line in lines if line[0] == 'extra'}
  assert {line[1] for line in lines if line[0] == 'extra'} == {State.OPTIONAL}
  assert len(told) == 2
  assert any(
    'plots (pictures of experiments)' in each and "'matplotlib>=3'" in each for each in told
  )
  assert any('cuda (NVIDIA GPUs) is missing jax-cuda13-plugin' in each for each in told)


def test_a_python_that_is_too_old_is_wrong():
  lines = found(mgjax=Fake('0.2.0', python='>=9'))
  assert lines[0][:2] == ('Python', State.WRONG)


def test_without_metadata_nothing_is_called_wrong():
  assert [line[:2] for line in found()] == [
    ('Python', State.RIGHT),
    ('packages', State.OPTIONAL),
  ]


def test_every_extra_has_a_purpose(monkeypatch):
  given = {}
  monkeypatch.chdir(CHECKOUT)
  monkeypatch.setattr(setuptools, 'setup', lambda **arguments: given.update(arguments))
  runpy.run_path('setup.py')
  assert set(PURPOSES) == set(given['extras_require'])
