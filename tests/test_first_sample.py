"""The first sample of a process in Python: what it does without where another one went before."""

import json
import os

import pytest

from mgjax.parallel.tpu_presence import may_have_tpu
from tests import binaries
from tests.tiny import CHECKOUT

MODEL, PROMPT = 'digits/few_steps', 'the green digit 3 moves left'
SAMPLE = f"""
import collections, gc, hashlib, json, sys
import mgjax
model = mgjax.load({MODEL!r}, steps=4)
from jax import monitoring
events = collections.Counter()
monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition('/')[2]]))
(clip,) = model.generate([{PROMPT!r}])
print(json.dumps({{
  'events': events, 'pixels': hashlib.sha256(clip.tobytes()).hexdigest()[:16],
  'modules': [*sys.modules], 'collects': gc.isenabled(),
}}))
"""
# Of checkpoints, buckets, data, training, files of video, pictures, bars, frozen encoders and TPUs.
LATE = (
  *('orbax', 'tensorstore', 'grain', 'optax', 'scipy', 'av', 'PIL', 'tqdm', 'tokenizers', 'pandas'),
  *(
    'pyarrow',
    'absl.app',
    'mgjax.sections.text.encoder',
    'mgjax.training.run',
    'mgjax.training.step',
    'mgjax.training.state',
    'mgjax.training.optimizers',
    'mgjax.sections.video.files',
  ),
  *('mgjax.sections.video.section', 'jax.experimental.pallas'),
)


def python(script, home, **changes):
  """What a process printed, with its programs below `home` and JAX's settings of the tests."""
  dropped = ('TPU_', 'JAX_COMPILATION_')
  kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
  environment = kept | {'PYTHONPATH': str(CHECKOUT), 'XDG_CACHE_HOME': str(home)} | changes
  done = binaries.python('-c', script, env=environment)
  return done.stdout, done.stderr


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
  """What the first process that samples tells, and the second."""
  home = tmp_path_factory.mktemp('home')
  return [json.loads(python(SAMPLE, home)[0]) for _ in range(2)]


def test_a_second_process_compiles_nothing(samples):
  first, second = (each['events'] for each in samples)
  assert 'cache_hits' not in first and first['cache_misses'] > 0
  assert 'cache_misses' not in second and second['cache_hits'] == first['cache_misses']


def test_what_a_sample_does_not_need_is_not_imported(samples):
  modules = samples[1]['modules']
  assert [name for name in LATE if name in modules] == []


def test_the_pixels_are_those_of_the_first_process_and_of_the_command(samples, tmp_path):
  out = tmp_path / 'out.mp4'
  words = [f'--workdir={MODEL}', '--steps=4', f'--prompt={PROMPT}', f'--out={out}']
  binaries.finish('sample', 'video', *words)
  (row,) = json.loads(out.with_suffix('.json').read_text())['samples']
  assert {each['pixels'] for each in samples} == {row['pixels']}


def test_garbage_is_collected_again_after_it(samples):
  assert [each['collects'] for each in samples] == [True, True]


def test_the_settings_of_jax_that_somebody_made_before_stay(tmp_path):
  script = f"""
import jax, mgjax
names = ('dir', 'max_size')
now = lambda: [*(getattr(jax.config, f'jax_compilation_cache_{{name}}') for name in names),
               jax.config.jax_persistent_cache_min_compile_time_secs]
jax.config.update('jax_persistent_cache_min_compile_time_secs', 5.0)
for theirs in ({str(tmp_path / 'theirs')!r}, None):
  jax.config.update('jax_compilation_cache_dir', theirs)
  mgjax.load('digits/autoencoder')
  print(*now())
"""
  unset = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1'}
  theirs, ours = (line.split() for line in python(script, tmp_path, **unset)[0].splitlines())
  assert theirs == [str(tmp_path / 'theirs'), '-1', '5.0']
  assert ours[0].startswith(str(tmp_path / 'mgjax')) and ours[2] == '5.0'
  script = "import jax, mgjax; mgjax.load('digits/autoencoder'); print(jax.config.jax_{})"
  name = 'compilation_cache_max_size'
  assert python(script.format(name), tmp_path, **{f'JAX_{name.upper()}': '9'})[0] == '9\n'


def test_where_libtpu_is_installed_and_no_tpu_nothing_is_said(tmp_path):
  pytest.importorskip('libtpu')
  if may_have_tpu():
    pytest.skip('this machine may have a TPU')
  script = "import mgjax; mgjax.load('digits/autoencoder'); import jax; jax.devices()"
  alone = {'JAX_PLATFORMS': '', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
  assert python(script, tmp_path, **alone) == ('', '')


@pytest.mark.slow
def test_several_threads_load_models_at_once(tmp_path):
  script = """
import concurrent.futures, sys
import mgjax
sys.setswitchinterval(1e-6)
with concurrent.futures.ThreadPoolExecutor() as pool:
  list(pool.map(mgjax.load, ['digits/video', 'digits/audio', 'digits/codec', 'digits/autoencoder']))
"""
  for _ in range(3):
    python(script, tmp_path)
