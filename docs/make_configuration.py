"""Writes configuration.md, the page of every field of a configuration, from the classes.

python docs/make_configuration.py

What a field means is in its class, behind `Attributes:` or in a comment beside it; the page is not
edited by hand. With --check nothing is written, and the exit code is 1 where the page is another.
"""

import dataclasses
import inspect
import pathlib
import re
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from mgjax.apps.encode import EncodeSettings
from mgjax.apps.pairs.backtranslation import Backtranslation
from mgjax.apps.pairs.preferences import Preferences
from mgjax.core.settings import Range, annotations, defaults
from mgjax.data.settings import DataSettings
from mgjax.flow.distillation.adversarial import Adversarial
from mgjax.flow.distillation.distribution_matching import DistributionMatching
from mgjax.flow.distillation.few_steps import FewSteps
from mgjax.flow.distillation.guidance import GuidanceDistillation
from mgjax.flow.distillation.mean_flow import MeanFlow
from mgjax.flow.distillation.preference import Preference
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.clip.towers import ClipText, ClipVision
from mgjax.models.codec import objective as codec
from mgjax.models.codec.discriminators import Discriminators
from mgjax.models.codec.model import Codec
from mgjax.models.conditioning import kinds
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.flow_model.alignment import Alignment
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.models.tae import objective as tae
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.discriminator import Discriminator
from mgjax.models.tae.tiling import Tiling
from mgjax.models.text.t5 import T5Encoder
from mgjax.nn.lora import Lora
from mgjax.sections.editing.section import Edits
from mgjax.sections.editing.sources import Motion
from mgjax.sections.personalization.references import References
from mgjax.sections.upsampler.geometry import Windows
from mgjax.sections.upsampler.recipe import Degradation, Order
from mgjax.sections.upsampler.section import Pairs
from mgjax.training.guard import UpdateGuard
from mgjax.training.monitoring.watchdog import PhaseLimits
from mgjax.training.settings import BucketSettings, OptimizerSettings, Patience, RunSettings

PAGE = pathlib.Path(__file__).parent / 'reference/configuration.md'

BEGINNING = """# Fields of configurations

For those who change a run. A file of `configs/` states what differs from the defaults below;
`--config.GROUP.FIELD=value` changes a field on the command line, and `--print_config` prints all
of them. Values outside of a range are refused. A `-` stands where a field has no default: every
configuration gives it.

This page is made of the classes that read the fields, by `python docs/make_configuration.py`.
"""

# Headings, and below each the groups of fields with the class of each.
GROUPS: dict[str, dict[str, type[Any]]] = {
  'Every run': {
    'optimizer': OptimizerSettings,
    'optimizer.plateau': Patience,
    'train': RunSettings,
    'train.faults': UpdateGuard,
    'train.limits': PhaseLimits,
    'lora': Lora,
    'data': DataSettings,
    'buckets.NAME': BucketSettings,
    'encode': EncodeSettings,
  },
  'Flow models: video, editing, personalization, upsampler, audio': {
    'model': Transformer,
    'objective': ObjectiveSettings,
    'objective.alignment': Alignment,
    'objective.few_steps': FewSteps,
    'objective.mean_flow': MeanFlow,
    'objective.distribution_matching': DistributionMatching,
    'objective.adversarial': Adversarial,
    'objective.guidance_distillation': GuidanceDistillation,
    'objective.preference': Preference,
    'sample': SampleSettings,
    'preferences': Preferences,
  },
  'Editing': {'edits': Edits, 'edits.motion': Motion, 'backtranslation': Backtranslation},
  'Personalization': {'references': References},
  'Upsampler': {
    'pairs': Pairs,
    'pairs.degradation': Degradation,
    'pairs.degradation.first': Order,
    'windows': Windows,
  },
  'Conditionings: model.conditionings.NAME, by kind': {},
  'Autoencoder of video': {
    'model': Autoencoder,
    'objective': tae.LossWeights,
    'discriminator': Discriminator,
    'tiling': Tiling,
  },
  'Codec of sound': {
    'model': Codec,
    'objective': codec.LossWeights,
    'discriminator': Discriminators,
  },
  'Frozen encoders and CLIP': {
    'model of t5': T5Encoder,
    'model of clip_text, model.text of clip': ClipText,
    'model of clip_vision, model.vision of clip': ClipVision,
  },
}
_WORDS = {int: 'whole number', float: 'number', str: 'text', bool: 'True or False'}


def page() -> str:
  """Returns the page."""
  parts = [BEGINNING]
  for heading, groups in GROUPS.items():
    parts.append(f'\n## {heading}\n')
    if heading.startswith('Conditionings'):
      groups = {kind: kinds.find(kind) for kind in kinds.built_in()}
    for name, made in groups.items():
      handed: tuple[str, ...] = ('dim', 'patch', 'dtype') if issubclass(made, Conditioning) else ()
      handed = ('seed',) if made is RunSettings else handed
      parts.append(f'\n### `{name}`\n\n{_first_sentence(made)}\n\n{table(made, handed)}')
  # Docstrings name files from the package on.
  return re.sub(
    r'(?<![\w/])(?=[a-z_]+/[\w/]+\.py)(?!mgjax/|configs/|docs/)', 'mgjax/', ''.join(parts)
  )


def table(made: type[Any], handed: Sequence[str] = ()) -> str:
  """Returns the table of the fields of a class but for those that code hands to it."""
  usual, said, rows = defaults(made).to_dict(), meanings(made), []
  for name, hint in annotations(made).items():
    if name not in handed:
      default = f'`{usual[name]!r}`' if name in usual and usual[name] != {} else '-'
      default = '`{}`' if usual.get(name) == {} else default
      default = 'below' if isinstance(usual.get(name), dict) and usual[name] else default
      rows.append(f'| `{name}` | {default} | {describe(hint)} | {said.get(name, "")} |\n')
  if not rows:
    return 'No fields.\n'
  return '| field | default | values | meaning |\n|---|---|---|---|\n' + ''.join(rows)


def describe(hint: Any) -> str:
  """Says which values an annotation allows."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    limits = [each for each in arguments[1:] if isinstance(each, Range)]
    said = limits[0].describe(arguments[0] is int).removeprefix('a ') if limits else ''
    return re.sub(r' to (2147483647|1e\+30)$', '', said) or describe(arguments[0])
  if hint in _WORDS:
    return _WORDS[hint]
  if dataclasses.is_dataclass(hint) or (origin is not None and 'Mapping' in str(origin)):
    return 'fields'
  if origin is tuple:
    several = len(arguments) == 2 and arguments[1] is Ellipsis
    inner = [describe(arguments[0])] if several else [describe(each) for each in arguments]
    return f'any number of: {inner[0]}' if several else f'({"; ".join(inner)})'
  if arguments:
    return ' or '.join('none' if each is type(None) else describe(each) for each in arguments)
  return 'type of numbers' if 'dtype' in str(hint) else ''


def meanings(made: type[Any]) -> dict[str, str]:
  """Returns what a class says of its fields, in its docstring or in comments beside them."""
  found = {}
  for owner in reversed(made.__mro__):
    if owner is object or owner.__module__.split('.')[0] != 'mgjax':
      continue
    found |= _comments(owner) | _attributes(inspect.cleandoc(owner.__doc__ or ''))
  return found


def _attributes(text: str) -> dict[str, str]:
  section = re.search(r'^Attributes:\n((?:  .*\n?|\n)+)', text, re.MULTILINE)
  found = {}
  for entry in re.split(r'^  (?=\w)', section[1] if section else '', flags=re.MULTILINE)[1:]:
    names, _, meaning = entry.partition(':')
    words = ' '.join(meaning.split())
    found |= {name.strip(): words.replace('|', '\\|') for name in names.split(',')}
  return found


def _comments(owner: type[Any]) -> dict[str, str]:
  found, above = {}, []
  for line in inspect.getsource(owner).splitlines():
    field = re.match(r'\s+(\w+): [^#]*(?:#\s*(.*))?$', line)
    if comment := re.match(r'\s+# (.*)', line):
      above.append(comment[1])
    else:
      if field and (field[2] or above):
        found[field[1]] = ' '.join([*above, *([field[2]] if field[2] else [])]).replace('|', '\\|')
      above = []
  return found


def _first_sentence(made: type[Any]) -> str:
  return ' '.join(inspect.cleandoc(made.__doc__ or '').partition('\n\n')[0].split())


def main() -> int:
  text = page()
  if '--check' in sys.argv[1:]:
    return int(text != PAGE.read_text())
  PAGE.write_text(text)
  return 0


if __name__ == '__main__':
  sys.exit(main())
