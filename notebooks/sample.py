# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Sample everything
#
# Videos of prompts, in fifty passes of the network or in one; enlarged, with sound, of a given
# hand, and edited. The models come with mgjax (`mgjax/weights/digits`, 20 MB in all): they know
# moving digits and nothing else, and are the paper's architecture in small. It takes two minutes
# on two CPU cores.

# %%
import numpy as np

import mgjax
from mgjax.digits.clips import Digits

# %% [markdown]
# ## Load
#
# `mgjax.load` takes a name, or the work directory of a run of your own, such as
# 'runs/quickstart/video' after `make quickstart`.

# %%
video = mgjax.load('digits/video')
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
# The sampler follows the model's velocity from noise to data, 25 steps of two passes each: with
# the prompt and without. `digits/few_steps` has learnt from it to take long steps, without
# guidance: fifty passes become one.

# %%
few = mgjax.load('digits/few_steps', steps=1)
by_passes = np.stack([clips[0], few.generate(prompts[:1])[0]])
mgjax.show(by_passes, ['50 passes', '1 pass'])

# %% [markdown]
# ## Guidance
#
# Guidance moves away from what the model would do without the prompt. At 0 the prompt is not read
# at all; at 1 it is, without guidance; above, colours and motions follow the words more strictly.

# %%
scales = (0.0, 1.0, 6.0)
guided = [mgjax.load('digits/video', guidance={'text': scale}) for scale in scales]
by_scale = np.stack([each.generate(prompts[1:2])[0] for each in guided])
mgjax.show(by_scale, [f'guidance {scale}' for scale in scales])

# %% [markdown]
# ## Enlarge
#
# The upsampler knows sharp digits. It makes of 32 pixels 64, and detail that no interpolation has.

# %%
upsampler = mgjax.load('digits/upsampler')
large = upsampler.generate(prompts[:1], video=clips[0])
blurred = np.kron(clips[0], np.ones((2, 2, 1), np.uint8))
mgjax.show(np.stack([blurred, large[0]]), ['32 x 32', 'upsampled to 64 x 64'])

# %% [markdown]
# ## A hand
#
# One picture of a digit in somebody's hand, which training never saw, turned and in strokes of
# another weight; the prompt says colour and motion, and not which digit. The reference is on the
# left. The digit comes back nine times in ten, the very hand one time in three.

# %%
world = Digits(
  split='test', extras=('reference',), reference='other', numbered=False, colours=('red', 'blue'),
  motions=('left', 'up'), turns=10.0, weights=0.5, frames=frames, size=(height, width),
)  # fmt: skip
samples = [world[index] for index in range(4)]
references = [sample['reference'][0] for sample in samples]
captions = [sample['caption'] for sample in samples]
personal = mgjax.load('digits/personalization').generate(captions, reference=references)
shown = [np.repeat(picture[None], frames, 0) for picture in references]
mgjax.show(np.concatenate([np.stack(shown), personal], axis=3), captions)

# %% [markdown]
# ## Edit
#
# An instruction and a clip, of a digit before a wall. The model learnt without a single pair of
# clips before and after an edit.

# %%
walls = Digits(
  split='test', background='tinted', motions=('left', 'right'), laps=0.4, frames=frames,
  size=(height, width), colours=('green', 'blue', 'yellow'),
)  # fmt: skip
clip = walls[0]['video']
instructions = ['make the digit red', 'make the wall blue']
edited = mgjax.load('digits/editing').generate(instructions, video=[clip, clip])
mgjax.show(np.stack([clip, *edited]), ['the clip', *instructions])

# %% [markdown]
# ## Sound
#
# The audio model sees the video and reads the prompt. `launch.sample` does all of it in one
# command: `--upsample=digits/upsampler --soundtrack=digits/audio`.

# %%
audio = mgjax.load('digits/audio')
bounce = 'the red digit 7 bounces'
(silent, *_) = video.save([bounce], 'out/samples/bounce.mp4', seed=1)
sound = audio.generate([bounce], video=silent)
mgjax.show(sound, [bounce])

# %% [markdown]
# ## The autoencoder
#
# The model never sees pixels: it works on latents, which the autoencoder makes of pixels and
# turns back. What the autoencoder loses, no sample can have.

# %%
tae = mgjax.load('digits/autoencoder')
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
for path in video.save(prompts, 'out/samples/all', seed=0):
  print(path)
