"""Captions come from text, from a server's model or from rules."""

import json

import numpy as np
import pytest

from mgjax.lab.curation import captions
from tests.lab.curation.camera_moves import film
from tests.lab.language_models.chat_server import Server


def clip(colour=(200, 30, 30), caption='', frames=12):
  made = np.broadcast_to(np.uint8(colour), (frames, 36, 64, 3))
  return captions.Clip(lambda: made, 8.0, caption)


def test_existing_text_is_cleaned_and_nothing_is_made_up():
  clips = [clip(caption=' a  dog\x00 '), clip(caption=' \x01')]
  assert captions.Existing().captions(clips) == ['a dog', None]


def test_a_model_of_a_server_sees_frames_in_their_order(tmp_path):
  reply = json.dumps({'caption': ' A red  wall. '})

  def frames():
    return np.stack([np.full((40, 80, 3), 10 * n, np.uint8) for n in range(20)])

  with Server(lambda text: reply) as server:
    settings = captions.CaptionSettings(
      'endpoint', {'model': 'tiny', 'url': server.url}, frames=3, side=32, words=40
    )
    captioner = captions.make_captioner(settings, tmp_path)
    given = captions.Clip(frames, 8.0, 'holiday "1"')
    for _ in range(2):
      assert captioner.captions([given]) == ['A red wall.']
    ((asked,),) = server.requests.values()  # the second answer was kept
  content = asked[1]['messages'][0]['content']
  assert [each['type'] for each in content] == ['image_url'] * 3 + ['text']
  assert 'about 40 words' in content[-1]['text'] and "holiday '1'" in content[-1]['text']


def test_an_answer_that_is_no_caption_is_asked_for_again(tmp_path):
  answers = iter(['{"text": "a"}', 'no JSON', '{"caption": "A dog."}'])
  with Server(lambda text: next(answers)) as server:
    endpoint = {'model': 'tiny', 'url': server.url, 'first_pause': 0.001}
    captioner = captions.make_captioner(captions.CaptionSettings('endpoint', endpoint), tmp_path)
    assert captioner.captions([clip()]) == ['A dog.']


@pytest.mark.parametrize(
  ('colour', 'name'),
  [
    ((220, 20, 20), 'red'),
    ((20, 160, 30), 'green'),
    ((30, 60, 220), 'blue'),
    ((240, 220, 20), 'yellow'),
    ((250, 250, 250), 'white'),
    ((5, 5, 5), 'black'),
    ((120, 120, 120), 'grey'),
    ((255, 140, 0), 'orange'),
  ],
  ids=lambda each: each if isinstance(each, str) else '',
)
def test_colours_have_their_names(colour, name):
  assert captions.colours(np.broadcast_to(np.uint8(colour), (20, 30, 3))) == {name: 1.0}


def test_rules_tell_the_camera_what_moves_and_the_colours():
  text = captions.Rules().captions([captions.Clip(lambda: film('tilt up', 700_003), 8.0)])[0]
  assert text.startswith('Tilt or pedestal up') and 'The picture is' in text
  frames = film('static shot', 700_000)[:1].repeat(16, 0)
  assert 'Something moves' not in captions.describe(frames, 8.0)
  thing = film('static shot', 700_001)[0]
  for number, frame in enumerate(frames):  # a third of the picture goes left, 6 pixels a frame
    left = 150 - 6 * number
    frame[30:130, left : left + 90] = thing[30:130, :90]
  assert 'Something moves to the left.' in captions.describe(frames, 8.0)
