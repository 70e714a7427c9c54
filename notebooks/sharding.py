# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Sharding by hand, on eight devices that are not there
#
# A video of 16 s is 73,728 tokens for a model of 30 billion parameters: neither the weights nor
# one row of activations fit a device. This notebook cuts both by hand on eight emulated devices
# of a CPU, draws who holds what, builds ring attention from its two ideas, and compares it with
# what the library does. It takes less than a minute on two processor cores.

# %%
import jax

jax.config.update('jax_num_cpu_devices', 8)  # before JAX is asked for anything

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

import mgjax
from mgjax.nn.attention import attend
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import partition, spec, token_entries

COLOURS = plt.cm.tab10(np.arange(8))
plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 11})
print(jax.devices())

# %% [markdown]
# ## A mesh
#
# The devices are arranged in a grid whose axes have names. `fsdp` holds weights in pieces and
# splits the rows of a batch, `context` splits the tokens of a row, `tensor` splits heads and
# hidden features. An axis that is not named has size 1.

# %%
mesh = make_mesh('fsdp=2,context=2,tensor=2')
print(dict(mesh.shape))

# %% [markdown]
# ## Who holds what
#
# No module of mgjax knows a mesh. A parameter knows a name for each of its axes, and one table
# says which mesh axes these meet ([`mgjax/parallel/rules.py`](../mgjax/parallel/rules.py)).
# `partition` looks a parameter up, `token_entries` an activation. The pictures ask JAX which
# device holds which part: several colours beside each other are one array in pieces, several
# numbers in one field are copies.


# %%
def draw(axis, shape, where, title):
  """Draws a matrix and the numbers of the devices that hold each part of it."""
  held = {}
  for device, index in NamedSharding(mesh, where).devices_indices_map(shape).items():
    ends = tuple(part.indices(length)[:2] for part, length in zip(index, shape, strict=True))
    held.setdefault(ends, []).append(device.id)
  for ((top, bottom), (left, right)), devices in held.items():
    place, size = (
      (left / shape[1], top / shape[0]),
      ((right - left) / shape[1], (bottom - top) / shape[0]),
    )
    colour = (*COLOURS[min(devices)][:3], 0.75)
    axis.add_patch(plt.Rectangle(place, *size, facecolor=colour, edgecolor='white', lw=3))
    middle = [start + length / 2 for start, length in zip(place, size, strict=True)]
    axis.text(*middle, ' '.join(map(str, sorted(devices))), ha='center', va='center', color='white')
  axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect='equal')
  axis.set_title(f'{title}\n{where}', fontsize=10)
  axis.axis('off')


width, hidden, tokens = 64, 128, 256
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout='constrained')
draw(
  axes[0],
  (width, hidden),
  partition(('embed', 'hidden'), (width, hidden), mesh),
  'weight into the FFN',
)
draw(
  axes[1],
  (hidden, width),
  partition(('hidden', 'embed'), (hidden, width), mesh),
  'weight out of the FFN',
)
between = token_entries((8, tokens, width), mesh)
draw(axes[2], (8, tokens), spec(between[:2]), 'rows x tokens, between layers')
inside = token_entries((8, tokens, hidden), mesh, features=True)
draw(axes[3], (tokens, hidden), spec(inside[1:]), 'tokens x features, in the FFN')
plt.show()

# %% [markdown]
# Every weight lies in eight pieces, and no piece twice: that is what makes 30 billion parameters
# with their optimizer fit. Before a layer uses its weight, the pieces over `fsdp` and `context`
# are gathered, in half the bytes (bfloat16), and after use they are forgotten. Tokens are never
# gathered, with one exception: in attention each token reads all others.
#
# ## Ring attention from two ideas
#
# The first idea: softmax can be computed in parts. A device that has seen some keys keeps its
# result $O_1$ and the logarithm of the sum of its exponentials, $L_1$. Another part $(O_2, L_2)$
# is merged by $L = \log(e^{L_1} + e^{L_2})$, $O = O_1 e^{L_1 - L} + O_2 e^{L_2 - L}$.


# %%
def attend_part(q, k, v):
  """Attention over some of the keys: O (n k) and L (n)."""
  scores = q @ k.T / np.sqrt(q.shape[-1])
  lse = jax.nn.logsumexp(scores, axis=1)
  return jnp.exp(scores - lse[:, None]) @ v, lse


def merge(first, second):
  (y1, lse1), (y2, lse2) = first, second
  lse = jnp.logaddexp(lse1, lse2)
  return y1 * jnp.exp(lse1 - lse)[:, None] + y2 * jnp.exp(lse2 - lse)[:, None], lse


q, k, v = jax.random.normal(jax.random.key(0), (3, tokens, 32))
whole, _ = attend_part(q, k, v)
half = tokens // 2
merged, _ = merge(attend_part(q, k[:half], v[:half]), attend_part(q, k[half:], v[half:]))
print(f'two halves, merged, are off by {jnp.abs(merged - whole).max():.1e}')

# %% [markdown]
# The second idea: the keys travel. Each of eight devices has an eighth of the tokens. It keeps
# its queries, works on the keys that it has, and passes them on to its neighbour while it works.
# After eight steps every query has met every key, and no device ever held more than two eighths
# of them. In JAX that is `ppermute` inside of `shard_map`.

# %%
ring = make_mesh('context=8')
PAIRS = [(device, (device + 1) % 8) for device in range(8)]


def ring_attention(q, k, v):
  """On each device: its queries, and the keys that come by. Also returns whose keys they were."""
  owner = jnp.full((1,), lax.axis_index('context'))
  result, owners, partial = attend_part(q, k, v), [owner], []
  partial.append(result[0])
  for _ in range(7):
    k, v, owner = lax.ppermute((k, v, owner), 'context', PAIRS)
    result = merge(result, attend_part(q, k, v))
    owners.append(owner)
    partial.append(result[0])
  return result[0], jnp.stack(owners), jnp.stack(partial)


tokens_cut = PartitionSpec('context')
by_ring = jax.jit(
  jax.shard_map(
    ring_attention,
    mesh=ring,
    in_specs=tokens_cut,
    out_specs=(tokens_cut, PartitionSpec(None, 'context'), PartitionSpec(None, 'context')),
  )
)
result, owners, partial = by_ring(q, k, v)
print(f'the ring is off by {jnp.abs(result - whole).max():.1e}')

# %% [markdown]
# Left: whose keys each device had in each step. They move on by one device a step. Middle: the
# matrix of all scores, queries by keys, coloured by the step in which each part was computed: the
# ring walks along diagonals, and every device is busy at all times. Right: how far the merged
# result is from the whole one; the last part makes it exact.

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout='constrained')
axes[0].imshow(owners, cmap=plt.matplotlib.colors.ListedColormap(COLOURS), aspect='auto')
for (step, device), owner in np.ndenumerate(np.asarray(owners)):
  axes[0].text(device, step, owner, ha='center', va='center', color='white')
axes[0].set(xlabel='device', ylabel='step', title='whose keys a device has')

steps = np.empty((8, 8), int)
for (step, device), owner in np.ndenumerate(np.asarray(owners)):
  steps[device, owner] = step
axes[1].imshow(np.kron(steps, np.ones((8, 8))), cmap='viridis')
for (device, owner), step in np.ndenumerate(steps):
  axes[1].text(8 * owner + 3.5, 8 * device + 3.5, step, ha='center', va='center', color='white')
axes[1].set(
  xticks=np.arange(8) * 8 + 3.5,
  yticks=np.arange(8) * 8 + 3.5,
  xlabel='keys of device',
  ylabel='queries of device',
  title='step in which a part is computed',
)
axes[1].set_xticklabels(range(8))
axes[1].set_yticklabels(range(8))

errors = [float(jnp.sqrt(jnp.mean((each - whole) ** 2))) for each in partial]
axes[2].semilogy(range(8), errors, 'o-', color=COLOURS[0])
axes[2].set(xlabel='step', title='distance to attention over all keys')
axes[2].spines[['top', 'right']].set_visible(False)
plt.show()

# %% [markdown]
# ## The same by the library
#
# `attend` does this whenever a mesh has a `context` axis, backward pass included, and in three
# more ways: `gather` brings all keys to everyone, as the report does; `ulysses` trades tokens for
# heads, so that each device has all tokens of a few heads; `ring_ulysses` does both where heads
# do not suffice. All give the same numbers. What differs is what travels: the program that the
# compiler made says so.

# %%
q, k, v = jax.random.normal(jax.random.key(1), (3, 2, tokens, 8, 32))  # (b n g k), eight heads
alone = attend(q, k, v)
placed = NamedSharding(ring, PartitionSpec(None, 'context'))
q, k, v = (jax.device_put(x, placed) for x in (q, k, v))

with jax.set_mesh(ring):
  for exchange in ('gather', 'ring', 'ulysses'):
    program = (
      jax.jit(lambda q, k, v, how=exchange: attend(q, k, v, exchange=how)).lower(q, k, v).compile()
    )
    text = program.as_text()
    found = {
      name: text.count(f' {name}(') + text.count(f' {name}-start(')
      for name in ('all-gather', 'collective-permute', 'all-to-all')
    }
    error = np.abs(np.asarray(program(q, k, v)) - alone).max()
    print(f'{exchange:8} off by {error:.0e}, uses', {name: n for name, n in found.items() if n})

# %% [markdown]
# ## At full size, without a device
#
# The same table decides about the 30B model. The planner adds up what a chip holds and sends; it
# needs no devices. Here is the stage of 73,728 tokens on 64 nodes of 8 H200 with 131 GiB each, a
# video for each group of chips that share one. With eight that share a video, so much less is
# left to hold that less has to be computed again.

# %%
SHARES = (1, 2, 4, 8)
plans = []
for context in SHARES:
  sizes = {'fsdp': 512 // context, 'context': context}
  plans.append(mgjax.plan('video/t2iv_768:30b', 'h200:8x64', mesh=sizes).numbers)

STATE = ('parameters', 'moments', 'average', 'gradients', 'cast weights')
figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout='constrained')
places = np.arange(len(SHARES))
bottom = np.zeros(len(SHARES))
kinds = {'state and weights': [], 'kept for the backward pass': [], 'activations at work': []}
for plan in plans:
  gib = plan['gib_per_chip']
  kept = gib['checkpoints']
  working = sum(number for name, number in gib.items() if 'activations' in name)
  kinds['kept for the backward pass'].append(kept)
  kinds['activations at work'].append(working)
  kinds['state and weights'].append(sum(gib.values()) - kept - working)
for (name, numbers), colour in zip(kinds.items(), COLOURS, strict=False):
  axes[0].bar(places, numbers, bottom=bottom, label=name, color=colour, width=0.6)
  bottom += numbers
axes[0].axhline(plans[0]['capacity_gib'], color='black', ls='--', lw=1)
axes[0].set(
  xticks=places, xticklabels=SHARES, xlabel='chips that share a video', ylabel='GiB a chip'
)

bottom = np.zeros(len(SHARES))
seconds = {  # with kernels at the high end of what the planner assumes
  'attention': [plan['compute_seconds']['attention'] for plan in plans],
  'linear maps': [plan['compute_seconds']['linear'] for plan in plans],
  'waiting for others': [plan['communication_seconds']['waited_for'] for plan in plans],
}
parts = {
  name: [min(ends.values()) / plan['rows'] for ends, plan in zip(each, plans, strict=True)]
  for name, each in seconds.items()
}
for (name, numbers), colour in zip(parts.items(), COLOURS, strict=False):
  axes[1].bar(places, numbers, bottom=bottom, label=name, color=colour, width=0.6)
  bottom += numbers
axes[1].set(
  xticks=places, xticklabels=SHARES, xlabel='chips that share a video', ylabel='seconds a video'
)
for axis in axes:
  axis.legend(frameon=False, loc='lower center', bbox_to_anchor=(0.5, 1), ncols=3)
  axis.spines[['top', 'right']].set_visible(False)
plt.show()
for share, plan in zip(SHARES, plans, strict=True):
  low, high = (f'{plan["roofline_mfu"][end]:.0%}' for end in ('low', 'high'))
  print(f'{share} chips a video: keeps {plan["remat"]}, MFU {low} to {high}, as kernels are')

# %% [markdown]
# ## Where it goes on
#
# - `mgjax/parallel/ring.py` is the ring with its backward pass, `mgjax/parallel/ulysses.py` the
#   trade of heads, `mgjax/parallel/gather.py` how weights are gathered in two stages.
# - `--config.mesh.context=8` and `mgjax.load(..., mesh='context=8')` use all of this to train and
#   to sample.
# - [docs/results/performance.md](../docs/results/performance.md) compares the planner's numbers
#   with those of the TPU's compiler.
