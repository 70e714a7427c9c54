"""Checks whether this machine has what mgjax needs: packages, devices, memory, disk, codecs."""

import importlib.metadata
import os
import pathlib
import platform
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mgjax.core.errors import first_line
from mgjax.parallel.tpu_presence import may_have_tpu

# optional: missing, and fine without
RIGHT = 'right'
OPTIONAL = 'optional'
WRONG = 'WRONG'
# What the extras of setup.py are for.
PURPOSES = {
  'arcface': 'faces compared by networks of yours, for personalization',
  'serve': 'a service of videos, /v1/videos, with jobs that survive',
  'cuda': 'NVIDIA GPUs',
  'cuda_compile': 'plans compiled for NVIDIA GPUs, without one',
  'curation': 'raw videos to training sets: shots, optical flow, text, copies',
  'dev': '`make lint`',
  'dlib': "faces by dlib's networks",
  'docs': '`make docs` and `make notebooks`',
  'faces': 'faces found without networks',
  'gcs': 'checkpoints at gs://',
  'mlflow': 'metrics of runs in MLflow',
  'oracle': '`make oracle`, comparison with the reference implementations',
  'parquet': 'clips in parquet files',
  'plots': 'pictures of experiments',
  'provenance': 'signatures of what leaves a pipeline (C2PA)',
  'scorers': 'scores of sounds by published networks',
  'test': '`make test`',
  'tpu': 'TPUs, and plans compiled for them',
  'trackio': 'metrics of runs in trackio',
  'wandb': 'metrics of runs in Weights & Biases',
}

_GB = 10**9
MEMORY = 1.5 * _GB  # what `make quickstart` takes
DISK = 2 * _GB  # its work directory, and a few samples
TEMPORARY = 0.2 * _GB
_MATRIX = 256  # side of the matrices that devices multiply
_ROOT = pathlib.Path('/')
_FRAMES = 16
_SIDE = 64
_FPS = 16
_RATE = 48_000
# Here H.264 keeps 34 dB of these frames and AAC .999 of the tone; of noise or black far less.
_WORST_PSNR, _WORST_CORRELATION = 25.0, 0.9
_CODECS = 'python -m pip install --force-reinstall av brings FFmpeg with these codecs'


class Finding(NamedTuple):
  """One line of `launch.doctor`: its subject, state (RIGHT, OPTIONAL or WRONG) and sentence.

  `advice` says what to do where it is not right.
  """

  what: str
  state: str
  sentence: str
  advice: str = ''

  def __str__(self) -> str:
    advice = f'; {self.advice}' if self.advice and self.state != RIGHT else ''
    return f'{self.state:8}  {self.what:10}  {self.sentence}{advice}'


# Gives the metadata of a distribution by its name; PackageNotFoundError where there is none.
Find = Callable[[str], importlib.metadata.Distribution]


def examine(workdir: str | os.PathLike[str]) -> Iterator[Finding]:
  """Yields what is found, line by line; nothing that goes wrong ends it.

  `workdir` is where work directories will lie; it need not exist.
  """
  looks: dict[str, Callable[[], Iterator[Finding]]] = {
    'packages': look_at_packages,
    'devices': look_at_devices,
    'memory': look_at_memory,
    'disk': lambda: look_at_disks(workdir),
    'H.264': look_at_video,
    'AAC': look_at_audio,
  }
  for what, look in looks.items():
    try:
      yield from look()
    except Exception as error:  # a package that does not import, say: the others are still told of
      advice = _CODECS if look in (look_at_video, look_at_audio) else 'install mgjax again'
      yield Finding(what, WRONG, f'{type(error).__name__}: {first_line(error)}', advice)


def look_at_packages(find: Find = importlib.metadata.distribution) -> Iterator[Finding]:
  """Yields findings for Python, required packages (all, or each wrong one) and missing extras."""
  version = platform.python_version()
  try:
    ours = find('mgjax')
  except importlib.metadata.PackageNotFoundError:
    sentence = 'mgjax is not installed, so what it needs is not known'
    yield Finding('packages', OPTIONAL, sentence, 'python -m pip install -e . in its folder')
    return
  supported = ours.metadata['Requires-Python'] or ''
  state = RIGHT if version in SpecifierSet(supported) else WRONG
  advice = f'make a virtual environment with Python {supported}'
  yield Finding('Python', state, f'{version}, mgjax {ours.version}', advice)
  requirements = list(map(Requirement, ours.requires or ()))
  needed = [requirement for requirement in requirements if _is_required_by(requirement, '')]
  missing = [(requirement, why) for requirement in needed if (why := _missing(requirement, find))]
  for requirement, why in missing:
    yield Finding('packages', WRONG, why, _install([requirement]))
  if not missing:
    sentence = (
      f'all {len(needed)} that mgjax asks for; python -m pip check looks at what these need'
    )
    yield Finding('packages', RIGHT, sentence)
  purposes = {canonicalize_name(name): purpose for name, purpose in PURPOSES.items()}
  for extra in sorted(ours.metadata.get_all('Provides-Extra') or ()):
    extra_requirements = [
      requirement
      for requirement in requirements
      if requirement not in needed and _is_required_by(requirement, extra)
    ]
    if missing := [
      requirement for requirement in extra_requirements if _missing(requirement, find)
    ]:
      purpose = purposes.get(canonicalize_name(extra), 'an extra that this version does not know')
      what = ', '.join(requirement.name for requirement in missing)
      sentence = f'{extra} ({purpose}) is missing {what}'
      yield Finding('extra', OPTIONAL, sentence, _install(missing))


def _is_required_by(requirement: Requirement, extra: str) -> bool:
  return requirement.marker is None or requirement.marker.evaluate({'extra': extra})


def _missing(requirement: Requirement, find: Find) -> str:
  """Says what is wrong with what is installed of a requirement; '' if nothing is."""
  try:
    version = find(requirement.name).version
  except importlib.metadata.PackageNotFoundError:
    return f'{requirement.name} is not installed'
  right = requirement.specifier.contains(version, prereleases=True)
  return '' if right else f'{requirement.name} {version} is not {requirement.specifier}'


def _install(requirements: list[Requirement]) -> str:
  def text(requirement: Requirement) -> str:
    extras = f'[{",".join(sorted(requirement.extras))}]' * bool(requirement.extras)
    return shlex.quote(f'{requirement.name}{extras}{requirement.specifier}')

  return f'python -m pip install {" ".join(map(text, requirements))}'


def look_at_devices(root: pathlib.Path = _ROOT) -> Iterator[Finding]:
  """Yields a line of the devices, which multiply matrices, and one of those that JAX leaves out."""
  import jax

  platforms = jax.config.jax_platforms
  try:
    devices = jax.local_devices()
  except RuntimeError as error:
    why = f'JAX_PLATFORMS is {platforms!r}' if platforms else 'the driver may not fit'
    yield Finding('devices', WRONG, first_line(error), why)
    return
  for device in devices:
    x = jax.device_put(np.ones((_MATRIX, _MATRIX), np.float32), device)
    if not np.all(np.asarray(x @ x) == _MATRIX):
      yield Finding('devices', WRONG, f'{device} multiplies wrongly', 'take it out of use')
      return
  kinds = ', '.join(sorted({device.device_kind for device in devices}))
  on_cpu = devices[0].platform == 'cpu'
  cores = f', {len(os.sched_getaffinity(0))} cores' * on_cpu
  yield Finding('devices', RIGHT, f'{len(devices)} x {kinds}{cores}; each multiplies matrices')
  if on_cpu and not platforms:
    if (root / 'proc/driver/nvidia/version').exists():
      advice = "python -m pip install 'jax[cuda13]', or a newer driver"
      yield Finding('devices', OPTIONAL, 'there is an NVIDIA GPU that JAX does not use', advice)
    if may_have_tpu(root=root):
      advice = "python -m pip install 'jax[tpu]'"
      yield Finding('devices', OPTIONAL, 'there may be a TPU that JAX does not use', advice)


def look_at_memory(root: pathlib.Path = _ROOT) -> Iterator[Finding]:
  """Yields a line of the memory that a process may still take, by /proc and the cgroup's limit."""
  try:
    lines = (root / 'proc/meminfo').read_text().splitlines()
    words = next(line for line in lines if line.startswith('MemAvailable:')).split()
    free = int(words[1]) * 1024
  except (OSError, StopIteration, ValueError, IndexError):
    advice = f'{MEMORY / _GB:.1f} GB are needed'
    yield Finding('memory', OPTIONAL, 'cannot be told here', advice)
    return
  group = root / 'sys/fs/cgroup'
  for limit, used in (
    (group / 'memory.max', group / 'memory.current'),
    (group / 'memory/memory.limit_in_bytes', group / 'memory/memory.usage_in_bytes'),
  ):
    try:
      free = min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # there is none, or its limit is the word max
      continue
  advice = f'make quickstart takes {MEMORY / _GB:.1f} GB; end what else runs'
  state = RIGHT if free >= MEMORY else WRONG
  yield Finding('memory', state, f'{free / _GB:.1f} GB are free', advice)


def look_at_disks(workdir: str | os.PathLike[str]) -> Iterator[Finding]:
  """Yields a finding for the disk of work directories and one for the disk of temporary files."""
  folder = pathlib.Path(workdir).absolute()
  while not folder.is_dir() and folder != folder.parent:
    folder = folder.parent
  temporary = pathlib.Path(tempfile.gettempdir())
  for what, directory, needed, advice in (
    ('disk', folder, DISK, 'name another folder by --workdir'),
    ('temporary', temporary, TEMPORARY, 'set TMPDIR to another'),
  ):
    try:
      with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b'mgjax')
        file.flush()
      free = shutil.disk_usage(directory).free
    except OSError as error:
      yield Finding(what, WRONG, f'{directory} cannot be written to: {error.strerror}', advice)
      continue
    advice = f'{needed / _GB:.1f} GB are needed; make room, or {advice}'
    state = RIGHT if free >= needed else WRONG
    yield Finding(what, state, f'{free / _GB:.1f} GB are free in {directory}', advice)


def look_at_video() -> Iterator[Finding]:
  """Yields a finding for H.264: a few frames, encoded and decoded again."""
  import av

  from mgjax.data.media.video import read_clip, write_video

  frames = np.full((_FRAMES, _SIDE, _SIDE, 3), 32, np.uint8)
  for number, frame in enumerate(frames):
    frame[16:48, number : number + 32] = (200, 120, 40)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'silent.mp4')
    write_video(path, frames, _FPS)
    again = read_clip(path, frames=_FRAMES, size=(_SIDE, _SIDE), fps=_FPS)
  error = np.mean((again.astype(np.float64) - frames) ** 2)
  psnr = 10 * np.log10(255**2 / max(error, 1e-3))
  sentence = f'{_FRAMES} frames written and read by PyAV {av.__version__} at {psnr:.0f} dB'
  yield Finding('H.264', RIGHT if psnr > _WORST_PSNR else WRONG, sentence, _CODECS)


def look_at_audio() -> Iterator[Finding]:
  """Yields a finding for AAC: a second of a tone beside frames, encoded and decoded again."""
  from mgjax.data.media.audio import read_audio, write_soundtrack
  from mgjax.data.media.video import write_video

  tone = np.sin(2 * np.pi * 440 / _RATE * np.arange(_RATE * _FRAMES // _FPS))[:, None] / 2
  with tempfile.TemporaryDirectory() as folder:
    silent, out = pathlib.Path(folder, 'silent.mp4'), pathlib.Path(folder, 'sound.mp4')
    write_video(silent, np.zeros((_FRAMES, _SIDE, _SIDE, 3), np.uint8), _FPS)
    write_soundtrack(out, silent, [tone.astype(np.float32)], _RATE)
    again = read_audio(out, seconds=_FRAMES / _FPS, rate=_RATE)
  length = min(len(tone), len(again))
  alike = float(np.corrcoef(tone[:length, 0], again[:length, 0])[0, 1]) if again.any() else 0.0
  sentence = (
    f'{length / _RATE:.1f} s of sound written into an mp4 and read, correlation {alike:.3f}'
  )
  yield Finding('AAC', RIGHT if alike > _WORST_CORRELATION else WRONG, sentence, _CODECS)
