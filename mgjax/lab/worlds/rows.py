"""The rows of mgjax's own synthetic datasets, see `data/synthetic_datasets.py`."""

from mgjax.data.synthetic_datasets import World

ROWS = {
  'digits': World(
    'mgjax.lab.worlds.digits.clips:Digits',
    {
      'video': 'mgjax.lab.worlds.digits.judges.video:DigitsVideoJudge',
      'votes': 'mgjax.lab.worlds.digits.judges.video:DigitsVotes',
      'sound': 'mgjax.lab.worlds.digits.judges.sound:DigitsSoundJudge',
      'enlarged': 'mgjax.lab.worlds.digits.judges.enlarged:DigitsEnlarged',
      'edits': 'mgjax.lab.worlds.digits.judges.edit:DigitsEdits',
      'pictures': 'mgjax.lab.worlds.digits.judges.pictures:DigitsPictures',
      'references': 'mgjax.lab.worlds.digits.judges.references:DigitsReferences',
    },
    'the green digit 3 moves left',
    'mgjax.lab.worlds.digits.judges.video:DigitsPrompts',
  ),
  'signs': World(
    'mgjax.lab.worlds.digits.signs:Signs',
    {'video': 'mgjax.lab.worlds.digits.judges.video:SignsVideoJudge'},
    'the green sign says "38"',
  ),
  'solids': World(
    'mgjax.lab.worlds.solids.clips:Solids',
    {
      'video': 'mgjax.lab.worlds.solids.judges.video:make_judge',
      'votes': 'mgjax.lab.worlds.solids.judges.video:make_filter',
      'sound': 'mgjax.lab.worlds.solids.judges.sound:SolidsSoundJudge',
      'enlarged': 'mgjax.lab.worlds.solids.judges.video:SolidsEnlarged',
      'edits': 'mgjax.lab.worlds.solids.judges.edit:SolidsEdits',
      'pictures': 'mgjax.lab.worlds.solids.judges.pictures:SolidsPictures',
      'references': 'mgjax.lab.worlds.solids.judges.references:SolidsReferences',
    },
    'a large red metal ball rolls left and hits a small blue wooden cube; the camera pans left',
    'mgjax.lab.worlds.solids.judges.video:SolidsPrompts',
  ),
}
