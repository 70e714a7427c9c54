"""What a release computed and saved: samples of what ships, and work directories that must load.

The files were written by the release's own code (a3e41b9d, mgjax 0.3.0):

git worktree add ../release a3e41b9d
python tests/tools/compare_checkouts.py golden ../release --out=/tmp/items

shipped.npz has samples of the models that ship, of two steps; workdirs/ has runs of every component
after two training steps, and workdirs.npz their samples and next losses. Those in KEPT_WHOLE have
their checkpoints, the others are finished weights.
Samples change with the weights: after a change of mgjax/weights run the command on the checkout
itself and keep shipped.npz alone. Work directories of a release are never written again.
"""

import contextlib
import json
import pathlib
import tarfile

import numpy as np
import pytest

import mgjax
from tests.tools.checkout_items import KEPT_WHOLE, TRAINED, next_loss, sample_of, shipped
from tests.tools.compare_checkouts import portable

HERE = pathlib.Path(__file__).parent
SHIPPED = shipped(pathlib.Path(mgjax.__file__).parent / 'weights')
QUICK = ('digits/autoencoder', 'digits/codec', 'digits/few_steps', 'solids/objects')
PIXELS = 0.5  # of 255, the mean error that another instruction set or optimisation may make
NUMBERS = 0.005  # of the standard deviation, likewise


def check(made, golden, name):
  """Holds arrays to those of a file whose names begin with `name`."""
  wanted = {key for key in golden.files if key.rpartition('/')[0] == name} - {f'{name}/loss'}
  assert {f'{name}/{key}' for key in made} == wanted
  for key, array in made.items():
    found, expected = portable(np.asarray(array)), golden[f'{name}/{key}']
    assert found.shape == expected.shape and found.dtype == expected.dtype, key
    error = np.abs(found.astype(np.float64) - expected).mean()
    assert error <= (PIXELS if found.dtype == np.uint8 else NUMBERS * expected.std()), key


@pytest.mark.parametrize(
  'name', [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in SHIPPED]
)
def test_samples_of_what_ships_are_the_golden_ones(name):
  with np.load(HERE / 'shipped.npz') as golden:
    check(sample_of(name, SHIPPED[name]), golden, name.replace('/', '.'))


@pytest.fixture(scope='module')
def released(tmp_path_factory):
  """The work directories of the release, runs/<name>; their configurations name them so."""
  folder = tmp_path_factory.mktemp('released')
  for path in (HERE / 'workdirs').glob('*.tar.xz'):
    with tarfile.open(path) as packed:
      packed.extractall(folder / 'runs', filter='data')
  with contextlib.chdir(folder):
    yield folder


@pytest.mark.parametrize('name', TRAINED)
def test_a_work_directory_of_the_release_loads_and_samples(released, name):
  config = json.loads((released / 'runs' / name / 'config.json').read_text())
  with np.load(HERE / 'workdirs.npz') as golden:
    check(sample_of(f'runs/{name}', config), golden, name)


@pytest.mark.slow
@pytest.mark.parametrize('name', KEPT_WHOLE)
def test_a_run_of_the_release_goes_on(released, name):
  """From its saved configuration and state the next step has the loss that the release's had."""
  with np.load(HERE / 'workdirs.npz') as golden:
    assert next_loss(f'runs/{name}') == pytest.approx(golden[f'{name}/loss'], rel=1e-3)


def test_the_files_of_a_release_stay_small():
  packed = [path.stat().st_size for path in (HERE / 'workdirs').glob('*.tar.xz')]
  assert len(packed) == len(TRAINED) + 1 and max(packed) < 500_000 and sum(packed) < 700_000
  assert sum((HERE / name).stat().st_size for name in ('shipped.npz', 'workdirs.npz')) < 200_000
