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
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.clip.pipeline import Clip
from mgjax.conditioning.edit_task import KEY as TASK
from mgjax.conditioning.source_video import KEY as SOURCE
from mgjax.core.errors import ConfigError
from mgjax.core.files import write_json
from mgjax.core.settings import Count, Magnitude, Positive, Range, check, fields_of, unpack
from mgjax.core.typing import UInt8
from mgjax.data.mixture import Source
from mgjax.data.records.rows import text_key
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.data.sources import EMPTY, longest_bucket, make_digits, make_sources
from mgjax.editing.instructions import (
  Instruction,
  Write,
  draw_task,
  make_request,
  read_answer,
  write_of_digits,
)
from mgjax.editing.pipeline import Editor
from mgjax.evaluation.metrics.directional import directional_similarity
from mgjax.evaluation.metrics.similarity import structural_similarity
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.task import about_videos
from mgjax.runtime.endpoint import Endpoint, EndpointSettings, Question
from mgjax.tae.pipeline import load_codec
from mgjax.workflows.cross_pairs import digest_of
from mgjax.workflows.make_pairs import Pair, PairsResult, make_pairs
from mgjax.workflows.row_encoder import stored_type

Cosine = Annotated[float, Range(least=-1, most=1)]
_SAMPLES_PER_SHARD = 128
_STREAMS = 2  # of random numbers of a clip: its task, its noise


@dataclasses.dataclass(frozen=True)
class Backtranslation:
  """`config.backtranslation`: who edits what, and which pairs are kept.

  Attributes:
    editor: work directory of the model of the second stage.
    clips: of the training data, at most.
    recogniser: work directory of the CLIP that judges.
    direction: least cosine of the change of the pictures and that of the captions. The report
      filters by ViCLIP; its thresholds are not in public sources.
    structure: least structural similarity of the clips. Not in public sources.
    noise: standard deviation of what is added to the latents of the edited clip. Not in public
      sources.
    tasks: that a language model is asked for, see `editing.instructions.GRAMMAR`.
    writer: fields of `EndpointSettings`, of a language model; {} for the small world, which knows.
    seed: of tasks and noise.
  """

  editor: str
  recogniser: str
  clips: Positive = 4096
  direction: Cosine = 0.2
  structure: Cosine = 0.3
  noise: Magnitude = 0.1
  tasks: tuple[str, ...] = ('recolour', 'replace', 'remove', 'add', 'background', 'style')
  writer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seed: Count = 0

  def __post_init__(self):
    check(self)


def backtranslate(
  config: ConfigDict,
  directory: str | os.PathLike[str],
  *,
  batch_size: int = 16,
  process: int = 0,
  processes: int = 1,
) -> PairsResult:
  """Writes the latents of pairs where `config.data.latents` of a run of the third stage reads them.

  The same command goes on after a stop, and ends with the same records (`make_pairs`).

  Args:
    config: of the third stage, with `backtranslation`; its data are the real clips.
    directory: what `data.latents` is then.
    batch_size: clips that are edited at a time.
    process: of the processes that work at once, this one.
    processes: how many they are.

  Raises:
    ConfigError: a field is wrong, the editor is no editor, or as `make_pairs`.
    DataError: there is no clip, or no pair was kept.
  """
  settings = unpack(Backtranslation, fields_of(config, 'backtranslation'), 'backtranslation')
  data = data_settings(fields_of(config, 'data')).without_latents().of('')
  shapes = video_shapes(fields_of(config, 'buckets'), config.data.fps)
  bucket, shape = longest_bucket(
    {name: each for name, each in shapes.items() if not config.buckets[name].get('source')}
  )
  directory = pathlib.Path(directory)
  source, write = _clips(settings, data, bucket, shape, directory)
  editor, codec = Editor(settings.editor), load_codec(config.autoencoder)
  judge = functools.partial(_scores, Clip(settings.recogniser))
  dtype = stored_type(config.encode.dtype)
  conditionings = make_flow_model(fields_of(config, 'model')).conditionings

  def make(
    indices: Sequence[int], samples: Sequence[Mapping[str, Any]]
  ) -> Iterator[Sequence[Pair]]:
    told, clips = write(indices, samples), np.stack([sample['video'] for sample in samples])
    asked = [each or Instruction('', '', '', '', '', '') for each in told]
    filled = list(range(len(clips))) + [0] * (batch_size - len(clips))  # one program serves all
    edited = editor.generate(
      [asked[row].forward for row in filled],
      video=[clips[row] for row in filled],
      task=[asked[row].forward_task for row in filled],
      seed=settings.seed,
      first=indices[0],
      batch_size=batch_size,
    )
    real, made = (np.asarray(codec.encode(each[filled]), np.float32) for each in (clips, edited))
    for row, (index, instruction) in enumerate(zip(indices, told, strict=True)):
      shown = [clips[row], edited[row]]
      if instruction is None:
        yield [Pair(f'clip {index}', None, {}, 'no instruction', shown)]
        continue
      scores = judge(instruction, *shown)
      latents = {
        'latents': real[row].astype(dtype),
        SOURCE: (made[row] + settings.noise * _noise(settings.seed, index, made[row])).astype(
          dtype
        ),
        'caption': instruction.backward,
        'text_key': text_key(instruction.backward),
        TASK: instruction.backward_task,
        'fps': samples[row].get('fps', config.data.fps),
      }
      title = f'{instruction.forward}; back: {instruction.backward}'
      yield [Pair(title, latents, scores, _reason(settings, scores), shown)]

  made = make_pairs(
    source,
    make,
    directory / 'train' / bucket,
    meta={
      'statistics': codec.statistics.as_dict(),
      'dtype': config.encode.dtype,
      **about_videos(shape, conditionings, codec),
      'data': data.content(),
      'editor': digest_of(settings.editor),
      'recogniser': digest_of(settings.recogniser),
      'sampling': editor.settings,
      'backtranslation': {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in ('editor', 'recogniser')
      },
    },
    batch_size=batch_size,
    samples_per_shard=_SAMPLES_PER_SHARD,
    process=process,
    processes=processes,
  )
  if made.finished:  # pairs are made of training data alone
    write_json(directory / 'validation' / EMPTY, [bucket])
  return made


class _First:
  """The first samples of a source."""

  def __init__(self, source: Source, count: int):
    self.source, self._count = source, min(count, len(source))

  @property
  def fingerprint(self) -> str:
    return f'{self.source.fingerprint}, the first {self._count}'

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return self.source[index]


def _clips(
  settings: Backtranslation, data: DataSettings, bucket: str, shape: Any, directory: pathlib.Path
) -> tuple[Source, Write]:
  """Returns the real clips, and what writes their instructions."""
  if settings.writer:
    source = make_sources(data, {bucket: shape}, 'train')[bucket]
    endpoint = Endpoint(
      unpack(EndpointSettings, settings.writer, 'backtranslation.writer'), directory / 'answers'
    )
    return _First(source, settings.clips), functools.partial(_write_by, endpoint, settings)
  if data.kind != 'digits':
    raise ConfigError(
      'backtranslation.writer is empty, and only the moving digits know their instructions; name '
      "the model of a server, as in {'model': 'llama', 'url': 'http://127.0.0.1:8000/v1'}"
    )
  source = make_digits(data, 'train', frames=shape.frames, size=shape.size)
  return _First(source, settings.clips), write_of_digits(source)


def _write_by(
  endpoint: Endpoint,
  settings: Backtranslation,
  indices: Sequence[int],
  samples: Sequence[Mapping[str, Any]],
) -> list[Instruction | None]:
  """Asks a language model; its answers are kept on disk, so that the same call gives the same."""
  captions = [str(sample['caption']) for sample in samples]
  tasks = [draw_task(settings.tasks, settings.seed, index) for index in indices]
  questions = [Question(make_request(*each)) for each in zip(captions, tasks, strict=True)]
  answers = endpoint.ask_all(questions, read_answer)
  return [
    None if answer is None else answer._replace(caption=caption)
    for answer, caption in zip(answers, captions, strict=True)
  ]


def _scores(
  clip: Clip,
  instruction: Instruction,
  before: UInt8[np.ndarray, 't h w 3'],
  after: UInt8[np.ndarray, 't h w 3'],
) -> dict[str, float]:
  frames = clip.encode_frames(np.stack([before, after])).mean(1)
  texts = clip.encode_texts([instruction.caption, instruction.target])
  return {
    'direction': float(directional_similarity(*(each[None] for each in (*frames, *texts)))[0]),
    'structure': float(structural_similarity(before, after).mean()),
  }


def _reason(settings: Backtranslation, scores: Mapping[str, float]) -> str:
  if not scores['direction'] >= settings.direction:  # NaN where nothing changed
    return 'not as instructed'
  return '' if scores['structure'] >= settings.structure else 'another scene'


def _noise(seed: int, index: int, like: np.ndarray) -> np.ndarray:
  return np.random.default_rng((seed, index, _STREAMS)).standard_normal(like.shape, np.float32)
