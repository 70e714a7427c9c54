"""Configurations: keys that people mistype, values that changed, classes by their name."""

from mgjax.core.configuration.keys import did_you_mean, differences, flatten


def test_leaves_have_dotted_names():
  config = {'model': {'dim': 64, 'patch': (1, 2, 2)}, 'seed': 0}
  assert flatten(config) == {'model.dim': 64, 'model.patch': [1, 2, 2], 'seed': 0}


def test_a_mistyped_key_finds_its_neighbour():
  known = ['model.dim', 'model.depth', 'seed']
  assert did_you_mean('model.dmi', known) == 'unknown key model.dmi; did you mean model.dim?'
  assert did_you_mean('xyzzy', known) == 'unknown key xyzzy'


def test_differences_name_both_values():
  old = {'model': {'dim': 64}, 'seed': 0, 'gone': 1, 'none': None}
  new = {'model': {'dim': 128}, 'seed': 0, 'come': (1, 2)}
  assert differences(old, new) == [
    "come: 'absent' -> [1, 2]",
    "gone: 1 -> 'absent'",
    'model.dim: 64 -> 128',
    "none: None -> 'absent'",
  ]
  assert not differences({'patch': (1, 2)}, {'patch': [1, 2]})  # JSON knows no tuples
