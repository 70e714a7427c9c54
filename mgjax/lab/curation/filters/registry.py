"""The filters by name (Movie Gen §3.2.1, App. J, Table 44).

A filter looks at the scores of clips, never at their pictures: it is plain numpy, and a million
rows take seconds. Its answer is a reason for each clip, '' for one that it keeps.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.lab.curation.filters.concepts import resampled
from mgjax.lab.curation.filters.duplicates import copies
from mgjax.lab.curation.filters.mixture import surplus
from mgjax.lab.curation.filters.seeds import far_from_seeds
from mgjax.lab.curation.filters.sound import COLUMNS, misplaced
from mgjax.lab.curation.filters.table import Columns, as_columns, known
from mgjax.lab.curation.filters.thresholds import Limit, outside, rounded, with_lengths
from mgjax.lab.curation.settings import CurationSettings, KeepSettings


@dataclasses.dataclass(frozen=True)
class Filter:
  """One filter: by limits on columns, or by a function of its own."""

  name: str
  # Settings -> limits that a clip keeps within, whose columns it needs; for histograms as well.
  limits: Callable[[KeepSettings], tuple[Limit, ...]] = lambda _: ()
  # Returns the reasons of a filter that has no limits.
  judge: Callable[[Columns, KeepSettings], np.ndarray] | None = None
  enabled: Callable[[KeepSettings], bool] = lambda _: True  # whether they ask anything of it
  needs: tuple[tuple[str, ...], ...] = ()  # columns without which it is off, any one of each tuple
  reads: tuple[str, ...] = ()  # columns that it reads as well where they are there
  supply: str = 'name its scorer in measure.scorers, and measure again'  # for it to be on
  published: float | None = None  # share of clips that Table 44 has left after it

  def __post_init__(self):
    if not self.needs:
      columns = dict.fromkeys(limit.column for limit in self.limits(KeepSettings()))
      object.__setattr__(self, 'needs', _each_column(*columns))

  def columns(self) -> tuple[str, ...]:
    return (*(name for names in self.needs for name in names), *self.reads)

  def off(self, table: object, settings: KeepSettings) -> str:
    """Says why the filter is off: nobody supplied what it needs or asked for it; '' if it is on."""
    if not self.enabled(settings):
      return f'{self.name} is off: nothing is asked of it; {self.supply}'
    columns = as_columns(table, self.columns())
    for names in self.needs:
      if not any(name in columns and known(columns[name]).any() for name in names):
        return f'{self.name} is off: no clip has {" or ".join(names)}; {self.supply}'
    return ''

  def keep(self, table: object, settings: KeepSettings) -> np.ndarray:
    """Says of each clip why it is dropped, '' of one that is kept: of all if the filter is off.

    The table is a `pyarrow.Table`, or arrays or lists by name; one row a clip.
    """
    columns = as_columns(table, (*self.columns(), 'clip'))
    if not len(columns['clip']) or self.off(table, settings):
      return np.full(len(columns['clip']), '', object)
    if self.judge is not None:
      return self.judge(columns, settings)
    return outside(with_lengths(columns), self.limits(settings))


def _each_column(*names: str) -> tuple[tuple[str, ...], ...]:
  return tuple((name,) for name in names)


_ALL = (
  Filter('duration', lambda keep: (Limit('seconds', *rounded(*keep.seconds)),), published=1.0),
  Filter(
    'resolution',
    lambda keep: (Limit('width', keep.side), Limit('height', keep.side)),
    published=0.25,
  ),
  Filter(
    'aspect',
    lambda keep: (Limit('aspect', keep.aspect),),
    needs=_each_column('width', 'height'),
    published=0.07,
  ),
  Filter('text', lambda keep: (Limit('text_score', high=keep.text, below=True),), published=0.0194),
  Filter('borders', lambda keep: (Limit('borders_share', high=keep.borders),), published=0.0187),
  Filter(
    'scenes',
    lambda keep: (Limit('clip_seconds', *rounded(*keep.clip_seconds)),),
    needs=_each_column('start', 'end'),
    published=0.0178,
  ),
  Filter(
    'aesthetics',
    lambda keep: (Limit('aesthetics_score', keep.aesthetics),),
    supply='give measure.aesthetics.python a function and its weights',
    published=0.0157,
  ),
  Filter('static', lambda keep: (Limit('stillness_share', high=keep.still),)),
  Filter('slides', lambda keep: (Limit('stillness_share', high=keep.slides),)),
  Filter(
    'motion',
    lambda keep: (
      Limit('motion_vmaf', keep.motion, above=True),
      Limit('motion_vectors', *keep.vectors, above=True, below=True, optional=True),
    ),
    needs=_each_column('motion_vmaf'),
    reads=('motion_vectors',),
    published=0.0132,
  ),
  Filter(
    'jitter', lambda keep: (Limit('jitter_rate', high=keep.jitter, below=True),), published=0.0122
  ),
  Filter(
    'duplicates',
    judge=copies,
    needs=(
      ('copies_vector', 'fingerprint_vector'),
      *_each_column('width', 'height', 'start', 'end'),
    ),
    reads=('fingerprint_hash',),
    published=0.0115,
  ),
  Filter(
    'concepts',
    judge=resampled,
    needs=(('concepts_vector', 'caption'),),
    reads=('people_score',),
    supply='give clips captions, or measure.concepts.python a function',
    published=0.0094,
  ),
  Filter(
    'subject',
    lambda keep: (Limit('subject_share', keep.subject, optional=True),),
    supply='give measure.subject.python a function and its weights',
  ),
  Filter(
    'seeds',
    judge=far_from_seeds,
    enabled=lambda keep: bool(keep.seeds),
    needs=(('concepts_vector', 'fingerprint_vector'), ('video',)),
    supply='give keep.seeds a .csv of clips that people picked, and measure fingerprint',
  ),
  Filter('silence', lambda keep: (Limit('sound_silence', high=keep.sound.silence),)),
  Filter('loudness', lambda keep: (Limit('sound_loudness', *keep.sound.loudness),)),
  Filter(
    'diegetic',
    judge=misplaced,
    needs=_each_column(*COLUMNS),
    supply='give measure.sound_events.python and measure.sound_cosine.python functions',
  ),
  Filter(
    'mixture',
    judge=surplus,
    enabled=lambda keep: keep.landscape is not None or keep.people > 0,
    needs=_each_column('width', 'height'),
    reads=('people_score',),
    supply='give keep.landscape or keep.people a share',
  ),
)
FILTERS: dict[str, Filter] = {rule.name: rule for rule in _ALL}


def filters_of(settings: CurationSettings) -> list[Filter]:
  """The filters of a run, in its order. Raises ConfigError if a name is unknown or stands twice."""
  for name in settings.order:
    if name not in FILTERS or settings.order.count(name) > 1:
      raise ConfigError(f'order has {name!r}; expected each at most once, of {", ".join(FILTERS)}')
  return [FILTERS[name] for name in settings.order]
