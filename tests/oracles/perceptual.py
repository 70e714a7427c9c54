"""The numbers of the lpips package that `tests/models/tae/test_perceptual.py` compares with.

  python tests/oracles/perceptual.py

writes perceptual.npz: distances and features of VGG16 at its own widths, and the 1,472 trained
weights of LPIPS, which come with the package (lpips 0.1.4, BSD licence; torch 2.13.0, in float64).
VGG16's 14.7 million weights are drawn from a seed here and there, so they need not be kept.
"""

import pathlib
import sys
import types

import numpy as np

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
WIDTHS = (64, 128, 256, 512, 512)
# A letter P is a pool, a number the slice whose width a convolution has: `features` of torchvision.
LAYERS = '00P11P222P333P444'
FRAMES, SIZE = 2, (32, 40)


def draw_vgg(widths: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
  """Draws VGG16's convolutions (out, in, 3, 3) under torchvision's names.

  With deviations of sqrt(2 / fan-in) signals keep their size through all layers.
  """
  rng = np.random.RandomState(seed)  # promised to draw the same in every version of numpy
  tensors, inputs, number = {}, 3, 0
  for layer in LAYERS:
    if layer == 'P':
      number += 1
      continue
    width = widths[int(layer)]
    kernel = rng.standard_normal((width, inputs, 3, 3)) * (2 / (9 * inputs)) ** 0.5
    tensors[f'features.{number}.weight'] = kernel.astype(np.float32)
    tensors[f'features.{number}.bias'] = (rng.standard_normal(width) / 10).astype(np.float32)
    inputs, number = width, number + 2  # a ReLU has a number too
  return tensors


def draw_frames(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws frames in [-1, 1] of a shape (... h w 3) and others that are half like them."""
  rng = np.random.RandomState(seed)
  x, noise = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
  return x, (x + noise) / 2


def import_lpips():
  """Imports lpips, which asks torchvision for nothing but the layers of VGG16: they are made here.

  They are random; `pretrained` is not heard.
  """
  import torch

  def vgg16(pretrained: bool):
    layers, inputs = [], 3
    for layer in LAYERS:
      if layer == 'P':
        layers.append(torch.nn.MaxPool2d(2, 2))
        continue
      width = WIDTHS[int(layer)]
      layers += [torch.nn.Conv2d(inputs, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
      torch.nn.init.kaiming_normal_(layers[-2].weight, nonlinearity='relu')
      inputs = width
    return types.SimpleNamespace(features=torch.nn.Sequential(*layers))

  if 'lpips' in sys.modules:
    return sys.modules['lpips']
  package, models = types.ModuleType('torchvision'), types.ModuleType('torchvision.models')
  package.models, models.vgg16 = models, vgg16
  modules = {'torchvision': package, 'torchvision.models': models}
  real = {name: sys.modules[name] for name in modules if name in sys.modules}
  sys.modules |= modules
  try:
    import lpips
  finally:
    for name in modules:  # or other packages would take these for the whole torchvision
      del sys.modules[name]
    sys.modules |= real
  return lpips


def make_vectors() -> dict[str, np.ndarray]:
  """Runs the package on drawn weights and frames."""
  import torch

  model = import_lpips().LPIPS(net='vgg', pnet_rand=True, verbose=False).double()
  weights = draw_vgg(WIDTHS, 0).items()
  weights = {name.removeprefix('features.'): torch.from_numpy(x) for name, x in weights}
  for stage in model.net.children():
    stage.load_state_dict({name: weights[name] for name in stage.state_dict()})
  frames = draw_frames((FRAMES, *SIZE, 3), 1)
  x, y = (torch.from_numpy(frame).permute(0, 3, 1, 2).double() for frame in frames)
  with torch.no_grad():
    distances = model(x, y).ravel()
    features = model.net(model.scaling_layer(x))[-1].mean((2, 3))
  names = [f'lin{stage}.model.1.weight' for stage in range(5)]
  linear = {name: model.state_dict()[name].float().numpy() for name in names}
  return {'distances': distances.numpy(), 'features': features.numpy(), **linear}


if __name__ == '__main__':
  np.savez(VECTORS, **make_vectors())
