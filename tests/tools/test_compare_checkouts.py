"""The comparer on copies of this checkout: equal, one constant changed, wrong arguments."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.tools.compare_checkouts import difference, listed_configs, main

CHECKOUT = pathlib.Path(__file__).parents[2]


def copied(folder: pathlib.Path, *own: str) -> pathlib.Path:
  """A checkout whose folders are links, but for copies of those named."""
  folder.mkdir()
  for name in ('mgjax', 'launch', 'configs', 'docs'):
    if name in own:
      shutil.copytree(CHECKOUT / name, folder / name)
    else:
      (folder / name).symlink_to(CHECKOUT / name)
  return folder


def test_a_changed_constant_is_found_and_no_other_item_differs(tmp_path, capfd):
  same, other = copied(tmp_path / 'same'), copied(tmp_path / 'other', 'configs')
  path = other / 'configs' / 'digits' / 'codec.py'
  path.write_text(path.read_text().replace('return config', 'config.seed = 7\n  return config'))
  asked = ['compare', str(same), str(other), '--sections=configs', f'--keep={tmp_path / "keep"}']
  assert main([*asked, '--only=configs/digits*']) == 1
  told = capfd.readouterr().out
  assert [line.split() for line in told.splitlines() if line.startswith('differs')] == [
    ['differs', 'configs/digits.codec']
  ]
  assert '- "seed": 0' in told and '+ "seed": 7' in told
  assert 'equal    configs/digits.video:bounce' in told
  assert main([*asked, '--only=configs/digits.clip*']) == 0


def test_arrays_that_differ_are_shown_by_the_first_number(tmp_path):
  first, second = tmp_path / 'first.npz', tmp_path / 'second.npz'
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  np.savez(first, state=array, gone=array)
  changed = array.copy()
  changed[1, 0] += 0.5
  np.savez(second, state=changed, gone=array.astype(np.float64))
  assert difference(first, first) == ''
  assert difference(first, second).splitlines() == [
    'gone: float32[2, 3] and float64[2, 3]',
    'state: 16.67% of 6 numbers differ, by at most 0.5; first at (1, 0): 3.0 and 3.5',
  ]
  np.savez(second, state=array)
  assert difference(first, second) == 'gone: only in the first checkout'
  np.savez(first, zero=np.float32(0.0))
  np.savez(second, zero=np.float32(-0.0))
  assert difference(first, second).startswith('zero: ')  # equal numbers, other bytes


@pytest.mark.parametrize(('added', 'equal'), [('rms', True), ('layer', False)])
def test_a_saved_configuration_may_gain_keys_that_say_what_runs_did(tmp_path, added, equal):
  paths = [tmp_path / 'first.npz', tmp_path / 'second.npz']
  for path, model in zip(paths, ({'dim': 8}, {'dim': 8, 'norm': added}), strict=True):
    saved = json.dumps({'model': model}).encode()
    np.savez(path, **{'state': np.zeros(2), 'config.json': np.frombuffer(saved, np.uint8)})
  assert difference(*paths) == ('' if equal else 'config.json: other fields')


def test_what_failed_is_not_equal(tmp_path):
  failed = tmp_path / 'item.error'
  failed.write_text('ValueError: no')
  assert 'failed in the first checkout: ValueError: no' in difference(failed, failed)


def test_every_configuration_file_and_documented_argument_is_listed():
  found = listed_configs(CHECKOUT)
  files = {
    path.relative_to(CHECKOUT / 'configs').with_suffix('').as_posix()
    for path in (CHECKOUT / 'configs').rglob('*.py')
    if 'def get_config' in path.read_text()
  }
  assert files == {name for name in found if ':' not in name}
  assert {'video/t2iv_256:30b', 'digits/video:bounce', 'scaling/isoflop:muon'} <= set(found)


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    (['compare', 'nowhere', '.'], "'nowhere' is not a checkout of mgjax: it has no mgjax/api.py"),
    (['compare', '.', '.', '--sections=plan'], '--sections=plan: expected some of configs,'),
    (['record', '.', '--out=x', '--weights=docs'], 'there is no weights.safetensors below it'),
  ],
)
def test_wrong_arguments_end_with_2_and_a_sentence(arguments, said, monkeypatch, capsys):
  monkeypatch.chdir(CHECKOUT)
  assert main(arguments) == 2
  assert said in capsys.readouterr().err
