# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # What the autoencoder keeps
#
# A video model never sees a pixel. It works on latents, which an autoencoder makes of pixels and
# turns back (Movie Gen §3.1.1), so what the autoencoder loses, no sample can have. This notebook
# looks at what is kept of a clip, where the errors are, what a latent stands for, and how a long
# video passes through in tiles. It takes half a minute on two processor cores.

# %%
import matplotlib.pyplot as plt
import numpy as np

import mgjax
from mgjax.lab.worlds.digits.clips import Digits

AUTOENCODER = 'digits/autoencoder'  # comes with mgjax; or the work directory of one of yours
plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})

tae = mgjax.load(AUTOENCODER)
world = Digits(split='test', frames=16, size=(32, 32))  # handwriting that training never showed
clips = np.stack([world[index]['video'] for index in range(8)])
captions = [world[index]['caption'] for index in range(8)]

# %% [markdown]
# ## There and back
#
# Sixteen frames of 32 x 32 pixels in three colours become a small grid of numbers. The full-size
# autoencoder compresses eight times along each axis; this one, four.

# %%
latents = np.asarray(tae.encode(clips))  # (b t h w c)
again = np.asarray(tae.decode(latents, frames=16))
print(f'a clip: {clips[0].shape}, {clips[0].size:,} bytes')
print(f'its latents: {latents[0].shape}, {latents[0].size:,} numbers')


def psnr(first, second):
  """Peak signal-to-noise ratio in dB, of each clip."""
  error = np.mean((first.astype(float) - second) ** 2, axis=(1, 2, 3, 4))
  return 10 * np.log10(255**2 / np.maximum(error, 1e-10))


print('PSNR of each clip:', np.round(psnr(clips, again), 1))
difference = np.clip(128 + 2 * (again.astype(int) - clips), 0, 255).astype(np.uint8)
rows = [each for index in range(2) for each in (clips[index], again[index], difference[index])]
names = [
  f'{what}: {captions[i]}' for i in range(2) for what in ('clip', 'kept', 'difference, twice')
]
mgjax.show(np.stack(rows), names, fps=8)

# %% [markdown]
# ## What kind of picture it has learnt
#
# It is made for digits. Noise, stripes and a photograph's shades it has never seen; what it does
# to them shows what it takes for granted: strokes of four colours on black.

# %%
generator = np.random.default_rng(0)
down, across = np.mgrid[0:32, 0:32]
foreign = {
  'a digit': clips[0][:1],
  'a shade': np.broadcast_to((across * 8)[None, ..., None], (1, 32, 32, 3)),
  'stripes': np.broadcast_to(((across // 2 % 2) * 255)[None, ..., None], (1, 32, 32, 3)),
  'a circle, white': np.broadcast_to(
    (((down - 16) ** 2 + (across - 16) ** 2 < 90) * 255)[None, ..., None], (1, 32, 32, 3)
  ),
  'noise': generator.integers(0, 256, (1, 32, 32, 3)),
}
given = np.stack(list(foreign.values())).astype(np.uint8)
back = np.asarray(tae.decode(tae.encode(given), frames=1))
figure, axes = plt.subplots(2, len(given), figsize=(10, 4.2), layout='constrained')
for column, (name, before, after) in enumerate(zip(foreign, given, back, strict=True)):
  axes[0, column].imshow(before[0])
  axes[1, column].imshow(after[0])
  axes[0, column].set_title(name)
  axes[1, column].set_title(f'{psnr(before[None], after[None])[0]:.1f} dB')
for axis in axes.flat:
  axis.axis('off')
plt.show()

# %% [markdown]
# ## What a latent stands for
#
# The eight channels of one clip's latents, frame by frame. They are pictures, too: the digit's
# place can be seen in each, and channels differ in what about it they tell. The numbers are
# normalised, to a mean of 0 and a deviation of 1 over the data, since that is the noise which the
# flow model starts from.

# %%
frames, channels = latents.shape[1], latents.shape[-1]
figure, axes = plt.subplots(
  frames, channels, figsize=(10, 10 * frames / channels), layout='constrained'
)
for (frame, channel), axis in np.ndenumerate(axes):
  axis.imshow(latents[0, frame, :, :, channel], cmap='RdBu', vmin=-3, vmax=3)
  axis.axis('off')
  if frame == 0:
    axis.set_title(f'channel {channel}')
plt.show()
print(f'mean {latents.mean():.2f}, deviation {latents.std():.2f}')

# %% [markdown]
# ## Between two clips
#
# Halfway between the latents of two clips lies a cross-fade, not a digit that is half of each:
# the autoencoder keeps what is seen and knows no meaning. Making new clips is the work of the
# flow model.

# %%
way = np.linspace(0, 1, 5)[:, None, None, None, None]
mixed = np.asarray(
  tae.decode(((1 - way) * latents[0] + way * latents[3]).astype(np.float32), frames=16)
)
mgjax.show(mixed, [f'{share:.0%} of the second' for share in way.ravel()], fps=8)

# %% [markdown]
# ## A long video, in tiles
#
# A stream holds one tile of time in memory, however long the video is; tiles overlap and are
# blended. Below: how far a video of 64 frames, passed through in chunks of ten, is from the same
# video at once.

# %%
long = np.concatenate([clips[0], clips[1], clips[2], clips[3]])[None]
chunks = [long[:, first : first + 10] for first in range(0, 64, 10)]
streamed = np.concatenate(list(tae.decode_stream(tae.encode_stream(chunks), frames=64)), axis=1)
at_once = np.asarray(tae.decode(tae.encode(long), frames=64))
print(
  streamed.shape, 'largest difference of a pixel:', np.abs(streamed.astype(int) - at_once).max()
)

# %% [markdown]
# ## Where it goes on
#
# - `mgjax.evaluate(AUTOENCODER)` writes PSNR, SSIM, flicker and the norms of the latents, with
#   videos side by side.
# - `mgjax/models/tae/autoencoder.py` is the network, `mgjax/models/tae/objective.py` its loss,
#   `mgjax/models/tae/tiling.py` the tiles.
# - With a folder of your own clips: `python -m launch.evaluate --workdir=... --clips=my_clips/`.
