# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Guidance, schedules and solvers
#
# A trained model leaves three choices to you who sample it: how strictly the prompt is followed,
# at which times the model is asked, and by what rule its answers are put together. This notebook
# turns each knob and measures what it does, with a judge that reads digit, colour and direction
# back from the pixels. It takes about two minutes on two processor cores.

# %%
import matplotlib.pyplot as plt
import numpy as np

import mgjax
from mgjax.flow.schedules import make_time_grid
from mgjax.lab.worlds.digits.judges.digit import train_judge

VIDEO = 'digits/video'  # text to video on moving digits; or the work directory of a run of yours
COLOURS = {'digit': '#d1495b', 'colour': '#edae49', 'direction': '#00798c', 'all': '#30343f'}
plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})

# %% [markdown]
# ## Prompts and their judge
#
# Every prompt names a digit, a colour and a direction. The judge is a small classifier of real
# clips.

# %%
judge = train_judge()
generator = np.random.default_rng(0)
COUNT = 32
said = [
  (int(digit), colour, motion)
  for digit, colour, motion in zip(
    generator.integers(0, 10, COUNT),
    generator.choice(['red', 'green', 'blue', 'yellow'], COUNT),
    generator.choice(['left', 'right', 'up', 'down'], COUNT),
    strict=True,
  )
]
prompts = [f'the {colour} digit {digit} moves {motion}' for digit, colour, motion in said]


def score(**options):
  """Samples all prompts with some settings: the videos, and the shares that are right."""
  videos = mgjax.load(VIDEO, **options).generate(prompts, seed=0)
  return videos, judge.score(videos, said)


def draw(axis, across, found, label):
  """Draws each share of a list of scores."""
  for name, colour in COLOURS.items():
    axis.plot(across, [each[name] for each in found], 'o-', color=colour, label=name, lw=1.5)
  axis.set(xlabel=label, ylim=(0, 1.05))
  axis.spines[['top', 'right']].set_visible(False)


# %% [markdown]
# ## Guidance
#
# The model was trained with the prompt and, in a tenth of the rows, without. Guidance goes from
# what it does without in the direction of what it does with the prompt: $v = v(0) + s (v(c) -
# v(0))$. At 0 the prompt is not read, and the shares are those of chance; at 1 it is read,
# without guidance. With 32 prompts the scales from 1 on cannot be told apart by the judge; what
# changes is how bright and how alike the digits are.

# %%
scales = (0.0, 1.0, 2.0, 4.0, 8.0)
by_scale = {scale: score(guidance={'text': scale}) for scale in scales}
figure, axis = plt.subplots(figsize=(6, 3.2), layout='constrained')
draw(axis, range(len(scales)), [found for _, found in by_scale.values()], 'guidance')
axis.set_xticks(range(len(scales)), [f'{scale:g}' for scale in scales])
axis.set_ylabel('share that is right')
axis.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
plt.show()

shown = (0.0, 1.0, 4.0, 8.0)
mgjax.show(
  np.stack([by_scale[scale][0][0] for scale in shown]),
  [f'{scale:g}: {prompts[0]}' for scale in shown],
  fps=8,
)

# %% [markdown]
# ## Schedules
#
# A schedule is where between noise ($t = 0$) and data ($t = 1$) the model is asked. Movie Gen's,
# `linear_quadratic`, takes half of its steps where a thousand even ones would take their first,
# next to the noise, and then hurries. `shift_factor` moves any schedule in the same direction.

# %%
STEPS = 25
grids = {
  'linear': make_time_grid('linear', STEPS),
  'linear, shift 3': make_time_grid('linear', STEPS, shift_factor=3.0),
  'linear_quadratic, 1000': make_time_grid('linear_quadratic', STEPS, emulated=1000),
  'linear_quadratic, 100': make_time_grid('linear_quadratic', STEPS, emulated=100),
}
figure, axis = plt.subplots(figsize=(8, 2.2), layout='constrained')
for place, times in enumerate(grids.values()):
  axis.scatter(times, np.full(len(times), -place), s=18, color=list(COLOURS.values())[place])
axis.set_yticks(-np.arange(len(grids)), grids)
axis.set(xlabel='t, from noise to data', ylim=(-3.6, 0.6))
axis.spines[['top', 'right', 'left']].set_visible(False)
plt.show()

# %% [markdown]
# ## How many steps, by which schedule and solver
#
# Time is what calls of the model cost, so settings are compared at equal calls: midpoint asks
# twice a step, and has half as many. The digits' field is nearly straight, so that Euler needs
# few; for videos of the real world the report takes 50.

# %%
LINEAR, QUADRATIC = {'name': 'linear'}, {'name': 'linear_quadratic', 'emulated': 100}
calls = (2, 4, 8, 16)
ways = {
  'euler, linear': lambda count: {'steps': count, 'schedule': LINEAR},
  'euler, linear_quadratic': lambda count: {'steps': count, 'schedule': QUADRATIC},
  'midpoint, linear': lambda count: {'steps': count // 2, 'schedule': LINEAR, 'solver': 'midpoint'},
}
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout='constrained', sharey=True)
last = {}
for axis, (name, options) in zip(axes, ways.items(), strict=True):
  results = [score(**options(count)) for count in calls]
  draw(axis, range(len(calls)), [found for _, found in results], 'calls of the model')
  axis.set_xticks(range(len(calls)), calls)
  axis.set_title(name)
  last[name] = results[1][0]
axes[0].set_ylabel('share that is right')
axes[0].legend(frameon=False, loc='lower right', fontsize=9)
plt.show()

mgjax.show(
  np.stack([videos[0] for videos in last.values()]), [f'4 calls: {name}' for name in last], fps=8
)

# %% [markdown]
# ## Where it goes on
#
# - `mgjax.load(..., guidance=(('text', (6.0, (0.1, 0.9))),))` guides in an interval of time
#   alone: [docs/how_to/use_from_python.md](../docs/how_to/use_from_python.md).
# - One to eight steps without guidance have to be learnt:
#   [few steps](../docs/experiments/few_steps.md).
# - `mgjax/flow/schedules.py`, `mgjax/flow/solvers.py` and `mgjax/flow/guidance.py` are a screen
#   each.
