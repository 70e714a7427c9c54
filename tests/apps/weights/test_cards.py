"""Cards of the weights that come with mgjax say what an evaluation finds, or are not left alone."""

import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard

from mgjax.apps.weights import cards
from mgjax.core.errors import ConfigError
from mgjax.training.checkpoints.find_run import SHIPPED
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
  assert {path.name for path in documents} == {'models.md'}
  assert [path for path, text in documents.items() if text != path.read_text()] == []


def test_every_card_is_valid_on_the_hub_and_has_the_numbers_of_its_line(copies):
  found = cards.shipped_cards(tuple(cards.read_cards()))
  assert [path for path, text in found.items() if text != path.read_text()] == []
  for path in found:
    data = ModelCard.load(path).data
    assert data.license == 'apache-2.0' and data.pipeline_tag and data.eval_results, path
  path = copies / 'weights' / ALONE / 'README.md'
  text = path.read_text()
  for old, new in (('value: 34.6', 'value: 35.6'), ('dB 34.6 [', 'dB 35.6 [')):
    path.write_text(text.replace(old, new))
    assert path.read_text() != text != cards.shipped_cards([ALONE])[path] or new.startswith('value')
    assert cards.shipped_cards([ALONE])[path] != path.read_text()


def test_a_card_of_a_run_has_what_its_evaluation_found_and_what_it_started_from(tmp_path):
  shipped = json.loads((SHIPPED / ALONE / 'config.json').read_text())
  shipped |= {'start_from': f'hf://me/base@{"a" * 40}#{"b" * 64}'}
  metrics = {'scores/psnr': {'value': 31.25, 'low': 30.5, 'high': 32.0}, 'scores/none': {}}
  record = {'task': 'autoencoder', 'measured': {'metrics': metrics}}
  for name, value in (('config', shipped), ('evaluation', record)):
    (tmp_path / f'{name}.json').write_text(json.dumps(value))
  text = cards.make_card(tmp_path, 'mine', {'samples/0.mp4': 'a digit'})
  data = ModelCard(text).data
  (result,) = data.eval_results
  assert result.metric_value == 31.25 and result.metric_args == {'low': 30.5, 'high': 32.0}
  assert (data.base_model, data.base_model_relation) == ('me/base', 'finetune')
  assert data.widget == [{'text': 'a digit', 'output': {'url': 'samples/0.mp4'}}]
  (tmp_path / 'README.md').write_text(
    '---\ndatasets: [mine]\nmodel-index: [{name: 3}]\n---\n# mine'
  )
  with pytest.raises(ConfigError, match=r'README\.md of mine is not what the Hub takes'):
    cards.make_card(tmp_path, 'mine')
  (tmp_path / 'README.md').write_text('---\ndatasets: [mine]\n---\n# mine')
  assert ModelCard(cards.make_card(tmp_path, 'mine')).data.datasets == ['mine']


def test_a_number_that_no_evaluation_finds_is_told_and_written_anew(copies):
  path, folder = copies / 'weights' / ALONE / 'README.md', copies / 'kept'
  shipped = path.read_text()
  assert cards.check_cards([ALONE], folder, samples=4, write=True).wrong == []
  (numbers,) = folder.glob('*/numbers.json')
  made, right = numbers.stat().st_mtime_ns, path.read_text()
  assert right != shipped  # of four clips
  found = cards.check_cards([ALONE], folder, samples=4)
  assert found.wrong == [] and ALONE in found.table
  path.write_text(re.sub(r'SSIM 0\.\d+', 'SSIM 0.676', right))
  found = cards.check_cards([ALONE], folder, samples=4)
  assert found.wrong[0] == f'{ALONE}: SSIM'
  assert [each.split(':')[0].split('/')[-1] for each in found.wrong[1:]] == [
    'README.md',
    'models.md',
  ]
  assert ' 0.676 ' in found.table and 'OUTSIDE' in found.table
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
