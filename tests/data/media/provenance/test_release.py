"""Functions of the user's own check prompts and change what is written, or a sentence says why."""

import sys
import types

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_function
from mgjax.data.media.provenance import release
from mgjax.data.media.provenance.release import CHECK, POSTPROCESS
from tests.data.media.provenance.signing import configure, needs_c2pa

VIDEO = np.full((2, 4, 4, 3), 100, np.uint8)
SOUND = np.full((9, 1), 0.5, np.float32)


@pytest.fixture
def own(monkeypatch):
  """Makes a function the plug-in of a variable."""

  def use(variable, function):
    module = types.ModuleType('own_plug_in')
    module.function = function
    monkeypatch.setitem(sys.modules, 'own_plug_in', module)
    monkeypatch.setenv(variable, 'own_plug_in:function')
    load_function.cache_clear()

  yield use
  load_function.cache_clear()


def test_without_variables_everything_is_as_it_was(monkeypatch):
  for variable in (CHECK, POSTPROCESS):
    monkeypatch.delenv(variable, raising=False)
  release.admit(['anything'])
  assert release.postprocess(VIDEO) is VIDEO
  assert release.postprocess_enlarged(VIDEO, 3) == (VIDEO, 3)
  assert [chunk is SOUND for chunk in release.postprocess_sound([SOUND])] == [True]
  assert release.described() == {}


def test_a_refused_prompt_comes_with_its_reason(own):
  own(CHECK, lambda prompt: 'no dogs here' if 'dog' in prompt else None)
  release.admit(['a cat', ''])
  with pytest.raises(ConfigError, match="the prompt 'a dog' is refused: no dogs here"):
    release.admit(['a cat', 'a dog'])
  assert release.described() == {'release': {'check': 'own_plug_in:function'}}


@pytest.mark.parametrize(
  ('function', 'told'),
  [
    (lambda prompt: 1 / 0, 'failed: ZeroDivisionError: division by zero'),
    (lambda prompt: False, 'returned bool, expected a reason or None'),
    (lambda: None, 'failed: TypeError'),
  ],
  ids=['raises', 'bool', 'arguments'],
)
def test_a_check_that_fails_lets_nothing_pass(own, function, told):
  own(CHECK, function)
  with pytest.raises(ConfigError, match=told):
    release.admit(['a cat'])


def test_pictures_and_sounds_are_changed_as_they_are_written(own):
  def brighter(video, audio):
    return (None, audio / 2) if video is None else (video + np.uint8(len(video)), audio)

  own(POSTPROCESS, brighter)
  np.testing.assert_array_equal(release.postprocess(VIDEO), VIDEO + 2)
  large, repeats = release.postprocess_enlarged(VIDEO, 3)
  assert large.shape == (2, 12, 12, 3) and repeats == 1 and (large == 102).all()
  np.testing.assert_array_equal(next(release.postprocess_sound([SOUND])), SOUND / 2)


@pytest.mark.parametrize(
  ('function', 'told'),
  [
    (lambda video, audio: video, 'returned no pair'),
    (
      lambda video, audio: (video[:1], audio),
      r'as video, uint8 \(1, 4, 4, 3\), expected uint8 \(2',
    ),
    (lambda video, audio: (video / 2, audio), 'as video, float64'),
    (lambda video, audio: (video, SOUND), r'as audio, float32 \(9, 1\), expected None'),
    (lambda video, audio: (None, audio), 'as video, None'),
    (lambda video, audio: 1 / 0, 'failed: ZeroDivisionError'),
  ],
  ids=['one', 'shape', 'type', 'added', 'lost', 'raises'],
)
def test_what_cannot_be_written_is_a_sentence(own, function, told):
  own(POSTPROCESS, function)
  with pytest.raises(ConfigError, match=told):
    release.postprocess(VIDEO)


@pytest.mark.parametrize('variable', [CHECK, POSTPROCESS])
def test_a_function_that_is_not_there_is_found_before_anything_is_made(monkeypatch, variable):
  monkeypatch.setenv(variable, 'nowhere.to_be:found')
  with pytest.raises(ConfigError, match=r"plug-in 'nowhere\.to_be:found' cannot be imported"):
    release.admit([])


@needs_c2pa
def test_the_json_says_which_certificate_signed(tmp_path, monkeypatch):
  configure(monkeypatch, tmp_path)
  assert len(release.described()['release']['certificate']) == 16
