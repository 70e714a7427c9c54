"""Packages, devices, memory, disks and codecs: what is wrong is told as wrong."""

import email.message
import importlib.metadata
import os
import shutil
import types

import jax
import numpy as np
import pytest

from mgjax.apps import doctor
from mgjax.apps.doctor import OPTIONAL, RIGHT, WRONG
from mgjax.core.errors import DataError
from mgjax.data.media import audio, video

GB = 10**9


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

  return [(*each[:2], f'{each.sentence}; {each.advice}') for each in doctor.look_at_packages(find)]


@pytest.mark.parametrize(
  ('packages', 'state', 'told'),
  [
    ({'mgjax': Fake('1', 'jax>=0.10'), 'jax': Fake('0.10.2')}, RIGHT, 'all 1 that mgjax asks for'),
    ({'mgjax': Fake('1', 'jax>=0.10')}, WRONG, "jax is not installed; python -m pip install 'jax>"),
    ({'mgjax': Fake('1', 'jax>=0.10'), 'jax': Fake('0.9')}, WRONG, 'jax 0.9 is not >=0.10; pyth'),
    ({}, OPTIONAL, 'mgjax is not installed'),
  ],
  ids=['right', 'missing', 'old', 'no metadata'],
)
def test_packages_are_those_that_mgjax_asks_for(packages, state, told):
  (line,) = (line for line in found(**packages) if line[0] == 'packages')
  assert line[1] == state and line[2].startswith(told)


def test_a_python_that_is_too_old_is_wrong():
  assert found(mgjax=Fake('0.2.0', python='>=9'))[0][:2] == ('Python', WRONG)


def test_an_extra_that_is_missing_is_told_with_its_purpose():
  ours = Fake(
    '1',
    'jax',
    'matplotlib>=3; extra == "plots"',
    'tqdm; extra == "faces"',
    extras=('plots', 'faces'),
  )
  lines = [line for line in found(mgjax=ours, jax=Fake('1'), tqdm=Fake('1')) if line[0] == 'extra']
  assert [line[1] for line in lines] == [OPTIONAL]
  assert 'plots (pictures of experiments)' in lines[0][2] and "'matplotlib>=3'" in lines[0][2]


@pytest.mark.parametrize('extra', ['cuda_compile', 'cuda-compile', 'CUDA.compile'])
def test_an_extra_is_known_however_its_name_is_written(extra):
  ours = Fake('1', f'nothing; extra == "{extra}"', extras=(extra,))
  (line,) = (line for line in found(mgjax=ours) if line[0] == 'extra')
  assert f'{extra} (plans compiled for NVIDIA GPUs, without one) is missing nothing' in line[2]


@pytest.mark.parametrize(
  ('available', 'limits', 'state'),
  [
    (8 * GB, {}, RIGHT),
    (1 * GB, {}, WRONG),
    (8 * GB, {'memory.max': 'max\n', 'memory.current': '7\n'}, RIGHT),
    (8 * GB, {'memory.max': f'{4 * GB}\n', 'memory.current': f'{3 * GB}\n'}, WRONG),
    (None, {}, OPTIONAL),
  ],
  ids=['enough', 'little', 'no limit', 'container', 'nothing tells'],
)
def test_memory_is_what_a_process_may_still_take(available, limits, state, tmp_path):
  (tmp_path / 'proc').mkdir()
  (tmp_path / 'sys/fs/cgroup').mkdir(parents=True)
  if available:
    told = f'MemTotal: 99 kB\nMemAvailable:  {available // 1024} kB\n'
    (tmp_path / 'proc/meminfo').write_text(told)
  for name, text in limits.items():
    (tmp_path / 'sys/fs/cgroup' / name).write_text(text)
  assert next(doctor.look_at_memory(tmp_path)).state == state


def test_devices_multiply_and_a_gpu_left_out_is_told(tmp_path, monkeypatch):
  (tmp_path / 'proc/driver/nvidia').mkdir(parents=True)
  (tmp_path / 'proc/driver/nvidia/version').touch()
  monkeypatch.setattr(doctor, 'may_have_tpu', lambda root: False)
  before = jax.config.jax_platforms
  assert next(doctor.look_at_devices(tmp_path)).state == RIGHT
  jax.config.update('jax_platforms', None)
  try:
    lines = list(doctor.look_at_devices(tmp_path))
  finally:
    jax.config.update('jax_platforms', before)
  assert [line.state for line in lines] == [RIGHT, OPTIONAL]
  assert 'NVIDIA' in lines[1].sentence


def test_a_disk_is_the_nearest_folder_that_is_there(tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=5 * GB)
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)
  lines = list(doctor.look_at_disks(tmp_path / 'not' / 'there'))
  assert [line.state for line in lines] == [RIGHT, RIGHT]
  assert lines[0].sentence == f'5.0 GB are free in {tmp_path}'
  usage.free = 0.1 * GB
  lines = list(doctor.look_at_disks(tmp_path))
  assert [line.state for line in lines] == [WRONG, WRONG] and 'make room' in lines[0].advice
  assert not os.listdir(tmp_path)
  if os.path.isdir('/proc/self'):  # that nobody can write to
    assert next(doctor.look_at_disks('/proc/self')).state == WRONG


def test_what_spoils_or_breaks_is_wrong_and_does_not_hide_the_rest(tmp_path, monkeypatch):
  lines = [*doctor.look_at_video(), *doctor.look_at_audio()]
  assert [line[:2] for line in lines] == [('H.264', RIGHT), ('AAC', RIGHT)]
  black = np.zeros((doctor._FRAMES, doctor._SIDE, doctor._SIDE, 3), np.uint8)
  monkeypatch.setattr(video, 'read_clip', lambda *_, **__: black)

  def refuse(*_, **__):
    raise DataError('no encoder aac')

  monkeypatch.setattr(audio, 'write_soundtrack', refuse)
  monkeypatch.setattr(jax, 'local_devices', refuse)
  found = {line.what: line for line in doctor.examine(tmp_path)}
  assert [found[what].state for what in ('devices', 'H.264', 'AAC')] == [WRONG] * 3
  assert 'no encoder aac' in found['AAC'].sentence and found['disk'].state == RIGHT
