"""PyTorch's DataLoader with PyAV in its workers, to be timed against ours (launch.bench)."""

import numpy as np

WHAT = ('data',)


class Videos:
  """A map-style dataset of windows, as they are usually written: seek, decode, convert, crop."""

  def __init__(self, windows, task, read):
    self.windows, self.read = windows, read
    self.options = {key: task[key] for key in ('frames', 'fps', 'size')}

  def __len__(self):
    return len(self.windows)

  def __getitem__(self, index):
    import torch

    return torch.from_numpy(self.read(*self.windows[index], **self.options))


def read_with_av(path, start, frames, fps, size):
  import av

  times = start + np.arange(frames) / fps + 1e-3
  images, last = [], None
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # there are as many workers as cores
    container.seek(int(start / stream.time_base), stream=stream)
    for frame in container.decode(stream):
      while len(images) < frames and last is not None and frame.time > times[len(images)]:
        images.append(convert(last, size))
      if len(images) == frames:
        break
      last = frame
    while len(images) < frames:
      images.append(convert(last, size))
  return np.stack(images)


def convert(frame, size):
  scale = max(size[0] / frame.height, size[1] / frame.width)
  height, width = round(frame.height * scale), round(frame.width * scale)
  image = frame.to_ndarray(format='rgb24', width=width, height=height)
  top, left = (height - size[0]) // 2, (width - size[1]) // 2
  return image[top : top + size[0], left : left + size[1]]


def make_programs(task, read=read_with_av, name='torch DataLoader + PyAV'):
  import av  # noqa: F401
  from torch.utils.data import DataLoader

  def make_loader(windows, **options):
    return DataLoader(
      Videos(windows, task, read),
      batch_size=task['batch_size'],
      num_workers=task['workers'],
      drop_last=True,
      **options,
    )

  def make_epoch(windows):
    loader = make_loader(windows, persistent_workers=True)

    def epoch():
      first = None
      for batch in loader:  # none but the first is held on to
        first = batch if first is None else first
      return first.numpy()

    return epoch

  first, windows = task['first']
  programs = {name: make_epoch(windows) for name, windows in task['windows'].items()}
  return {name: programs | {first: lambda: next(iter(make_loader(windows))).numpy()}}
