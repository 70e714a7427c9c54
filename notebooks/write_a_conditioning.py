# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Write a conditioning
#
# A task in mgjax is a conditioning: one small module that turns something a person knows into
# something a model reads. Text is one, a face, a first frame, the video that is edited. This
# notebook writes another, *where* the digit shall be, as two numbers; trains it for a minute; and
# then draws with it. Nothing else of mgjax changes.

# %%
import shutil
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from ml_collections import ConfigDict

import mgjax
from mgjax.apps.dry_run import dry_run
from mgjax.models.conditioning.contract import Conditioning, array
from mgjax.models.conditioning.kinds import register
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.linear import ZEROS, Linear

AUTOENCODER = 'digits/autoencoder'  # comes with mgjax; or the work directory of one of yours
SIDE = 32  # pixels of a picture
plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})

# %% [markdown]
# ## The module
#
# The backbone reads conditions through three ports: `tokens` are added to the patches, `context`
# is read by cross-attention, `vector` is added to the embedding of the flow time. A place is two
# numbers for the whole picture, so it becomes a vector. What a conditioning has to say:
#
# - `requires`: which arrays of a batch it reads, with the shape of one row;
# - `fields`: under which names a person gives them;
# - `prepare`: how a sample becomes those arrays, on the host. In training that is the sample's
#   `geometry`, which the digits' source knows; in sampling it is what the person gave;
# - `__call__`: arrays to ports. A row with `drop` must come out as if nothing had been said: that
#   is what guidance compares with.
#
# It is `optional`: a picture may be asked for without a place. Its last layer begins at zero. A
# model that learnt without it goes on as it was, to the bit, and learns from there.


# %%
@register('place')
class Place(Conditioning):
  """The middle of the digit, as shares (y, x) of the picture's height and width."""

  dim: int
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def requires(self, latents):
    return {'place': array((2,), np.float32)}

  def fields(self, shape, latents):
    return {'place': (2,)}

  def prepare(self, sample):
    if 'place' in sample:
      return {'place': np.asarray(sample['place'], np.float32)}
    if 'geometry' not in sample:
      return {}
    y, x, height, width = sample['geometry'][0]
    return {'place': np.array([y + height / 2, x + width / 2], np.float32) / SIDE}

  @nn.compact
  def __call__(self, batch, drop, latents):
    if 'place' not in batch:
      return Ports()
    angles = batch['place'][..., None] * jnp.pi * 2.0 ** jnp.arange(5)
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    waves = waves.reshape(len(waves), -1).astype(self.dtype)
    hidden = nn.silu(Linear(self.dim, ('patch', 'embed'), name='read')(waves))
    vector = Linear(self.dim, ('embed', 'hidden'), initializer=ZEROS, name='write')(hidden)
    return Ports(vector=jnp.where(drop[:, None], 0, vector))


# %% [markdown]
# ## The configuration
#
# The name `place` is chosen here; parameters, dropout and guidance go by it. It is dropped in a
# tenth of the rows, so that the model also learns to do without. `dry_run` builds everything and
# trains nothing: the new parameters are in its table.

# %%
config = mgjax.config(
  'digits/video',
  **{
    'autoencoder': AUTOENCODER,
    'data.latents': '',
    'model.dim': 96,
    'model.depth': 3,
    'model.mlp_dim': 256,
    'train.steps': 1200,
    'train.log_every': 400,
    'train.evaluate_every': 1200,
    'train.save_every': 1200,
    'train.ema_decay': 0.99,
    'optimizer.warmup': 50,
  },
)
del config.buckets.video  # pictures alone
config.data.digits.extras = ('geometry',)
config.data.digits.jitter = 7.0  # pixels: digits anywhere, where they stood near the middle
config.model.conditionings.place = ConfigDict({'kind': 'place'})
config.objective.dropout.place = 0.1
config.sample.guidance = (('text', 2.0), ('place', 3.0))

table = dry_run(config, 'runs/place').splitlines()
print(*[line for line in table if 'place' in line or line.startswith('total')], sep='\n')

# %% [markdown]
# ## Train

# %%
shutil.rmtree('runs/place', ignore_errors=True)
mgjax.train(config, 'runs/place')
print('trained')

# %% [markdown]
# ## Draw
#
# The same prompt and, for each picture, another place. The crosses are what was asked for.

# %%
model = mgjax.load('runs/place')
rows, columns = 3, 8
asked = np.array(
  [(y, x) for y in np.linspace(0.3, 0.7, rows) for x in np.linspace(0.25, 0.75, columns)]
)
prompts = ['the yellow digit 7', 'the red digit 0', 'the green digit 3']
pictures = model.generate(
  [prompt for prompt in prompts for _ in range(columns)],
  seed=0,
  place=list(asked.astype(np.float32)),
)[:, 0]  # (b h w 3)

figure, axes = plt.subplots(rows, columns, figsize=(12, 4.6), layout='constrained')
for axis, picture, (y, x) in zip(axes.flat, pictures, asked, strict=True):
  axis.imshow(picture)
  axis.plot(x * SIDE - 0.5, y * SIDE - 0.5, 'w+', ms=10)
  axis.axis('off')
plt.show()

# %% [markdown]
# ## Measure
#
# Pictures persuade, numbers tell. The middle of the bright pixels, against the middle that was
# asked for, of 64 new places, at three scales of guidance. At 0 the place is not read.

# %%
generator = np.random.default_rng(0)
asked = generator.uniform(0.3, 0.7, (64, 2)).astype(np.float32)


def middles(pictures):
  """Returns the middle (y, x) of the light of each picture, as shares."""
  light = pictures.astype(float).max(-1) ** 2 + 1e-6
  light /= light.sum((1, 2), keepdims=True)
  at = (np.arange(SIDE) + 0.5) / SIDE
  return np.stack([(light.sum(2) * at).sum(1), (light.sum(1) * at).sum(1)], axis=1)


figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout='constrained')
for axis, scale in zip(axes, (0.0, 1.0, 3.0), strict=True):
  guided = mgjax.load('runs/place', guidance=(('text', 1.0), ('place', scale)))
  found = middles(guided.generate(['the red digit 5'] * 64, seed=1, place=list(asked))[:, 0])
  error = SIDE * np.sqrt(np.mean((found - asked) ** 2))
  axis.scatter(asked[:, 1], found[:, 1], s=14, color='#d1495b', label='x')
  axis.scatter(asked[:, 0], found[:, 0], s=14, color='#00798c', label='y')
  axis.plot([0.25, 0.75], [0.25, 0.75], color='grey', lw=1, zorder=0)
  axis.set(xlim=(0.2, 0.8), ylim=(0.2, 0.8), xlabel='asked', aspect='equal')
  axis.set_title(f'guidance {scale:g}: {error:.1f} pixels off')
axes[0].set_ylabel('found')
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## A walk
#
# One noise, and a place that goes around: frames of a film by a model that has only seen
# pictures.

# %%
turn = np.linspace(0, 2 * np.pi, 33)[:-1]
way = np.stack([0.5 + 0.18 * np.sin(2 * turn), 0.5 + 0.22 * np.sin(turn)], axis=1)
frames = []
for place in way.astype(np.float32):
  frames.append(model.generate(['the green digit 8'], seed=5, place=[place])[0, 0])
mgjax.show(np.stack(frames), ['the green digit 8, on a figure of eight'], fps=16)

# %% [markdown]
# ## Where it goes on
#
# - [docs/how_to/add_a_conditioning.md](../docs/how_to/add_a_conditioning.md) adds a first frame: a
#   condition that the autoencoder encodes.
# - A conditioning in a file of `mgjax/models/conditioning/` is found by its name, without
#   `register`, and the tests of all conditionings hold it to the contract.
