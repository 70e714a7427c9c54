"""Makes openclip.npz: what OpenCLIP's two model classes answer with weights drawn by name.

python -m tests.oracles.openclip
It was made with open_clip_torch 3.3.0, torch 2.13.0 and numpy 2.4.6; OpenCLIP, which asks for
torchvision and timm, is not among requirements/oracle.txt. `CLIP` has the names of OpenAI's own
files. Weights are not in the file: both sides draw them.
"""

import json
import pathlib

import numpy as np

from tests.oracles import clip, codec

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
# Class -> whether with OpenAI's activation.
MODELS = {'CLIP': True, 'CustomTextCLIP': False}
TEXT = {'context_length': 12, 'vocab_size': 50, 'width': 32, 'heads': 4, 'layers': 2}
VISION = {'layers': 2, 'width': 48, 'head_width': 16, 'patch_size': 7, 'image_size': 28}
PROJECTION = 16
END = TEXT['vocab_size'] - 1


def draw_tokens() -> np.ndarray:
  """Returns three prompts (b m), ended by the largest token and filled up with zeros."""
  tokens = np.random.RandomState(0).randint(1, END - 1, (3, TEXT['context_length']))
  for row, last in enumerate((11, 5, 1)):
    tokens[row, last], tokens[row, last + 1 :] = END, 0
  return tokens.astype(np.int32)


def draw_images() -> np.ndarray:
  """Returns three images (b h w 3) in [0, 1]."""
  shape = (3, VISION['image_size'], VISION['image_size'], 3)
  return np.random.RandomState(1).uniform(size=shape).astype(np.float32)


def answers(name: str) -> dict[str, np.ndarray]:
  """Returns the vectors of prompts and of images, and the names and shapes of tensors."""
  import torch
  from open_clip import model as open_clip

  towers = open_clip.CLIPVisionCfg(**VISION), open_clip.CLIPTextCfg(**TEXT)
  model = getattr(open_clip, name)(PROJECTION, *towers, quick_gelu=MODELS[name])
  state = model.state_dict()
  drawn = {key: torch.tensor(clip.draw(key, tuple(x.shape))) for key, x in state.items()}
  model.load_state_dict(drawn)
  pixels = torch.tensor((draw_images() - clip.MEAN) / clip.STD, dtype=torch.float64)
  model = model.double().eval()
  with torch.no_grad():
    text = model.encode_text(torch.tensor(draw_tokens()).long()).numpy()
    vision = model.encode_image(pixels.permute(0, 3, 1, 2)).numpy()
  shapes = json.dumps({key: list(x.shape) for key, x in state.items()})
  return {'text': text, 'vision': vision, 'shapes': np.array(shapes)}


if __name__ == '__main__':
  codec.write_vectors(VECTORS, {name: answers(name) for name in MODELS})
