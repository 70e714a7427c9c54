# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Read a checkpoint, average runs, export weights
#
# What a training leaves on disk, opened piece by piece: arrays with their names, fingerprints
# that see a single flipped bit, averages of several runs, and one file for the rest of the world.
# The runs are made here: small autoencoders of moving digits, trained for seconds. It takes two
# minutes on two processor cores.

# %%
import pathlib
import shutil

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

import mgjax
from mgjax.apps.weights.average_runs import AverageCandidate, average_runs
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.tree import named_leaves
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.maintenance import list_checkpoints, verify_all
from mgjax.training.checkpoints.workdir import open_checkpoints

plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})
RUNS = pathlib.Path('runs/notebook_checkpoints')
shutil.rmtree(RUNS, ignore_errors=True)

# %% [markdown]
# ## A run
#
# A configuration with some values changed, and one call. The same call again would go on from the
# last checkpoint.


# %%
def configure(steps, seed, start_from=''):
  """Images of digits alone, a narrow network."""
  config = mgjax.config(
    'digits/autoencoder',
    **{
      'model.widths': (24,),
      'model.strides': ((2, 1, 1),),
      'train.steps': steps,
      'train.save_every': steps // 2,
      'train.evaluate_every': steps // 2,
      'train.log_every': steps // 2,
      'optimizer.schedule': 'constant',
      'train.ema_decay': 0.9,
      'seed': seed,
      'start_from': str(start_from),
    },
  )
  del config.buckets.video
  return config


mgjax.train(configure(300, seed=0), RUNS / 'first')
print(*sorted(path.relative_to(RUNS).as_posix() for path in (RUNS / 'first').iterdir()), sep='\n')

# %% [markdown]
# ## What is in a checkpoint
#
# `load_params` reads the averaged parameters of the newest good checkpoint as a tree of arrays,
# and what was noted beside them. Names are paths in this tree; they are also what `start_from`
# and `optimizer.rates` speak of.

# %%
params, meta = load_params(RUNS / 'first')
leaves = named_leaves(params)
count = sum(leaf.size for leaf in leaves.values())
print(f'{len(leaves)} arrays, {count:,} numbers, step {meta["step"]}')
for name, leaf in list(leaves.items())[:6]:
  print(f'{name:50} {leaf.dtype} {leaf.shape}')

# %% [markdown]
# They are ordinary arrays. The last layer of the decoder makes patches of 4 x 4 pixels, each a
# sum of 24 that it has learnt. These are the 24: corners, edges and strokes in the four colours
# of the digits.

# %%
kernel = np.asarray(leaves['decoder/conv_out/kernel'])[1, 1]  # the middle of 3 x 3 places: (24, 48)
patches = kernel.reshape(24, 4, 4, 3)
patches = 0.5 + 0.5 * patches / np.abs(patches).max((1, 2, 3), keepdims=True)
figure, axes = plt.subplots(2, 12, figsize=(10, 1.8), layout='constrained')
for axis, patch in zip(axes.flat, patches, strict=True):
  axis.imshow(patch)
  axis.axis('off')
plt.show()

# %% [markdown]
# ## One flipped bit
#
# The format itself has no checksum of its arrays, and half of all single flipped bits would load
# as wrong numbers. Therefore every array has a fingerprint, taken on the devices before it was
# written. Here a bit is flipped in the newest checkpoint; `verify_all` finds it, and a command
# that loads the run takes the one before, with a warning.

# %%
checkpoints = open_checkpoints(RUNS / 'first')
for seen in list_checkpoints(checkpoints):
  print(f'step {seen.name}: {seen.size:,} bytes, validation loss {seen.loss:.4f}')

damaged = RUNS / 'damaged'
shutil.copytree(RUNS / 'first', damaged)
largest = max(
  (damaged / 'checkpoints/300/average').rglob('*'), key=lambda file: file.stat().st_size
)
content = bytearray(largest.read_bytes())
content[len(content) // 2] ^= 1
largest.write_bytes(content)

for step, problem in verify_all(open_checkpoints(damaged)).items():
  print(f'step {step}: {problem or "good"}')
print('loaded instead: step', load_params(damaged)[1]['step'])

# %% [markdown]
# ## The average of two runs
#
# Movie Gen averages models that were finetuned from one start on different data and settings
# (§3.3). Two runs go on from the first one, with other seeds and with a learning rate that stays
# high; below is the loss on the straight line between their weights. The middle is no worse than
# the better end, and lower by a thousandth here, which one pair of short runs does not prove.

# %%
for seed in (1, 2):
  mgjax.train(configure(150, seed, start_from=RUNS / 'first'), RUNS / f'finetune_{seed}')

both = [AverageCandidate(str(RUNS / f'finetune_{seed}')) for seed in (1, 2)]
middle = average_runs(both, RUNS / 'averaged')
print(middle.table())

# %%
first, second = middle.losses.values()
losses = {0.0: first, 0.5: middle.loss, 1.0: second}
for share in (0.25, 0.75):
  found = average_runs(both, RUNS / f'averaged_{share}', weights=[1 - share, share])
  losses[share] = found.loss

figure, axis = plt.subplots(figsize=(6, 3), layout='constrained')
axis.plot(*zip(*sorted(losses.items()), strict=True), 'o-', color='#00798c')
axis.set(xlabel='share of the second run', ylabel='validation loss')
axis.spines[['top', 'right']].set_visible(False)
plt.show()

# %% [markdown]
# ## Export
#
# One safetensors file holds the averaged weights and the configuration; any program that reads
# safetensors reads it, and `import_weights` makes a work directory of it again, bit by bit.

# %%
file = RUNS / 'averaged.safetensors'
export_weights(RUNS / 'averaged', file)
tensors = load_file(file)
print(f'{file.stat().st_size:,} bytes, {len(tensors)} tensors, such as {next(iter(tensors))}')

# %%
import_weights(configure(300, seed=0), file, RUNS / 'imported')
imported = named_leaves(load_params(RUNS / 'imported')[0])
averaged = named_leaves(load_params(RUNS / 'averaged')[0])
print('equal bit by bit:', all(np.array_equal(averaged[name], imported[name]) for name in averaged))

# %% [markdown]
# ## Where it goes on
#
# - `python -m launch.weights list | verify | prune | average | export` do the same from a
#   shell: [docs/reference/checkpoints.md](../docs/reference/checkpoints.md).
# - `start_from` takes parts of several runs, and `optimizer.rates` freezes what should stay.
# - `average_runs(..., greedy=True)` keeps those runs alone that make the average better.
