"""What a flow model makes of prompts: which words training showed, and what is cut."""

import logging
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mgjax.core.errors import printable
from mgjax.models.conditioning.contract import Conditioning, Cut
from mgjax.models.text.vocabulary import (
  describe_unseen,
  describe_words,
  learn_words,
  shortened,
  unseen,
)

MOST = 100_000  # different captions that are looked at before training
_NAMED = 3  # prompts of which each has its sentence

_log = logging.getLogger(__name__)


def study_captions(
  sources: Iterable[Iterable[Mapping[str, Any]] | None], conditionings: Sequence[Conditioning]
) -> list[str] | None:
  """Returns the words of the captions of training, and warns if the model cannot read some whole.

  Of more than `MOST` different captions, or where they cannot be had without the samples, nothing
  is said. `sources` are of each {'caption'} and perhaps 'fps' of its samples; None where that is
  costly.
  """
  samples: dict[Any, Mapping[str, Any]] = {}
  for captions in sources:
    if captions is None:
      return None
    for sample in captions:
      samples[sample['caption'], sample.get('fps')] = sample
      if len(samples) > MOST:
        return None
  for line in describe_cuts(list(samples.values()), conditionings):
    _log.warning('%s', line)
  return learn_words(caption for caption, _ in samples)


def cuts_of(conditionings: Sequence[Conditioning], sample: Mapping[str, Any]) -> dict[str, Cut]:
  """Returns what conditionings leave unread of a sample's prompt, by their names."""
  found = {str(each.name): each.cut(sample) for each in conditionings}
  return {name: cut for name, cut in found.items() if cut is not None}


def describe_cuts(
  samples: Sequence[Mapping[str, Any]], conditionings: Sequence[Conditioning]
) -> list[str]:
  """Says of each conditioning how many of the samples' captions it cuts; nothing if none."""
  cut: dict[str, list[Cut]] = {}
  for sample in samples:
    for name, each in cuts_of(conditionings, sample).items():
      cut.setdefault(name, []).append(each)
  lines = []
  for name, each in sorted(cut.items()):
    longest = max(each, key=lambda cut: cut.size)
    lines.append(
      f'{len(each):,} of {len(samples):,} captions are cut after {longest.read} {longest.unit}, '
      f'the longest has {longest.size}: config.model.conditionings.{name}.length = '
      f'{longest.wanted} reads them whole'
    )
  return lines


def describe_prompt(
  sample: Mapping[str, Any], words: Sequence[str], conditionings: Sequence[Conditioning]
) -> list[str]:
  """Says which words of a sample's prompt training never showed, and what of it is cut."""
  prompt = sample['caption']
  unknown = unseen(prompt, set(words))
  said = [describe_unseen(prompt, unknown, words)] if unknown else []
  cuts = cuts_of(conditionings, sample).values()
  return said + [
    f'prompt {shortened(prompt)} is cut after {each.read} {each.unit}: the model reads '
    f'{each.text!r}'
    for each in cuts
  ]


def tell_prompts(
  samples: Sequence[Mapping[str, Any]],
  words: Sequence[str],
  conditionings: Sequence[Conditioning],
  model: str,
  listed: bool = True,
) -> None:
  """Says which words a model knows and warns of prompts that it cannot understand or read whole.

  `words` are those that training showed; none if that is not known. `model` is its name. The words
  are `listed` if they are few.
  """
  unknown = {sample['caption']: unseen(sample['caption'], set(words)) for sample in samples}
  said = [
    f'{model}: {describe_unseen(prompt, each, words)}' for prompt, each in unknown.items() if each
  ]
  level = logging.WARNING if said else logging.INFO
  known = printable(describe_words(words)) if listed else ''
  for line in textwrap.wrap(known, 100, subsequent_indent='  '):
    _log.log(level, '%s', line)
  _warn(said, 'more prompts have words that training never showed')
  different = {sample['caption']: sample for sample in samples}.values()
  said = [
    f'{model}: {line}' for each in different for line in describe_prompt(each, (), conditionings)
  ]
  _warn(said, 'more prompts are cut')


def _warn(sentences: Sequence[str], others: str) -> None:
  for sentence in sentences[:_NAMED]:
    _log.warning('%s', sentence)
  if len(sentences) > _NAMED:
    _log.warning('%d %s', len(sentences) - _NAMED, others)
