"""Names of the tensors of Wan's autoencoders, by diffusers and by the original code.

Wan 2.2 nests the parts of a level in both layouts. Wan 2.1 counts all parts of the encoder in one
list, in both layouts; of the decoder only the original does.
"""

from collections.abc import Iterator

from mgjax.models.foreign_weights.names import TensorName
from mgjax.models.tae.wan import WanAutoencoder

EXPECTED = "those of Wan's autoencoder, by the names of diffusers or of the original"
_VIDEO_KERNEL = (2, 3, 4, 1, 0)  # (o i t h w) of PyTorch
_FRAME_KERNEL = (2, 3, 1, 0)  # (o i h w)
# Convolutions and norms of a residual block: ours, diffusers', the original's.
_BLOCK_CONVS = (
  ('conv1', 'conv1', 'residual.2'),
  ('conv2', 'conv2', 'residual.6'),
  ('shortcut', 'conv_shortcut', 'shortcut'),
)
_BLOCK_NORMS = (('norm1', 'norm1', 'residual.0'), ('norm2', 'norm2', 'residual.3'))

_Names = tuple[str, ...]  # of a module or tensor: diffusers', the original's


def autoencoder_rows(model: WanAutoencoder) -> tuple[TensorName, ...]:
  """Returns the table of names of an autoencoder, for both layouts."""
  return (
    *_conv('quant_conv', ('quant_conv', 'conv1')),
    *_conv('post_quant_conv', ('post_quant_conv', 'conv2')),
    *_ends('encoder'),
    *_ends('decoder'),
    *_encoder_levels(model),
    *_decoder_levels(model),
  )


def _ends(part: str) -> Iterator[TensorName]:
  """Yields the rows of what both parts have: first and last convolution, and the middle."""
  yield from _conv(f'{part}/conv_in', (f'{part}.conv_in', f'{part}.conv1'))
  yield from _conv(f'{part}/conv_out', (f'{part}.conv_out', f'{part}.head.2'))
  yield _norm(f'{part}/norm_out', (f'{part}.norm_out', f'{part}.head.0'))
  for index, place in ((0, 0), (1, 2)):
    names = f'{part}.mid_block.resnets.{index}', f'{part}.middle.{place}'
    yield from _block(f'{part}/middle/resnet_{index}', names)
  ours = f'{part}/middle/attention'
  names = f'{part}.mid_block.attentions.0', f'{part}.middle.1'
  yield _norm(f'{ours}/norm', tuple(f'{name}.norm' for name in names), axes=2)
  yield from _conv(f'{ours}/qkv', tuple(f'{name}.to_qkv' for name in names), _FRAME_KERNEL)
  yield from _conv(f'{ours}/proj', tuple(f'{name}.proj' for name in names), _FRAME_KERNEL)


def _encoder_levels(model: WanAutoencoder) -> Iterator[TensorName]:
  for level in range(len(model.widths)):
    flat = level * (model.depth + 1)
    for index in range(model.depth + 1):
      is_block = index < model.depth
      if model.shortcuts:
        inside = f'resnets.{index}' if is_block else 'downsampler'
        names = (
          f'encoder.down_blocks.{level}.{inside}',
          f'encoder.downsamples.{level}.downsamples.{index}',
        )
      else:
        names = f'encoder.down_blocks.{flat + index}', f'encoder.downsamples.{flat + index}'
      if is_block:
        yield from _block(f'encoder/down_{level}_resnet_{index}', names)
      else:
        yield from _resample(f'encoder/down_{level}_resample', names)


def _decoder_levels(model: WanAutoencoder) -> Iterator[TensorName]:
  blocks = model.depth + 1
  for level in range(len(model.widths)):
    for index in range(blocks + 1):
      is_block = index < blocks
      original = f'decoder.upsamples.{level * (blocks + 1) + index}'
      inside = f'resnets.{index}' if is_block else 'upsamplers.0'
      if model.shortcuts:
        original = f'decoder.upsamples.{level}.upsamples.{index}'
        inside = inside if is_block else 'upsampler'
      names = f'decoder.up_blocks.{level}.{inside}', original
      if is_block:
        yield from _block(f'decoder/up_{level}_resnet_{index}', names)
      else:
        yield from _resample(f'decoder/up_{level}_resample', names)


def _resample(ours: str, names: _Names) -> Iterator[TensorName]:
  yield from _conv(f'{ours}/conv', tuple(f'{name}.resample.1' for name in names), _FRAME_KERNEL)
  yield from _conv(f'{ours}/time_conv', tuple(f'{name}.time_conv' for name in names))


def _block(ours: str, names: _Names) -> Iterator[TensorName]:
  for part, *theirs in _BLOCK_CONVS:
    yield from _conv(f'{ours}/{part}', _within(names, theirs))
  for part, *theirs in _BLOCK_NORMS:
    yield _norm(f'{ours}/{part}', _within(names, theirs))


def _within(names: _Names, parts: list[str]) -> _Names:
  return tuple(f'{name}.{part}' for name, part in zip(names, parts, strict=True))


def _conv(ours: str, names: _Names, axes: tuple[int, ...] = _VIDEO_KERNEL) -> Iterator[TensorName]:
  yield TensorName(f'{ours}/kernel', tuple(f'{name}.weight' for name in names), axes)
  yield TensorName(f'{ours}/bias', tuple(f'{name}.bias' for name in names))


def _norm(ours: str, names: _Names, axes: int = 3) -> TensorName:
  """Returns the row of a norm, whose weights (c 1 1 1) have an axis of size 1 for each of x's."""
  theirs = tuple(f'{name}.gamma' for name in names)
  return TensorName(f'{ours}/scale', theirs, (*range(1, axes + 1), 0), fold=(1,) * axes)
