"""Mixes batches of shape buckets as a pure function of the step.

The batch at step s depends on (seed, s, host) and on nothing else: not on threads, not on worker
processes, not on what was read before. So the state of the data is one integer, a restart is
exact, and every host takes its batch from the same bucket at every step. What the order does depend
on is in `describe_data`: changing one of those values starts another order of the data.
"""

import dataclasses
import fractions
import functools
import hashlib
import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import grain
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Sample
from mgjax.data.source import Source

REPLACED = 'replaced'  # field of a sample, 1 if it stands for a broken one


@dataclasses.dataclass(frozen=True)
class ShapeBucket:
  """Samples of one shape, the size of their batches and how often a batch of them comes.

  Attributes:
    name: unique among the buckets; the shuffle is seeded with it, so others may be added
      or removed.
    source: the samples; one that is shorter than a batch is repeated within it.
    batch_size: samples in a batch over all hosts.
    weight: relative number of *batches* (not samples) taken from this bucket.
    transform: maps a sample to a dict of numpy arrays, equal in names, shapes and types for every
      sample. It must not draw random numbers of its own. None if the source gives such dicts.
    group: buckets of one group, such as those of images, share turns: of W steps, the sum of all
      weights, theirs are exactly as many as their weights sum to.
  """

  name: str
  source: Source
  batch_size: int
  weight: float | fractions.Fraction = 1.0
  transform: Callable[[Sample], dict[str, np.ndarray]] | None = None
  group: str = ''


def make_batches(
  buckets: Sequence[ShapeBucket], *, seed: int, host: int = 0, hosts: int = 1
) -> grain.MapDataset:
  """Returns the endless sequence step -> batch of `host`, a dict of arrays, batch axis first.

  In each bucket every sample comes once per epoch, and every epoch has its own order. Host h of n
  holds the rows [h B/n, (h+1) B/n) of the batch of size B that a single host would hold. So the
  global batch does not depend on the number of hosts, which must divide every batch size.

  Raises:
    ConfigError: no buckets, a repeated name, a weight, a batch size or a host that cannot be.
    DataError: a bucket without samples; later, on reading, a sample that does not fit its bucket.
  """
  _check_names(buckets)
  turns = _turns_of(buckets)
  parts = []
  for bucket in buckets:
    _check_bucket(bucket, host, hosts)
    samples = grain.MapDataset.source(bucket.source).shuffle(seed=_shuffle_seed(seed, bucket.name))
    parts.append(_host_batches(samples.repeat(None), bucket, host, hosts))
  return grain.MapDataset.select_from_datasets(parts, turns)


def samples_seen(buckets: Sequence[ShapeBucket], steps: int) -> dict[str, int]:
  """Returns how many rows of each bucket the first `steps` batches hold, over all hosts."""
  batches = _turns_of(buckets).batches(steps)
  return {
    bucket.name: count * bucket.batch_size for bucket, count in zip(buckets, batches, strict=True)
  }


def share_by_samples(buckets: Sequence[ShapeBucket]) -> list[ShapeBucket]:
  """Returns the buckets with new weights, by which every sample of a group comes equally often.

  The weight of each group stays; within it, that of a bucket is in proportion to its samples
  divided by its batch size.
  """
  shared = []
  for bucket in buckets:
    group = [other for other in buckets if other.group == bucket.group]
    total = sum(_check_weight(other) for other in group)
    batches = [fractions.Fraction(len(other.source), other.batch_size) for other in group]
    weight = total * fractions.Fraction(len(bucket.source), bucket.batch_size) / sum(batches)
    shared.append(dataclasses.replace(bucket, weight=weight))
  return shared


def samples_of_batch(
  buckets: Sequence[ShapeBucket], step: int, *, seed: int
) -> tuple[ShapeBucket, list[int]]:
  """Returns the bucket of the batch of a step over all hosts, and the samples of its rows."""
  numbered = [
    dataclasses.replace(bucket, source=_Numbers(number, len(bucket.source)), transform=None)
    for number, bucket in enumerate(buckets)
  ]
  batch = make_batches(numbered, seed=seed)[step]
  return buckets[int(batch['bucket'][0])], batch['sample'].tolist()


@dataclasses.dataclass(frozen=True)
class _Numbers:
  """As many samples as a source has, each of nothing but its numbers."""

  bucket: int
  count: int

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: SupportsIndex) -> dict[str, np.ndarray]:
    return {'bucket': np.asarray(self.bucket), 'sample': np.asarray(operator.index(index))}


def make_ordered_batches(
  bucket: ShapeBucket, count: int, *, host: int = 0, hosts: int = 1
) -> grain.MapDataset:
  """Returns the first `count` batches of a bucket in the order of its source, as `host` sees them.

  Raises:
    ConfigError: the source has fewer than `count` whole batches, so a sample would count twice.
    DataError: a bucket without samples.
  """
  _check_bucket(bucket, host, hosts)
  needed = count * bucket.batch_size
  available = len(bucket.source)
  if not 0 < needed <= available:
    raise ConfigError(
      f'bucket {bucket.name!r}: {count} batches of {bucket.batch_size} need {needed} samples, but '
      f'its {available} make {available // bucket.batch_size} batches; ask for fewer or smaller '
      'ones'
    )
  samples = grain.MapDataset.source(bucket.source)[:needed]
  return _host_batches(samples, bucket, host, hosts)


def describe_data(buckets: Sequence[ShapeBucket], seed: int) -> JSON:
  """Returns, as plain JSON values, all that the mapping step -> batch depends on."""
  return {
    'seed': int(seed),
    'buckets': [
      {
        'name': bucket.name,
        'samples': len(bucket.source),
        'batch_size': bucket.batch_size,
        'weight': str(_check_weight(bucket)),
        'group': bucket.group,
        'content': getattr(bucket.source, 'fingerprint', None),
      }
      for bucket in buckets
    ],
  }


class _Turns(grain.transforms.DatasetSelectionMap):
  """Whose turn it is: step -> (bucket, index of the batch in that bucket).

  With integer weights w_i of sum W, any W steps from a multiple of W on hold exactly w_i batches of
  bucket i, spread evenly. The same holds for a group of buckets and the sum of its weights. Grain's
  own mix rounds its weights (7:3 becomes 233:100).
  """

  def __init__(self, weights: Sequence[tuple[str, fractions.Fraction]]):
    self._members: dict[str, list[int]] = {}
    for number, (group, _) in enumerate(weights):
      self._members.setdefault(group, []).append(number)
    inside = {g: [weights[i][1] for i in members] for g, members in self._members.items()}
    self._groups = _whole([sum(shares, fractions.Fraction()) for shares in inside.values()])
    self._inside = [_whole(shares) for shares in inside.values()]

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: int) -> tuple[int, int]:
    group, turn = _turn(self._groups, index)
    member, batch = _turn(self._inside[group], turn)
    return list(self._members.values())[group][member], batch

  def batches(self, steps: int) -> list[int]:
    """Returns how many batches of each bucket the first `steps` steps hold."""
    taken = {}
    turns = _taken(self._groups, steps)
    for members, inside, count in zip(self._members.values(), self._inside, turns, strict=True):
      taken |= dict(zip(members, _taken(inside, count), strict=True))
    return [taken[number] for number in range(len(taken))]


def _turns_of(buckets: Sequence[ShapeBucket]) -> _Turns:
  return _Turns([(bucket.group, _check_weight(bucket)) for bucket in buckets])


def _whole(weights: Sequence[fractions.Fraction]) -> list[int]:
  unit = math.lcm(*(weight.denominator for weight in weights))
  return [int(weight * unit) for weight in weights]


def _turn(weights: Sequence[int], index: int) -> tuple[int, int]:
  """Who of several comes at turn `index`, and how often it has come before."""
  both = zip(_taken(weights, index), _taken(weights, index + 1), strict=True)
  return next((who, before) for who, (before, after) in enumerate(both) if after > before)


def _taken(weights: Sequence[int], turns: int) -> list[int]:
  """How many of the first `turns` turns each of several takes."""
  # The first takes its share of the turns, the second its share of the rest, and so on: of k turns,
  # k - floor(k (W - w) / W) are the first one's.
  taken = []
  total = sum(weights)
  for weight in weights:
    rest = turns * (total - weight) // total
    taken.append(turns - rest)
    turns = rest
    total = total - weight
  return taken


def _host_batches(
  samples: grain.MapDataset, bucket: ShapeBucket, host: int, hosts: int
) -> grain.MapDataset:
  if bucket.transform is not None:
    samples = samples.map(functools.partial(_transformed, bucket.transform))
  stack = functools.partial(_stack, bucket.name)
  size = bucket.batch_size // hosts
  # Batches of the host's size first, then every hosts-th of them: rows in the order of one host.
  return samples.batch(size, drop_remainder=True, batch_fn=stack)[host::hosts]


def _transformed(transform: Callable[[Any], object], sample: Any) -> Any:
  arrays = transform(sample)
  return {**arrays, REPLACED: sample[REPLACED]} if REPLACED in sample else arrays


def _stack(name: str, samples: Sequence[Any]) -> dict[str, np.ndarray]:
  for sample in samples:
    _check_sample(name, sample, samples[0])
  return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def _check_sample(name: str, sample: Any, first: Any) -> None:
  if not isinstance(sample, dict) or not sample:
    raise DataError(
      f'bucket {name!r}: a sample is {sample!r:.80}, expected a dict of numpy arrays; '
      'mend its transform or its source'
    )
  for key, value in sample.items():
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind in 'OSUTMm':
      raise DataError(
        f'bucket {name!r}: the field {key!r} is of type {type(value).__name__}, but a batch holds '
        'numpy arrays of numbers only; give the bucket a transform that converts or drops it'
      )
  if sample.keys() != first.keys():
    raise DataError(
      f'bucket {name!r}: one sample has the fields {sorted(first)}, another {sorted(sample)}; '
      'give the bucket a transform that makes them equal'
    )
  for key, value in sample.items():
    actual = (value.shape, value.dtype)
    expected = (first[key].shape, first[key].dtype)
    if actual != expected:
      raise DataError(
        f'bucket {name!r}: {key!r} is {expected[1]}{list(expected[0])} in one sample and '
        f'{actual[1]}{list(actual[0])} in another; put samples of different shapes into different '
        'buckets, or give the bucket a transform that makes them equal'
      )


def _shuffle_seed(seed: int, name: str) -> int:
  # Grain's shuffle adds the epoch to its seed, so neighbouring seeds would share their orders.
  return int.from_bytes(hashlib.sha256(f'{seed}/{name}'.encode()).digest()[:4], 'little')


def _check_names(buckets: Sequence[ShapeBucket]) -> None:
  names = [bucket.name for bucket in buckets]
  if not names:
    raise ConfigError('a mixture needs at least one bucket, none was given')
  if len(set(names)) < len(names):
    raise ConfigError(f'the names of the buckets must differ, got {names}')


def _check_weight(bucket: ShapeBucket) -> fractions.Fraction:
  if isinstance(bucket.weight, fractions.Fraction) and bucket.weight > 0:
    return bucket.weight
  if not (math.isfinite(bucket.weight) and bucket.weight > 0):
    raise ConfigError(
      f'bucket {bucket.name!r}: weight {bucket.weight} must be a positive number; '
      'leave the bucket out if it shall give no batches'
    )
  return fractions.Fraction(str(float(bucket.weight)))  # 0.1 as written, not its binary neighbour


def _check_bucket(bucket: ShapeBucket, host: int, hosts: int) -> None:
  if not 0 <= host < hosts:
    raise ConfigError(f'host {host} of {hosts} hosts: expected 0 <= host < hosts')
  if bucket.batch_size < 1 or bucket.batch_size % hosts:
    below = max(bucket.batch_size // hosts, 0) * hosts
    sizes = f'{below} or {below + hosts}' if below else f'{hosts} or a multiple of it'
    raise ConfigError(
      f'bucket {bucket.name!r}: {hosts} host(s) cannot share a batch of {bucket.batch_size}; '
      f'set its batch_size to {sizes}'
    )
  if len(bucket.source) == 0:
    raise DataError(f'bucket {bucket.name!r} has no samples; check the path of its source')
