"""Which audio is kept: of the scene or not, by Table 24 (Movie Gen §6)."""

import numpy as np

from mgjax.lab.curation.filters.table import Columns
from mgjax.lab.curation.scores.sound import EVENTS, SoundLimits, place_of_sound
from mgjax.lab.curation.settings import KeepSettings

COLUMNS = (*(f'sound_{name}' for name in EVENTS), 'sound_cosine')


def misplaced(columns: Columns, settings: KeepSettings) -> np.ndarray:
  """Says why audio is not kept, as in 'sound is non-diegetic', or ''."""
  count = len(columns['sound_cosine'])
  reasons = np.full(count, '', object)
  for row in range(count):
    values = {name: columns[name][row] for name in COLUMNS}
    if (position := place(values, settings.sound)) not in settings.sound.places:
      reasons[row] = f'sound is {position}, cosine {values["sound_cosine"]:.2f}'
  return reasons


def place(row: dict, limits: SoundLimits) -> str:
  """Returns the place of the sound of a row; 'unknown' where its scores are not there."""
  values = [row.get(name) for name in COLUMNS]
  if any(value is None or value != value for value in values):
    return 'unknown'
  *likely, cosine = (float(value) for value in values)
  heard = [name for name, value in zip(EVENTS, likely, strict=True) if value >= limits.heard]
  return place_of_sound(heard, cosine, limits)
