"""The numbers on the cards of the weights that ship with mgjax, measured again and written.

`mgjax/weights/cards.json` says by which evaluations: name of the weights -> [{what, options of
`launch.evaluate`, numbers: metric of the record -> how the card calls it}]. A metric 'a|b' is what
stands beside metric a, such as that of no model, and `of` names other weights that are evaluated.
A card states the numbers in the line that begins with '- **Measured**'. Documents state them in
tables between `<!-- weights a b -->` and `<!-- end -->`, with the names a and b. The code that
writes them also reads them.
The front matter of a card, for the Hugging Face Hub, is made of that line and of config.json; what
else is written there, such as `datasets`, stays.
"""

import contextlib
import hashlib
import logging
import math
import os
import pathlib
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.core import run_names
from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError, first_line
from mgjax.core.files import read_json, read_optional_json, read_regular, write_bytes, write_json
from mgjax.lab.evaluation.evaluate import evaluator_of
from mgjax.lab.report.tables import aligned
from mgjax.registry import find_component
from mgjax.training.checkpoints.find_run import SHIPPED
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE
from mgjax.training.checkpoints.workdir import read_config
from mgjax.training.monitoring.progress import in_stage

DOCUMENTS = SHIPPED.parents[1] / 'docs'  # none where mgjax is installed without its checkout
CARDS = 'cards.json'
CARD = 'README.md'
RECORD = 'evaluation.json'
_MEASURED = re.compile(r'^- \*\*Measured\*\*.*$', re.MULTILINE)
_TABLE = '| Weights | | Measured |'
_MARKED = re.compile(r'(<!-- weights ([^>]*) -->)\n.*?(<!-- end -->)', re.DOTALL)
_NUMBER = r'(-?[\d.]+)(?: \[(-?[\d.]+), (-?[\d.]+)\])?'
_LICENCE = re.compile(r'\*\*Licence: ([\w.-]+)\*\*')
# Component -> what the Hub calls what it does.
TASKS = {
  'video': 'text-to-video',
  'personalization': 'image-to-video',
  'editing': 'video-to-video',
  'upsampler': 'video-to-video',
  'audio': 'text-to-audio',
  'codec': 'audio-to-audio',
  'autoencoder': 'feature-extraction',
  'clip': 'zero-shot-image-classification',
}
_NEAR, _LEAST = 0.05, 0.03  # that one without an interval may differ by, of itself or at least

_log = logging.getLogger(__name__)


class Number(NamedTuple):
  """A number of a record, with the ends of its interval if it has one."""

  value: float
  low: float | None = None
  high: float | None = None

  def __str__(self) -> str:
    return _format(self.value) + f' {self.interval}' * bool(self.interval)

  @property
  def interval(self) -> str:
    """Its interval as text; '' without one."""
    none = self.low is None or self.high is None
    return '' if none else f'[{_format(self.low)}, {_format(self.high)}]'

  def allows(self, other: float) -> bool:
    """Says whether another number, rounded as it is displayed, is within the interval."""
    tolerance = max(_NEAR * abs(self.value), _LEAST)
    low = self.value - tolerance if self.low is None else self.low
    high = self.value + tolerance if self.high is None else self.high
    half = 0.0005 if abs(other) <= 1 else 0.05
    return low - half <= other <= high + half


Numbers = Mapping[str, Number]  # by metric of a record


# What a number is of, the command that makes it, metric, name, number.
Result = tuple[str, str, str, str, Number]


class Evaluation(NamedTuple):
  """One evaluation of a card: what it is of, the options of `launch.evaluate`, its numbers."""

  name: str
  what: str
  options: Fields
  numbers: Mapping[str, str]
  of: str = ''

  @property
  def workdir(self) -> str:
    """Name of the weights that are evaluated."""
    return self.of or self.name

  @property
  def command(self) -> str:
    """What makes the record that the numbers stand in."""
    flags = (f'--{name}={shlex.quote(str(value))}' for name, value in self.options.items())
    return ' '.join(('launch.evaluate', f'--workdir={self.workdir}', *flags))

  def format(self, numbers: Numbers) -> str:
    """Formats the numbers as cards and tables show them."""
    return ', '.join(f'{label} {numbers[metric]}' for metric, label in self.numbers.items())

  def read(self, text: str) -> Numbers:
    """Reads the numbers back from a line that `format` wrote, followed by its command.

    Raises ConfigError if the line has other numbers.
    """
    labels = (f'{re.escape(label)} {_NUMBER}' for label in self.numbers.values())
    match = re.search(rf'{", ".join(labels)} \(`{re.escape(self.command)}`\)', text)
    if match is None:
      raise ConfigError(
        f'the card of {self.name} has other numbers than {CARDS} names ({self.what}); '
        'launch.weights check --write writes it anew'
      )
    values = [None if group is None else float(group) for group in match.groups()]
    return {metric: Number(*values[3 * row :][:3]) for row, metric in enumerate(self.numbers)}


class Checked(NamedTuple):
  """What `check_cards` found: a table for people, and how much of it is not as it says."""

  table: str
  wrong: list[str]


def check_cards(
  names: Sequence[str] = (),
  folder: str | os.PathLike[str] | None = None,
  *,
  write: bool = False,
  samples: int | None = None,
) -> Checked:
  """Evaluates weights that ship with mgjax again, and compares with their cards or writes these.

  Args:
    names: of the weights, as 'digits/video'; by default of all.
    folder: for evaluations, each in a folder of its own where nothing else is; of what is there
      already, by the same weights, none is made again. By default one that is thrown away.
    write: the cards and the tables of documents, instead of comparing them.
    samples: at most, of an evaluation.

  Raises:
    ConfigError: no such weights ship with mgjax, or a card has other numbers than `CARDS` names.
    DataError: an evaluation does not have a number that `CARDS` names.
  """
  cards = read_cards()
  if unknown := [name for name in names if name not in cards]:
    raise ConfigError(f'--workdir={unknown[0]}: there are cards of {", ".join(cards)}')
  selected = [evaluation for name in names or cards for evaluation in cards[name]]
  rows = [('weights', '', 'number', 'card', 'now', 'interval')]
  wrong = []
  fresh: dict[str, list[tuple[Evaluation, Numbers]]] = {}
  folder_context = (
    tempfile.TemporaryDirectory() if folder is None else contextlib.nullcontext(folder)
  )
  with folder_context as where:
    root = pathlib.Path(where).absolute()
    for number, evaluation in enumerate(selected, 1):
      if samples is not None and 'samples' in evaluation.options:
        options = {**evaluation.options, 'samples': min(samples, evaluation.options['samples'])}
      else:
        options = evaluation.options
      with in_stage(number, len(selected)):
        numbers = _evaluate(evaluation, options, root, f'{number} of {len(selected)}')
      fresh.setdefault(evaluation.name, []).append((evaluation, numbers))
      stated = numbers if write else evaluation.read(_card(evaluation.name).read_text())
      for metric, label in evaluation.numbers.items():
        card, now = stated[metric], numbers[metric]
        outside = not now.allows(card.value)
        wrong += [f'{evaluation.name}: {label}'] * outside
        interval = (now.interval or 'none') + ' OUTSIDE' * outside
        row = (
          evaluation.name,
          evaluation.what,
          label,
          _format(card.value),
          _format(now.value),
          interval,
        )
        rows.append(row)
  if write:
    for name, evaluations in fresh.items():
      lines = (
        f'{evaluation.what}: {evaluation.format(numbers)} (`{evaluation.command}`)'
        for evaluation, numbers in evaluations
      )
      line = f'- **Measured**, 95% in brackets: {"; ".join(lines)}.'
      _replace(_card(name), _MEASURED.sub(line, _card(name).read_text()))
  for path, text in (shipped_cards(names or tuple(cards)) | documents()).items():
    if write:
      _replace(path, text)
    elif text != path.read_text():
      part = 'front matter' if path.name == CARD else 'table'
      wrong.append(f'{path.relative_to(SHIPPED.parents[1])}: its {part} is not what the cards say')
  return Checked('\n'.join(aligned(rows, names=3)), wrong)


def read_cards() -> dict[str, list[Evaluation]]:
  """Reads the evaluations of every card, by name of the weights."""
  cards = read_json(SHIPPED / CARDS)
  return {name: [Evaluation(name, **fields) for fields in cards[name]] for name in cards}


def shipped_cards(names: Sequence[str]) -> dict[pathlib.Path, str]:
  """Returns cards with front matter derived from their text; raises as `documents`."""
  cards = read_cards()
  texts = {}
  for name in names:
    text = _card(name).read_text()
    results = [
      (evaluation.what, evaluation.command, metric, evaluation.numbers[metric], number)
      for evaluation in cards[name]
      for metric, number in evaluation.read(text).items()
    ]
    texts[_card(name)] = with_metadata(text, name, read_config(SHIPPED / name).to_dict(), results)
  return texts


def with_metadata(
  text: str,
  name: str,
  config: Fields,
  results: Sequence[Result] = (),
  samples: Mapping[str, str] | None = None,
) -> str:
  """Returns a card with the front matter that the Hub reads, as its client validates it.

  `samples` are prompts by the files that were made of them. Raises ConfigError if what the front
  matter has already is not valid.
  """
  try:
    return _with_metadata(text, name, config, results, samples or {})
  except Exception as error:  # YAML's own are of no kind that others know
    problem = first_line(error)
    if mark := getattr(error, 'problem_mark', None):  # YAML's first line says what it was doing
      line = mark.line + 2  # after the line of ---
      problem = f'{getattr(error, "problem", problem)} in line {line}'
    raise ConfigError(
      f'the front matter of {CARD} of {name} is not what the Hub takes: {problem}; mend it, or '
      'delete it and push writes it anew'
    ) from error


def _with_metadata(
  text: str,
  name: str,
  config: Fields,
  results: Sequence[Result],
  samples: Mapping[str, str],
) -> str:
  from huggingface_hub import EvalResult, ModelCard

  if text.startswith('---\n') and not re.search(r'^---\s*$', text[4:], re.MULTILINE):
    raise ValueError('it begins with --- and does not end with such a line')
  task = TASKS.get(config['component'], 'other')
  kind = (config.get('data') or {}).get('kind', config['component'])
  card = ModelCard(text if text.startswith('---\n') else f'---\n{{}}\n---\n\n{text}')
  data = card.data
  if licence := _LICENCE.search(text):
    data.license = licence[1].lower()
  data.library_name = 'mgjax'
  data.pipeline_tag = task
  data.tags = list(dict.fromkeys([*(data.tags or ()), 'movie-gen', 'jax', config['component']]))
  start = str(config.get('start_from') or '').lstrip('=')
  if run_names.is_name(start) and (base := run_names.read_name(start).repository):
    data.base_model = base
    adapts = (config.get('lora') or {}).get('rank', 0)
    data.base_model_relation = 'adapter' if adapts else 'finetune'
  if results:
    data.metrics = list(dict.fromkeys(metric for _, _, metric, _, _ in results))
    data.model_name = name
    data.eval_results = [
      EvalResult(
        task_type=task,
        dataset_type=kind,
        dataset_name=what,
        dataset_config=what,
        dataset_args={'command': command},
        metric_type=metric,
        metric_name=label,
        metric_value=number.value,
        metric_args={'low': number.low, 'high': number.high},
      )
      for what, command, metric, label, number in results
    ]
  if samples:
    data.widget = [{'text': prompt, 'output': {'url': file}} for file, prompt in samples.items()]
  return str(card)


def make_card(workdir: pathlib.Path, name: str, samples: Mapping[str, str] | None = None) -> str:
  """Returns the card of a run: its own file, or one from its configuration and evaluation.json."""
  config = read_config(workdir).to_dict()
  results: Sequence[Result] = ()
  if (path := workdir / CARD).exists():
    return with_metadata(_read(path), name, config, samples=samples)
  if record := read_optional_json(
    workdir / RECORD, lambda candidate: _results(candidate) is not None
  ):
    results = _results(record)
  summary = ', '.join(f'{metric} {number}' for _, _, metric, _, number in results)
  text = f'# {name}\n\nWeights of {find_component(config["component"]).noun} for mgjax.\n'
  text += f'\n- **Measured**, 95% in brackets: {summary}.\n' * bool(summary)
  return with_metadata(text, name, config, results, samples)


def _results(record: Fields) -> list[Result]:
  """Returns the finite numbers of a record. Raises one of `WRONG` if it is damaged."""
  results = []
  for metric, entry in record['measured']['metrics'].items():
    ends = [None if entry.get(name) is None else float(entry[name]) for name in ('low', 'high')]
    if entry.get('value') is not None and math.isfinite(value := float(entry['value'])):
      task = str(record['task'])
      results.append((task, 'launch.evaluate', metric, metric, Number(value, *ends)))
  return results


def _read(path: pathlib.Path) -> str:
  data = read_regular(path, mend='delete it, and push writes it anew')
  try:
    text = data.decode('utf-8-sig').replace('\r\n', '\n').lstrip()
  except UnicodeDecodeError as error:
    raise ConfigError(f'{os.fspath(path)!r} is no text in UTF-8: {first_line(error)}') from error
  return re.sub(r'^---[ \t]+$', '---', text, count=2, flags=re.MULTILINE)


def documents() -> dict[pathlib.Path, str]:
  """Returns the documents with tables of numbers of cards, as they should be.

  Raises ConfigError if a card has other numbers than `CARDS` names.
  """
  cards = read_cards()

  def table(match: re.Match[str]) -> str:
    lines = [_TABLE, '|---|---|---|']
    for name in match[2].split():
      text = _card(name).read_text()
      lines += [f'| `{name}` | {e.what} | {e.format(e.read(text))} |' for e in cards[name]]
    return '\n'.join((match[1], *lines, match[3]))

  texts = {path: path.read_text() for path in sorted(DOCUMENTS.rglob('*.md'))}
  return {path: _MARKED.sub(table, text) for path, text in texts.items() if _MARKED.search(text)}


def _evaluate(
  evaluation: Evaluation, options: Mapping[str, Any], root: pathlib.Path, at: str
) -> Numbers:
  """Evaluates in an empty folder; reuses what an earlier call measured with the same weights."""
  weights = SHIPPED / evaluation.workdir / WEIGHTS_FILE
  digest = hashlib.sha256(weights.read_bytes())  # with the fingerprint of the autoencoder in it
  key = fingerprint_of([dict(options), digest.hexdigest()])
  folder = root / f'{evaluation.workdir.replace("/", "_")}_{key}'
  record = read_optional_json(folder / 'numbers.json', lambda candidate: 'metrics' in candidate)
  if record is None:
    folder.mkdir(parents=True, exist_ok=True)
    _log.info('%s: %s', at, evaluation.command)
    component = read_config(SHIPPED / evaluation.workdir).component
    evaluate = evaluator_of(component)
    with contextlib.chdir(folder):
      written = evaluate(pathlib.Path(evaluation.workdir), **options).paths[-1].absolute()
    record = read_json(written)['measured']
    write_json(folder / 'numbers.json', {'metrics': record['metrics']})
  numbers = {}
  for metric in evaluation.numbers:
    own, _, other = metric.partition('|')
    value = record['metrics'].get(own, {})
    value = {'value': value.get('beside', {}).get(other)} if other else value
    if value.get('value') is None:
      known = ', '.join(record['metrics'])
      raise DataError(
        f'{evaluation.command} has no {metric!r}, which {CARDS} names; it has {known}'
      )
    numbers[metric] = Number(value['value'], value.get('low'), value.get('high'))
  return numbers


def _card(name: str) -> pathlib.Path:
  return SHIPPED / name / CARD


def _format(number: float) -> str:
  return f'{number:.3f}' if abs(number) <= 1 else f'{number:.1f}'


def _replace(path: pathlib.Path, text: str) -> None:
  if text != path.read_text():
    write_bytes(path, text.encode())
