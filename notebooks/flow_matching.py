# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Flow matching in two dimensions, seen
#
# Movie Gen makes videos by following a velocity from noise to data. A point of the plane can be
# moved in the same way, and then everything can be drawn: the path, what a network learns, how a
# sampler walks, what guidance does. The functions are those that train and sample the video
# models; only the data are smaller. It takes less than a minute on two processor cores.

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn

from mgjax.flow.guidance import make_guided
from mgjax.flow.objective import make_objective
from mgjax.flow.path import interpolate
from mgjax.flow.sample import sample
from mgjax.flow.schedules import make_time_grid

COLOURS = np.array(['#d1495b', '#edae49', '#00798c'])
plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})


def panels(count, size=2.7):
  """Makes empty square pictures of the plane beside each other."""
  figure, axes = plt.subplots(1, count, figsize=(size * count, size + 0.3), layout='constrained')
  for axis in np.atleast_1d(axes):
    axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect='equal', xticks=[], yticks=[])
  return figure, np.atleast_1d(axes)


# %% [markdown]
# ## Data and noise
#
# The data are three arms of a spiral. The arm is the label: it stands for the prompt of a video.


# %%
def spiral(key, count):
  """Returns points (b 2) on three arms, and which arm each is on (b)."""
  arm_key, along_key, noise_key = jax.random.split(key, 3)
  arm = jax.random.randint(arm_key, (count,), 0, 3)
  along = jnp.sqrt(jax.random.uniform(along_key, (count,)))
  angle = 4 * along + arm * 2 * jnp.pi / 3
  points = 2.4 * along[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
  return points + 0.06 * jax.random.normal(noise_key, points.shape), arm


data, arms = spiral(jax.random.key(0), 2000)
noise = jax.random.normal(jax.random.key(1), data.shape)

# %% [markdown]
# ## The path
#
# Training connects a point of noise $X_0$ and a point of data $X_1$ by a straight line, which is
# walked in time $t$ from 0 to 1: $X_t = t X_1 + (1 - (1 - \sigma_{min}) t) X_0$. The velocity on
# the line is $V_t = X_1 - (1 - \sigma_{min}) X_0$, the same at all times (Movie Gen §3.1.2). The
# pairs are drawn by chance, so the lines cross.

# %%
figure, axes = panels(5)
for axis, time in zip(axes, (0.0, 0.25, 0.5, 0.75, 1.0), strict=True):
  x = interpolate(data, noise, jnp.full(len(data), time))
  axis.scatter(*x.T, s=2, c=COLOURS[arms], linewidths=0)
  axis.set_title(f't = {time}')
for place in range(12):
  axes[0].plot(*zip(noise[place], data[place], strict=True), c='black', lw=0.7)
plt.show()

# %% [markdown]
# ## What the network learns
#
# A network sees $X_t$, $t$ and the label, and answers a velocity. The loss is the squared
# distance to $V_t$. Where lines cross, the network cannot know which one it is on; the best
# answer is the mean of their velocities, and this mean is a field that has no crossings.
# `make_objective` draws times and noise, drops the label from a fifth of the rows and returns the
# loss, for this network as for one of 30 billion parameters.


# %%
class Velocity(nn.Module):
  """Four layers; the label adds a vector, and nothing where it is dropped."""

  @nn.compact
  def __call__(self, x, time, arm, dropped):
    angles = time[:, None] * jnp.pi * jnp.arange(1, 5)
    seen = jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], axis=1)
    label = nn.Embed(3, 128)(arm) * ~dropped[:, None]
    hidden = nn.Dense(128)(seen) + label
    for _ in range(3):
      hidden = nn.Dense(128)(nn.gelu(hidden)) + label
    return nn.Dense(2)(nn.gelu(hidden))


network = Velocity()
objective = make_objective(dropout={'arm': 0.2}, data='points')
optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 3000))
params = network.init(jax.random.key(2), data, jnp.zeros(len(data)), arms, arms < 0)
STEPS = 3000


def predict_with(params):
  """Binds parameters: `predict(x, time, batch, drop)`, which mgjax calls."""
  return lambda x, time, batch, drop: network.apply(params, x, time, batch['arm'], drop['arm'])


@jax.jit
def train(params):
  def step(state, key):
    params, opt_state = state
    data_key, key = jax.random.split(key)
    points, arm = spiral(data_key, 512)
    batch = {'points': points, 'arm': arm}

    def loss(params):
      return objective(predict_with(params), batch, key)

    gradients, metrics = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return (optax.apply_updates(params, updates), opt_state), metrics

  keys = jax.random.split(jax.random.key(3), STEPS)
  (params, _), metrics = jax.lax.scan(step, (params, optimizer.init(params)), keys)
  return params, metrics


params, metrics = train(params)
predict = predict_with(params)
print(f'loss of the last 100 steps: {metrics["loss"][-100:].mean():.3f}')

# %% [markdown]
# The loss does not go to zero, since lines cross: what remains is how much they differ around
# their mean. It is largest in the middle. Near $t = 0$ the network sees the noise and has to
# guess the data; near $t = 1$ it sees the data and has to guess the noise; between, it has to
# guess both. That is why Movie Gen trains the middle most often (a logit-normal time).

# %%
figure, axis = plt.subplots(figsize=(7, 3), layout='constrained')
for low in (0, 0.25, 0.5, 0.75):
  total, rows = metrics[f'loss/time_{low:g}_{low + 0.25:g}'].reshape(40, -1, 2).sum(1).T
  label = f't from {low:g} to {low + 0.25:g}'
  axis.plot(np.linspace(0, STEPS, 40), total / rows, label=label, color=plt.cm.viridis(low))
axis.set(xlabel='training step', ylabel='loss')
axis.spines[['top', 'right']].set_visible(False)
axis.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Sampling
#
# A sampler begins with noise and follows the field. `make_guided` makes a velocity of a network
# and a batch of conditions, `make_time_grid` the times, `sample` walks. The arrows are the field
# of the middle arm, the lines are what 60 points do in it: they are almost straight, and no two
# of them cross.


# %%
def velocity_of(arm, scale=1.0):
  """The velocity under the labels `arm` (b), with guidance."""
  return make_guided(predict, {'arm': arm}, (('arm', scale),))


start = jax.random.normal(jax.random.key(4), (60, 2))
one = jnp.ones(60, jnp.int32)
times = make_time_grid('linear', 100)
grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-2.8, 2.8, 14)] * 2), axis=-1).reshape(-1, 2)

take_step = jax.jit(lambda x, interval: sample(velocity_of(one), x, interval))
walk = [start]
for interval in itertools.pairwise(times):
  walk.append(take_step(walk[-1], jnp.array(interval)))
walk = np.stack(walk)  # (times points 2)

figure, axes = panels(4, 3.3)
for axis, time in zip(axes, (0.0, 0.4, 0.8, 1.0), strict=True):
  labels = jnp.ones(len(grid), jnp.int32)
  arrows = velocity_of(labels)(grid, jnp.full(len(grid), time))
  axis.quiver(*grid.T, *arrows.T, color='#b8c4cc', scale=70, width=0.006)
  now = round(time * 100)
  axis.plot(*walk[: now + 1].transpose(2, 0, 1), c=COLOURS[1], lw=0.6, alpha=0.6)
  axis.scatter(*walk[now].T, s=12, c=COLOURS[1], edgecolors='black', linewidths=0.5, zorder=3)
  axis.set_title(f't = {time}')
plt.show()

# %% [markdown]
# ## How many steps
#
# The field is not quite straight, so that long steps miss. Euler's method asks the network once a
# step; midpoint and Heun ask twice and aim better. Below: how far the end is from that of 1,000
# steps, by how often the network was asked. For real videos the report takes 50 steps of Euler
# whose times lie closer at the noise, `linear_quadratic`.

# %%
start = jax.random.normal(jax.random.key(5), (1500, 2))
labels = jnp.arange(1500) % 3
velocity = velocity_of(labels)
walk_to_end = jax.jit(lambda times: sample(velocity, start, times))
exact = walk_to_end(make_time_grid('linear', 1000))

figure, axis = plt.subplots(figsize=(7, 3.2), layout='constrained')
for solver, calls, colour in (('euler', 1, 0), ('midpoint', 2, 1), ('heun', 2, 2)):
  asked, errors = [4, 8, 16, 32, 64, 128], []
  for count in asked:
    ends = sample(velocity, start, make_time_grid('linear', count // calls), solver)
    errors.append(float(jnp.sqrt(jnp.mean((ends - exact) ** 2))))
  axis.loglog(asked, errors, 'o-', c=COLOURS[colour], label=solver)
axis.set(xlabel='times the network is asked', ylabel='distance to the exact end')
axis.set_xticks(asked, asked)
axis.minorticks_off()
axis.spines[['top', 'right']].set_visible(False)
axis.legend(frameon=False)
plt.show()

figure, axes = panels(4)
for axis, steps in zip(axes, (2, 4, 8, 50), strict=True):
  ends = sample(velocity, start, make_time_grid('linear', steps))
  axis.scatter(*ends.T, s=2, c=COLOURS[labels], linewidths=0)
  axis.set_title(f'{steps} steps of Euler')
plt.show()

# %% [markdown]
# ## Guidance
#
# The network also learnt the field without label, from rows whose label was dropped. Guidance
# goes from that field in the direction of the labelled one, and beyond: $v = v(0) + s (v(c) -
# v(0))$. At 0 the label does nothing, at 1 the samples are those of the data, and above they
# crowd where one label is certain, away from the others: what is gained in obedience is lost in
# variety. Videos are made with scales around 7.5.

# %%
figure, axes = panels(4)
for axis, scale in zip(axes, (0.0, 1.0, 2.0, 5.0), strict=True):
  ends = sample(velocity_of(labels, scale), start, make_time_grid('linear', 50))
  axis.scatter(*ends.T, s=2, c=COLOURS[labels], linewidths=0)
  axis.set_title(f'guidance {scale:g}')
plt.show()

# %% [markdown]
# ## Where it goes on
#
# - `mgjax/flow/objective.py` is the loss, `mgjax/flow/path.py` the path: both shorter than this
#   notebook.
# - A video model is the same with a transformer in place of four layers, latents in place of
#   points and texts in place of arms: `mgjax/models/flow_model/model.py`.
# - Try `make_time_grid('linear_quadratic', 16, emulated=100)` above, or `sample(...,
#   solver='dormand_prince')`, which chooses its own steps.
