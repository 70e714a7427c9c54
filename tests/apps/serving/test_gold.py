"""Gold items from end to end: spoilt videos through the page's protocol to the analysis."""

import shutil
import zlib

from mgjax.apps.serving.votes import Votes
from mgjax.lab.evaluation.human.analysis import analyse_study
from mgjax.lab.evaluation.human.study import Design, Folders, begin
from tests.apps.serving.tiny_pages import make_videos, served

PROMPTS, GOLD = 10, 8


def test_who_pays_attention_is_told_from_who_does_not_and_gold_counts_in_no_result(tmp_path):
  make_videos(tmp_path, PROMPTS, models='abc')
  (tmp_path / 'spoilt').mkdir()
  for index in range(GOLD):
    shutil.copy(tmp_path / 'c' / f'{index:05d}.mp4', tmp_path / 'spoilt')
  models = {name: str(tmp_path / name) for name in 'ab'}
  begin(
    tmp_path / 'votes',
    Folders(models, gold=str(tmp_path / 'spoilt')),
    str(tmp_path / 'prompts.txt'),
    'video:overall',
    ('ann', 'ben', 'cy'),
    design=Design(repeats=0),
  )
  spoilt = {zlib.crc32(path.read_bytes()) for path in (tmp_path / 'spoilt').iterdir()}
  best = {zlib.crc32(path.read_bytes()) for path in (tmp_path / 'a').iterdir()}
  with served(Votes(tmp_path / 'votes')) as people:
    for rater, client in people.items():
      for _ in range(PROMPTS + GOLD):
        found, _, vote = client.next()
        sums = {side: vote[side] for side in ('left', 'right')}
        assert not any(word in str(found) for word in ('gold', 'spoilt'))
        wanted = spoilt if rater == 'cy' and spoilt & set(sums.values()) else best
        vote['choice'] = next(side for side, total in sums.items() if total in wanted)
        assert client.send(vote)[0] == 200
      assert client.next()[0]['task'] is None
  found = analyse_study(tmp_path / 'votes')
  seen = {each.name: each for each in found.raters}
  assert [seen[rater].gold.value for rater in ('ann', 'ben', 'cy')] == [1, 1, 0]
  assert seen['ann'].gold.count == GOLD and not any('gold' in flag for flag in seen['ann'].flags)
  assert 'right about 0% of 8 gold items' in seen['cy'].flags
  (comparison,) = found.comparisons
  assert (comparison.rate.prompts, comparison.rate.value) == (PROMPTS, 100)
