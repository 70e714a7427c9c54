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
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.audio.files import write_soundtracks

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
# One video a prompt. Video i depends on the seed and i alone: not on the others, nor on the batch.

# %%
prompts = [
  'the green digit 3 moves left',
  'the red digit 7 moves up',
  'the yellow digit 2 moves right',
]
clips = video.generate(prompts, seed=0)  # uint8 (b t h w 3)
mgjax.show(clips, prompts)

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
# left. The digit comes back nineteen times in twenty, the very hand one time in two: about as often
# as if the reference were pasted.

# %%
world = Digits(
  split='test',
  extras=('reference',),
  reference='other',
  numbered=False,
  colours=('red', 'blue'),
  motions=('left', 'up'),
  turns=10.0,
  weights=0.5,
  frames=frames,
  size=(height, width),
)
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
  split='test',
  background='tinted',
  motions=('left', 'right'),
  laps=0.4,
  frames=frames,
  size=(height, width),
  colours=('green', 'blue', 'yellow'),
)
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
sounding, *_ = write_soundtracks(audio, {silent: bounce}, seed=1)
mgjax.show(sounding)

# %% [markdown]
# ## Keep them
#
# An .mp4 each, a picture of all, and the facts that make them again.

# %%
for path in video.save(prompts, 'out/samples/all', seed=0):
  print(path)
