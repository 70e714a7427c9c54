# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Fit a scaling law, and put it to the test
#
# Before a model of 30 billion parameters is trained, somebody has to say how large it should be
# for the compute there is (Movie Gen §3.6). This notebook answers that question in small, from 70
# runs whose records lie in the checkout: text to image on moving digits, five budgets, two blocks
# of the backbone. It draws the IsoFLOP curves, fits a law, holds the largest budget out to see
# whether the law would have known it, and compares the blocks. Nothing is trained; it takes a few
# seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np

from mgjax.lab.report.tables import aligned
from mgjax.lab.scaling.comparison import budgets_of, compare_recipes
from mgjax.lab.scaling.findings import describe_comparison, find_law
from mgjax.lab.scaling.held_out import hold_out
from mgjax.lab.scaling.isoflop import find_minima, group_budgets
from mgjax.lab.scaling.published import rows_at
from mgjax.lab.scaling.records import read_records

plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})

arms = read_records('docs/records/isoflop_images.jsonl')
# Models eight wide cannot hold a token of eight numbers: one run of each block, above any law.
arms = {name: records.keep(records.runs.size > 1e4) for name, records in arms.items()}
llama = arms['llama']
print({name: len(records.runs.loss) for name, records in arms.items()})

# %% [markdown]
# ## IsoFLOP curves
#
# A budget of compute buys a small model that sees much data, or a large one that sees little: $C
# = 6 N D$ for $N$ parameters and $D$ tokens. Both ends waste it. For each budget the loss over
# $\log N$ is nearly a parabola, and its lowest point is the best size for this budget. The
# circles are runs; of each budget the middle size was trained with three seeds, which shows how
# much of all this is luck.

# %%
size, tokens, loss = llama.runs
budgets = group_budgets(llama.compute)
colours = plt.cm.viridis(np.linspace(0.1, 0.9, budgets.max() + 1))
minima = find_minima(llama.compute, size, loss)

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout='constrained')
for budget, colour in enumerate(colours):
  runs = budgets == budget
  shape = np.polynomial.Polynomial.fit(np.log(size[runs]), loss[runs], 2)
  across = np.geomspace(size[runs].min(), size[runs].max(), 50)
  left.plot(across, shape(np.log(across)), color=colour, lw=1.5)
  compute = llama.compute[runs].mean()
  left.scatter(
    size[runs],
    loss[runs],
    s=25,
    facecolors='white',
    edgecolors=colour,
    zorder=3,
    label=f'{compute:.1e} FLOPs',
  )
left.scatter([m.size for m in minima], [m.loss for m in minima], marker='x', c='black', zorder=4)
left.set(xscale='log', xlabel='parameters', ylabel='validation loss', title='runs of a budget')
left.legend(frameon=False, fontsize=9)

found = find_law(llama)
reach = np.geomspace(llama.compute.min(), llama.compute.max() * 30, 40)
law = found.fit.law
right.plot(reach, [law.optimum(c).size for c in reach], color='#00798c', label='by the law')
drawn = np.array([[fit.law.optimum(c).size for c in reach] for fit in found.again])
right.fill_between(reach, *np.quantile(drawn, (0.1, 0.9), axis=0), color='#00798c', alpha=0.2, lw=0)
right.scatter(
  [m.compute for m in minima],
  [m.size for m in minima],
  marker='x',
  c='black',
  label='lowest points',
)
right.axvline(llama.compute.max(), color='grey', ls=':', lw=1)
right.set(
  xscale='log', yscale='log', xlabel='FLOPs', ylabel='best size', title='the best size grows'
)
right.legend(frameon=False)
for axis in (left, right):
  axis.spines[['top', 'right']].set_visible(False)
plt.show()

# %% [markdown]
# ## The law
#
# All runs together determine $L(N, D) = E + A / N^\alpha + B / D^\beta$: $E$ is what no size and
# no data takes away, and the best size grows as $C^{\beta / (\alpha + \beta)}$. Intervals are of
# 80%, from runs whose residuals are drawn again: they say how far noise alone moves the answer.
# The table ends with what would spoil it.

# %%
print(found.table())

# %% [markdown]
# ## Would it have known?
#
# A law that only describes is worth little. Fitted to four budgets, it predicts every run of the
# fifth, which it has not seen.

# %%
test = hold_out(llama)
print(test.table())

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout='constrained')
for place, guess in enumerate(sorted(test.losses, key=lambda guess: guess.size)):
  predicted = guess.predicted
  axis.plot([place, place], [predicted.low, predicted.high], color='#00798c', lw=6, alpha=0.3)
  axis.plot(place, predicted.value, '_', color='#00798c', ms=14, label='predicted' * (place == 0))
  axis.plot(place, guess.measured.value, 'o', color='#d1495b', label='came' * (place == 0))
sizes = sorted(guess.size for guess in test.losses)
axis.set_xticks(range(len(sizes)), [f'{size / 1000:.0f}k' for size in sizes])
axis.set(xlabel='parameters', ylabel='loss', title='runs of the largest budget, held out')
axis.spines[['top', 'right']].set_visible(False)
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Which block?
#
# Losses of two blocks at one size say little: one of them may want other sizes. The fair question
# is how much more compute the one needs for the loss that the other reaches at its best. Both
# laws share $E$, since they see the same data.

# %%
both = compare_recipes(llama.runs, arms['dit'].runs, budgets_of(llama.runs))
print(describe_comparison(both, ('llama', 'dit')))

# %% [markdown]
# ## Beside what others found
#
# Small digits are no films, and nobody should carry these constants over. The method carries
# over: the same call reads the records of real runs. These are published laws at $10^{22}$ FLOPs.

# %%
print('\n'.join(aligned(rows_at(1e22))))

# %% [markdown]
# ## Where it goes on
#
# - `python -m launch.scaling plan` prints a sweep with its cost, and how sure it will make the
#   exponent, before a run is paid for; `run`, `fit`, `predict`, `compare` and `plot` do the rest:
#   [docs/how_to/fit_scaling_laws.md](../docs/how_to/fit_scaling_laws.md).
# - Your own records are a `.csv` with the columns `parameters`, `tokens` and `loss`: put its path
#   into `read_records`.
