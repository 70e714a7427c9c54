"""Requests are one design: their fields are flags, and files know no pipeline."""

import dataclasses
import pathlib

import pytest

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.registry import COMPONENTS
from mgjax.sections.flow.requests import Request
from mgjax.sections.video.files import Samples
from mgjax.training.checkpoints.find_run import find_run


@pytest.mark.parametrize('name', [name for name, row in COMPONENTS.items() if row.request])
def test_every_request_checks_and_writes_and_its_files_import_no_pipeline(name):
  kind = COMPONENTS[name].request.get()
  assert issubclass(kind, Request)
  assert kind.write is not Request.write and kind.check is not Request.check
  fields = {field.name for field in dataclasses.fields(kind)}
  assert {'prompts', 'out', 'seed', 'batch_size'} <= fields
  files = pathlib.Path(mgjax.__file__).parent / 'sections' / name / 'files.py'
  assert 'pipeline import' not in files.read_text()


def test_options_that_are_no_fields_are_conditions():
  request = Samples.of(' a  dog ', 'a.mp4', frames=4, first_frame='dog.png', conditions={'x': 1})
  assert request.prompts == ('a dog',) and request.frames == 4
  assert request.conditions == {'first_frame': 'dog.png', 'x': 1}
  assert Samples(None, 'a').prompts == ('',)  # one of nothing in particular
  with pytest.raises(ConfigError, match='2 prompts; this model makes one thing at a time'):
    _ = Samples(['a', 'b'], 'a').prompt


def test_a_request_is_checked_against_a_run_without_its_weights(tmp_path):
  workdir, prompts = find_run('digits/few_steps'), ['the green digit 3 moves left']
  Samples(prompts, tmp_path / 'a.mp4').check(workdir, {'steps': 2})
  for wrong, told in (
    ({'out': tmp_path / 'a.png'}, r'16 frame\(s\) are written as \.mp4'),
    ({'size': (31, 32)}, '31'),
    ({'conditions': {'first_frame': 'a.png'}}, 'first_frame'),
    ({'prompts': [*prompts, *prompts]}, 'there are 2 videos; give a directory'),
  ):
    with pytest.raises(ConfigError, match=told):
      Samples.of(**{'prompts': prompts, 'out': tmp_path / 'a.mp4', **wrong}).check(workdir)
