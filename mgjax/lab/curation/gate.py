"""The gate: filters that a probe decides are asked before a video is decoded (Movie Gen §3.2.1).

A probe reads the times of all packets and decodes one frame, which tells how long a video is and
how large. Where a run asks for it (`gate`), a video that is dropped by these numbers is not
decoded: its row has them and the reason in `gated`, and no scores. What is decoded has all scores,
so a changed threshold measures nothing twice; one that lets a gated video through measures that.
"""

import dataclasses

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Bool
from mgjax.lab.curation.filters.registry import FILTERS, filters_of
from mgjax.lab.curation.filters.table import as_columns
from mgjax.lab.curation.settings import CurationSettings, KeepSettings

PROBED = ('seconds', 'width', 'height')


@dataclasses.dataclass(frozen=True)
class Gate:
  """Filters that are asked about a probe, in their order; without any it is open."""

  names: tuple[str, ...] = ()
  keep: KeepSettings = dataclasses.field(default_factory=KeepSettings)

  def reason(self, row: Fields) -> str:
    """Says why the video of a row need not be decoded, '' if it has to be."""
    return self._reasons({name: [row[name]] for name in PROBED} | {'clip': ['']})[0]

  def opened(self, table: object) -> Bool[np.ndarray, 'n']:
    """Which rows of `Scores.gated`, of videos that were not decoded, it lets through now."""
    return self._reasons(table) == ''

  def _reasons(self, table: object) -> np.ndarray:
    columns = as_columns(table, (*PROBED, 'clip'))
    reasons = np.full(len(columns['clip']), '', object)
    for name in self.names:
      reasons = np.where(reasons == '', FILTERS[name].keep(columns, self.keep), reasons)
    return reasons


OPEN = Gate()


def gate_of(settings: CurationSettings) -> Gate:
  """Returns the gate of a run: the first filters in its order that a probe can decide."""
  if not settings.gate:
    return OPEN
  names = []
  for rule in filters_of(settings):
    if rule.judge is not None or not set(rule.columns()) <= set(PROBED):
      break
    names.append(rule.name)
  return Gate(tuple(names), settings.keep)
