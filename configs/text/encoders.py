"""What models read of frozen encoders: which ones, how much of each, where they lie."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

# Of each: the configuration that imports it, what it reads of a prompt, the width of its states and
# how many at most. Widths are those of the published models; lengths are not in public sources but
# for MetaCLIP's.
VIDEO = {
  'byt5': ('byt5_large', 'visual_text', 1536, 100),
  'metaclip': ('metaclip_text', 'prompt', 1024, 256),
  'ul2': ('ul2', 'prompt', 4096, 512),
}
AUDIO = {'t5': ('t5_base', 'prompt', 768, 512)}
FRAMES = ('metaclip_vision', 1024)  # of the pictures of a sound

Encoders = Mapping[str, tuple[str, str, int, int]]


def split(argument: str, *known: str) -> tuple[str, set[str]]:
  """Splits '30b,encoders' into the size and the words behind it, each one of `known`."""
  size, *words = argument.split(',')
  if unknown := sorted(set(words) - set(known)):
    raise ConfigError(
      f'{argument!r}: there is no {unknown[0]!r}; expected a size, and behind it, if wanted, '
      f'{" and ".join(known)}, as in {size},{known[0]}'
    )
  return size, set(words)


def conditioning(encoders: Encoders) -> dict[str, Any]:
  """Returns the conditioning that reads their states."""
  shapes = {
    name: {'features': width, 'length': length} for name, (_, _, width, length) in encoders.items()
  }
  return {'kind': 'encoded_text', 'encoders': shapes}


def places(encoders: Encoders) -> ConfigDict:
  """Returns `config.text`: where each lies after its import, and what it reads."""
  return ConfigDict(
    {
      name: {'workdir': f'runs/{config}', 'reads': reads}
      for name, (config, reads, _, _) in encoders.items()
    }
  )
