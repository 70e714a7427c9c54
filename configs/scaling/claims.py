r"""The report's claims, each tried in small; docs/claims.md is made of their records.

python -m launch.scaling claims --config=configs/scaling/claims.py --records=docs/records \
  --out=docs/claims.md

That trains nothing. The experiments behind it, some minutes of one core a run, of what ships and of
latents that the first command makes; several processes of one command share the runs:

python -m launch.data encode --config=configs/digits/video.py --output=runs/claims/latents \
  --config.autoencoder=digits/autoencoder
python -m launch.scaling run --config=configs/scaling/claims.py:video --workdir=runs/claims/video
python -m launch.scaling run --config=configs/scaling/claims.py:longer --workdir=runs/claims/longer
python -m launch.scaling run --config=configs/scaling/claims.py:sampling \
  --workdir=runs/claims/sampling
python -m launch.scaling run --config=configs/scaling/claims.py:autoencoder \
  --workdir=runs/claims/autoencoder
python -m launch.scaling run --config=configs/scaling/claims.py:spots --workdir=runs/claims/spots
python -m launch.scaling run --config=configs/scaling/claims.py:windows \
  --workdir=runs/claims/windows
python -m launch.scaling run --config=configs/scaling/claims.py:sound_windows \
  --workdir=runs/claims/sound_windows
python -m launch.scaling run --config=configs/scaling/claims.py:rerank --workdir=runs/claims/rerank
python -m launch.scaling run --config=configs/scaling/claims.py:long_rerank \
  --workdir=runs/claims/long_rerank
python -m launch.scaling run --config=configs/scaling/claims.py:same --workdir=runs/claims/same

A CLIP whose text encoder is frozen, and what it says of all captions, for claims.py:encoders:

python -m launch.train --config=configs/digits/clip.py --workdir=runs/clip \
  --config.train.steps=1000
python -m launch.weights export --workdir=runs/clip --out=runs/clip_files --format=transformers
python -m launch.weights import --config=configs/digits/clip.py:text --input=runs/clip_files \
  --workdir=runs/clip_text
python -m launch.data encode --config=configs/scaling/claims.py:encoders,clip \
  --output=runs/claims/latents
python -m launch.scaling run --config=configs/scaling/claims.py:encoders \
  --workdir=runs/claims/encoders

Sound, and the upsampler with and without noise in its inputs, each on latents of its own:

python -m launch.data encode --config=configs/scaling/claims.py:sound,report \
  --output=runs/claims/sound_latents
python -m launch.scaling run --config=configs/scaling/claims.py:sound --workdir=runs/claims/sound
python -m launch.data encode --config=configs/scaling/claims.py:upsampler,with_noise \
  --output=runs/claims/upsampler_latents/with_noise
python -m launch.data encode --config=configs/scaling/claims.py:upsampler,without_noise \
  --output=runs/claims/upsampler_latents/without_noise
python -m launch.scaling run --config=configs/scaling/claims.py:upsampler \
  --workdir=runs/claims/upsampler
python -m launch.scaling run --config=configs/scaling/claims.py:upsampled \
  --workdir=runs/claims/upsampled

The sweep.jsonl of each is docs/records/claims_<name>.jsonl. With claims.py:video,large all of a
group that is trained is half as wide again and as deep again, for twice the steps: one size up;
with the name of an arm in the place of large it is the configuration of that arm.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import audio, autoencoder, upsampler, video
from ..tae import spots
from ..video.sizes import DIT

SEEDS, MORE = (0, 1, 2), (0, 1, 2, 3, 4)
MANY = tuple(range(9))  # where seeds are of the noise alone, and nothing is trained
STEPS = {
  'video': 2000, 'longer': 4000, 'autoencoder': 500, 'same': 300, 'sound': 2000, 'upsampler': 1500,
}  # fmt: skip
LARGE = 1.5  # times the width and the depth
WORDS = {'kind': 'word_text', 'width': 64, 'depth': 2, 'heads': 2, 'length': 12}


def get_config(what: str = '') -> ConfigDict:
  if not what:
    groups = ({'title': title, 'claims': claims} for title, claims in CLAIMS.items())
    return ConfigDict({'groups': tuple(groups), 'same': SAME})
  group, _, more = what.partition(',')
  config = EXPERIMENTS[group]() if group in EXPERIMENTS else ConfigDict({'arms': {}})
  if more in config.arms:
    return config.arms[more]
  if group not in EXPERIMENTS or more not in ('', 'large'):
    raise ConfigError(
      f'{what!r}: expected one of {", ".join(EXPERIMENTS)}, and behind it, if wanted, large or one '
      f'of its arms, as in video,large; of this group: {", ".join(config.arms) or "none"}'
    )
  for arm in config.arms.values() if more else ():
    _enlarge(arm)
  return config


def _enlarge(arm: ConfigDict) -> None:
  if 'train' not in arm:
    raise ConfigError('large is of groups that are trained')
  if arm.component == 'video':
    arm.model.update(dim=192, heads=6, mlp_dim=576, depth=6, unroll=6)
  else:
    arm.model.widths = tuple(int(LARGE * width) for width in arm.model.widths)
  _train(arm, 2 * arm.train.steps)


def _train(config: ConfigDict, steps: int) -> ConfigDict:
  config.train.steps = config.train.evaluate_every = config.train.save_every = steps
  return config


def _experiment(arms: dict, seeds: tuple | dict = SEEDS, samples: int = 216, **more) -> ConfigDict:
  return ConfigDict({'arms': arms, 'seeds': seeds, 'samples': samples, **more})


def _video(steps: int = STEPS['video']) -> ConfigDict:
  config = video.get_config()
  config.autoencoder, config.data.latents = 'digits/autoencoder', 'runs/claims/latents'
  return _train(config, steps)


def video_arms() -> ConfigDict:
  names = ('report', 'videos_alone', 'frame_captions', 'times_0', 'words', 'both_encoders', 'half')
  arms = {name: _video() for name in names}
  _halve(arms['half'])
  del arms['videos_alone'].buckets['image']
  # 'the yellow digit 3': what a caption of one frame says.
  arms['frame_captions'].model.conditionings.text.length = 19
  arms['times_0'].objective.time.mean = 0.0
  arms['words'].model.conditionings.text = ConfigDict(WORDS)
  _read_words_too(arms['both_encoders'])
  return _experiment(arms, {name: MORE if name != 'half' else SEEDS for name in names})


def longer_arms() -> ConfigDict:
  steps = STEPS['longer']
  names = ('report', 'videos_alone', 'times_0', 'dit', 'images', 'warm')
  arms = {name: _video(steps) for name in names}
  del arms['videos_alone'].buckets['image']
  arms['times_0'].objective.time.mean = 0.0
  # As many parameters and operations: two matrices, half as wide again.
  arms['dit'].model.update(DIT, mlp_dim=3 * arms['dit'].model.mlp_dim // 2)
  del _train(arms['images'], steps // 4).buckets['video']
  _train(arms['warm'], steps - steps // 4).start_from = 'runs/claims/longer/images/seed_0'
  return _experiment(arms, {name: SEEDS if name != 'images' else (0,) for name in names})


def encoders_arms() -> ConfigDict:
  arms = {name: _video() for name in ('report', 'words', 'clip', 'all_encoders')}
  arms['words'].model.conditionings.text = ConfigDict(WORDS)
  _read_words_too(arms['all_encoders'])
  clip = {'kind': 'encoded_text', 'encoders': {'clip': {'features': 64, 'length': 40}}}
  for name, place in (('clip', 'text'), ('all_encoders', 'clip')):
    arms[name].text = ConfigDict({'clip': {'workdir': 'runs/clip_text', 'reads': 'prompt'}})
    arms[name].model.conditionings[place] = ConfigDict(clip)
    arms[name].objective.dropout[place] = 0.1
  return _experiment(arms)


def _read_words_too(config: ConfigDict) -> None:
  config.model.conditionings.words = ConfigDict(WORDS)
  config.objective.dropout.words = 0.1


def _halve(config: ConfigDict) -> None:
  model = config.model
  model.update(dim=model.dim // 2, heads=model.heads // 2, mlp_dim=model.mlp_dim // 2)


def sampling_arms() -> ConfigDict:
  ways: dict = {}
  for steps in (8, 25, 50, 250):
    ways[f'linear_{steps}'] = {'steps': steps, 'schedule': {'emulated': steps}}  # by the formula
    ways[f'linear_quadratic_{steps}'] = {'steps': steps}
  del ways['linear_quadratic_250']
  for steps in (4, 25):
    ways[f'midpoint_{steps}'] = {'solver': 'midpoint', 'steps': steps}
  ways['adaptive'] = {'solver': 'dormand_prince'}
  arms = {name: {'of': 'digits/video', 'changes': {'sample': way}} for name, way in ways.items()}
  reference = {'schedule': {'name': 'linear'}, 'steps': 1000, 'solver': 'euler'}
  return _experiment(arms, samples=54, reference=reference)


def autoencoder_arms() -> ConfigDict:
  names = ('temporal', 'full', 'frame_by_frame', 'smaller_frames', 'half')
  steps = STEPS['autoencoder']
  arms = {name: _train(autoencoder.get_config(), steps) for name in names}
  arms |= {f'{name}_longer': _train(autoencoder.get_config(), 3 * steps) for name in names[:2]}
  # About as many parameters each; 3D as many operations, frame by frame 2.4 times as many.
  for name, arm in arms.items():
    arm.optimizer.name = 'muon'
    if name.startswith('full'):
      arm.model.update(temporal='full', widths=(40, 40))
  arms['frame_by_frame'].model.update(temporal=False, strides=((1, 1, 1),) * 2, widths=(80, 80))
  strides = (1, 2, 2), (1, 1, 1)  # as many latents as with time at a quarter
  arms['smaller_frames'].model.update(temporal=False, strides=strides, widths=(80, 80))
  widths = arms['temporal'].model.widths
  arms['half'].model.widths = tuple(width // 2 for width in widths)
  return _experiment(arms, samples=64)


def spots_arms() -> ConfigDict:
  arms = {'before': spots.get_config(), 'without': spots.get_config('tuned')}
  arms['with'] = spots.get_config('tuned')
  arms['with'].objective.outlier = 1e5
  for name in ('without', 'with'):
    arms[name].start_from = 'runs/claims/spots/before/seed_0'
  return _experiment(arms, {'before': (0,), 'without': SEEDS, 'with': SEEDS}, samples=16)


def windows_arms() -> ConfigDict:
  arms = {'upsampler': {'of': 'digits/upsampler'}}
  return _experiment(arms, MORE, samples=6, evaluate={'long': 4})


def sound_windows_arms() -> ConfigDict:
  arms = {'audio': {'of': 'digits/audio'}}
  return _experiment(arms, MANY, samples=8, evaluate={'long': 4})


def rerank_arms() -> ConfigDict:
  arms = {'one': {'of': 'digits/audio'}, 'best_of_8': {'of': 'digits/audio'}}
  return _experiment(arms, tuple(range(14)), samples=64, evaluate={'best_of_8': {'candidates': 8}})


def long_rerank_arms() -> ConfigDict:
  arms = {'one': {'of': 'digits/audio'}, 'best_of_4': {'of': 'digits/audio'}}
  return _experiment(arms, samples=8, evaluate={'long': 4, 'best_of_4': {'candidates': 4}})


def sound_arms() -> ConfigDict:
  arms = {name: audio.get_config() for name in ('report', 'half')}
  for arm in arms.values():
    _train(arm, STEPS['sound'])
    arm.autoencoder, arm.data.latents = 'digits/codec', 'runs/claims/sound_latents'
  _halve(arms['half'])
  return _experiment(arms, samples=64)


def upsampler_arms() -> ConfigDict:
  arms = {name: upsampler.get_config() for name in ('with_noise', 'without_noise')}
  for name, arm in arms.items():
    _train(arm, STEPS['upsampler'])
    arm.autoencoder = 'digits/upsampler/autoencoder'
    arm.data.latents = f'runs/claims/upsampler_latents/{name}'
    arm.encode.train = 2048
  for part in ('first', 'second'):
    arms['without_noise'].pairs.degradation[part].noise = 0.0
  return _experiment(arms, samples=0)  # judged by upsampled_arms, all of inputs with noise


def upsampled_arms() -> ConfigDict:
  arms, changes = {}, {'pairs': upsampler.get_config().pairs}
  for name in ('with_noise', 'without_noise'):
    arms[name] = {'of': f'runs/claims/upsampler/{name}/seed_{{seed}}', 'changes': changes}
  return _experiment(arms, samples=64)


def same_arms() -> ConfigDict:
  return _experiment({'report': _video(STEPS['same'])}, seeds=tuple(range(13)))


EXPERIMENTS = {
  'video': video_arms, 'longer': longer_arms, 'encoders': encoders_arms,
  'sampling': sampling_arms, 'autoencoder': autoencoder_arms, 'spots': spots_arms,
  'windows': windows_arms, 'sound_windows': sound_windows_arms, 'rerank': rerank_arms,
  'long_rerank': long_rerank_arms, 'sound': sound_arms, 'upsampler': upsampler_arms,
  'upsampled': upsampled_arms, 'same': same_arms,
}  # fmt: skip

SAME = {
  'records': 'claims_same',
  'arm': 'report',
  'margins': {'digit': 0.05, 'validation_loss': 0.01},
}


def claim(says: str, where: str, report: str, **rest) -> dict:
  return {'says': says, 'where': where, 'report': report, **rest}


def ablation(first: str, second: str, score: str = 'all', margin: float = 0.05, **rest) -> dict:
  return {'records': 'claims_video', 'first': first, 'second': second, 'score': score,
          'margin': margin, **rest}  # fmt: skip


_LONGER = {'records': 'claims_longer', 'score': 'all', 'margin': 0.05}
_ENCODERS = {'records': 'claims_encoders', 'score': 'all', 'margin': 0.05}
_EDITING = {'records': 'claims_editing', 'score': 'five_tasks', 'margin': 0.05}
_PERSON = {'records': 'claims_personalization', 'margin': 0.05}
_NEAR = {'records': 'claims_sampling', 'score': 'psnr', 'margin': 1.0}
_AGAIN = {'records': 'claims_autoencoder', 'score': 'scores/psnr', 'margin': 0.5}
_SEAMS = 'ratios/upsampled'
_ALONE = ', windows that share nothing'

_SEAMLESS = {
  'records': 'claims_windows', 'first': 'upsampler', 'second': 'upsampler', 'better': -1
}  # fmt: skip

CLAIMS = {
  'Text to video': (
    claim(
      'flow matching follows captions better than diffusion',
      '§3.6.2, Table 8',
      '+16.5 quality, +7.1 alignment, net wins',
      records='ablations',
      first='v_prediction',
      second='flow',
      score='all',
      margin=0.05,
    ),
    claim(
      'the same in the world of solids, by colours',
      '§3.6.2, Table 8',
      'as above',
      records='flow_and_diffusion_solids',
      first='v_prediction',
      second='depthwise',
      score='colour',
      margin=0.05,
    ),
    claim(
      "Llama's block follows captions better than DiT's",
      '§3.6.2, Tables 8 and 9',
      '+18.6 quality, +12.6 alignment, net wins',
      records='ablations',
      first='dit',
      second='flow',
      score='all',
      margin=0.05,
    ),
    claim(
      "a second look at Llama's block and DiT's, 4,000 steps",
      '§3.6.2, Tables 8 and 9',
      '+18.6 quality, +12.6 alignment, net wins',
      **_LONGER,
      first='dit',
      second='report',
    ),
    claim(
      'captions of videos are better than those of frames, by the motion',
      '§3.6.2, Table 8',
      '-.8 quality, +10.8 alignment, +10.7 motion',
      **ablation('frame_captions', 'report', 'direction'),
      note='a caption of one frame cannot say where a digit goes, and so the arm does not read it',
    ),
    claim(
      'and cost no quality, by the digit',
      '§3.6.2, Table 8',
      '-.8 quality',
      **ablation('frame_captions', 'report', 'digit', equal=True),
    ),
    claim(
      'a warm start on images helps',
      '§3.2.2',
      'the recipe, not ablated',
      records='ablations',
      first='flow',
      second='warm',
      score='all',
      margin=0.05,
    ),
    claim(
      'a second look at the warm start, 4,000 steps',
      '§3.2.2',
      'the recipe, not ablated',
      **_LONGER,
      first='report',
      second='warm',
    ),
    claim(
      'images beside videos help',
      '§3.2.2',
      'the recipe, not ablated',
      **ablation('videos_alone', 'report'),
    ),
    claim(
      'a second look at images beside videos, 4,000 steps',
      '§3.2.2',
      'the recipe, not ablated',
      **_LONGER,
      first='videos_alone',
      second='report',
    ),
    claim(
      'times around 0 (logit-normal) are right',
      '§3.4.1',
      'the recipe, not ablated',
      **ablation('report', 'times_0', equal=True),
      note='which way a digit goes is settled at t < .1, where times around 0 hardly train; at '
      'scale, with larger latents and far longer, that may be otherwise',
    ),
    claim(
      'a second look at times around 0, 4,000 steps',
      '§3.4.1',
      'the recipe, not ablated',
      **_LONGER,
      first='report',
      second='times_0',
      equal=True,
    ),
    claim(
      'two encoders of text are better than one of bytes',
      '§3.1.3',
      'three encoders, not ablated',
      **ablation('report', 'both_encoders'),
      note='neither is pre-trained here: what UL2 and MetaCLIP bring of language is not asked',
    ),
    claim(
      'three encoders of text (CLIP, bytes, words) are better than CLIP alone',
      '§3.1.3',
      'three encoders, not ablated',
      **_ENCODERS,
      first='clip',
      second='all_encoders',
      note='that CLIP saw pictures and captions of pictures, which say no motion, for 1,000 steps; '
      'alone it tells neither digits nor motions to a model of 2,000 steps',
    ),
    claim(
      'and better than bytes alone',
      '§3.1.3',
      'three encoders, not ablated',
      **_ENCODERS,
      first='report',
      second='all_encoders',
    ),
    claim(
      'and better than words alone',
      '§3.1.3',
      'three encoders, not ablated',
      **_ENCODERS,
      first='words',
      second='all_encoders',
    ),
    claim(
      'an encoder of bytes is as good as one of words',
      '§3.1.3',
      'three encoders, not ablated',
      **ablation('words', 'report', equal=True),
    ),
    claim(
      'rewritten prompts are followed better',
      '§3.4.3',
      'a recipe, not ablated',
      note='a language model that rewrites is not to be had without a network',
    ),
  ),
  'Stages and averages': (
    claim(
      'stages of resolution are better than the last one alone, for equal compute',
      '§3.2.2',
      'the recipe, not ablated',
      records='claims_stages',
      first='last_stage_alone',
      second='stages',
      score='validation_loss',
      better=-1,
      margin=0.01,
      note='.277 beside .339, one seed each',
    ),
    claim(
      'the average of finetunes is better than the best of them',
      '§3.3',
      'the recipe, not ablated',
      records='claims_stages',
      first='best_finetune',
      second='average',
      score='validation_loss',
      better=-1,
      margin=0.001,
      note='.2702 beside .2736; one seed of three finetunes',
    ),
  ),
  'Sampling': (
    claim(
      '25 linear-quadratic steps are nearer to 1,000 linear ones than 25 linear ones',
      '§3.4.2, Figure 10',
      'seen in pictures',
      **_NEAR,
      first='linear_25',
      second='linear_quadratic_25',
      note='they are, by less than what counts; at 8 steps by 2 dB',
    ),
    claim(
      '50 linear-quadratic steps are as near as 250 linear ones',
      '§3.4.2, Figure 10',
      '50 do what 250 do',
      **_NEAR,
      first='linear_250',
      second='linear_quadratic_50',
      equal=True,
      note='both are nearer than eyes see, 48 dB being an error of one level of 255: by what clips '
      'show, the next row, the report is to be believed',
    ),
    claim(
      '25 linear-quadratic steps show what captions say as often as 250 linear ones',
      '§3.4.2, Figure 10',
      '50 do what 250 do',
      records='claims_sampling',
      first='linear_250',
      second='linear_quadratic_25',
      score='all',
      equal=True,
      margin=0.05,
    ),
    claim(
      '8 linear-quadratic steps are nearer than 8 linear ones',
      '§3.4.2, Figure 10',
      'of 50 steps',
      **_NEAR,
      first='linear_8',
      second='linear_quadratic_8',
    ),
    claim(
      "Euler's steps are as near as the midpoint method's of as many passes",
      '§3.4.2',
      'Euler is as good',
      **_NEAR,
      first='midpoint_25',
      second='linear_quadratic_50',
      equal=True,
      note='53 dB beside 48, both unseen; where steps are few enough to be seen Euler is nearer',
    ),
    claim(
      'the same of eight passes',
      '§3.4.2',
      'Euler is as good',
      **_NEAR,
      first='midpoint_4',
      second='linear_quadratic_8',
      equal=True,
    ),
    claim(
      "50 of Euler's steps show what captions say as often as an adaptive solver",
      '§3.4.2',
      'Euler is as good',
      records='claims_sampling',
      first='adaptive',
      second='linear_quadratic_50',
      score='all',
      equal=True,
      margin=0.05,
      note='the method of Dormand and Prince to tolerances of 1e-5, hundreds of passes',
    ),
  ),
  'Autoencoder': (
    claim(
      'compression in time keeps more than that of each frame, for as many latents',
      '§3.1.1',
      'the design, not ablated',
      **_AGAIN,
      first='smaller_frames',
      second='temporal',
    ),
    claim(
      'frame by frame keeps more, with four times as many numbers',
      '§3.1.1, Table 11',
      '34.11 dB beside 32.25',
      **_AGAIN,
      first='temporal',
      second='frame_by_frame',
    ),
    claim(
      '3D convolutions keep a little more than 2.5D',
      '§3.1.1, Table 12',
      '+.29 dB, and a worse Frechet distance',
      **_AGAIN,
      first='temporal',
      second='full',
    ),
    claim(
      'a second look: the same after three times the steps',
      '§3.1.1, Table 12',
      '+.29 dB, and a worse Frechet distance',
      **_AGAIN,
      first='temporal_longer',
      second='full_longer',
      note='arms of as many parameters, so that 3D has narrower layers, and does not start as an '
      'autoencoder of frames; at equal widths, of which the report may speak, it was not asked',
    ),
    claim(
      'the outlier penalty takes the spots away, by the highest norm',
      '§3.1.1, Table 13, Figure 5',
      'spots go',
      records='claims_spots',
      first='without',
      second='with',
      score='scores/highest_norm',
      better=-1,
      margin=0.5,
    ),
    claim(
      'and clips come back better',
      '§3.1.1, Table 13',
      '+.82 dB of videos',
      records='claims_spots',
      first='without',
      second='with',
      score='scores/psnr',
      margin=0.5,
      note='spots of a small digit on black are its content, which the penalty spreads; spots of '
      'footage are without content, and of those the report is to be believed',
    ),
  ),
  'Upsampler and longer clips': (
    claim(
      'inputs that were made noisy in training are enlarged better, by the Frechet distance',
      '§3.1.5',
      'the recipe, not ablated',
      records='claims_upsampled',
      first='without_noise',
      second='with_noise',
      score='scores/degraded/plain/upsampled/frechet',
      better=-1,
      margin=0.05,
    ),
    claim(
      'and nearer to the truth, in dB',
      '§3.1.5',
      'the recipe, not ablated',
      records='claims_upsampled',
      first='without_noise',
      second='with_noise',
      score='scores/degraded/plain/upsampled/psnr',
      margin=0.5,
      note='blur, other sizes and compression are in the inputs of both, and noise is mild: what '
      'stronger noise would ask for is not said',
    ),
    claim(
      'MultiDiffusion takes away seams between tiles, by the jump across them over that elsewhere',
      '§3.1.5',
      'seams go',
      **_SEAMLESS,
      first_score=f'{_SEAMS}/across tiles{_ALONE}',
      score=f'{_SEAMS}/across tiles',
      margin=0.2,
    ),
    claim(
      'and between windows in time, by the second difference there over that elsewhere',
      '§3.1.5',
      'seams go',
      **_SEAMLESS,
      first_score=f'{_SEAMS}/second difference{_ALONE}',
      score=f'{_SEAMS}/second difference',
      margin=0.05,
      note='windows that share nothing have no seam in time either: digits move little in 6 frames',
    ),
    claim(
      'sound of many windows is best by multi-diffusion, by missed onsets',
      '§6.3.3',
      'preferred',
      records='claims_sound_windows',
      first='audio',
      second='audio',
      first_score='autoregressive/scores/missed',
      score='multi_diffusion/scores/missed',
      better=-1,
      margin=0.05,
    ),
  ),
  'Sound': (
    claim(
      'the best of 8 sounds, by their onsets, misses fewer than one',
      '§6',
      'the recipe, not ablated',
      records='claims_rerank',
      first='one',
      second='best_of_8',
      score='scores/missed',
      better=-1,
      margin=0.05,
    ),
    claim(
      'and adds fewer where nothing happens',
      '§6',
      'the recipe, not ablated',
      records='claims_rerank',
      first='one',
      second='best_of_8',
      score='scores/extra',
      better=-1,
      margin=0.05,
    ),
    claim(
      'a beam of 2 of 4 candidates a window makes better long sounds, by missed onsets',
      '§6.3.3',
      'one of the two ways, not ablated',
      records='claims_long_rerank',
      first='one',
      second='best_of_4',
      first_score='autoregressive/scores/missed',
      score='autoregressive/scores/missed',
      better=-1,
      margin=0.05,
    ),
    claim(
      'half a second of context is better than none for windows of 2 s, by missed onsets',
      '§6.3.3',
      '5 s of context for windows of 20 s',
      records='claims_sound_windows',
      first='audio',
      second='audio',
      first_score='concatenate/scores/missed',
      score='autoregressive/scores/missed',
      better=-1,
      margin=0.05,
      note='what context is for, that a sound goes on as it began, missed onsets do not tell',
    ),
    claim(
      'finetuning on better sounds after pretraining on all is preferred',
      '§6, Table 36',
      '+41.7 of 100 prefer it',
      note='sounds of the small worlds are all of one quality: there are no better ones',
    ),
  ),
  'Personalization': (
    claim(
      'cross pairs undo the copying of the reference, by its turn',
      '§4.2, Table 17',
      '+26.1 naturalness',
      **_PERSON,
      first='paired',
      second='cross_paired',
      score='copied_turn',
      better=-1,
    ),
    claim(
      'and cost identity',
      '§4.2, Table 17',
      'identity lower',
      **_PERSON,
      first='paired',
      second='cross_paired',
      score='identity',
      better=-1,
      note='here they find more hands than before: after them all of the model has trained longer',
    ),
    claim(
      'a vision tower that trains finds more than a frozen one',
      '§4.2, Table 17',
      '+16% identity',
      **_PERSON,
      first='frozen_tower',
      second='trained_tower',
      score='identity',
    ),
    claim(
      'stages find as many as all at once',
      '§4.2',
      'the recipe',
      **_PERSON,
      first='at_once',
      second='cross_paired',
      score='identity',
      equal=True,
    ),
    claim(
      'and copy less',
      '§4.2',
      'the recipe',
      **_PERSON,
      first='at_once',
      second='cross_paired',
      score='copied_turn',
      better=-1,
    ),
  ),
  'Editing': (
    claim(
      'stage II (animated pictures) is better than stage I (pictures)',
      '§5.2, Table 22',
      '89.3 of 100 prefer II',
      **_EDITING,
      first='stage_1',
      second='stage_2',
    ),
    claim(
      'stage III (backtranslation) is better than stage II',
      '§5.2',
      'preferred',
      **_EDITING,
      first='stage_2',
      second='stage_3',
      note='for as many steps more stage II came to .67 as well, in one chain of another seed',
    ),
    claim(
      'edits turned round teach more than edits as they are',
      '§5.2, Table 21',
      '70.2 of 100 prefer backtranslation',
      **_EDITING,
      first='chain_3_own_edits',
      second='chain_3',
      note='.67 beside .51',
    ),
    claim(
      'animated pictures teach more than pictures',
      '§5.2',
      'the recipe',
      **_EDITING,
      first='chain_2_not_animated',
      second='chain_2',
      note='.62 beside .54',
    ),
  ),
  'Scaling': (
    claim(
      'a text-to-video model twice as wide has a lower loss',
      '§3.6.3',
      'larger is better',
      records='claims_video',
      first='half',
      second='report',
      score='validation_loss',
      better=-1,
      margin=0.01,
    ),
    claim(
      'an autoencoder twice as wide keeps more',
      '§3.1.1',
      'not ablated',
      **_AGAIN,
      first='half',
      second='temporal',
    ),
    claim(
      'a model of sound twice as wide has a lower loss',
      '§6, Table 35',
      '3B over 300M: +29.9 net wins',
      records='claims_sound',
      first='half',
      second='report',
      score='validation_loss',
      better=-1,
      margin=0.01,
    ),
    claim(
      "Llama 3's law predicts the best size: it grows as C^.46 to .54",
      '§3.6.3, Figure 15',
      'a reasonable predictor',
      records='isoflop_images',
      second='llama',
      measure='size_exponent',
      expected=0.5,
      equal=True,
      margin=0.04,
      note='images of 1,400 handwritten digits run out of what a larger model could learn',
    ),
    claim(
      'the loss tells which run is better',
      '§3.6.2, Figure 15',
      'validation loss and preference',
      records='claims_predictor',
      first_score='validation_loss',
      score='all',
      measure='rank_correlation',
      better=-1,
      margin=0.3,
    ),
  ),
}
