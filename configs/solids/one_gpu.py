r"""The models of solids on one large GPU: what they learn in twenty minutes there.

python -m launch.data encode --config=configs/solids/one_gpu.py --output=runs/solids_gpu/latents
python -m launch.train --config=configs/solids/one_gpu.py --workdir=runs/solids_gpu/video
python -m launch.train --config=configs/solids/one_gpu.py:few_steps \
  --workdir=runs/solids_gpu/few_steps
python -m launch.data encode --config=configs/solids/one_gpu.py:editing \
  --output=runs/solids_gpu/latents_editing
python -m launch.train --config=configs/solids/one_gpu.py:editing --workdir=runs/solids_gpu/editing
python -m launch.data encode --config=configs/solids/one_gpu.py:personalization \
  --output=runs/solids_gpu/latents_personalization
python -m launch.train --config=configs/solids/one_gpu.py:personalization \
  --workdir=runs/solids_gpu/personalization

It begins with what `make quickstart WORLD=solids WORKDIR=runs/solids` trained, personalization also
with the objects of configs/solids/clip.py. Encoding is work of the processor: give `encode` its
--process of --processes, and leave four cores to compile programs (docs/experiments/h200.md).
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from . import editing, few_steps, personalization, video

PLACE = 'runs/solids_gpu'
# Steps, rows of a batch, learning rate, clips that are encoded.
PARTS = {
  'video': (24_000, 128, 2e-3, 32_000),
  'few_steps': (1500, 64, 6e-4, 32_000),
  'editing': (6000, 64, 1.5e-3, 24_000),
  'personalization': (2500, 64, 1e-3, 20_000),
}


def get_config(part: str = 'video') -> ConfigDict:
  if part not in PARTS:
    raise ConfigError(f'part {part!r}: expected one of {", ".join(PARTS)}')
  steps, rows, rate, clips = PARTS[part]
  config = {
    'video': video,
    'few_steps': few_steps,
    'editing': editing,
    'personalization': personalization,
  }[part].get_config()
  own = part in ('editing', 'personalization')
  config.data.latents = f'{PLACE}/latents' + f'_{part}' * own
  config.start_from = 'runs/solids/video' if part == 'video' else f'{PLACE}/video'
  if part == 'few_steps':
    config.objective.few_steps.teacher = f'{PLACE}/video'
  if part == 'personalization':
    config.start_from = f'={PLACE}/video,identity/vision=runs/solids_objects:vision'
  for bucket in config.buckets.values():
    bucket.batch_size = rows
  config.data.threads = 4
  config.encode.train = clips
  # A loop over layers: compiled several times sooner, and a GPU loses nothing by it.
  config.model.update(dtype='bfloat16', unroll=1)
  config.optimizer.update(learning_rate=rate, warmup=300)
  config.train.update(steps=steps, log_every=500)
  config.train.evaluate_every = config.train.save_every = steps // 2
  config.train.ema_decay = 0.9995 if part == 'video' else 0.998
  return config
