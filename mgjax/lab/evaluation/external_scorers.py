"""Scores audio with external networks in subprocesses: CLAP, aesthetics, any command.

Their libraries conflict with JAX's, so a scorer is a command. It gets two more arguments, the path
of the request and the path to write its answer to, both JSON:

    request  {"rate": 48000, "sounds": ["/tmp/x/000.wav", ...], "captions": [...], "videos": [...]}
    answer   {"name of a number": [one a sound, the higher the better], ...}

The .wav files have 16 bits. Captions and videos (paths) are one a sound, null if there are none. If
the command fails, the error quotes its output. For ImageBind, which has no package, or PE-AV write
a script of 20 lines, such as `examples/score_clap.py` and `examples/score_aesthetics.py`.
"""

import dataclasses
import os
import pathlib
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import parse_json, write_json
from mgjax.core.typing import Float
from mgjax.data.media.audio import write_wav
from mgjax.sections.audio.captions import structured

PATIENCE = 1800.0  # seconds
_SHOWN = 300  # bytes of a command's last output
_LARGEST = 1 << 24  # bytes of an answer
_MOST = 1e30  # limit of a number, which keeps sums finite


@dataclasses.dataclass(frozen=True)
class CommandScorer:
  """A command, a program and its arguments, that judges audio within `patience` seconds.

  `name` is the number that `score` returns; '' if the command returns only one.
  """

  command: Sequence[str]
  name: str = ''
  patience: float = PATIENCE

  def __call__(
    self, sounds: Float[np.ndarray, 'n s c'], rate: int, *, caption: str = '', **_: object
  ) -> Float[np.ndarray, 'n']:
    """Scores candidates for one caption, as re-ranking asks; see `mgjax.sections.audio.rerank`.

    The network gets only the descriptions of a structured caption.
    """
    captions = None
    if caption:
      parsed = structured(caption)
      descriptions = [text for text in (parsed.description, parsed.music_description) if text]
      captions = ['; '.join(descriptions)] * len(sounds)
    return self.score(list(sounds), rate, captions=captions)

  def score(
    self, sounds: Sequence[Float[np.ndarray, '_ _']], rate: int, **against: Any
  ) -> Float[np.ndarray, 'b']:
    """Returns the number called `name` of each sound, see `measure`; DataError if there is none."""
    numbers = self.measure(sounds, rate, **against)
    if not self.name and len(numbers) == 1:
      return next(iter(numbers.values()))
    if self.name not in numbers:
      raise DataError(
        f'the scorer {self._called} gives {", ".join(map(repr, numbers)):.200}, not {self.name!r}; '
        'name one of them'
      )
    return numbers[self.name]

  def measure(
    self,
    sounds: Sequence[Float[np.ndarray, '_ _']],
    rate: int,
    *,
    captions: Sequence[str] | None = None,
    videos: Sequence[str | os.PathLike[str]] | None = None,
  ) -> dict[str, Float[np.ndarray, 'b']]:
    """Returns all numbers of the command by name.

    Each sound is (s c) in [-1, 1], of any length; most networks have one rate, CLAP 48000. Captions
    to judge against are bare descriptions, not structured captions; videos are files.

    Raises ConfigError if the command does not start, fails, or takes too long. Raises DataError if
    there is not one caption and one video a sound, a sound is not finite, or the answer is not one
    finite number a sound.
    """
    for name, values in (('captions', captions), ('videos', videos)):
      if values is not None and len(values) != len(sounds):
        raise DataError(f'{len(sounds)} audio clips and {len(values)} {name}: give one a clip')
    if not sounds or not all(np.isfinite(sound).all() for sound in sounds):
      raise DataError('a scorer needs one finite sound or more; look at what made them')
    with tempfile.TemporaryDirectory(prefix='mgjax-scorer-') as temporary:
      folder = pathlib.Path(temporary)
      paths = [folder / f'{index:03d}.wav' for index in range(len(sounds))]
      for path, sound in zip(paths, sounds, strict=True):
        write_wav(path, sound, rate)
      request = {
        'rate': rate,
        'sounds': [os.fspath(path) for path in paths],
        'captions': None if captions is None else list(captions),
        'videos': None if videos is None else [os.path.abspath(video) for video in videos],
      }
      write_json(folder / 'request.json', request)
      self._run(folder)
      return self._read(folder / 'answer.json', len(sounds))

  @property
  def _called(self) -> str:
    return repr(' '.join(self.command)[:100])

  def _run(self, folder: pathlib.Path) -> None:
    words = [*self.command, folder / 'request.json', folder / 'answer.json']
    with (folder / 'log').open('wb') as log:
      try:
        # In its own session, so that a kill also ends its child processes.
        process = subprocess.Popen(
          words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
      except OSError as error:
        raise ConfigError(
          f'the scorer {self._called} does not start: {error.strerror}; name a Python, or another '
          'program, that is there'
        ) from None
      try:
        code = process.wait(self.patience)
      except subprocess.TimeoutExpired:
        raise ConfigError(
          f'the scorer {self._called} was stopped after {self.patience:g} s; score fewer tracks, '
          'or give it more time'
        ) from None
      finally:
        if process.poll() is None:
          os.killpg(process.pid, signal.SIGKILL)
          process.wait()
    if code:
      with (folder / 'log').open('rb') as log:
        log.seek(max(log.seek(0, os.SEEK_END) - _SHOWN, 0))
        printed = log.read().decode(errors='replace').strip()
      raise ConfigError(
        f'the scorer {self._called} failed with {code}; the end of what it printed: {printed!r}'
      )

  def _read(self, path: pathlib.Path, count: int) -> dict[str, Float[np.ndarray, 'b']]:
    if not path.is_file():
      raise DataError(f'the scorer {self._called} wrote no answer to its last argument')
    with path.open('rb') as file:
      data = file.read(_LARGEST + 1)
    name = f'the answer of the scorer {self._called}'
    mend = 'it has to be {"name": [numbers]}'
    if len(data) > _LARGEST:
      raise DataError(f'{name} has more than {_LARGEST >> 20} MiB; {mend}')
    answer = parse_json(data, name, error=DataError, mend=mend)
    if not answer:
      raise DataError(f'{name} holds no number; {mend}')
    scores = {}
    for key, values in answer.items():
      numbers = values if isinstance(values, list) else [None]
      finite = [
        number for number in numbers if isinstance(number, int | float) and abs(number) < _MOST
      ]
      if len(numbers) != count or len(finite) != count:
        raise DataError(
          f'the scorer {self._called} gives {len(numbers)} number(s) {key!r:.80} for {count} '
          f'sound(s), {len(finite)} of them finite; it has to give one finite number a sound'
        )
      scores[key] = np.asarray(finite, np.float64)
    return scores
