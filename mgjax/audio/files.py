"""Writes soundtracks: the video with its audio, a wav, a spectrogram and how it was made."""

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Annotated, Any

import numpy as np

from mgjax.audio.captions import structured
from mgjax.audio.extend import Extension, Seconds
from mgjax.audio.pipeline import AudioPipeline, count_candidates
from mgjax.audio.rerank import Scorer
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json, write_json
from mgjax.core.settings import Count, Positive, Range, check
from mgjax.core.typing import Float
from mgjax.flow.windows import Cover
from mgjax.flow_models.files import describe_conditions
from mgjax.media.audio import probe_audio, stream_audio, write_soundtrack, write_wav_stream
from mgjax.media.audio_sheet import audio_sheet
from mgjax.media.loudness import SILENT, Level, amplified, measure_loudness
from mgjax.media.provenance import release
from mgjax.runtime.progress import Progress
from mgjax.text.prompts import clean_prompt

CEILING = -1.0  # dB under full scale that no sample goes above
# What a sound is amplified by at most, in dB, so that -40 LUFS and above are brought to -16. What
# is softer is hardly a recording of anything, and may be no more than a model's noise.
GAIN_LIMIT = 24.0
_PIECE = 10  # seconds that are held at a time
_ROW = 30.0  # seconds in a row of the picture
_ROWS = 8  # of the picture: of a long sound the beginning
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Request:
  """One soundtrack to make.

  Attributes:
    prompt: the caption, from `request_caption`.
    video: file that the sound is for, or None.
    seconds: length without a video; with one None, for it has its own.
    given: file with sound to go on with, or None.
    spans: seconds of it that stay, begin and end; None is all.
    extension: how to go beyond the length of training.
    seed: of all noise.
    candidates: of each window or block; None is 8 with a video or a scorer, and else 1.
    beams: histories that are carried on.
    rows: windows in a call of the model.
    loudness: in LUFS; None leaves the sound as loud as it comes, lowered if it would clip.
    gain_limit: in dB, what it is amplified by at most. Not in public sources.
    conditions: beside the prompt, by the names of the fields that the model reads.
  """

  prompt: str
  video: str | None = None
  seconds: Seconds | None = None
  given: str | None = None
  spans: Sequence[tuple[float, float]] | None = None
  extension: Extension = dataclasses.field(default_factory=Extension)
  seed: Count = 0
  candidates: Positive | None = None
  beams: Positive = 1
  rows: Positive = 8
  loudness: Annotated[float, Range(least=-60, most=0)] | None = -16.0
  gain_limit: Annotated[float, Range(least=0, most=60)] = GAIN_LIMIT
  conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(self)


def request_caption(
  pipeline: AudioPipeline, prompt: str, *, music: str = '', quality: float | None = None
) -> str:
  """Returns the caption for the model: structured, or unchanged for the digits world.

  The captions of the small world are bare; with `music` or a `quality` they are structured too.

  Raises:
    ConfigError: the prompt holds no text, or what it says cannot be.
  """
  bare = pipeline.config.data.kind == 'digits' and not music and quality is None
  return clean_prompt(prompt) if bare else str(structured(prompt, music=music, quality=quality))


def write_files(
  pipeline: AudioPipeline,
  request: Request,
  out: str | os.PathLike[str],
  scorer: Scorer | None = None,
) -> list[pathlib.Path]:
  """Makes a soundtrack and writes it, in memory that hardly grows with its length.

  Samples go to a temporary file beside `out`, and from there by one factor to the loudness that is
  asked for; silence stays as it is. A soundtrack that is gone on with is taken as loud as it was
  made: its json says by which factor it was written. Beside an .mp4 (the pictures of the video
  untouched, the sound as AAC) or a .wav there are a .wav, a .png with waveform and spectrogram, of
  the first four minutes, and a .json with everything needed to make it again.

  Returns:
    What was written.

  Raises:
    ConfigError: what is asked for does not fit together; before anything is made.
    DataError: a file cannot be read.
    NonFiniteError: the model answers with what is no number.
  """
  release.admit([request.prompt])
  paths = _paths(pathlib.Path(out), request)
  video_track = None if request.video is None else pipeline.video_track(request.video)
  seconds = request.seconds if video_track is None else video_track.seconds
  if seconds is None:
    raise ConfigError('how long? without a video the length is given: --seconds=10')
  outer, inner = pipeline.plan(seconds, request.extension)
  given, given_gain = None, 1.0
  if request.given is not None:
    probe_audio(request.given)
    given_gain = _written_gain(pathlib.Path(request.given))

    def stream() -> Iterator[np.ndarray]:
      sound = stream_audio(request.given, rate=pipeline.rate, channels=pipeline.channels)
      return amplified(sound, 1 / given_gain)

    given = pipeline.given(stream, seconds, request.spans)
  (unknown,) = pipeline.tell([request.prompt])
  progress = Progress(len(outer.starts), unit='window')
  with (
    contextlib.closing(progress),
    contextlib.ExitStack() as compiling,
    _held(paths[-1]) as file,
  ):
    compiling.enter_context(progress.waiting('compiling the sampler'))

    def report(done: int) -> None:
      compiling.close()
      progress.report(done)

    sound = pipeline.stream(
      request.prompt,
      seconds=seconds,
      video=video_track,
      given=given,
      extension=request.extension,
      seed=request.seed,
      candidates=request.candidates,
      beams=request.beams,
      scorer=scorer,
      rows=request.rows,
      report=report,
      **request.conditions,
    )
    level = measure_loudness(_written(sound, file), pipeline.rate)
    gain = _gain(level, request)
    shape = (pipeline.rate, pipeline.channels)
    for path in paths[:-1]:
      written = release.postprocess_sound(_read(file, gain, *shape))
      if path.suffix == '.mp4':
        write_soundtrack(path, request.video, written, pipeline.rate)
      elif path.suffix == '.wav':
        write_wav_stream(path, written, pipeline.rate)
      else:
        _draw(path, written, request.prompt, pipeline.rate)
    # A sound of a video is made from it, but the wav and its picture have nothing of the video in
    # them; one that goes on with a sound has.
    release.sign(paths[:1], made_from=request.video or request.given)
    release.sign(paths[1:], made_from=request.given)
    record = _describe(pipeline, request, seconds, outer, inner, scorer)
    if request.given is not None:
      record['request']['given']['gain'] = given_gain
    record['sound'] = {
      'loudness': round(level.loudness, 2) if np.isfinite(level.loudness) else None,
      'peak': level.peak,
      'gain': gain,
      'samples': _digest(file),
    }
  record['unknown_words'] = unknown
  record |= release.described()
  record['files'] = [path.name for path in paths[:-1]]
  record['digests'] = {path.name: _digest_of(path) for path in paths[:-1]}
  write_json(paths[-1], record)
  return paths


def write_soundtracks(
  pipeline: AudioPipeline, videos: Mapping[pathlib.Path, str], seed: int = 0
) -> list[pathlib.Path]:
  """Makes the soundtrack of each of several videos, see `write_files`, in files beside them.

  Args:
    pipeline: of the audio model.
    videos: file -> what is to be heard in it; 'x.mp4' with sound becomes 'x_sound.mp4'.
    seed: of the noise.

  Returns:
    What was written.
  """
  written = []
  for path, prompt in videos.items():
    request = Request(request_caption(pipeline, prompt), video=os.fspath(path), seed=seed)
    written += write_files(pipeline, request, path.with_stem(f'{path.stem}_sound'))
  return written


def _paths(out: pathlib.Path, request: Request) -> list[pathlib.Path]:
  """Returns where things go, the json last, and makes their folder."""
  if out.suffix not in ('.mp4', '.wav'):
    raise ConfigError(f'--out={out}: a soundtrack is written as .mp4 or .wav; name it so')
  if request.video is None and out.suffix == '.mp4':
    raise ConfigError(f'--out={out}: there is no video to go into an .mp4; name it .wav')
  if request.video is not None and request.seconds is not None:
    raise ConfigError('--seconds is for sound without a video; a video says itself how long it is')
  if request.spans is not None and request.given is None:
    raise ConfigError('--known says which seconds of a sound stay; give it with --continue')
  for given in (request.video, request.given):
    for path in (out, out.with_suffix('.wav')):
      if given is not None and path.exists() and path.samefile(given):
        raise ConfigError(f'{path} is what is read and would be overwritten; take another --out')
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f'--out={out}: cannot make {out.parent}: {error.strerror}') from error
  kinds = (['.mp4'] if out.suffix == '.mp4' else []) + ['.wav', '.png', '.json']
  return [out.with_suffix(kind) for kind in kinds]


@contextlib.contextmanager
def _held(beside: pathlib.Path) -> Iterator[IO[bytes]]:
  """A temporary file in the folder of `beside`, where there has to be room for the sound anyway."""
  with tempfile.TemporaryFile(dir=beside.parent) as file:
    yield file


def _written(
  chunks: Iterator[Float[np.ndarray, 's c']], file: IO[bytes]
) -> Iterator[Float[np.ndarray, 's c']]:
  for chunk in chunks:
    file.write(np.ascontiguousarray(chunk, '<f4').tobytes())
    yield chunk


def _read(
  file: IO[bytes], gain: float, rate: int, channels: int
) -> Iterator[Float[np.ndarray, 's c']]:
  """Yields the sound of the file again, times `gain`."""

  def pieces() -> Iterator[np.ndarray]:
    place = 0
    while True:
      file.seek(place)
      if not (data := file.read(_PIECE * rate * channels * 4)):
        return
      place = file.tell()
      yield np.frombuffer(data, '<f4').reshape(-1, channels)

  return amplified(pieces(), gain)


def _gain(level: Level, request: Request) -> float:
  """Returns the factor that the sound is written with, and says if it stays softer than asked."""
  if request.loudness is None:
    return level.gain(math.inf, CEILING, 0.0)
  gain = level.gain(request.loudness, CEILING, request.gain_limit)
  wanted = request.loudness - level.loudness
  if level.silent:
    _log.warning('the sound is silent, below %g LUFS, and is left as it is', SILENT)
  elif wanted > request.gain_limit:
    _log.warning(
      'the sound is soft, %.0f LUFS: it is amplified by %.0f dB and not by %.0f; a higher '
      'gain_limit allows more, of noise too',
      level.loudness,
      20 * math.log10(gain),
      wanted,
    )
  return gain


def _written_gain(path: pathlib.Path) -> float:
  """Returns the factor that a soundtrack was written with, of any other sound 1."""
  beside = path.with_suffix('.json')
  try:
    record = read_json(beside, error=DataError) if beside.exists() else {}
    if record['digests'][path.name] == _digest_of(path):
      gain = float(record['sound']['gain'])
      return gain if math.isfinite(gain) and gain > 0 else 1.0
  except DataError as error:
    _log.warning('%s; %s is taken as loud as it is', error, path)
  except (OSError, KeyError, TypeError, ValueError):
    pass  # it is not of this sound, or not of a soundtrack
  return 1.0


def _draw(
  path: pathlib.Path, chunks: Iterator[Float[np.ndarray, 's c']], prompt: str, rate: int
) -> None:
  held, most = [], round(_ROW * _ROWS * rate)
  for chunk in chunks:
    held.append(chunk)
    if sum(map(len, held)) >= most:
      break
  sound, row = np.concatenate(held)[:most], round(_ROW * rate)
  rows = [sound[begin : begin + row] for begin in range(0, len(sound), row)]
  titles = [prompt, *(f'from {index * _ROW:g} s on' for index in range(1, len(rows)))]
  audio_sheet(path, rows, titles, rate)


def _digest(file: IO[bytes]) -> str:
  file.seek(0)
  return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def _digest_of(path: str | os.PathLike[str]) -> str:
  with open(path, 'rb') as file:
    return _digest(file)


def _describe(
  pipeline: AudioPipeline,
  request: Request,
  seconds: float,
  outer: Cover,
  inner: Cover | None,
  scorer: Scorer | None,
) -> dict[str, Any]:
  asked = dataclasses.asdict(request)
  asked['conditions'] = describe_conditions(request.conditions)
  pictures = request.video is not None
  asked['candidates'] = count_candidates(request.candidates, scorer, pictures)
  for name in ('video', 'given'):
    if asked[name] is not None:
      asked[name] = {'file': os.fspath(asked[name]), 'digest': _digest_of(asked[name])}
  ends = [start + outer.size for start in outer.starts[:-1]]
  return {
    'weights': pipeline.weights,
    'settings': pipeline.settings,
    'request': asked,
    'scorer': None if scorer is None else str(scorer),
    'seconds': seconds,
    'rate': pipeline.rate,
    'window': (outer if inner is None else inner).size / pipeline.latent_rate,
    'joints': [round(end / pipeline.latent_rate, 3) for end in ends],
  }
