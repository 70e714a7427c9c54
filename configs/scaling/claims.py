r"""The paper's claims, each tried in small; docs/results/claims.md is made of their records.

python -m launch.scaling claims --config=configs/scaling/claims.py --records=docs/records \
  --out=docs/results/claims.md

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
group that is trained is one size up: half as wide again and as deep again, for twice the steps.
With the name of an arm in the place of large it is the configuration of that arm.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import audio, autoencoder, upsampler, video
from ..tae import spots
from . import ablations
from .claim_rows import CLAIMS

SEEDS = (0, 1, 2)
MORE = (0, 1, 2, 3, 4)
MANY = tuple(range(9))  # where seeds are of the noise alone, and nothing is trained
STEPS = {
  'video': 2000,
  'longer': 4000,
  'autoencoder': 500,
  'same': 300,
  'sound': 2000,
  'upsampler': 1500,
}
LARGE = 1.5  # times the width and the depth
WORDS = {'kind': 'word_text', 'width': 64, 'depth': 2, 'heads': 2, 'length': 12}


def get_config(what: str = '') -> ConfigDict:
  if not what:
    groups = (
      {'title': title, 'claims': tuple({**each, 'noise': _of_noise(each)} for each in claims)}
      for title, claims in CLAIMS.items()
    )
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


def _of_noise(claim: dict) -> bool:
  """Whether the seeds of a claim's arms are of the noise that one trained model is sampled from."""
  experiment = EXPERIMENTS.get(claim.get('records', '').removeprefix('claims_'))
  arms = experiment().arms if experiment else {}
  places = [arms[claim[arm]].get('of', '') for arm in ('first', 'second') if claim.get(arm) in arms]
  return any(place and '{seed}' not in place for place in places)


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
  return _train(_of_what_ships(video.get_config()), steps)


def _of_what_ships(config: ConfigDict) -> ConfigDict:
  config.autoencoder = 'digits/autoencoder'
  config.data.latents = 'runs/claims/latents'
  return config


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
  arms = {name: _video(steps) for name in ('report', 'videos_alone', 'times_0')}
  del arms['videos_alone'].buckets['image']
  arms['times_0'].objective.time.mean = 0.0
  for name in ('dit', 'images', 'warm'):
    arms[name] = _of_what_ships(ablations.arm(name, steps))
  arms['warm'].start_from = 'runs/claims/longer/images/seed_0'
  return _experiment(arms, {name: SEEDS if name != 'images' else (0,) for name in arms})


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
    arm.autoencoder = 'digits/codec'
    arm.data.latents = 'runs/claims/sound_latents'
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
  arms = {}
  changes = {'pairs': upsampler.get_config().pairs}
  for name in ('with_noise', 'without_noise'):
    arms[name] = {'of': f'runs/claims/upsampler/{name}/seed_{{seed}}', 'changes': changes}
  return _experiment(arms, samples=64)


def same_arms() -> ConfigDict:
  return _experiment({'report': _video(STEPS['same'])}, seeds=tuple(range(13)))


EXPERIMENTS = {
  'video': video_arms,
  'longer': longer_arms,
  'encoders': encoders_arms,
  'sampling': sampling_arms,
  'autoencoder': autoencoder_arms,
  'spots': spots_arms,
  'windows': windows_arms,
  'sound_windows': sound_windows_arms,
  'rerank': rerank_arms,
  'long_rerank': long_rerank_arms,
  'sound': sound_arms,
  'upsampler': upsampler_arms,
  'upsampled': upsampled_arms,
  'same': same_arms,
}

SAME = {
  'records': 'claims_same',
  'arm': 'report',
  'margins': {'digit': 0.05, 'validation_loss': 0.01},
}
