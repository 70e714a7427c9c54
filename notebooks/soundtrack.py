# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A soundtrack for your clip
#
# The audio model of Movie Gen (§6) hears with its eyes: it is given a video and a text and makes
# the sound that belongs to both. With moving digits a digit clicks when it hits something, and
# then sounds a tone of its own. This notebook makes clips without sound, lets the model add it,
# looks whether it came at the right moment, and plays picture and sound together. It takes about
# a minute on two processor cores.

# %%
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import mgjax
from mgjax.data.media.audio import read_audio
from mgjax.data.media.video import write_video
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.sound import hear, judge_sound

AUDIO = 'digits/audio'  # comes with mgjax; or the work directory of a run of yours
CLIP = ''  # a video of your own, as 'clip.mp4', with PROMPT for it; '' takes the digits'
PROMPT = 'the red digit 3 bounces'
OUT = pathlib.Path('out/soundtrack')
plt.rcParams.update({'figure.dpi': 80, 'font.size': 11, 'axes.titlesize': 12})

audio = mgjax.load(AUDIO)
print(f'sound of {audio.rate:,} samples a second from {audio.latent_rate:g} latents a second')

# %% [markdown]
# ## Silent clips
#
# Four clips of digits that bounce or fall, with the true times at which they hit something, which
# the model is not told.

# %%
if CLIP:
  clips, names, truth = [pathlib.Path(CLIP)], [PROMPT], None
else:
  shape = audio.config.buckets.sound
  world = Digits(
    split='test',
    captions='all',
    motions=('bounce', 'fall'),
    sound=True,
    fps=audio.config.data.fps,
    frames=round(shape.seconds * audio.config.data.fps),
    size=(shape.height, shape.width),
  )
  truth = [world[index] for index in range(4)]
  names = [sample['caption'] for sample in truth]
  clips = [OUT / f'silent_{index}.mp4' for index in range(4)]
  OUT.mkdir(parents=True, exist_ok=True)
  for path, sample in zip(clips, truth, strict=True):
    write_video(path, sample['video'], world.fps, 6)
  mgjax.show(np.stack([sample['video'] for sample in truth]), names, fps=world.fps)

# %% [markdown]
# ## Sound
#
# `save` is what `python -m launch.sample` calls: of eight candidates it keeps the one
# whose onsets fit the pictures best, brings it to -16 LUFS, and writes the video with its
# pictures untouched. Play it: picture and sound come from different models' worlds and should hit
# together.

# %%
made = []
for index, (clip, name) in enumerate(zip(clips, names, strict=True)):
  paths = audio.save(name, OUT / f'{index}.mp4', video=str(clip), seed=1)
  made.append({path.suffix: path for path in paths})
mgjax.show(made[0]['.mp4'])

# %% [markdown]
# ## Was it in time?
#
# The waveforms, with the true moments as lines, and the tone that a judge of sounds hears after
# each onset: it should be the number of the digit. -1 is no tone.

# %%
size = (9, 1.7 * len(made))
figure, axes = plt.subplots(len(made), 1, figsize=size, layout='constrained', squeeze=False)
for index, (paths, axis) in enumerate(zip(made, axes[:, 0], strict=True)):
  sound = read_audio(paths['.wav'], rate=audio.rate)
  seconds = np.arange(len(sound)) / audio.rate
  axis.plot(seconds, sound[:, 0], color='#00798c', lw=0.5)
  axis.set_title(names[index])
  if truth is not None:
    for event in truth[index]['events']:
      axis.axvline(event, color='#d1495b', lw=1)
    heard = hear(sound)
    for onset, tone in zip(heard.onsets, heard.tones, strict=True):
      at = (onset + 0.01, 0.8 * np.abs(sound).max())
      axis.annotate(f'{tone}', at)
  axis.spines[['top', 'right']].set_visible(False)
axes[-1, 0].set_xlabel('seconds')
plt.show()

# %%
if truth is not None:
  for name, sample, paths in zip(names, truth, made, strict=True):
    reading = judge_sound(
      read_audio(paths['.wav'], rate=audio.rate), sample['events'], sample['digit']
    )
    late = ', '.join(f'{1000 * error:+.0f}' for error in reading.errors)
    print(f'{name}: {len(reading.errors)} of {reading.events} events found, late by {late} ms')

# %% [markdown]
# ## Without pictures
#
# The same model makes sound for a text alone; then it decides itself when something happens.

# %%
sounds = audio.generate(['the green digit 8 bounces', 'the red digit 1 falls'], seed=0)
print('heard:', [hear(sound).tones.tolist() for sound in sounds])

# %% [markdown]
# ## Where it goes on
#
# - Put the path of a video of yours into `CLIP`, and what is to be heard into `PROMPT`; a model
#   of digits knows clicks and tones alone.
# - Videos of any length, music, and sounds that go on:
#   [docs/how_to/make_audio.md](../docs/how_to/make_audio.md).
