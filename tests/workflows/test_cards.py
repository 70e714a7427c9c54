"""Cards of the weights that come with mgjax say what an evaluation finds, or are not left alone."""

import re
import shutil

import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.runs import SHIPPED
from mgjax.workflows import cards
from tests import binaries

ALONE = 'digits/autoencoder'  # has the quickest evaluation


@pytest.fixture
def copies(tmp_path, monkeypatch):
  """What ships and the documents, to be written."""
  for name, place in (('SHIPPED', SHIPPED), ('DOCUMENTS', cards.DOCUMENTS)):
    kept = shutil.ignore_patterns('records', 'images', 'sounds', 'curves')
    monkeypatch.setattr(cards, name, shutil.copytree(place, tmp_path / place.name, ignore=kept))
  return tmp_path


def test_every_card_says_its_numbers_and_documents_say_the_same():
  named = cards.read_cards()
  assert set(named) == {
    path.parent.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob('config.json')
  }
  for name, evaluations in named.items():
    text = (SHIPPED / name / 'README.md').read_text()
    for each in evaluations:
      assert each.numbers and set(each.read(text)) == set(each.numbers), name
  documents = cards.documents()
  assert {path.name for path in documents} >= {'results.md', 'faster_sampling.md'}
  assert [path for path, text in documents.items() if text != path.read_text()] == []


def test_a_number_that_no_evaluation_finds_is_told_and_written_anew(copies):
  path, folder = copies / 'weights' / ALONE / 'README.md', copies / 'kept'
  shipped = path.read_text()
  assert cards.check_cards([ALONE], folder, samples=4, write=True).wrong == []
  (numbers,) = folder.glob('*/numbers.json')
  made, right = numbers.stat().st_mtime_ns, path.read_text()
  assert right != shipped  # of four clips
  found = cards.check_cards([ALONE], folder, samples=4)
  assert found.wrong == [] and ALONE in found.table
  path.write_text(re.sub(r'SSIM \.\d+', 'SSIM .676', right))
  found = cards.check_cards([ALONE], folder, samples=4)
  assert found.wrong[0] == f'{ALONE}: SSIM' and 'results.md' in found.wrong[1]
  assert ' .676 ' in found.table and 'OUTSIDE' in found.table
  assert numbers.stat().st_mtime_ns == made  # by the same weights nothing is made again


def test_a_card_with_other_numbers_is_no_card(copies):
  path = copies / 'weights' / ALONE / 'README.md'
  path.write_text(path.read_text().replace('SSIM', 'likeness'))
  with pytest.raises(ConfigError, match=r'card of digits/autoencoder has other numbers.*--write'):
    cards.check_cards([ALONE], copies / 'kept', samples=4)
  with pytest.raises(ConfigError, match='--workdir=digits/cats: there are cards of digits/video'):
    cards.check_cards(['digits/cats'])


@pytest.mark.slow
def test_what_ships_is_as_good_as_its_cards_say(tmp_path):
  quick = 'digits/autoencoder,digits/few_steps,digits/upsampler/autoencoder'
  done = binaries.finish(
    'weights', 'check', f'--workdir={quick}', f'--out={tmp_path}', timeout=1200
  )
  assert 'digits/few_steps' in done.stdout, done.stderr
