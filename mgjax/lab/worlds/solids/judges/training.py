r"""Trains a judge of solids on renders, in some minutes of two CPU cores.

python -m mgjax.lab.worlds.solids.judges.training --split=judge --out=judge.safetensors
python -m mgjax.lab.worlds.solids.judges.training --split=filter --out=filter.safetensors

Two judges share no scene and see other blemishes: one may filter what the other judges.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Array, Float, Key, Tree
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.examples import AMOUNTS, LOOKS, SIDE, Examples, make_examples
from mgjax.lab.worlds.solids.judges.network import (
  AMOUNT_SCALE,
  APART,
  CELL,
  RATE_SCALE,
  STEPS,
  ClipPredictions,
  Clips,
  Frames,
  Rows,
  Seen,
  as_floats,
  blurred,
  look,
)
from mgjax.lab.worlds.solids.judges.video import save
from mgjax.lab.worlds.solids.kinds import CAMERAS, COLOURS, MOTIONS

Report = Callable[[str], None]
COURSE_SCALE = np.array([1.0, 1.0, 2.0, 2.0, 1.0, 0.5, 0.5, 0.5], np.float32)
_MIRRORED_COURSE = np.array([-1, 1, 1, -1, 1, -1, 1, 1], np.float32)
_MIRRORED_RATES = np.array([-1, 1, -1, 1, -1, 1], np.float32)
_BATCH, _CLIPS_BATCH = 40, 64
_HARD = {'material': 2}  # how much more what is learnt last counts


def _mirror(names: Fields) -> np.ndarray:
  """The place of each name when left is right; the last entry is -1's."""
  swap = {'left': 'right', 'right': 'left'}
  named = [' '.join(swap.get(word, word) for word in name.split()) for name in names]
  return np.array([*(list(names).index(name) for name in named), -1])


_MIRRORED_MOTIONS, _MIRRORED_CAMERAS = _mirror(MOTIONS), _mirror(CAMERAS)


class Blemishes(NamedTuple):
  """How clips are spoilt, so that a decoder's softness is no obstacle: each up to so much."""

  blur: float = 1.2  # pixels
  noise: float = 0.08  # of [-1, 1], standard deviation
  light: float = 0.1  # added to all, and of contrast
  coarse: float = 0.0  # share of clips that go through half of the size


BLEMISHES = {'judge': Blemishes(), 'filter': Blemishes(blur=0.9, noise=0.11, coarse=0.3)}


def spoil(video: Float[Array, 'b t h w 3'], blemishes: Blemishes, key: Key) -> Array:
  """Returns clips in [-1, 1], three quarters of them degraded."""
  keys = jax.random.split(key, 7)
  shape = (len(video), 1, 1, 1, 1)
  degraded = jax.random.bernoulli(keys[0], 0.75, shape)
  sigma = degraded * blemishes.blur * jax.random.uniform(keys[1], shape) + 1e-3
  weights = [jnp.exp(-0.5 * (k / sigma) ** 2) for k in range(-3, 4)]
  video = blurred(video, weights)
  if blemishes.coarse:
    b, t, h, w, _ = video.shape
    half = video.reshape(b, t, h // 2, 2, w // 2, 2, 3).mean((3, 5))
    half = jax.image.resize(half, video.shape, 'linear')
    video = jnp.where(jax.random.bernoulli(keys[2], blemishes.coarse, shape), half, video)
  noise = degraded * blemishes.noise * jax.random.uniform(keys[3], shape)
  video += noise * jax.random.normal(keys[4], video.shape)
  light, contrast = (
    blemishes.light * jax.random.uniform(keys[k], shape, minval=-1) for k in (5, 6)
  )
  return jnp.clip(video * (1 + degraded * contrast) + degraded * light, -1, 1)


def mirrored(examples: Examples) -> Examples:
  """Returns the examples with left and right exchanged."""
  return examples._replace(
    video=examples.video[..., ::-1, :],
    owner=examples.owner[..., ::-1],
    motion=_MIRRORED_MOTIONS[examples.motion],
    course=examples.course * _MIRRORED_COURSE,
    place=examples.place * np.array([-1, 1], np.float32),
    camera=_MIRRORED_CAMERAS[examples.camera],
    rates=examples.rates * _MIRRORED_RATES,
  )


def _as_bytes(video: Array) -> Array:
  return jnp.rint((video + 1) * 127.5).astype(jnp.uint8)


def frames_loss(predicted: Seen, owner, targets: tuple[Array, ...]) -> Float[Array, '']:
  """Returns the cross-entropies of the cells' colours and looks, plus Huber losses of numbers.

  `owner` (b h w) and `course` (b n c) are of the first frame; velocities in `course` are means of
  the time between both frames. A cell is weighted by the share of it that a solid covers.
  """
  looks, motion, course, rates, camera = targets
  colours = len(COLOURS)
  b, height, width = owner.shape
  one_hot = jax.nn.one_hot(owner, colours + 1)
  cover = one_hot.reshape(b, height // CELL, CELL, width // CELL, CELL, -1).mean((2, 4))
  loss = -(cover * jax.nn.log_softmax(predicted.colour)).sum(-1).mean() * 8
  cover = cover[..., :-1]
  total = cover.sum() + 1e-6
  named = jnp.concatenate([looks, motion[..., None]], -1)
  kinds = (*LOOKS, 'motion')
  for kind, logits in enumerate((*predicted.looks, predicted.motion)):
    name = jax.nn.one_hot(jnp.maximum(named[..., kind], 0), logits.shape[-1])  # b n v
    right = jnp.einsum('bijv,bnv->bijn', jax.nn.log_softmax(logits), name)
    loss += _HARD.get(kinds[kind], 1) * -(cover * right).sum() / total
  rows = jnp.einsum('bijn,bnc->bijc', cover, course / COURSE_SCALE[None, None])
  weighted = predicted.course * cover.sum(-1, keepdims=True)
  loss += _huber(weighted - rows).sum() / total
  loss += optax.softmax_cross_entropy_with_integer_labels(predicted.camera, camera).mean()
  return loss + 2 * _huber(predicted.rates - rates / RATE_SCALE[None]).sum(-1).mean()


def clips_loss(predictions: ClipPredictions, examples: Examples) -> Float[Array, '']:
  """Returns the cross-entropies of clip-level factors, plus Huber losses of numbers."""
  present = examples.motion >= 0
  count = present.sum() + 1e-6
  loss = optax.sigmoid_binary_cross_entropy(predictions.present, present).sum(-1).mean()

  def named(logits, target):
    log_probabilities = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_probabilities, jnp.maximum(target, 0)[..., None], -1)[..., 0]
    return (present * losses).sum() / count

  for kind, logits in enumerate(predictions.looks):
    loss += named(logits, examples.looks[..., kind])
  loss += named(predictions.motion, examples.motion)
  loss += (present[..., None] * _huber(predictions.place - examples.place)).sum() / count
  met = examples.contacts >= 0
  losses = optax.sigmoid_binary_cross_entropy(predictions.contacts[..., :2], met)
  loss += 0.3 * losses.sum((1, 2, 3)).mean()
  late = _huber(predictions.contacts[..., 2:] - examples.contacts)
  loss += (met * late).sum() / (met.sum() + 1e-6)
  camera = jax.nn.log_softmax(predictions.camera)
  loss += -jnp.take_along_axis(camera, examples.camera[:, None], -1).mean()
  amounts, counts = amounts_of(examples)
  return loss + 2 * (counts * _huber(predictions.amount - amounts)).sum(-1).mean()


def amounts_of(examples: Examples) -> tuple[Array, Array]:
  """Returns the amounts of moves as the net has them, and which of them a clip has."""
  kinds = np.array([[float(move.split()[0] == name) for name in AMOUNTS] for move in CAMERAS])
  counts = jnp.asarray(kinds)[examples.camera]
  logs = np.array([[name == 'zooms' for name in AMOUNTS]])
  amount = examples.amount[:, None]
  return jnp.where(logs, jnp.log(jnp.maximum(amount, 1e-3)), amount) / AMOUNT_SCALE[None], counts


def _huber(x: Array) -> Array:
  return optax.losses.huber_loss(x, delta=0.5)


def _train(
  name: str,
  params: Tree,
  loss: Callable[..., Array],
  draw: Callable[[int], tuple[object, ...]],
  rate: float,
  steps: int,
  report: Report,
) -> Tree:
  """Minimises `loss(params, *draw(number))`."""
  rates = optax.warmup_cosine_decay_schedule(0.0, rate, min(100, steps // 4), steps)
  adam = optax.adamw(rates, 0.9, 0.98, weight_decay=0.01)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), adam)

  @jax.jit
  def step(params, state, *batch):
    value, gradient = jax.value_and_grad(loss)(params, *batch)
    update, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, update), state, value

  state = optimizer.init(params)
  for number in range(steps):
    params, state, value = step(params, state, *draw(number))
    if (number + 1) % 200 == 0:
      report(f'{name}: step {number + 1}/{steps}, loss {float(value):.3f}')
  return params


def train_frames(
  examples: Examples, steps: int, blemishes: Blemishes, seed: int, report: Report
) -> Tree:
  """Trains `Frames` on consecutive frames of the examples."""
  net = Frames()
  generator = np.random.default_rng((seed, 1))
  turned = mirrored(examples)
  params = net.init(jax.random.key(seed), jnp.zeros((1, APART + 1, SIDE, SIDE, 3)))

  def loss(params, video, owner, targets, key):
    predicted = net.apply(params, spoil(as_floats(video), blemishes, key))
    return frames_loss(predicted, owner, targets)

  def draw(number):
    of = turned if generator.uniform() < 0.5 else examples
    rows = np.sort(generator.integers(len(of.video), size=_BATCH))
    at = generator.integers(STEPS, size=_BATCH)
    course = of.course[rows, at]
    between = of.course[rows[:, None], at[:, None] + np.arange(APART + 1)].mean(1)
    course = np.concatenate([between[..., :4], course[..., 4:]], -1)
    video = of.video[rows[:, None], at[:, None] + np.arange(APART + 1)]
    targets = of.looks[rows], of.motion[rows], course, of.rates[rows, at], of.camera[rows]
    return video, of.owner[rows, at], targets, jax.random.fold_in(jax.random.key(seed), number)

  return _train('frames', params, loss, draw, 3e-3, steps, report)


def train_clips(
  frames: Tree, examples: Examples, steps: int, blemishes: Blemishes, seed: int, report: Report
) -> Tree:
  """Trains `Clips` on the rows that `Frames` predicts for degraded and mirrored examples."""
  rows: list[Rows] = []
  versions = (False, True)  # mirrored
  spoilt = jax.jit(lambda video, key: _as_bytes(spoil(as_floats(video), blemishes, key)))
  all_of = {False: examples, True: mirrored(examples)}
  for turned in versions:
    parts = []
    video = all_of[turned].video
    for first in range(0, len(video), 100):
      key = jax.random.fold_in(jax.random.key(seed + turned), first)
      clips = spoilt(video[first : first + 100], key)
      parts.append(jax.tree.map(np.asarray, look(frames, clips)))
    rows.append(Rows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))))
    report(f'clips: version {len(rows)}/{len(versions)} seen')
  net = Clips()
  generator = np.random.default_rng((seed, 2))
  params = net.init(jax.random.key(seed), *(jnp.asarray(field[:1]) for field in rows[0]))

  def loss(params, solids, view, batch):
    return clips_loss(net.apply(params, solids, view), batch)

  def draw(number):
    version = int(generator.integers(len(versions)))
    at = np.sort(generator.integers(len(examples.video), size=_CLIPS_BATCH))
    of = all_of[versions[version]]
    batch = Examples(
      *(
        array[:0] if name in ('video', 'owner') else array[at]
        for name, array in zip(Examples._fields, of, strict=True)
      )
    )
    return rows[version].solids[at], rows[version].view[at], batch

  return _train('clips', params, loss, draw, 2e-3, steps, report)


def train_judge(
  split: str, clips: int = 8000, steps: tuple[int, int] = (3600, 3000), report: Report = print
) -> dict[str, Tree]:
  """Trains a judge on so many clips of a split, 'judge' or 'filter'; see `video.save`."""
  source = Solids(split=split, solids=(1, 4), extras=('segmentation',), length=clips)
  every = max(1, clips // 20)
  examples = make_examples(
    source, 0, clips, lambda done: None if done % every else report(f'{done}/{clips} clips drawn')
  )
  seed = list(BLEMISHES).index(split)
  blemishes = BLEMISHES[split]
  frames = train_frames(examples, steps[0], blemishes, seed, report)
  return {
    'frames': frames,
    'clips': train_clips(frames, examples, steps[1], blemishes, seed, report),
  }


def main() -> None:
  """Trains a judge and writes it."""
  raw = argparse.RawTextHelpFormatter
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
  parser.add_argument('--split', choices=list(BLEMISHES), required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True, help='a .safetensors file')
  options = parser.parse_args()
  save(options.out, train_judge(options.split))


if __name__ == '__main__':
  main()
