"""Writes what a job made: video, thumbnail, sheet, sound and record; and previews."""

import hashlib
import io
import os
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from mgjax.apps.serving.videos.schema import Job
from mgjax.core.configuration.keys import JSON
from mgjax.core.files import write_bytes, write_json
from mgjax.core.typing import UInt8
from mgjax.data.media.provenance import release
from mgjax.data.media.viewing import write_clip

_SHEET = 8  # frames of a sheet
_SIDE = 512  # pixels of the longer side of a thumbnail

VARIANTS = {  # variant of /content -> file, media type
  'video': ('video.mp4', 'video/mp4'),
  'thumbnail': ('thumbnail.webp', 'image/webp'),
  'spritesheet': ('spritesheet.jpg', 'image/jpeg'),
  'audio': ('audio.wav', 'audio/wav'),
}
PICTURE = ('image.png', 'image/png')  # in place of a video of one frame


def write_files(
  folder: pathlib.Path,
  video: UInt8[np.ndarray, 't h w 3'],
  job: Job,
  track: Callable[[pathlib.Path], object] | None = None,
) -> JSON:
  """Writes all files of a job into a folder, checked, marked and signed as the pipelines do it.

  `track` writes audio.mp4 and audio.wav beside a video. Returns the record, in job.json as well.
  """
  pixels = hashlib.sha256(np.ascontiguousarray(video).tobytes()).hexdigest()[:16]
  video = release.postprocess(video)
  main = folder / (VARIANTS['video'] if len(video) > 1 else PICTURE)[0]
  write_clip(main, video, job['fps'], scale=1)
  chosen = np.linspace(0, len(video) - 1, min(_SHEET, len(video))).round().astype(int)
  for kind, frames in (('thumbnail', video[:1]), ('spritesheet', video[chosen])):
    picture = Image.fromarray(np.concatenate(frames, axis=1))
    picture.thumbnail((len(frames) * _SIDE, len(frames) * _SIDE))
    name, media = VARIANTS[kind]
    write_bytes(folder / name, _encoded(picture, media.partition('/')[2]))
  if track is not None and len(video) > 1:
    track(main)
    os.replace(folder / 'audio.mp4', main)  # signed by what wrote it
    for kind in ('.png', '.json'):
      (folder / 'audio').with_suffix(kind).unlink(missing_ok=True)
  else:
    release.sign([main])
  record = {'pixels': pixels, 'frames': len(video), 'size': list(video.shape[1:3])}
  write_json(folder / 'job.json', {**job, **record, **release.described()})
  return record


def preview(colours: UInt8[np.ndarray, 't h w 3']) -> bytes:
  """Returns a preview as an animated WebP."""
  pages = [Image.fromarray(frame) for frame in colours]
  return _encoded(pages[0], 'WEBP', save_all=True, append_images=pages[1:], duration=250, loop=0)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
  picture.save(buffer := io.BytesIO(), kind, quality=85, **options)
  return buffer.getvalue()
