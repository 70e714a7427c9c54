"""Makes files of sound and of pictures with sound, in the formats that people have."""

import fractions
import pathlib
import struct

import av
import numpy as np


def noise(seconds, rate=48_000, channels=1, seed=0):
  """Noise whose low frequencies are the loudest, so that every codec keeps it."""
  white = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
  spectrum = np.fft.rfft(white, axis=0)
  spectrum /= (1 + np.fft.rfftfreq(len(white), 1 / rate) / 500)[:, None]
  sound = np.fft.irfft(spectrum, len(white), axis=0)
  return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def _add_sound(stream, container, sound, rate, begin=0.0):
  frame = av.AudioFrame.from_ndarray(
    np.ascontiguousarray(sound.T), 'fltp', {1: 'mono', 2: 'stereo'}[sound.shape[1]]
  )
  frame.sample_rate, frame.time_base = rate, fractions.Fraction(1, rate)
  frame.pts = round(begin * rate)
  container.mux(stream.encode(frame))
  container.mux(stream.encode(None))


def encode_sound(path, sound, rate=48_000, codec='aac', **options) -> pathlib.Path:
  """Writes `sound` (s c) with any codec of FFmpeg."""
  with av.open(str(path), 'w') as container:
    layout = {1: 'mono', 2: 'stereo'}[sound.shape[1]]
    stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
    _add_sound(stream, container, sound, rate)
  return pathlib.Path(path)


def encode_video(
  path, frames, sound=None, rate=48_000, begin=0.0, late=0.0, codec='libx264', **options
) -> pathlib.Path:
  """Writes pictures from second `begin` on, 25 a second, with a sound `late` seconds after them."""
  options = {'bf': '3', **options} if codec == 'libx264' else options
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=25, options=options)
    stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], 'yuv420p'
    heard = None if sound is None else container.add_stream('aac', rate=rate, layout='mono')
    for number, array in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array))
      frame.pts, frame.time_base = number + round(25 * begin), fractions.Fraction(1, 25)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if heard is not None:
      _add_sound(heard, container, sound, rate, begin + late)
  return pathlib.Path(path)


def turn(path, matrix=(0, 1, -1, 0)) -> pathlib.Path:
  """Turns the pictures of an mp4 for those who show it, by default clockwise."""
  data = bytearray(path.read_bytes())
  place = data.find(b'tkhd') + 44
  a, b, c, d = (each << 16 for each in matrix)
  data[place : place + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(data)
  return path


def delay(sound, heard):
  """Samples by which `heard` comes after `sound`, where they agree best."""
  length = len(sound) + len(heard)
  spectra = np.fft.rfft(sound[:, 0], length), np.fft.rfft(heard[:, 0], length)
  agreement = np.fft.irfft(np.conj(spectra[0]) * spectra[1], length)
  best = int(agreement.argmax())
  return best if best < length // 2 else best - length
