"""What is found of a model that draws real signs, of the number asked for or of another."""

import functools
import re

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from mgjax.lab.evaluation.worlds.alignment import judge_model, write_samples
from mgjax.lab.worlds.digits.handwriting import handwriting
from mgjax.lab.worlds.digits.judges import sign as sign_judge
from mgjax.lab.worlds.digits.judges.sign import train_sign_judge
from mgjax.lab.worlds.digits.render import PITCH
from mgjax.lab.worlds.digits.scene import COLOURS
from mgjax.lab.worlds.digits.signs import is_held_out_number
from mgjax.sections.video.pipeline import VideoPipeline

SAMPLES = 40
CAPTION = re.compile(r'the (\w+) sign says "(\d+)"')


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
  """Trained on half as many signs as models are judged by."""
  trained = functools.partial(train_sign_judge, clips=700)
  monkeypatch.setattr(sign_judge, 'train_sign_judge', trained)


class Painter(VideoPipeline):
  """Stands for a model: paints what a prompt asks for, or what `change` makes of it."""

  default_shape = (1, 32, 48)
  reads = ()

  def __init__(self, frames=1, kind='signs', change=str, **signs):
    fields = {'digit_size': 16.0, 'motions': ('still',)} | signs
    self.config = ConfigDict({'data': {'kind': kind, 'signs': fields}})
    self.default_shape, self._change = (frames, 32, 48), change
    self.prompts: list[str] = []

  def generate(self, prompts, *, seed, first):
    self.prompts += prompts
    generator = np.random.default_rng((seed, first))
    images = np.stack([self._paint(prompt, generator) for prompt in prompts])
    return np.repeat(images[:, None], self.default_shape[0], axis=1)

  def _paint(self, prompt, generator):
    colour, number = CAPTION.match(prompt).groups()
    image = np.zeros((32, 48), np.float32)
    for index, digit in enumerate(self._change(number)):
      columns = slice(1 + 2 * PITCH * index, 1 + 2 * PITCH * index + 16)
      images, digits = handwriting('train')
      written = generator.choice(images[digits == int(digit)])
      large = np.kron(written, np.ones((2, 2), np.float32))
      image[8:24, columns] = np.maximum(image[8:24, columns], large)
    return np.rint(255 * image[..., None] * np.array(COLOURS[colour])).astype(np.uint8)


def test_a_model_that_writes_what_it_is_told_scores_like_real_signs(tmp_path):
  painter = Painter(frames=2)
  measured, videos, prompts = judge_model(painter, samples=SAMPLES)
  numbers = [CAPTION.match(prompt)[2] for prompt in painter.prompts]
  assert [is_held_out_number(number) for number in numbers] == [False] * SAMPLES + [True] * SAMPLES
  assert len({*numbers}) > SAMPLES  # many different ones, of both lengths alike
  assert sum(len(number) == 2 for number in numbers) == SAMPLES
  for group in measured.record['groups'].values():
    scores = group['alignment']
    # Handwriting that the judge was trained on: as good as its ceiling, less five deviations.
    assert scores['number'] > 0.96 - 5 * np.sqrt(0.96 * 0.04 / SAMPLES)
    assert scores['colour'] == scores['direction'] == 1
    assert group['ceiling']['number'] > 0.9 and group['floor']['number'] < 0.03
  assert measured.record['samples'] == 2 * SAMPLES
  (sheet, *_), _ = write_samples(tmp_path, videos, prompts, 8)
  with Image.open(sheet) as image:
    assert image.width > 2 * 48 and image.height > 6 * 32  # six videos of two frames


def test_one_wrong_digit_costs_its_share_of_the_characters(tmp_path):
  wrong = lambda number: number[:-1] + str((int(number[-1]) + 1) % 10)  # noqa: E731
  measured, videos, prompts = judge_model(Painter(change=wrong, lengths=(3,)), samples=SAMPLES)
  for group in measured.record['groups'].values():
    scores = group['alignment']
    # What the judge misreads is far less than the deviation of five that is left to it.
    assert scores['number'] < 0.1
    assert scores['characters'] == pytest.approx(2 / 3, abs=0.05)
    assert '2 digits' not in scores
  (sheet, *_), _ = write_samples(tmp_path, videos, prompts, 8)
  with Image.open(sheet) as image:
    assert image.width > 48 and image.height > 6 * 32  # six images
