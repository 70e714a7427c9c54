"""Memory, room, cache, clock, devices and codecs: what is wrong is told as wrong."""

import os
import shutil
import types

import jax
import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.media import audio, video
from mgjax.runtime import compilation_cache
from mgjax.runtime.doctor import codecs, examine, machine
from mgjax.runtime.doctor.finding import State

GB = 10**9


def machine_with(root, available, **files):
  (root / 'proc').mkdir()
  (root / 'proc/meminfo').write_text(f'MemTotal: 99 kB\nMemAvailable:  {available // 1024} kB\n')
  for name, text in files.items():
    path = root / 'sys/fs/cgroup' / name.replace('_', '.', 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return root


@pytest.mark.parametrize(
  ('available', 'limits', 'state'),
  [
    (8 * GB, {}, State.RIGHT),
    (1 * GB, {}, State.WRONG),
    (8 * GB, {'memory_max': 'max\n', 'memory_current': '7\n'}, State.RIGHT),
    (8 * GB, {'memory_max': f'{4 * GB}\n', 'memory_current': f'{3 * GB}\n'}, State.WRONG),
  ],
  ids=['enough', 'little', 'no limit', 'container'],
)
def test_memory_is_what_a_process_may_still_take(available, limits, state, tmp_path):
  assert next(machine.look_at_memory(machine_with(tmp_path, available, **limits))).state is state


def test_memory_that_nothing_tells_of_is_not_wrong(tmp_path):
  assert next(machine.look_at_memory(tmp_path)).state is State.OPTIONAL


def test_devices_multiply_and_a_gpu_left_out_is_told(tmp_path, monkeypatch):
  (tmp_path / 'proc/driver/nvidia').mkdir(parents=True)
  (tmp_path / 'proc/driver/nvidia/version').touch()
  monkeypatch.setattr(machine, 'may_have_tpu', lambda root: False)
  with jax.default_device(jax.devices('cpu')[0]):
    before = jax.config.jax_platforms
    assert next(machine.look_at_devices(tmp_path)).state is State.RIGHT
    jax.config.update('jax_platforms', None)
    try:
      lines = list(machine.look_at_devices(tmp_path))
    finally:
      jax.config.update('jax_platforms', before)
  assert [line.state for line in lines] == [State.RIGHT, State.OPTIONAL]
  assert 'NVIDIA' in lines[1].told


def test_devices_that_do_not_come_up_are_wrong(monkeypatch):
  def fail():
    raise RuntimeError('no supported devices found')

  monkeypatch.setattr(jax, 'local_devices', fail)
  (line,) = machine.look_at_devices()
  assert line.state is State.WRONG and 'no supported devices' in line.told


def test_a_disk_is_the_nearest_folder_that_is_there(tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=5 * GB)
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)
  lines = list(machine.look_at_disks(tmp_path / 'not' / 'there'))
  assert [line.state for line in lines] == [State.RIGHT, State.RIGHT]
  assert lines[0].told == f'5.0 GB are free in {tmp_path}'
  usage.free = 0.1 * GB
  lines = list(machine.look_at_disks(tmp_path))
  assert [line.state for line in lines] == [State.WRONG, State.WRONG]
  assert 'make room' in lines[0].advice
  assert not os.listdir(tmp_path)


def test_a_disk_that_cannot_be_written_to_is_wrong(monkeypatch):
  if not os.path.isdir('/proc/self'):
    pytest.skip('needs /proc, a folder that nobody can write to')
  assert next(machine.look_at_disks('/proc/self')).state is State.WRONG
  assert next(machine.look_at_clock('/proc/self')).state is State.WRONG


def test_the_cache_is_measured(monkeypatch, tmp_path):
  monkeypatch.setattr(compilation_cache, 'default_folder', lambda: tmp_path / 'a' / 'programs')
  (line,) = machine.look_at_cache()
  assert line.state is State.RIGHT and line.told.startswith('0.00 of at most 2.15 GB')
  (tmp_path / 'a/programs/kept').write_bytes(bytes(50_000_000))
  assert next(machine.look_at_cache()).told.startswith('0.05 of')


def test_a_cache_that_cannot_be_used_costs_time_alone(monkeypatch, tmp_path):
  (tmp_path / 'file').touch()
  monkeypatch.setattr(compilation_cache, 'default_folder', lambda: tmp_path / 'file' / 'programs')
  (line,) = machine.look_at_cache()
  assert line.state is State.OPTIONAL and 'XDG_CACHE_HOME' in line.advice


@pytest.mark.parametrize(
  ('late', 'told'), [(-3600, r'+3600 s'), (3600, '-3600 s')], ids=['behind', 'ahead']
)
def test_a_clock_that_differs_from_the_disks_is_wrong(late, told, monkeypatch, tmp_path):
  now = machine.time.time
  (line,) = machine.look_at_clock(tmp_path)
  assert line.state is State.RIGHT
  fake = types.SimpleNamespace(
    time=lambda: now() + late, strftime=machine.time.strftime, gmtime=machine.time.gmtime
  )
  monkeypatch.setattr(machine, 'time', fake)
  (line,) = machine.look_at_clock(tmp_path)
  assert line.state is State.WRONG and line.told.startswith(told)


def test_codecs_write_and_read():
  lines = list(codecs.look_at_codecs())
  assert [(line.what, line.state) for line in lines] == [
    ('H.264', State.RIGHT),
    ('AAC', State.RIGHT),
  ]


def test_codecs_that_spoil_or_lack_something_are_wrong(monkeypatch):
  black = np.zeros((codecs._FRAMES, codecs._SIDE, codecs._SIDE, 3), np.uint8)
  monkeypatch.setattr(video, 'read_clip', lambda *_, **__: black)

  def refuse(*_, **__):
    raise DataError('no encoder aac')

  monkeypatch.setattr(audio, 'write_soundtrack', refuse)
  lines = list(codecs.look_at_codecs())
  assert [line.state for line in lines] == [State.WRONG, State.WRONG]
  assert 'no encoder aac' in lines[1].told


def test_what_breaks_does_not_hide_the_rest(monkeypatch, tmp_path):
  def broken():
    raise ImportError('libstdc++.so.6 is not there')
    yield

  monkeypatch.setattr(examine, 'look_at_codecs', broken)
  lines = list(examine.examine(tmp_path))
  (line,) = [line for line in lines if line.what == 'codecs']
  assert line.state is State.WRONG and 'libstdc++' in line.told
  assert [each.what for each in lines][-2:] == ['cache', 'clock']
