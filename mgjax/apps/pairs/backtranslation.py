"""Pairs that an editing model makes of real clips, for its third stage (Movie Gen §5).

The model edits a real clip x by an instruction into x'; a writer turns the instruction round, and a
filter keeps what is told apart by it and still alike. Training goes from x', with noise, and the
instruction back, to x: what the model learns to make was filmed, and what is wrong with x' is only
ever a condition.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import numpy as np

from mgjax.apps.encode import stored_prompts, stored_type
from mgjax.apps.pairs.cross_pairs import digest_of
from mgjax.apps.pairs.make_pairs import PAGE, Pair, PairMaker, PairsResult, make_pairs, rounded
from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import write_json
from mgjax.core.settings import Checked, Count, Magnitude, Positive, Range, fields_of, unpack
from mgjax.core.typing import UInt8
from mgjax.data.broken_samples import Replacing
from mgjax.data.buckets import Shape
from mgjax.data.records.rows import text_key
from mgjax.data.records.writer import ALONE, Share
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.data.source import Source
from mgjax.data.sources import EMPTY, SPLITS, make_sources, make_world
from mgjax.data.synthetic_datasets import judged
from mgjax.lab.evaluation.metrics.embeddings import directional_similarity
from mgjax.lab.evaluation.metrics.similarity import structural_similarity
from mgjax.lab.language_models.endpoint import Endpoint, EndpointSettings, Question
from mgjax.models.conditioning.clips.source_video import SOURCE_VIDEO_KEY as SOURCE
from mgjax.models.conditioning.edit_task import TASK_KEY as TASK
from mgjax.models.flow_model.build import make_flow_model
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.clip.pipeline import Clip
from mgjax.sections.editing.instructions import (
  Instruction,
  Write,
  draw_task,
  make_request,
  read_answer,
  write_of_world,
)
from mgjax.sections.editing.pipeline import Editor
from mgjax.sections.editing.requests import EDIT
from mgjax.sections.text.embeddings import TextSettings, embed_prompts
from mgjax.sections.video.section import about_videos

Cosine = Annotated[float, Range(least=-1, most=1)]
_STREAMS = 2  # of random numbers of a clip: its task, its noise


@dataclasses.dataclass(frozen=True)
class Backtranslation(Checked):
  """`config.backtranslation`: who edits what, and which pairs are kept.

  Attributes:
    editor: work directory of the model of the second stage.
    clips: of the training data in a bucket, at most.
    validation: clips of the validation data in a bucket, at most.
    recogniser: work directory of the CLIP that judges.
    direction: least cosine of the change of the pictures and that of the captions. The paper
      filters by ViCLIP; its thresholds are not in public sources.
    structure: least structural similarity of the clips. Not in public sources.
    noise: standard deviation of what is added to the latents of the edited clip. Not in public
      sources.
    tasks: that a language model is asked for, see `sections.editing.instructions.GRAMMAR`.
    writer: fields of `EndpointSettings`, of a language model; {} for synthetic data with edits.
    seed: of tasks and noise.
    own_edits: True leads from the real clip to the edited one: training on what the model makes
      itself, with which the paper compares (Table 21).
  """

  editor: str
  recogniser: str
  clips: Positive = 4096
  validation: Positive = 256
  direction: Cosine = 0.2
  structure: Cosine = 0.3
  noise: Magnitude = 0.1
  tasks: tuple[str, ...] = ('recolour', 'replace', 'remove', 'add', 'background', 'style')
  writer: Fields = dataclasses.field(default_factory=dict)
  seed: Count = 0
  own_edits: bool = False


def backtranslate(
  config: Fields,
  directory: str | os.PathLike[str],
  *,
  batch_size: int = 16,
  samples_per_shard: int = 128,
  share: Share = ALONE,
) -> dict[str, PairsResult]:
  """Writes the latents of pairs for `config.data.latents` of a third-stage run.

  The same command goes on after a stop, and ends with the same records (`make_pairs`).

  Args:
    config: of the third stage, with `backtranslation`, as plain values; its data without a source
      are the clips.
    directory: what `data.latents` is then.
    batch_size: clips that are edited at a time.
    share: of the work, where several processes do it at once.

  Returns:
    'train/<bucket>' and 'validation/<bucket>' -> how many pairs there are.

  Raises:
    ConfigError: a field is wrong, the editor is no editor, or as `make_pairs`.
    DataError: there is no clip, or no pair of a split was kept.
  """
  settings = unpack(Backtranslation, fields_of(config, 'backtranslation'), 'backtranslation')
  text = TextSettings.of(config)
  data = data_settings(fields_of(config, 'data')).without_latents().of('')
  shapes = video_shapes(fields_of(config, 'buckets'), data.fps)
  shapes = {name: shape for name, shape in shapes.items() if not shape.source}
  directory = pathlib.Path(directory)
  clips = {
    split: _clips(settings, data, shapes, split, directory, samples_per_shard) for split in SPLITS
  }
  maker = _Maker(config, settings, batch_size)
  results: dict[str, PairsResult] = {}
  for split in SPLITS:
    split_results = {
      bucket: make_pairs(
        source,
        PairMaker(
          functools.partial(maker.make, write),
          meta=maker.about(shapes[bucket]) | {'data': data.content()},
        ),
        directory / split / bucket,
        batch_size=batch_size,
        samples_per_shard=samples_per_shard,
        share=share,
        refuse_none=False,
      )
      for bucket, (source, write) in clips[split].items()
    }
    results |= {f'{split}/{bucket}': result for bucket, result in split_results.items()}
    if all(result.finished for result in split_results.values()):
      _finish(directory / split, shapes, split_results)
  if text.encoders and all(result.finished for result in results.values()):
    embed_prompts(text, text.store(directory), stored_prompts(list(shapes), directory))
  return results


def _finish(
  directory: pathlib.Path, shapes: Mapping[str, Shape], results: Mapping[str, PairsResult]
) -> None:
  """Writes down which buckets of a split have no pairs; DataError if none has any."""
  empty = sorted(name for name in shapes if name not in results or not results[name].rows)
  if len(empty) == len(shapes):
    summary = '; '.join(f'{name}: {result}' for name, result in results.items())
    raise DataError(
      f'{directory}: {summary}, so nothing is left to train on; {PAGE} in the folder of a bucket '
      'shows all pairs; lower backtranslation.direction and .structure or train the editor for '
      'longer, and write into another directory'
    )
  write_json(directory / EMPTY, empty)


class _Maker:
  def __init__(self, config: Fields, settings: Backtranslation, batch_size: int):
    self._settings = settings
    self._batch_size = batch_size
    self._stored = config['encode']['dtype']
    self._editor = Editor(settings.editor)
    self._codec = load_codec(config['autoencoder'])
    self._clip, self._dtype = Clip(settings.recogniser), stored_type(self._stored)
    self._conditionings = make_flow_model(fields_of(config, 'model')).conditionings
    # Before anything is asked or made.
    self._editor.check_edit(EDIT, ['.'], settings.tasks if settings.writer else [])

  def about(self, shape: Shape) -> JSON:
    """Returns what pairs depend on beside the clips, as plain JSON values."""
    settings = dataclasses.asdict(self._settings)
    writer = {name: settings['writer'].get(name) for name in ('model', 'options')}
    del settings['clips'], settings['validation']  # the fingerprint of the clips has them
    return {
      'statistics': self._codec.statistics.as_dict(),
      'dtype': self._stored,
      **about_videos(shape, self._conditionings, self._codec),
      'sampling': self._editor.settings,
      'backtranslation': settings
      | {name: digest_of(settings[name]) for name in ('editor', 'recogniser')}
      | {'writer': writer},  # where its server is and how patiently it is asked does not count
    }

  def make(
    self, write: Write, indices: Sequence[int], samples: Sequence[Fields]
  ) -> Iterator[Sequence[Pair]]:
    instructions = write(indices, samples)
    clips = np.stack([sample['video'] for sample in samples])
    all_instructions = [
      instruction or Instruction('', '', '', '', '', '') for instruction in instructions
    ]
    # One program serves all batches.
    filled = [*range(len(clips)), *[0] * (self._batch_size - len(clips))]
    edited = self._editor.generate(
      [all_instructions[row].forward or '.' for row in filled],
      video=[clips[row] for row in filled],
      task=[all_instructions[row].forward_task for row in filled],
      seed=self._settings.seed,
      first=indices[0],
      batch_size=self._batch_size,
    )
    real, edited_latents = (
      np.asarray(self._codec.encode(x[filled]), np.float32) for x in (clips, edited)
    )
    for row, index in enumerate(indices):
      pair = clips[row], edited[row]
      if (instruction := instructions[row]) is None:
        yield [Pair(f'clip {index}', None, {}, 'no instruction', pair)]
        continue
      raw_scores = _scores(self._clip, instruction, *pair)
      scores = {name: rounded(score) for name, score in raw_scores.items()}
      source = edited_latents[row]
      target = real[row]
      way = (instruction.backward, instruction.backward_task)
      if self._settings.own_edits:
        source, target, way = target, source, (instruction.forward, instruction.forward_task)
      generator = np.random.default_rng((self._settings.seed, index, _STREAMS))
      noise = self._settings.noise * generator.standard_normal(source.shape, np.float32)
      latents = {
        'latents': target.astype(self._dtype),
        SOURCE: (source + noise).astype(self._dtype),
        'caption': way[0],
        'text_key': text_key(way[0]),
        TASK: way[1],
        **{name: samples[row][name] for name in ('source', 'fps') if name in samples[row]},
      }
      title = f'{instruction.forward}; back: {instruction.backward}'
      yield [Pair(title, latents, scores, _reason(self._settings, scores), pair)]


class _First:
  def __init__(self, source: Source, count: int):
    self.source = source
    self._count = min(count, len(source))

  @property
  def fingerprint(self) -> str:
    return f'{self.source.fingerprint}, the first {self._count}'

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> Fields:
    return self.source[index]


def _clips(
  settings: Backtranslation,
  data: DataSettings,
  shapes: Mapping[str, Shape],
  split: str,
  directory: pathlib.Path,
  samples_per_shard: int,
) -> dict[str, tuple[Source, Write]]:
  """Returns the real clips of each bucket of a split, and the function that writes instructions."""
  if not settings.writer and data.kind not in (knowing := judged('edits')):
    raise ConfigError(
      f'backtranslation.writer is empty, and only {" and ".join(knowing)} know their instructions; '
      "name the model of a server, as in {'model': 'llama', 'url': 'http://127.0.0.1:8000/v1'}"
    )
  if not settings.writer and not data.world.get('edits'):
    raise ConfigError(
      f'data.{data.kind}.edits is empty, so there is nothing to do; expected some, as in '
      "('recolour',)"
    )
  most = settings.clips if split == 'train' else settings.validation
  buckets = {}
  for name, source in make_sources(data, shapes, split).items():
    if settings.writer:
      endpoint_settings = unpack(EndpointSettings, settings.writer, 'backtranslation.writer')
      answers = directory / 'answers' / split / name
      write = functools.partial(_write_by, endpoint_settings, answers, samples_per_shard, settings)
    else:
      shape = shapes[name]
      write = write_of_world(make_world(data, split, frames=shape.frames, size=shape.size))
    source = Replacing(source, name, directory / 'quarantine.jsonl')
    buckets[name] = _First(source, most), write
  return buckets


def _write_by(
  endpoint_settings: EndpointSettings,
  answers: pathlib.Path,
  samples_per_shard: int,
  settings: Backtranslation,
  indices: Sequence[int],
  samples: Sequence[Fields],
) -> list[Instruction | None]:
  """Asks a language model; caches its answers on disk, so repeated calls return the same."""
  # One process at a time uses a folder of answers, as it does a shard.
  endpoint = Endpoint(endpoint_settings, answers / f'{indices[0] // samples_per_shard:05d}')
  captions = [str(sample['caption']) for sample in samples]
  tasks = [draw_task(settings.tasks, settings.seed, index) for index in indices]
  questions = [Question(make_request(*pair)) for pair in zip(captions, tasks, strict=True)]
  answered = endpoint.ask_all(questions, functools.partial(read_answer, tasks=settings.tasks))
  return [
    None if answer is None else answer._replace(caption=caption)
    for answer, caption in zip(answered, captions, strict=True)
  ]


def _scores(
  clip: Clip,
  instruction: Instruction,
  before: UInt8[np.ndarray, 't h w 3'],
  after: UInt8[np.ndarray, 't h w 3'],
) -> dict[str, float]:
  frames = clip.encode_frames(np.stack([before, after]))
  texts = clip.encode_texts([instruction.caption, instruction.target])
  similar = directional_similarity(*(vector[None] for vector in (*frames, *texts)))
  return {
    'direction': float(similar.direction[0]),
    'structure': float(structural_similarity(before, after).mean()),
  }


def _reason(settings: Backtranslation, scores: Mapping[str, float]) -> str:
  if not scores['direction'] >= settings.direction:  # NaN where nothing changed
    return 'not as instructed'
  return '' if scores['structure'] >= settings.structure else 'another scene'
