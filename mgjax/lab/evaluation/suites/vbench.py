"""VBench's folder of videos, list of prompts and files of results (Huang et al. 2024).

VBench needs versions of PyTorch and other packages that conflict with ours. Run it in its own
environment on a folder that `launch.evaluate --vbench` wrote, then import its results.
"""

import json
import math
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.files import read_json
from mgjax.lab.evaluation.suites.tables import required_texts
from mgjax.lab.report.tables import markdown
from mgjax.lab.statistics.values import Mean, mean_of

RESULTS = '_eval_results.json'  # end of the names of VBench's result files
_LONGEST = 255  # bytes of a file's name
_PERCENT = 100.0  # VBench writes imaging_quality of videos in percent, its score as a share


def read_full_info(path: pathlib.Path) -> Iterator[tuple[str, tuple[str, ...]]]:
  """Yields the prompts of a VBench_full_info.json and the dimensions of each; raises DataError."""
  mend = "name VBench's VBench_full_info.json"
  rows = read_json(path, list, error=DataError, mend=mend)
  if not rows:
    raise DataError(f'{path}: has no rows; {mend}')
  for number, row in enumerate(rows, 1):
    if not isinstance(row, dict) or not isinstance(row.get('dimension', []), list):
      raise DataError(f'{path}: row {number} is not of VBench; {mend}')
    (prompt,) = required_texts(path, row, number, 'prompt_en')
    yield prompt, tuple(map(str, row.get('dimension', [])))


def video_names(prompts: Sequence[str], kinds: Sequence[str]) -> list[str]:
  """Returns '<prompt>-<sample>.mp4' of each video; samples of one prompt are counted from 0.

  A prompt that is no valid file name is shortened, and '/' in it becomes a space. VBench then reads
  it from a list of prompts. `kinds` are suffixes of the files, such as '.mp4'.
  """
  taken: Counter[str] = Counter()
  file_names = []
  for prompt, kind in zip(prompts, kinds, strict=True):
    name = re.sub(r'[/\\\0]', ' ', prompt)
    room = _LONGEST - len(f'-{len(prompts)}{kind}')
    name = name.encode()[:room].decode(errors='ignore')
    file_names.append(f'{name}-{taken[name]}{kind}')
    taken[name] += 1
  return file_names


class Dimension(NamedTuple):
  """VBench's own score of a dimension, such as 'subject_consistency', and the mean over videos.

  They differ if VBench weights videos, by frames for instance.
  """

  name: str
  score: float
  mean: Mean


def read_results(path: str | os.PathLike[str]) -> list[Dimension]:
  """Reads VBench's results: one file, or all of a folder, {dimension: [score, [videos]]}.

  Raises DataError if there is none, a file is invalid, or two have the same dimension.
  """
  path = pathlib.Path(path)
  files = sorted(path.glob(f'*{RESULTS}')) if path.is_dir() else [path]
  if not files:
    raise DataError(f'{path}: holds no file of results (*{RESULTS}); name where VBench wrote them')
  dimensions: dict[str, Dimension] = {}
  for file in files:
    results = read_json(file, error=DataError, mend=f'name a *{RESULTS} of VBench')
    for name, result in results.items():
      if name in dimensions:
        raise DataError(f'{file}: {name} is in another file of {path} as well; keep one of them')
      dimensions[name] = _dimension(file, name, result)
  if not dimensions:
    raise DataError(f'{path}: has results of no dimension; run VBench to its end')
  return list(dimensions.values())


def results_table(dimensions: Sequence[Dimension]) -> str:
  """Formats results as a table in Markdown."""
  rows = [('dimension', 'score', 'mean of videos [95%]', 'videos', 'prompts')]
  for name, score, mean in dimensions:
    counts = (str(mean.videos), str(mean.prompts)) if mean.videos else ('', '')
    rows.append((name, f'{score:.4f}', str(mean) if mean.videos else '', *counts))
  return markdown(rows)


def _dimension(file: pathlib.Path, name: str, result: Any) -> Dimension:
  score, videos = result if isinstance(result, list) and len(result) == 2 else (result, [])
  try:
    values = np.array([float(video['video_results']) for video in videos])
    prompts = [_prompt_of(video['video_path']) for video in videos]
    score = float(score)
  except (TypeError, KeyError, ValueError) as error:
    wrong = json.dumps(name)
    raise DataError(
      f'{file}: {wrong} is not [score, [{{"video_path", "video_results"}}, ...]] ({error}); name a '
      f'*{RESULTS} of VBench'
    ) from None
  mean = mean_of(values, prompts)
  if mean.videos and mean.value > 1 and math.isclose(mean.value, _PERCENT * score, rel_tol=0.02):
    mean = mean_of(values / _PERCENT, prompts)
  return Dimension(name, score, mean)


def _prompt_of(path: str) -> str:
  """Returns the prompt in a video's name, without the sample's number."""
  return re.sub(r'-\d+$', '', pathlib.PurePath(path).stem)
