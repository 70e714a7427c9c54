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

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json, write_json
from mgjax.core.settings import Positive, Range
from mgjax.core.typing import Float
from mgjax.data.media.audio import probe_audio, stream_audio, write_soundtrack, write_wav_stream
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.media.loudness import SILENT, Level, amplified, measure_loudness
from mgjax.data.media.provenance import release
from mgjax.data.synthetic_datasets import WORLDS
from mgjax.sections.audio.captions import structured
from mgjax.sections.audio.extend import Extension, Seconds
from mgjax.sections.audio.rerank import Scorer, count_candidates
from mgjax.sections.flow.requests import Request
from mgjax.training.monitoring.progress import Progress

CEILING = -1.0  # dB under full scale that no sample goes above
# What a sound is amplified by at most, in dB, so that -40 LUFS and above are brought to -16. What
# is softer is hardly a recording of anything, and may be no more than a model's noise.
GAIN_LIMIT = 24.0
_PIECE = 10  # seconds that are held at a time
_ROW = 30.0  # seconds in a row of the picture
_ROWS = 8  # of the picture: of a long sound the beginning
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Soundtrack(Request):
  """One soundtrack to make; the prompt is what is to be heard, or a whole structured caption.

  Attributes:
    video: file that the sound is for, or None.
    seconds: length without a video; with one None, for it has its own.
    music: mood and genre of music that is wanted too.
    quality: of the sound, from 0 to 10; the default is higher with music.
    given: file with sound to go on with, or None.
    spans: seconds of it that stay, begin and end; None is all.
    extension: how to go beyond the length of training; a name is that of a way.
    candidates: of each window or block; None is 8 with a video or a scorer, and else 1.
    beams: histories that are carried on.
    scorer: judges candidates; by default their alignment with the pictures.
    loudness: in LUFS; 0 or None leaves the sound as it comes, lowered if it would clip.
    gain_limit: in dB, what it is amplified by at most. Not in public sources.
    conditions: beside the prompt, by the names of the fields that the model reads.
  """

  video: str | os.PathLike[str] | None = None
  seconds: Seconds | None = None
  music: str = ''
  quality: Annotated[float, Range(least=0, most=10)] | None = None
  given: str | os.PathLike[str] | None = None
  spans: Sequence[tuple[float, float]] | None = None
  extension: Extension | str = dataclasses.field(default_factory=Extension)
  candidates: Positive | None = None
  beams: Positive = 1
  scorer: Scorer | None = None
  loudness: Annotated[float, Range(least=-60, most=0)] | None = -16.0
  gain_limit: Annotated[float, Range(least=0, most=60)] = GAIN_LIMIT
  conditions: Fields = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.extension, str):
      object.__setattr__(self, 'extension', Extension(self.extension))

  @classmethod
  def of_row(cls, pipeline: Any, row: Any, folder: pathlib.Path, **options: Any) -> 'Soundtrack':
    """Makes the request of a row of a suite of audio."""
    del pipeline
    music = row.fields.get('music_prompt') or ''
    return cls(row.fields['audio_prompt'], folder / f'{row.file}.mp4', music=music, **options)

  def caption(self, pipeline: Any) -> str:
    """Returns the caption for a model: structured, or unchanged for synthetic data.

    Captions of synthetic worlds are bare; with `music` or a `quality` they are structured too.
    Raises ConfigError if the prompt holds no text, or what it says cannot be.
    """
    if pipeline.config.data.kind in WORLDS and not self.music and self.quality is None:
      return self.prompt
    return str(structured(self.prompt, music=self.music, quality=self.quality))

  def paths(self) -> list[pathlib.Path]:
    """Returns the output paths, the json last, and creates their folder.
    Raises ConfigError if options contradict each other, or the folder is not writable.
    """
    out = pathlib.Path(self.out or f'out.{"wav" if self.video is None else "mp4"}')
    if out.suffix not in ('.mp4', '.wav'):
      raise ConfigError(f'--out={out}: a soundtrack is written as .mp4 or .wav; name it so')
    if self.video is None and out.suffix == '.mp4':
      raise ConfigError(f'--out={out}: there is no video to go into an .mp4; name it .wav')
    if self.video is None and self.seconds is None:
      raise ConfigError('how long? without a video the length is given: --seconds=10')
    if self.video is not None and self.seconds is not None:
      raise ConfigError('--seconds is for sound without a video; a video says how long it is')
    if self.spans is not None and self.given is None:
      raise ConfigError('--known says which seconds of a sound stay; give it with --continue')
    for source in (self.video, self.given):
      for path in (out, out.with_suffix('.wav')):
        if source is not None and path.exists() and path.samefile(source):
          raise ConfigError(f'{path} is what is read and would be overwritten; take another --out')
    try:
      out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise ConfigError(f'--out={out}: cannot make {out.parent}: {error.strerror}') from error
    kinds = (['.mp4'] if out.suffix == '.mp4' else []) + ['.wav', '.png', '.json']
    return [out.with_suffix(kind) for kind in kinds]

  def check(self, workdir: str | os.PathLike[str], changes: Mapping[str, object] = {}) -> None:
    """Checks the model and where the sound goes; see `Request.check`."""
    super().check(workdir, changes)
    self.paths()

  def described(self, pipeline: Any = None) -> dict[str, Any]:
    """Returns the request as plain JSON values, with file digests and the pipeline's caption."""
    fields = super().described() | {'extension': dataclasses.asdict(self.extension)}
    scorer = fields.pop('scorer')
    pictures = self.video is not None
    fields['candidates'] = count_candidates(self.candidates, scorer, pictures)
    fields['scorer'] = None if scorer is None else str(scorer)
    for name in ('video', 'given'):
      if fields[name] is not None:
        fields[name] = {'file': os.fspath(fields[name]), 'digest': _digest_of(fields[name])}
    return fields | ({'prompt': self.caption(pipeline)} if pipeline else {})

  def write(self, pipeline: Any) -> list[pathlib.Path]:
    """Generates the soundtrack with an `AudioPipeline` and writes it, in nearly constant memory.

    Samples go to a temporary file beside `out`, and from there by one factor to the loudness that
    is asked for; silence stays as it is. A soundtrack that is gone on with is taken as loud as it
    was made: its json says by which factor it was written. The result is an .mp4 (the pictures of
    the video untouched, the audio as AAC) or a .wav. Beside it are a .wav, a .png with waveform and
    spectrogram of the first four minutes, and a .json with everything needed to make it again.
    Raises NonFiniteError if the model answers with what is no number.
    """
    paths = self.paths()
    caption = self.caption(pipeline)
    video_track = None if self.video is None else pipeline.video_track(self.video)
    seconds = self.seconds if video_track is None else video_track.seconds
    outer, inner = pipeline.plan(seconds, self.extension)
    known_audio, given_gain = self._open_known(pipeline, seconds)
    (unknown,) = pipeline.tell([caption])
    progress = Progress(len(outer.starts), unit='window')
    with (
      contextlib.closing(progress),
      contextlib.ExitStack() as compiling,
      tempfile.TemporaryFile(dir=paths[-1].parent) as file,  # it needs room for the sound anyway
    ):
      compiling.enter_context(progress.waiting('compiling the sampler'))

      def report(done: int) -> None:
        compiling.close()
        progress.report(done)

      sound = pipeline.stream(
        caption,
        seconds=seconds,
        video=video_track,
        given=known_audio,
        extension=self.extension,
        seed=self.seed,
        candidates=self.candidates,
        beams=self.beams,
        scorer=self.scorer,
        rows=self.batch_size,
        report=report,
        **self.conditions,
      )
      level = measure_loudness(_written(sound, file), pipeline.rate)
      gain = self._gain(level)
      for path in paths[:-1]:
        written = release.postprocess_sound(_read(file, gain, pipeline.rate, pipeline.channels))
        if path.suffix == '.mp4':
          write_soundtrack(path, self.video, written, pipeline.rate)
        elif path.suffix == '.wav':
          write_wav_stream(path, written, pipeline.rate)
        else:
          _draw(path, written, caption, pipeline.rate)
      # A sound of a video is made from it, but the wav and its picture have nothing of the video
      # in them; one that goes on with a sound has.
      release.sign(paths[:1], made_from=self.video or self.given)
      release.sign(paths[1:-1], made_from=self.given)
      request = self.described(pipeline)
      if self.given is not None:
        request['given']['gain'] = given_gain
      loudness = round(level.loudness, 2) if np.isfinite(level.loudness) else None
      ends = [start + outer.size for start in outer.starts[:-1]]
      record = {
        'weights': pipeline.weights,
        'settings': pipeline.settings,
        'request': request,
        'seconds': seconds,
        'rate': pipeline.rate,
        'window': (outer if inner is None else inner).size / pipeline.latent_rate,
        'joints': [round(end / pipeline.latent_rate, 3) for end in ends],
        'sound': {'loudness': loudness, 'peak': level.peak, 'gain': gain, 'samples': _digest(file)},
        'unknown_words': unknown,
        **release.described(),
        'files': [path.name for path in paths[:-1]],
        'digests': {path.name: _digest_of(path) for path in paths[:-1]},
      }
    write_json(paths[-1], record)
    return paths

  def _open_known(self, pipeline: Any, seconds: float) -> tuple[Any, float]:
    """Returns the known sound, None without one, and the factor that it was written with."""
    if self.given is None:
      return None, 1.0
    probe_audio(self.given)
    gain = _written_gain(pathlib.Path(self.given))

    def stream() -> Iterator[np.ndarray]:
      sound = stream_audio(self.given, rate=pipeline.rate, channels=pipeline.channels)
      return amplified(sound, 1 / gain)

    return pipeline.given(stream, seconds, self.spans), gain

  def _gain(self, level: Level) -> float:
    """Returns the gain of the written sound, and warns if it stays below the target loudness."""
    if not self.loudness:
      return level.gain(math.inf, CEILING, 0.0)
    gain = level.gain(self.loudness, CEILING, self.gain_limit)
    needed_gain = self.loudness - level.loudness
    if level.silent:
      _log.warning('the sound is silent, below %g LUFS, and is left as it is', SILENT)
    elif needed_gain > self.gain_limit:
      _log.warning(
        'the sound is soft, %.0f LUFS: it is amplified by %.0f dB and not by %.0f; a higher '
        'gain_limit allows more, of noise too',
        level.loudness,
        20 * math.log10(gain),
        needed_gain,
      )
    return gain


def write_soundtracks(
  pipeline: object, videos: Mapping[pathlib.Path, str], seed: int = 0
) -> list[pathlib.Path]:
  """Makes the soundtrack of each of several videos in files beside them.

  Args:
    videos: file -> what is to be heard in it; 'x.mp4' with sound becomes 'x_sound.mp4'.

  Returns:
    What was written.
  """
  written = []
  for path, prompt in videos.items():
    out = path.with_stem(f'{path.stem}_sound')
    written += Soundtrack(prompt, out, seed, video=os.fspath(path)).write(pipeline)
  return written


def _written(
  chunks: Iterator[Float[np.ndarray, 's c']], file: IO[bytes]
) -> Iterator[Float[np.ndarray, 's c']]:
  for chunk in chunks:
    file.write(np.ascontiguousarray(chunk, '<f4').tobytes())
    yield chunk


def _read(
  file: IO[bytes], gain: float, rate: int, channels: int
) -> Iterator[Float[np.ndarray, 's c']]:
  """Yields the sound of the file, multiplied by `gain`."""

  def pieces() -> Iterator[np.ndarray]:
    offset = 0
    while True:
      file.seek(offset)
      if not (data := file.read(_PIECE * rate * channels * 4)):
        return
      offset = file.tell()
      yield np.frombuffer(data, '<f4').reshape(-1, channels)

  return amplified(pieces(), gain)


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
  held = []
  most = round(_ROW * _ROWS * rate)
  for chunk in chunks:
    held.append(chunk)
    if sum(map(len, held)) >= most:
      break
  sound = np.concatenate(held)[:most]
  row = round(_ROW * rate)
  rows = [sound[begin : begin + row] for begin in range(0, len(sound), row)]
  titles = [prompt, *(f'from {index * _ROW:g} s on' for index in range(1, len(rows)))]
  audio_sheet(path, rows, titles, rate)


def _digest(file: IO[bytes]) -> str:
  file.seek(0)
  return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def _digest_of(path: str | os.PathLike[str]) -> str:
  with open(path, 'rb') as file:
    return _digest(file)
