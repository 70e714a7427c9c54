"""What a flow model makes of prompts: which words training showed, and what is cut."""

import logging
import textwrap
from collections.abc import Hashable, Iterable, Sequence

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import printable
from mgjax.models.conditioning.contract import Conditioning, Cut
from mgjax.models.text.vocabulary import (
  describe_unseen,
  describe_words,
  learn_words,
  shortened,
  unseen,
)

_MOST = 100_000  # different captions that are looked at before training
_NAMED = 3  # prompts of which each has its sentence

_log = logging.getLogger(__name__)


def study_captions(
  sources: Iterable[Iterable[Fields] | None], conditionings: Sequence[Conditioning]
) -> list[str] | None:
  """Returns the words of the captions of training, and warns if the model cannot read some whole.

  Of more than `_MOST` different captions, or where they cannot be had without the samples, nothing
  is said. `sources` are of each {'caption'} and perhaps 'fps' of its samples; None where that is
  costly.
  """
  samples: dict[Hashable, Fields] = {}
  for captions in sources:
    if captions is None:
      return None
    for sample in captions:
      samples[sample['caption'], sample.get('fps')] = sample
      if len(samples) > _MOST:
        return None
  for line in describe_cuts(list(samples.values()), conditionings):
    _log.warning('%s', line)
  return learn_words(caption for caption, _ in samples)


def cuts_of(conditionings: Sequence[Conditioning], sample: Fields) -> dict[str, Cut]:
  """Returns the cut of a sample's prompt by each conditioning that cuts it, by its name."""
  cuts = {str(conditioning.name): conditioning.cut(sample) for conditioning in conditionings}
  return {name: cut for name, cut in cuts.items() if cut is not None}


def describe_cuts(samples: Sequence[Fields], conditionings: Sequence[Conditioning]) -> list[str]:
  """Describes how many of the samples' captions each conditioning cuts; [] if none does."""
  cuts_of_name: dict[str, list[Cut]] = {}
  for sample in samples:
    for name, cut in cuts_of(conditionings, sample).items():
      cuts_of_name.setdefault(name, []).append(cut)
  lines = []
  for name, cuts in sorted(cuts_of_name.items()):
    longest = max(cuts, key=lambda cut: cut.size)
    lines.append(
      f'{len(cuts):,} of {len(samples):,} captions are cut after {longest.read} {longest.unit}, '
      f'the longest has {longest.size}: config.model.conditionings.{name}.length = '
      f'{longest.wanted} reads them whole'
    )
  return lines


def describe_prompt(
  sample: Fields, words: Sequence[str], conditionings: Sequence[Conditioning]
) -> list[str]:
  """Describes the words of a sample's prompt that are not in the training data, and its cuts."""
  prompt = sample['caption']
  unknown = unseen(prompt, set(words))
  lines = [describe_unseen(prompt, unknown, words)] if unknown else []
  cuts = cuts_of(conditionings, sample).values()
  return lines + [
    f'prompt {shortened(prompt)} is cut after {cut.read} {cut.unit}: the model reads {cut.text!r}'
    for cut in cuts
  ]


def tell_prompts(
  samples: Sequence[Fields],
  words: Sequence[str],
  conditionings: Sequence[Conditioning],
  model: str,
  listed: bool = True,
) -> None:
  """Logs the words of the training data, and warns of prompts with other words and of cut prompts.

  `words` are those of the training data, empty if they are not known. `model` is its name. `listed`
  logs the words if they are few.
  """
  unknown = {sample['caption']: unseen(sample['caption'], set(words)) for sample in samples}
  lines = [
    f'{model}: {describe_unseen(prompt, unseen_words, words)}'
    for prompt, unseen_words in unknown.items()
    if unseen_words
  ]
  level = logging.WARNING if lines else logging.INFO
  known = printable(describe_words(words)) if listed else ''
  for line in textwrap.wrap(known, 100, subsequent_indent='  '):
    _log.log(level, '%s', line)
  _warn(lines, 'more prompts have words that training never showed')
  different = {sample['caption']: sample for sample in samples}.values()
  lines = [
    f'{model}: {line}'
    for sample in different
    for line in describe_prompt(sample, (), conditionings)
  ]
  _warn(lines, 'more prompts are cut')


def _warn(sentences: Sequence[str], others: str) -> None:
  for sentence in sentences[:_NAMED]:
    _log.warning('%s', sentence)
  if len(sentences) > _NAMED:
    _log.warning('%d %s', len(sentences) - _NAMED, others)
