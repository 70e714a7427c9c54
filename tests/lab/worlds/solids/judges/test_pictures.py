from mgjax.lab.worlds.judging import PicturesJudge
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.pictures import SolidsPictures


def test_every_picture_has_one_of_the_captions_and_its_object_is_there_twice():
  judge = SolidsPictures(Solids(split='in_distribution', size=(16, 16), patterns=('dots', 'band')))
  assert isinstance(judge, PicturesJudge)
  captions = [caption for caption, _ in judge.choices]
  assert len(set(captions)) == len(captions) == 7 * 4 * 4 * 2
  assert dict(judge.choices)['a large red metal ball']['material'] == 'metal'
  pictures = judge.pictures(20)
  assert len(pictures) == 20 and all(each.caption in captions for each in pictures)
  for clip, view in zip(pictures[::2], pictures[1::2], strict=True):
    assert (clip.identity, clip.caption) == (view.identity, view.caption)
    assert (clip.view, view.view) == (0, 1) and (clip.image != view.image).any()
  assert len({each.identity for each in pictures}) > 5
