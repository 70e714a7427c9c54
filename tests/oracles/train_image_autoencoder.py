r"""Trains diffusers' image autoencoder frame by frame, beside `configs/tae/footage.py`.

python -m tests.oracles.train_image_autoencoder --config=configs/tae/footage.py:my_clips/ \
  --workdir=runs/footage_diffusers
The same batches in the same order, widths, steps, learning rates and losses (without temporal
layers and compression of time, of course); afterwards the PSNR of the averaged weights on every
window of the clips, as `launch.evaluate` measures it. The weights stay in WORKDIR/vae. Needs
requirements/oracle.txt.
"""

import copy
import json
import logging
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from launch import command_line
from mgjax.data.batch_order import ShapeBucket, make_batches
from mgjax.data.loader import StepIterator
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.data.sources import make_sources, make_transform
from mgjax.training.optimizers.optimizer import make_learning_rate
from mgjax.training.settings import optimizer_settings

_CONFIG = command_line.define_config('configs/tae/footage.py:my_clips/')
_WORKDIR = command_line.define_required(
  'workdir', 'runs/footage_diffusers', 'Directory for metrics and the picture.'
)
_SHOWN = 4


def make_model(fields) -> AutoencoderKL:
  halvings = sum(stride[1] == 2 for stride in fields.strides)
  levels, pixels = halvings + 1, 3 * fields.patch[1] * fields.patch[2]
  return AutoencoderKL(
    in_channels=pixels,
    out_channels=pixels,
    block_out_channels=tuple(fields.widths)[:levels],
    down_block_types=('DownEncoderBlock2D',) * levels,
    up_block_types=('UpDecoderBlock2D',) * levels,
    layers_per_block=fields.blocks,
    latent_channels=fields.latent_channels,
    norm_num_groups=fields.groups,
    use_quant_conv=False,
    use_post_quant_conv=False,
    sample_size=128,
  )


def frames_of(video: np.ndarray, patch: int) -> torch.Tensor:
  """(b t h w 3) bytes to (b t, 3 patch^2, h / patch, w / patch) in [-1, 1]."""
  flat = np.ascontiguousarray(video.reshape(-1, *video.shape[2:]).transpose(0, 3, 1, 2))
  return F.pixel_unshuffle(torch.from_numpy(flat).float() / 127.5 - 1, patch)


def train(config, workdir: pathlib.Path) -> AutoencoderKL:
  torch.manual_seed(config.seed)
  torch.set_num_threads(2)
  model = make_model(config.model)
  average = copy.deepcopy(model)
  fields, weights = config.optimizer, config.objective
  rate = make_learning_rate(optimizer_settings(fields.to_dict()), config.train.steps)
  optimizer = torch.optim.AdamW(
    model.parameters(), betas=(fields.beta1, fields.beta2), weight_decay=fields.weight_decay
  )
  transform = make_transform((), ('video',))
  data = data_settings(config.data.to_dict())
  shapes = video_shapes(config.buckets.to_dict(), data.fps)
  sources = make_sources(data, shapes, 'train')
  buckets = [
    ShapeBucket(name, sources[name], shape.batch_size, shape.weight, transform)
    for name, shape in config.buckets.items()
  ]
  batches = make_batches(buckets, seed=config.seed)
  began, rows = time.monotonic(), []
  with StepIterator(batches, 0, threads=config.data.threads) as loader:
    for step in range(config.train.steps):
      for group in optimizer.param_groups:
        group['lr'] = float(rate(step))
      x = frames_of(next(loader)['video'], config.model.patch[1])
      posterior = model.encode(x).latent_dist
      y = model.decode(posterior.sample()).sample
      squared = (x - y).square().mean()
      divergence = 0.5 * (posterior.mean.square() + posterior.var - posterior.logvar - 1).mean()
      loss = (x - y).abs().mean() + weights.squared * squared + weights.prior * divergence
      optimizer.zero_grad()
      loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), fields.clip)
      optimizer.step()
      decay = min(config.train.ema_decay, (1 + step) / (10 + step))
      with torch.no_grad():
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
          kept.lerp_(new, 1 - decay)
      rows.append(float(10 * torch.log10(4 / squared)))
      if (step + 1) % config.train.log_every == 0:
        line = {
          'step': step + 1,
          'psnr': np.mean(rows),
          'loss': float(loss),
          'seconds': time.monotonic() - began,
        }
        with open(workdir / 'metrics.jsonl', 'a') as file:
          file.write(json.dumps(line) + '\n')
        logging.info('%s', line)
        rows = []
  average.save_pretrained(workdir / 'vae')
  return average.eval()


@torch.no_grad()
def evaluate(model: AutoencoderKL, config, workdir: pathlib.Path) -> None:
  data = data_settings(config.data.to_dict())
  name, shape = longest_bucket(video_shapes(config.buckets.to_dict(), data.fps))
  source = make_sources(data, {name: shape}, 'validation')[name]
  scores, sheet, titles = [], [], []
  for index in range(len(source)):
    video = source[index]['video']
    y = model.decode(
      model.encode(frames_of(video[None], config.model.patch[1])).latent_dist.mean
    ).sample
    y = F.pixel_shuffle(y, config.model.patch[1])
    again = ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    error = np.mean((video.astype(np.float64) - again) ** 2, axis=(1, 2, 3)) / 255**2
    scores.append(float(np.mean(-10 * np.log10(error))))
    if index % -(-len(source) // _SHOWN) == 0:
      sheet += [video, again]
      titles += ['original', 'frame by frame']
  contact_sheet(workdir / 'reconstruction.png', sheet, titles)
  (workdir / 'evaluation.json').write_text(
    json.dumps({'psnr': np.mean(scores), 'clips': len(scores), 'scores': scores})
  )
  print(f'PSNR {np.mean(scores):.2f} dB over {len(scores)} windows')


def main(_) -> None:
  config = _CONFIG.value
  workdir = pathlib.Path(_WORKDIR.value)
  workdir.mkdir(parents=True, exist_ok=True)
  evaluate(train(config, workdir), config, workdir)


if __name__ == '__main__':
  command_line.run(main)
