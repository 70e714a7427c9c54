"""Scores how well audio matches captions, with CLAP through transformers.

python score_clap.py --weights=folder [--device=cuda] request.json answer.json
`mgjax/lab/evaluation/external_scorers.py` runs it, and says what the two files hold. Any Python
that has torch and transformers will do: nothing of mgjax is imported. The number, 'clap', is the
cosine of the embeddings of sound and caption. What is longer than CLAP hears at once is cut into
equal pieces, and their cosines are averaged: its own way with long sounds is to take a random part.
"""

import argparse
import json
import pathlib
import wave

import numpy as np


def main() -> None:
  """Reads the request, writes the answer."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--weights', required=True)
  parser.add_argument('--device', default='cpu')
  parser.add_argument('request')
  parser.add_argument('answer')
  words = parser.parse_args()
  request = json.loads(pathlib.Path(words.request).read_text())
  if not request['captions']:
    parser.error('CLAP compares sounds with captions, and the request has none')
  sounds = [read_mono(path) for path in request['sounds']]
  scores = score(words.weights, words.device, sounds, request['rate'], request['captions'])
  pathlib.Path(words.answer).write_text(json.dumps({'clap': scores}))


def read_mono(path: str) -> np.ndarray:
  """Reads a wav of 16 bits as the mean of its channels, in [-1, 1]."""
  with wave.open(path) as file:
    samples = np.frombuffer(file.readframes(file.getnframes()), '<i2')
    return samples.reshape(-1, file.getnchannels()).mean(1) / 32768


def score(
  weights: str, device: str, sounds: list[np.ndarray], rate: int, captions: list[str]
) -> list[float]:
  """Returns the mean cosine of the pieces of each sound and its caption."""
  import torch  # pyright: ignore[reportMissingImports]
  import transformers  # pyright: ignore[reportMissingImports]

  model = transformers.ClapModel.from_pretrained(weights, local_files_only=True)
  model = model.to(device).eval()
  processor = transformers.ClapProcessor.from_pretrained(weights, local_files_only=True)
  extractor = processor.feature_extractor
  scores = []
  for sound, caption in zip(sounds, captions, strict=True):
    tokens = processor.tokenizer(caption, truncation=True, return_tensors='pt')
    cosines = []
    # One by one: of a batch, a random sound would be taken for one longer than its window.
    for piece in np.array_split(sound, -(-len(sound) // extractor.nb_max_samples)):
      features = extractor(piece, sampling_rate=rate, return_tensors='pt')
      inputs = {name: value.to(device) for name, value in {**tokens, **features}.items()}
      with torch.no_grad():
        found = model(**inputs)
      cosines.append(float((found.audio_embeds * found.text_embeds).sum()))
    scores.append(float(np.mean(cosines)))
  return scores


if __name__ == '__main__':
  main()
