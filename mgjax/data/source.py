"""What a source of samples is, for those who read none in batches and need no loader."""

from typing import Protocol, runtime_checkable

from mgjax.core.configuration.keys import Sample


@runtime_checkable
class Source(Protocol):
  """Samples in random access; must be picklable if worker processes read it."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Sample: ...
