# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Sample a trained model
#
# Load a text-to-video model, sample prompts, change steps and guidance, and look at what its
# autoencoder keeps of a clip. It takes `make quickstart` first, and a minute on two CPU cores.

# %%
import numpy as np

import mgjax

# %% [markdown]
# ## Load
#
# `mgjax.load` reads the work directory of a run: what it trained, the averaged weights, the
# configuration.

# %%
video = mgjax.load('runs/quickstart/video')
frames, height, width = video.default_shape
print(f'videos of {frames} frames, {height} x {width} pixels; sampling: {video.settings}')

# %% [markdown]
# ## Sample
#
# One video a prompt. Training showed neither of the last two: it saw every pair of their words,
# never all three together.

# %%
prompts = [
  'the green digit 3 moves left',
  'the red digit 7 moves up',
  'the yellow digit 2 moves right',
  'the red digit 6 moves left',
]
clips = video.generate(prompts, seed=0)  # uint8 (b t h w 3)
mgjax.show(clips, prompts)

# %% [markdown]
# The same prompt with four noises: another handwriting, another path. Video i of a seed depends
# on the seed and i alone, so the first of these is the first of the videos above.

# %%
same = video.generate(prompts[:1] * 4, seed=0)
mgjax.show(same, [f'noise {index}' for index in range(4)])
print('equal but for rounding:', np.abs(same[0].astype(int) - clips[0].astype(int)).max() <= 1)

# %% [markdown]
# ## Steps
#
# The sampler follows the model's velocity from noise to data. Fewer steps are faster and rougher.

# %%
few = {steps: mgjax.load('runs/quickstart/video', steps=steps) for steps in (5, 25)}
by_steps = np.stack([each.generate(prompts[:1])[0] for each in few.values()])
mgjax.show(by_steps, [f'{steps} steps' for steps in few])

# %% [markdown]
# ## Guidance
#
# Guidance moves away from what the model would do without the prompt. At 0 the prompt is not read
# at all; at 1 it is, without guidance; above, colours and motions follow the words more strictly.

# %%
scales = (0.0, 1.0, 6.0)
guided = [mgjax.load('runs/quickstart/video', guidance={'text': scale}) for scale in scales]
by_scale = np.stack([each.generate(prompts[1:2])[0] for each in guided])
mgjax.show(by_scale, [f'guidance {scale}' for scale in scales])

# %% [markdown]
# ## The autoencoder
#
# The model never sees pixels: it works on latents, which the autoencoder makes of pixels and
# turns back. What the autoencoder loses, no sample can have.

# %%
tae = mgjax.load('runs/quickstart/autoencoder')
latents = tae.encode(clips)  # (b t h w c)
again = np.asarray(tae.decode(latents, frames=frames))
print(f'{clips[0].size:,} bytes become {latents[0].size:,} numbers')

error = np.mean((again.astype(float) - clips) ** 2)
print(f'PSNR {10 * np.log10(255**2 / max(error, 1e-10)):.1f} dB')
mgjax.show(np.stack([clips[0], again[0]]), ['sampled', 'encoded and decoded again'])

# %% [markdown]
# ## Keep them
#
# An .mp4 each, a picture of all, and the facts that make them again.

# %%
for path in video.save(prompts, 'out/samples', seed=0):
  print(path)
