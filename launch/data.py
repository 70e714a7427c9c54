r"""Converts clips into records for training; inspects and verifies records.

python -m launch.data convert --input=clips/ --output=data/clips
python -m launch.data convert --input=shards/ --output=gs://bucket/clips --reencode \
  --process=0 --processes=8
python -m launch.data inspect --input=data/clips --sheet=clips.png
python -m launch.data verify --input=data/clips
python -m launch.data references --input=clips/ --output=data/people --faces=dlib
python -m launch.data calibrate_faces --input=people/ --faces=dlib --sheet=faces.png
--input of convert and references is a folder of clips with captions (clip.mp4, clip.txt), a .csv or
.jsonl that names them, WebDataset tars or parquet files. The same command again goes on where it
stopped; what cannot be used is listed, with the reason, in rejected.jsonl beside the records.
inspect and verify take records of clips and of latents, or a directory of launch.encode with
several. inspect looks into some rows; it lists the damaged ones below the summary of the others and
ends with exit code 3.
references makes records of clips with five pictures of the one person in them, to be trained on as
`data.kind = 'records'`. calibrate_faces takes a folder with a folder of pictures for each person.
"""

import contextlib
import pathlib
import time

from absl import flags
from etils import epy

from mgjax.core.errors import ConfigError, DataError, printable

from . import command_line

with epy.lazy_imports():
  from mgjax.audio import captions
  from mgjax.curation.filters import scenes
  from mgjax.curation.people import face_calibration, references
  from mgjax.curation.people import records as reference_records
  from mgjax.curation.people import sheet as reference_sheet
  from mgjax.data.ingest import convert, entries, open_inputs, record_summary
  from mgjax.data.records import reader
  from mgjax.media.faces import recognition
  from mgjax.runtime import progress

COMMANDS = ('convert', 'inspect', 'verify', 'references', 'calibrate_faces')
_PAUSE = 5.0  # seconds until a listing tells how far it is

_INPUT = command_line.define_required(
  'input', 'clips/', 'Clips to convert; records to inspect or verify.'
)
_OUTPUT = command_line.define_required(
  'output',
  'data/clips',
  'Directory or URL of the records to make.',
  commands=('convert', 'references'),
)
_LAYOUT = flags.DEFINE_enum(
  'layout', 'auto', ['auto', 'files', 'tar', 'parquet'], 'How the clips lie.'
)
_MEDIA = flags.DEFINE_string('media_column', '', 'Of parquet: the column with the clips.')
_CAPTION = flags.DEFINE_string('caption_column', '', 'Of parquet: the column with the captions.')
_CAPTIONS = flags.DEFINE_enum(
  'captions', 'plain', ['plain', 'audio'], 'audio: the template, of the columns of docs/sounds.md.'
)
_REENCODE = flags.DEFINE_bool('reencode', False, 'Encode anew, for quick reads at any moment.')
_GOP = flags.DEFINE_integer(
  'gop', None, 'Frames from key frame to key frame of --reencode; 16.', lower_bound=1
)
_CRF = flags.DEFINE_float(
  'crf', None, 'Rate factor of --reencode, lower is better; 20.', lower_bound=0, upper_bound=51
)
_SIDE = flags.DEFINE_integer(
  'side', None, 'What --reencode shrinks the shorter side to; by default nothing.', lower_bound=0
)
_FULL = flags.DEFINE_bool('full', False, 'Decode all of each clip before it is taken.')
_MEGABYTES = flags.DEFINE_integer(
  'megabytes', None, 'A larger file is rejected; 256.', lower_bound=1
)
_ROWS_PER_SHARD = flags.DEFINE_integer('rows_per_shard', 256, 'Clips in a file.', lower_bound=1)
_PROCESS = flags.DEFINE_integer('process', 0, 'Of the processes that convert, this one.')
_PROCESSES = flags.DEFINE_integer('processes', 1, 'How many convert at once.', lower_bound=1)
_THREADS = flags.DEFINE_integer('threads', 0, 'Clips at once; 0 for four a core, 16 at most.')
_ISOLATE = flags.DEFINE_bool(
  'isolate', False, 'Decode in processes, so that a clip which kills its decoder is rejected.'
)
_SHEET = flags.DEFINE_string(
  'sheet', 'clips.png', 'PNG that inspect, references and calibrate_faces write.'
)
_SHOWN = flags.DEFINE_integer('shown', 8, 'Clips on the contact sheet.', lower_bound=1)
_FACES = flags.DEFINE_string(
  'faces', 'cascade', 'What finds and compares faces: cascade, dlib, arcface:FILE.onnx.'
)
_SMALLEST = flags.DEFINE_float(
  'smallest_face', None, 'Share of the shorter side of a frame that the smallest face has; 0.2.'
)
_THRESHOLD = flags.DEFINE_float(
  'threshold', None, "Cosine from which on two faces are one person; by default the embedder's."
)
_SIZE = flags.DEFINE_integer('size', None, 'Pixels of a reference; 224.', lower_bound=1)
_MARGIN = flags.DEFINE_float(
  'margin', None, 'Around the face of a reference, as a share of its box; 0.3.', lower_bound=0
)


def main(arguments) -> None:
  commands = (_convert, _inspect, _verify, _references, _calibrate_faces)
  dict(zip(COMMANDS, commands, strict=True))[arguments[1]]()


def _opened():
  """The clips that --input names."""
  source, output = _INPUT.value, _OUTPUT.value
  if '://' not in output:
    folder = pathlib.Path(output).resolve()
    if pathlib.Path(source).resolve() in (folder, *folder.parents):
      raise ConfigError(f'--output={output} lies in --input={source}; name a folder outside')
  structured = entries.Captions(captions.COLUMNS, captions.caption_of_row)
  with contextlib.closing(_Report('item', patience=_PAUSE)) as listed:
    return open_inputs.open_inputs(
      source,
      _LAYOUT.value,
      media_column=_MEDIA.value,
      caption_column=_CAPTION.value,
      captions=structured if _CAPTIONS.value == 'audio' else entries.PLAIN,
      progress=listed,
    )


def _convert() -> None:
  inputs = _opened()
  given = (_REENCODE, _GOP, _CRF, _SIDE, _FULL, _MEGABYTES)
  options = convert.ConvertOptions(
    **{flag.name: flag.value for flag in given if flag.value is not None}
  )
  with contextlib.closing(_Report('clip')) as report:
    outcome = convert.convert(
      inputs,
      _OUTPUT.value,
      options,
      rows_per_shard=_ROWS_PER_SHARD.value,
      process=_PROCESS.value,
      processes=_PROCESSES.value,
      threads=_THREADS.value,
      isolate=_ISOLATE.value,
      progress=report,
    )
  print(f'{outcome.rows} clips, {len(outcome.rejected)} rejected')
  _tell_rejected(outcome)


def _tell_rejected(outcome) -> None:
  reasons = f'{_OUTPUT.value.rstrip("/")}/{convert.REJECTED}'
  for line in entries.listed(outcome.rejected, reasons):
    print(line)
  if not outcome.finished:
    print('the shards of other processes have yet to be written')
  elif outcome.rejected:
    print(f'all reasons are in {reasons}')


def _open_faces():
  smallest = recognition.SMALLEST if _SMALLEST.value is None else _SMALLEST.value
  return recognition.open_faces(_FACES.value, smallest, _THRESHOLD.value)


def _references() -> None:
  inputs, faces = _opened(), _open_faces()
  given = {'side': _SIZE.value, 'margin': _MARGIN.value}
  settings = references.ReferenceSettings(**{k: v for k, v in given.items() if v is not None})
  sheet = reference_sheet.ReferenceSheet(_SHOWN.value)
  with contextlib.closing(_Report('clip')) as report:
    outcome = reference_records.write_references(
      inputs,
      _OUTPUT.value,
      faces,
      settings,
      scenes.SceneSettings(),
      clips_per_shard=_ROWS_PER_SHARD.value,
      process=_PROCESS.value,
      processes=_PROCESSES.value,
      progress=report,
      sheet=sheet,
    )
  print(outcome)
  _tell_rejected(outcome)
  if sheet.write(_SHEET.value):
    print(_SHEET.value)


def _calibrate_faces() -> None:
  with contextlib.closing(_Report('file')) as report:
    lines, rejected = face_calibration.calibrate_folder(
      _INPUT.value, _open_faces(), _SHEET.value, report
    )
  print(*lines, *entries.listed(rejected), _SHEET.value, sep='\n')


def _directories() -> list[str]:
  """The records that --input names: itself, or those below it, as launch.encode lays them out."""
  given = _INPUT.value
  below = [] if '://' in given else sorted(pathlib.Path(given).glob('*/*/manifest.json'))
  whole = pathlib.Path(given, 'manifest.json').exists() or not below
  names = {path.suffix for path in pathlib.Path(given).glob('*')} if whole else set()
  if names & {*entries.VIDEO.suffixes, '.tar', '.parquet'} and '.arrayrecord' not in names:
    raise DataError(
      f'--input={given} holds no records; make them of clips with convert --input={given} '
      '--output=..., which lists the clips that cannot be used'
    )
  return [given] if whole else [str(path.parent) for path in below]


def _inspect() -> None:
  directories, count = _directories(), 0
  for directory in directories:
    if len(directories) > 1:
      print(f'\n{printable(directory)}')
    count += _inspect_records(reader.Records(directory))
  if count:
    raise DataError(
      f'damaged rows: {count}, listed above; convert --full rejects clips that cannot be decoded, '
      'verify reads every file and says which changed since it was written'
    )


def _inspect_records(records) -> int:
  """Prints a summary of what is whole and a line for what is not; returns how many are not."""
  lines, damaged = record_summary.describe_records(records)
  for line in lines:
    print(printable(line))
  if len(records) and record_summary.holds_clips(records):
    drawn, undecoded = record_summary.draw_clips(records, _SHEET.value, _SHOWN.value)
    damaged = undecoded | damaged
    if drawn:
      print(_SHEET.value)
  if damaged:
    print('damaged:', *entries.listed([damaged[row] for row in sorted(damaged)]), sep='\n')
  return len(damaged)


def _verify() -> None:
  faults = []
  for directory in _directories():
    if found := reader.verify_records(directory):
      faults += found
    else:
      rows = len(reader.Records(directory))
      print(f'{printable(directory)}: every file is as it was written, {rows} rows')
  if faults:
    raise DataError('\n'.join(faults))


class _Report:
  """Passes on how far something is.

  Of what is done before `patience` seconds are over it says nothing.
  """

  def __init__(self, unit: str, patience: float = 0.0):
    self._unit, self._progress = unit, None
    self._begins = time.monotonic() + patience

  def __call__(self, done: int, total: int) -> None:
    if not total or (self._progress is None and time.monotonic() < self._begins):
      return
    self._progress = self._progress or progress.Progress(total, unit=self._unit)
    self._progress.report(done)

  def close(self) -> None:
    if self._progress is not None:
      self._progress.close()


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
