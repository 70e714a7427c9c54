"""Whether PyAV writes and reads what mgjax does: H.264 and AAC, a few frames for real."""

import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np

from mgjax.core.errors import first_line
from mgjax.runtime.doctor.finding import Finding, right, wrong

_FRAMES, _SIDE, _FPS, _RATE = 16, 64, 16, 48_000
# Here H.264 keeps 34 dB of these frames and AAC .999 of the tone; of noise or black far less.
_WORST_PSNR, _WORST_CORRELATION = 25.0, 0.9
_ADVICE = 'python -m pip install --force-reinstall av brings FFmpeg with these codecs'


def look_at_codecs() -> Iterator[Finding]:
  """Yields a line of H.264 and one of AAC, each encoded and decoded again."""
  with tempfile.TemporaryDirectory() as folder:
    silent = pathlib.Path(folder, 'silent.mp4')
    for what, look in (('H.264', _video), ('AAC', _audio)):
      try:
        yield look(silent)
      except Exception as error:  # of a library that is damaged or lacks a codec: of any type
        yield wrong(what, f'{type(error).__name__}: {first_line(error)}', _ADVICE)


def _video(path: pathlib.Path) -> Finding:
  import av

  from mgjax.media.video import read_clip, write_video

  frames = np.full((_FRAMES, _SIDE, _SIDE, 3), 32, np.uint8)
  for number, frame in enumerate(frames):
    frame[16:48, number : number + 32] = (200, 120, 40)
  write_video(path, frames, _FPS)
  again = read_clip(path, frames=_FRAMES, size=(_SIDE, _SIDE), fps=_FPS)
  error = np.mean((again.astype(np.float64) - frames) ** 2)
  psnr = 10 * np.log10(255**2 / max(error, 1e-3))
  told = f'{_FRAMES} frames written and read by PyAV {av.__version__} at {psnr:.0f} dB'
  return right('H.264', told) if psnr > _WORST_PSNR else wrong('H.264', told, _ADVICE)


def _audio(path: pathlib.Path) -> Finding:
  from mgjax.media.audio import read_audio, write_soundtrack

  tone = np.sin(2 * np.pi * 440 / _RATE * np.arange(_RATE * _FRAMES // _FPS))[:, None] / 2
  out = path.with_name('sound.mp4')
  write_soundtrack(out, path, [tone.astype(np.float32)], _RATE)
  again = read_audio(out, seconds=_FRAMES / _FPS, rate=_RATE)
  length = min(len(tone), len(again))
  alike = float(np.corrcoef(tone[:length, 0], again[:length, 0])[0, 1]) if again.any() else 0.0
  told = f'{length / _RATE:.1f} s of sound written into an mp4 and read, correlation {alike:.3f}'
  return right('AAC', told) if alike > _WORST_CORRELATION else wrong('AAC', told, _ADVICE)
