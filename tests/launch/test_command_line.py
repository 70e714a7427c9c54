"""What the command line says in few letters, and what the library gets of it."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from launch import flag_values
from mgjax.core.configuration.keys import join_list
from mgjax.core.errors import ConfigError
from mgjax.core.version import __version__
from mgjax.models.flow_model.settings import SampleSettings
from tests import binaries

SAMPLED = {'guidance': (), 'schedule': {'name': 'linear'}, 'solver': 'euler', 'steps': 1}


@pytest.mark.parametrize(
  ('text', 'guidance'),
  [
    (None, None),
    ('3', 3.0),
    ('-0.5', -0.5),
    ('3@0.2-0.8', (3.0, (0.2, 0.8))),
    ('text=3,first_frame=4', {'text': 3.0, 'first_frame': 4.0}),
    ('text=3@0.2-0.8', {'text': (3.0, (0.2, 0.8))}),
    ('4@0-0.125+3@0.125-1', ((4.0, (0.0, 0.125)), (3.0, (0.125, 1.0)))),
    ('source=1.5, text=7.5@0-1', {'source': 1.5, 'text': (7.5, (0.0, 1.0))}),
  ],
)
def test_guidance_is_a_scale_or_scales_by_name_in_their_order(text, guidance):
  found = flag_values.guidance(text)
  assert found == guidance
  assert not isinstance(found, dict) or list(found) == list(guidance)


@pytest.mark.parametrize(
  'text',
  ['', 'text', 'text=', '3,4', 'text=3,4', 'text=3,text=4', '3@0.2', '3@x-1', 'a=b=3', ',', '3+4'],
)
def test_guidance_of_another_form_is_refused(text):
  with pytest.raises(ConfigError, match='expected a scale, as in 3, or scales of conditions by'):
    flag_values.guidance(text)


@pytest.mark.parametrize('word', ['--version', '-V'])
@pytest.mark.parametrize('command', ['train', 'plan', 'doctor'])
def test_every_command_says_its_version(command, word):
  done = binaries.run(command, word)
  assert (done.returncode, done.stdout) == (0, f'mgjax {__version__}\n')


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ('a.safetensors:0.8,b', ['a.safetensors:0.8', 'b']),
    ('warm,soft.safetensors', ['warm,soft.safetensors']),
    ('warm,soft.safetensors:0.8,b:2', ['warm,soft.safetensors:0.8', 'b:2']),
    ('b,warm,soft.safetensors', ['b', 'warm,soft.safetensors']),
    (r'not\,there.safetensors:1,b', ['not,there.safetensors:1', 'b']),
    ('one,two,three/x,y:.5', ['one,two,three/x,y:.5']),
  ],
)
def test_a_comma_of_a_path_that_is_there_parts_nothing(text, found, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'warm,soft.safetensors').touch()
  (tmp_path / 'one,two,three').mkdir()
  (tmp_path / 'one,two,three' / 'x,y').touch()
  assert flag_values.paths(text) == found
  # As the settings of a sampler read what the flag makes of it.
  settings = SampleSettings(lora=join_list(found), **SAMPLED)
  assert [place for place, _ in settings.loras] == [re.sub(r':[\d.]+$', '', each) for each in found]
  assert settings.placed(lambda place: f'{place},new').loras == [
    (f'{place},new', weight) for place, weight in settings.loras
  ]


@pytest.mark.parametrize(
  ('line', 'found'),
  [
    ('mgjax tr', ['train ']),
    ('mgjax --v', ['--version ']),
    ('mgjax train --new', ['--new_data ', '--new_rate ']),
    ('mgjax plan --config=x  --pri', ['--price=', '--print_config ']),
    ('mgjax plan --what=s', ['sample ']),
    ('mgjax data con', ['convert ']),
    ('mgjax sample up', ['upsample ']),
    ('mgjax sample upsample --fac', ['--factor=']),
    ('mgjax sample image --fr', []),
    ('mgjax data convert --re', ['--reencode=']),
    ('mgjax train --config=digits/vid', ['digits/video ']),
    (
      'mgjax train --config=digits/video --config.optimizer.lear',
      ['--config.optimizer.learning_rate='],
    ),
    ('mgjax train --config=nowhere --config.o', []),
    ('mgjax train --workdir=', []),  # names of files, which the shell knows
    ('mgjax nothing --x', []),
    ('mgjax train "half', []),
  ],
)
def test_bash_completes_what_may_stand_at_the_end_of_a_line(line, found):
  script = """source <(mgjax --completion); COMP_LINE=$1; COMP_POINT=${#1}; _mgjax
    printf '%s\\n' "${COMPREPLY[@]}" """
  path = {'PATH': f'{pathlib.Path(sys.executable).parent}:/usr/bin:/bin'}
  done = subprocess.run(
    ['bash', '-c', script, 'bash', line], capture_output=True, text=True, env=path, check=True
  )
  assert done.stdout.splitlines() == (found or ['']) and not done.stderr


def test_the_last_value_of_an_override_counts_also_of_a_tuple():
  words = ('--config=configs/solids/autoencoder.py', '--config.model.widths=16,32')
  run = binaries.run('train', *words, '--config.model.widths=8,24', '--print_config')
  assert json.loads(run.stdout)['model']['widths'] == [8, 24], run.stderr
