"""Files of pictures and sound, damaged where their formats keep numbers, read as clips are."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from mgjax.data.buckets import Shape
from mgjax.data.clip_index import Clip, index_of_clips
from mgjax.data.clips import Clips, probe_video
from mgjax.data.ingest.clip_check import make_row, open_row
from mgjax.media.audio import probe_audio, read_audio, stream_audio, write_wav
from mgjax.media.containers import CONTAINERS, Blob, Limits, moving_pictures
from mgjax.media.transcode import reencode
from mgjax.media.video import write_video
from tests.hostile.family import Family, Silent
from tests.hostile.media_formats import (
  Parser,
  blocks_of_flac,
  blocks_of_gif,
  boxes,
  checked_ogg,
  checked_png,
  chunks_of_aiff,
  chunks_of_png,
  chunks_of_riff,
  damaged,
  elements,
  frames_of_mp3,
  pages,
  segments,
)
from tests.hostile.mutations import Rng
from tests.media.audio_files import encode_sound
from tests.media.hostile_clips import encoded

LIMITS = Limits(pixels=1 << 20, wall_seconds=10.0)
SHAPES = (Shape(4, 16, 16, (8.0, 8.0)), Shape(1, 16, 16, (1.0, 1.0)))


def _mutate(parse: Parser, checked: Callable[[bytes], bytes] = bytes) -> Callable:
  def mutate(source: Path, rng: Rng, target: Path) -> None:
    data = damaged(source.read_bytes(), rng, parse)
    target.write_bytes(checked(data) if rng.random() < 0.8 else data)

  return mutate


def _packets(data: bytes, kind: str) -> int:
  """How many packets the stream has that is read, counted by other means."""
  options = {'format_whitelist': CONTAINERS, 'protocol_whitelist': 'none'}
  try:
    with av.open(io.BytesIO(data), container_options=options, metadata_errors='replace') as file:
      streams = moving_pictures(file) if kind == 'video' else file.streams.audio
      return sum(packet.size > 0 for packet in file.demux(streams[0]))
  except av.error.FFmpegError:
    return 1  # a still image, so damaged that only its first bytes show its kind


def _check_length(seconds: float, count: int, data: bytes, kind: str) -> None:
  packets = _packets(data, kind)
  if not 0 < seconds <= LIMITS.gap * (packets + 1) or seconds > LIMITS.seconds:
    raise Silent(f'{packets} packets of {kind} last {seconds} s')
  if count > max(packets, 1):
    raise Silent(f'{packets} packets of {kind} give {count} windows')


def read_pictures(path: Path) -> None:
  """Reads as training and conversion do: by path, and from memory all of it, encoded anew."""
  data = path.read_bytes()
  known = probe_video(path, {str(shape.frames): shape for shape in SHAPES}, limits=LIMITS)
  for shape in SHAPES:
    windows = Clips(index_of_clips([Clip(str(path), 'c', **known)]), shape, limits=LIMITS)
    _check_length(known['seconds'], len(windows), data, 'video')
    if not 0 < known['fps'] <= 1000 or min(known['height'], known['width']) < 1:
      raise Silent(f'a clip is {known}')
    if known['seconds'] > 0.5 or shape.frames == 1:
      for index in {0, len(windows) - 1}:
        if windows[index]['video'].shape != (shape.frames, 16, 16, 3):
          raise Silent(f'a window has the shape {windows[index]["video"].shape}')
  row = make_row(data, 'c', path.name, full=True, limits=LIMITS)
  if row['seconds'] != known['seconds'] or (row['height'], row['width']) != (
    known['height'],
    known['width'],
  ):
    raise Silent(f'in memory it is {row["seconds"]} s, on the disk {known}')
  anew = reencode(open_row(row), side=16, limits=LIMITS)
  made = make_row(anew, 'c', 'anew', limits=LIMITS)
  _check_length(made['seconds'], 1, data, 'video')


def read_sound(path: Path) -> None:
  """Reads as training does, and all of it."""
  data = path.read_bytes()
  info = probe_audio(path, LIMITS)
  _check_length(info.seconds, 1, data, 'sound')
  heard = sum(map(len, stream_audio(Blob(path.name, data), rate=8000, limits=LIMITS))) / 8000
  if heard > info.seconds + 1 or not 0 < info.rate < 1 << 24:
    raise Silent(f'{info} is {heard} s long')
  window = min(0.25, info.seconds / 2)
  for start in (0.0, info.seconds - window):
    sound = read_audio(path, start=start, seconds=window, rate=8000, limits=LIMITS)
    if not np.isfinite(sound).all() or np.abs(sound).max() > 1:
      raise Silent('samples are beyond full scale')


def _pictures() -> np.ndarray:
  return np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3)).astype(np.uint8)


def _wave(channels: int = 1) -> np.ndarray:
  time = np.arange(9600, dtype=np.float32) / 16_000
  return np.repeat(np.sin(2500 * time)[:, None] / 2, channels, axis=1)


def _video_seeds(name: str) -> Callable[[Path], list[Path]]:
  codecs = {'mkv': ('matroska', 'libx264'), 'webm': ('webm', 'libvpx-vp9'), 'avi': ('avi', 'mpeg4'),
            'mov': ('mov', 'libx264')}  # fmt: skip

  def seeds(folder: Path) -> list[Path]:
    made = []
    for number, times in enumerate((None, [0, 4, 8, 12, 40, 44, 48, 52])):
      suffix, more = 'mov' if number and name == 'mp4' else name, {}
      if suffix == 'mp4':
        write_video(folder / 'even.mp4', _pictures(), 25)
        made.append(folder / 'even.mp4')
        continue
      container, codec = codecs[suffix]
      if suffix == 'mov':
        more = {'g': '4'}
      path = folder / f'{number}.{suffix}'
      path.write_bytes(
        encoded(_pictures(), container, codec, 'yuv420p', times if suffix != 'avi' else None, more)
      )
      made.append(path)
    return made

  return seeds


def _still_seeds(name: str) -> Callable[[Path], list[Path]]:
  def seeds(folder: Path) -> list[Path]:
    frames = [Image.fromarray(frame) for frame in _pictures()]
    if name == 'gif':
      options = {'save_all': True, 'append_images': frames[1:], 'duration': 50}
      frames[0].save(folder / 'moving.gif', **options)
      return [folder / 'moving.gif']
    exif = Image.Exif()
    exif[0x0112] = 6
    frames[0].save(folder / f'small.{name}')
    large = frames[0].resize((96, 128))
    large.save(folder / f'large.{name}', exif=exif)
    return [folder / f'small.{name}', folder / f'large.{name}']

  return seeds


def _sound_seeds(name: str, codec: str) -> Callable[[Path], list[Path]]:
  def seeds(folder: Path) -> list[Path]:
    path = folder / f'sound.{name}'
    if name == 'wav':
      write_wav(path, _wave(), 16_000)
      return [path]
    encode_sound(path, _wave(), 16_000, codec)
    return [path]

  return seeds


def _videos(name: str, parse: Parser) -> Family:
  return Family(name, _video_seeds(name), _mutate(parse), read_pictures)


def _stills(name: str, parse: Parser, checked: Callable[[bytes], bytes] = bytes) -> Family:
  return Family(name, _still_seeds(name), _mutate(parse, checked), read_pictures)


def _sounds(name: str, codec: str, parse: Parser, checked: Callable = bytes) -> Family:
  return Family(name, _sound_seeds(name, codec), _mutate(parse, checked), read_sound)


FAMILIES = (
  _videos('mp4', boxes),
  _videos('mkv', elements),
  _videos('webm', elements),
  _videos('avi', chunks_of_riff),
  _stills('gif', blocks_of_gif),
  _stills('jpg', segments),
  _stills('png', chunks_of_png, checked_png),
  _stills('webp', chunks_of_riff),
  _sounds('wav', '', chunks_of_riff),
  _sounds('aiff', 'pcm_s16be', chunks_of_aiff),
  _sounds('flac', 'flac', blocks_of_flac),
  _sounds('ogg', 'libopus', pages, checked_ogg),
  _sounds('mp3', 'libmp3lame', frames_of_mp3),
  _sounds('m4a', 'aac', boxes),
  _sounds('mka', 'libmp3lame', elements),
)
