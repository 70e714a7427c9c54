r"""Makes what models are trained on: records of clips, latents, pairs; inspects and verifies it.

python -m launch.data convert --input=clips/ --output=data/clips
python -m launch.data convert --input=shards/ --output=gs://bucket/clips --reencode=side=256 \
  --process=0 --processes=8
python -m launch.data inspect --input=data/clips --sheet=clips.png
python -m launch.data inspect --input=out.mp4
python -m launch.data verify --input=data/clips
python -m launch.data preview --world=solids --sheet=solids.png
python -m launch.data encode --config=configs/digits/video.py --output=runs/latents \
  --config.autoencoder=runs/autoencoder
python -m launch.data references --input=clips/ --output=data/people --faces=dlib
python -m launch.data calibrate_faces --input=people/ --faces=dlib
python -m launch.data pairs --config=configs/digits/editing.py:backtranslation \
  --output=runs/editing/latents_backtranslation
python -m launch.data cross_pairs --workdir=runs/personalized_images --input=data/people \
  --output=data/synthetic
python -m launch.data mark --input=clips/ --segmenter=package.module:function --output=data/marked
python -m launch.data teach --input=prompts.txt --teacher=llama-70b@http://127.0.0.1:8000/v1 \
  --output=runs/rewriting/pairs.jsonl
python -m launch.data student --input=runs/rewriting/pairs.jsonl \
  --output=runs/rewriting/student.jsonl
The same command again goes on where it stopped. Several processes share the work, on one host or on
many that see the same directory: give each its own --process of --processes. preview draws clips of
a synthetic dataset (mgjax/lab/worlds) with their captions: a picture and an animation. convert and
references read a folder of clips with captions (clip.mp4, clip.txt), or a list that names them
(.csv, .json, .jsonl, as other trainers write it), WebDataset tars or parquet files. What cannot be
used is listed in rejected.jsonl beside the records. inspect and verify take records of clips and of
latents, or a directory of encode with several; inspect lists the damaged among some rows and ends
with exit code 3. Of one video, picture or sound it tells who signed it (C2PA), and ends with 3
where it was changed. encode makes latents of clips: train with --config.data.latents=runs/latents.
With --config.text it encodes all prompts too, beside the latents, with --config.vision a tower of
CLIP sees the frames that belong to audio, and with --prompts=file.txt it encodes the prompts of
that file alone. references makes records of clips with five pictures of the one person in them;
calibrate_faces takes a folder with a folder of pictures for each person. pairs edits real clips by
a trained editor and reverses the instructions, for the last stage of its training. With
configs/solids/preferences.py it makes two samples of a prompt and votes for one. cross_pairs makes
pictures of the people of references under other prompts. All are in pairs.html, with the reason why
one was dropped. mark makes pairs of clips whose captions say what to mark: the function takes
frames (uint8, t h w 3) and the caption, and returns masks (t h w). teach has a language model write
prompts anew as training's captions are (Movie Gen §3.4.1). People look through its lines, set
"keep" or mend "rewritten"; student writes what they leave as chats.
"""

import contextlib
import math
import pathlib

from absl import flags
from etils import epy

from mgjax.core.errors import ConfigError, DataError, printable

from . import command_line, flag_values

with epy.lazy_imports():
  from mgjax.apps import encode
  from mgjax.apps.pairs import backtranslation, cross_pairs, make_pairs, preferences
  from mgjax.core import plug_ins
  from mgjax.data import synthetic_datasets as table
  from mgjax.data.ingest import convert, entries, open_inputs, record_summary
  from mgjax.data.media import viewing
  from mgjax.data.media.faces import recognition
  from mgjax.data.media.provenance import manifest
  from mgjax.data.records import reader, writer
  from mgjax.lab.curation import marked_clips
  from mgjax.lab.curation.filters import scenes
  from mgjax.lab.curation.people import face_calibration, single_person_references
  from mgjax.lab.curation.people import records as reference_records
  from mgjax.lab.curation.people import sheet as reference_sheet
  from mgjax.lab.language_models import rewriting
  from mgjax.parallel import distributed
  from mgjax.sections.audio import captions
  from mgjax.sections.flow import requests
  from mgjax.sections.personalization import pipeline as personalization
  from mgjax.training.monitoring import progress

_PAUSE = 5.0  # seconds until a listing tells how far it is
_SHOWN = 8  # clips on a contact sheet
_SIGNED = ('.mp4', '.png', '.wav', '.webp')

_INPUT = command_line.define_required(
  'input',
  'clips/',
  'Clips to convert, records to inspect or verify, prompts to rewrite.',
  commands=(
    'convert',
    'inspect',
    'verify',
    'references',
    'calibrate_faces',
    'cross_pairs',
    'mark',
    'teach',
    'student',
  ),
)
_WORLD = command_line.define_required('world', 'solids', 'To preview.', commands=('preview',))
_OUTPUT = command_line.define_required(
  'output',
  'data/clips',
  'Directory or URL of the records to make; of teach and student a .jsonl.',
  commands=(
    'convert',
    'encode',
    'references',
    'pairs',
    'cross_pairs',
    'mark',
    'teach',
    'student',
  ),
)
_CONFIG = command_line.define_config('configs/digits/video.py', commands=('encode', 'pairs'))
_WORKDIR = command_line.define_required(
  'workdir', 'runs/personal', 'cross_pairs: run of a personalized model.', commands=('cross_pairs',)
)
_SEGMENTER = command_line.define_required(
  'segmenter', 'package.module:function', 'mark: finds what a caption names.', commands=('mark',)
)
_TEACHER = command_line.define_required(
  'teacher',
  'llama-70b@http://127.0.0.1:8000/v1',
  'MODEL@URL of a chat server, or a .json of settings; of student those that teach had, if any.',
  commands=('teach',),
)
_LAYOUT = flags.DEFINE_enum(
  'layout', 'auto', ['auto', 'files', 'tar', 'parquet'], 'How the clips lie.'
)
_MEDIA = flags.DEFINE_string('media_column', '', 'Of a list or parquet: the column of clips.')
_CAPTION = flags.DEFINE_string(
  'caption_column', '', 'Of a list, parquet or the json of a tar: the column of captions.'
)
_ALLOW_NAMES = flags.DEFINE_bool(
  'allow_names', False, 'Take the name of its file for the caption of a clip that has none.'
)
_CAPTIONS = flags.DEFINE_enum(
  'captions',
  'plain',
  ['plain', 'audio'],
  'audio: the template, of the columns of docs/how_to/make_audio.md.',
)
_REENCODE = command_line.define_fields(
  'reencode',
  'Encode anew, for quick reads at any moment, as gop=16,crf=20,side=256: frames from key frame to '
  'key frame (16), rate factor (20), what the shorter side is shrunk to (0, nothing).',
  gop=(int, 1, math.inf),
  crf=(float, 0, 51),
  side=(int, 0, math.inf),
  deinterlace=(int, 0, 1),
)
_FULL = flags.DEFINE_bool('full', False, 'Decode all of each clip before it is taken.')
_MEGABYTES = flags.DEFINE_integer('megabytes', 256, 'A larger file is rejected.', lower_bound=1)
_ROWS_PER_SHARD = flags.DEFINE_integer('rows_per_shard', 256, 'Clips in a file.', lower_bound=1)
_PROCESS = flags.DEFINE_integer('process', None, 'This process, from 0 on.', lower_bound=0)
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many share the work.', lower_bound=1)
_ISOLATE = flags.DEFINE_bool(
  'isolate', False, 'Decode in processes, so that a clip which kills its decoder is rejected.'
)
_SHEET = flags.DEFINE_string(
  'sheet', 'clips.png', 'PNG that inspect, references and preview write.'
)
_AUTHORITIES = flag_values.define(
  'authorities',
  flag_values.file('authorities'),
  'inspect of a signed file: a .pem with certificates of those whom you trust to issue others.',
)
_FACES = flags.DEFINE_string(
  'faces', 'cascade', 'What finds and compares faces: cascade, dlib, arcface:FILE.onnx.'
)
_THRESHOLD = flags.DEFINE_float(
  'threshold', None, "Cosine from which on two faces are one person; the embedder's.", -1, 1
)
_REFERENCES = command_line.define_fields(
  'references',
  'As side=224,margin=0.3,smallest=0.2: pixels of a reference, what is around its face as a share '
  'of the box, the smallest face as a share of the shorter side of a frame.',
  side=(int, 1, math.inf),
  margin=(float, 0, math.inf),
  smallest=(float, 0, 1),
)
_RECOGNISER = flag_values.define(
  'recogniser', flag_values.file('recogniser'), 'cross_pairs of moving digits: run of a CLIP.'
)
_DENY_LIST = flag_values.define(
  'deny_list', flag_values.file('deny_list'), 'cross_pairs: people to leave out, as .npy.'
)
_PROMPTS = flag_values.define(
  'prompts', flag_values.file('prompts'), 'encode, cross_pairs: prompts, one a line.'
)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Of pairs at a time.', lower_bound=1)

_READ = (_INPUT, _LAYOUT, _MEDIA, _CAPTION, _CAPTIONS, _ALLOW_NAMES)
_SHARED = (_OUTPUT, _PROCESS, _PROCESSES)
command_line.flags_of(
  {
    'preview': (_WORLD, _SHEET),
    'convert': (*_READ, *_SHARED, _FULL, _ISOLATE, _MEGABYTES, _REENCODE, _ROWS_PER_SHARD),
    'inspect': (_INPUT, _SHEET, _AUTHORITIES),
    'verify': (_INPUT,),
    'encode': (_CONFIG, *_SHARED, _PROMPTS),
    'references': (*_READ, *_SHARED, _FACES, _REFERENCES, _ROWS_PER_SHARD, _SHEET, _THRESHOLD),
    'calibrate_faces': (_INPUT, _FACES, _REFERENCES, _THRESHOLD),
    'pairs': (_CONFIG, *_SHARED, _BATCH_SIZE),
    'cross_pairs': (
      *(_INPUT, *_SHARED, _WORKDIR, _PROMPTS),
      *(_RECOGNISER, _THRESHOLD, _DENY_LIST, _BATCH_SIZE),
    ),
    'mark': (_INPUT, _OUTPUT, _SEGMENTER),
    'teach': (_INPUT, _OUTPUT, _TEACHER),
    'student': (_INPUT, _OUTPUT, _TEACHER),
  }
)


def main(arguments) -> None:
  if _CONFIG.value is not None and command_line.print_config(_CONFIG.value):
    return
  COMMANDS[arguments[1]]()


def _share():
  """Which of how many processes this is."""
  return writer.Share(_PROCESS.value or 0, _PROCESSES.value or 1)


def _opened():
  """Opens the clips that --input names."""
  source, output = _INPUT.value, _OUTPUT.value
  if '://' not in output:
    folder = pathlib.Path(output).resolve()
    if pathlib.Path(source).resolve() in (folder, *folder.parents):
      raise ConfigError(f'--output={output} lies in --input={source}; name a folder outside')
  structured = entries.Captions(captions.CAPTION_COLUMNS, captions.caption_of_row)
  with contextlib.closing(progress.Counted('item', patience=_PAUSE)) as listed:
    inputs = open_inputs.open_inputs(
      source,
      _LAYOUT.value,
      media_column=_MEDIA.value,
      caption_column=_CAPTION.value,
      captions=structured if _CAPTIONS.value == 'audio' else entries.PLAIN,
      progress=listed,
    )
  if (lacking := inputs.uncaptioned) and not _ALLOW_NAMES.value:
    lines = [
      f'{entries.without_caption(lacking, inputs.clips)}; write one into a .txt of the same name '
      'or a list (docs/how_to/prepare_data.md), or take the names of files for captions with '
      '--allow_names',
      *entries.list_rejected(
        list({clip.name: clip for clip in (*inputs.rejected, *lacking)}.values())
      ),
    ]
    raise DataError('\n'.join(lines))
  return inputs


def _convert() -> None:
  inputs = _opened()
  anew = {} if _REENCODE.value is None else {'reencode': True, **_REENCODE.value}
  anew['deinterlace'] = bool(anew.get('deinterlace'))
  options = convert.ConvertOptions(full=_FULL.value, megabytes=_MEGABYTES.value, **anew)
  with contextlib.closing(progress.Counted('clip')) as report:
    outcome = convert.convert(
      inputs,
      _OUTPUT.value,
      options,
      rows_per_shard=_ROWS_PER_SHARD.value,
      workers=convert.Workers(isolate=_ISOLATE.value),
      progress=report,
      share=_share(),
    )
  print(f'{outcome.rows} clips, {len(outcome.rejected)} rejected')
  for remark, count in outcome.remarks.items():
    print(f'{count} of {inputs.clips} clips {remark}')
  _tell_rejected(outcome, inputs)


def _tell_rejected(outcome, inputs) -> None:
  left_out = [rejection for rejection in outcome.rejected if entries.why_uncaptioned(rejection)]
  lacking = {clip.name: clip for clip in (*inputs.uncaptioned, *left_out)}
  print(entries.without_caption(list(lacking.values()), inputs.clips))
  reasons = f'{_OUTPUT.value.rstrip("/")}/{convert.REJECTED_FILE}'
  for line in entries.list_rejected(outcome.rejected, reasons):
    print(line)
  if outcome.finished and outcome.rejected:
    print(f'all reasons are in {reasons}')
  _tell_unfinished(outcome)
  if left_out and not _ALLOW_NAMES.value:
    raise DataError(
      f'{len(left_out)} clips without a caption are left out; write captions and convert again, or '
      'accept it with --allow_names'
    )


def _tell_unfinished(outcome) -> None:
  if not outcome.finished:
    print('the shards of other processes have yet to be written')


def _encode() -> None:
  distributed.initialize()
  share = {'process': _PROCESS.value, 'processes': _PROCESSES.value}
  if _PROMPTS.value is None:
    encode.encode(_CONFIG.value, _OUTPUT.value, **share)
  else:
    prompts = requests.read_prompts(_PROMPTS.value)[0]
    encode.encode_prompts(_CONFIG.value.to_dict(), _OUTPUT.value, prompts, **share)


def _open_faces():
  smallest = (_REFERENCES.value or {}).get('smallest', recognition.SMALLEST_FACE)
  return recognition.open_faces(_FACES.value, smallest, _THRESHOLD.value)


def _references() -> None:
  inputs, faces = _opened(), _open_faces()
  fields = {k: v for k, v in (_REFERENCES.value or {}).items() if k != 'smallest'}
  sheet = reference_sheet.ReferenceSheet(_SHOWN)
  settings = single_person_references.ReferenceSettings(**fields)
  finder = reference_records.ReferenceFinder(faces, settings, scenes.SceneSettings(), sheet=sheet)
  with contextlib.closing(progress.Counted('clip')) as report:
    outcome = reference_records.write_references(
      inputs,
      _OUTPUT.value,
      finder,
      clips_per_shard=_ROWS_PER_SHARD.value,
      progress=report,
      share=_share(),
    )
  print(outcome)
  _tell_rejected(outcome, inputs)
  if sheet.write(_SHEET.value):
    print(_SHEET.value)


def _calibrate_faces() -> None:
  with contextlib.closing(progress.Counted('file')) as report:
    lines, rejected = face_calibration.calibrate_folder(_INPUT.value, _open_faces(), report)
  print(*lines, *entries.list_rejected(rejected), sep='\n')


def _pairs() -> None:
  config = _CONFIG.value.to_dict()
  make = preferences.prefer if 'preferences' in config else backtranslation.backtranslate
  results = make(config, _OUTPUT.value, batch_size=_BATCH_SIZE.value, share=_share())
  for bucket, result in results.items():
    print(f'{bucket}: {result}')
    _tell_pairs(result, f'{_OUTPUT.value.rstrip("/")}/{bucket}')


def _cross_pairs() -> None:
  prompts = _PROMPTS.value and requests.read_prompts(_PROMPTS.value)[0]
  result = cross_pairs.cross_pairs(
    personalization.PersonalizationPipeline(_WORKDIR.value, deny_list=_DENY_LIST.value),
    _INPUT.value,
    _OUTPUT.value,
    recogniser=_RECOGNISER.value,
    threshold=_THRESHOLD.value,
    prompts=prompts,
    batch_size=_BATCH_SIZE.value,
    share=_share(),
  )
  print(result)
  _tell_pairs(result, _OUTPUT.value.rstrip('/'))


def _tell_pairs(result, directory: str) -> None:
  if result.finished:
    print(f'{directory}/{make_pairs.PAGE}')
  _tell_unfinished(result)


def _mark() -> None:
  segmenter = plug_ins.load_function(_SEGMENTER.value)
  marked = marked_clips.mark_clips(_INPUT.value, _OUTPUT.value, segmenter)
  for name, reason in marked.rejected.items():
    print(f'{name}: {reason}')
  print(f'{marked.path}: {marked.pairs} pairs of {marked.pairs + len(marked.rejected)} clips')


def _teach() -> None:
  teacher = rewriting.read_rewriter(_TEACHER.value, '--teacher')
  prompts, _ = requests.read_prompts(_INPUT.value)
  pairs = pathlib.Path(_OUTPUT.value)
  counts = rewriting.teach(prompts, teacher, pairs.parent / 'answers', pairs)
  print(f'{counts["kept"]} pairs, and {counts["dropped"]} dropped, in {printable(pairs)}')


def _student() -> None:
  endpoint = _TEACHER.value
  teacher = (
    rewriting.read_rewriter(endpoint, '--teacher') if endpoint else rewriting.RewriteSettings({})
  )
  out = pathlib.Path(_OUTPUT.value)
  chats = rewriting.write_student_file(pathlib.Path(_INPUT.value), out, teacher)
  print(f'{chats} chats in {printable(out)}')


def _directories() -> list[str]:
  """Returns the records that --input names: itself, or those below it, as encode writes them."""
  root = _INPUT.value
  below = [] if '://' in root else sorted(pathlib.Path(root).glob('*/*/manifest.json'))
  is_records = pathlib.Path(root, 'manifest.json').exists() or not below
  names = {path.suffix.lower() for path in pathlib.Path(root).glob('*')} if is_records else set()
  if names & {*entries.VIDEO.suffixes, '.tar', '.parquet'} and '.arrayrecord' not in names:
    raise DataError(
      f'--input={root} holds no records; make them of clips with convert --input={root} '
      '--output=..., which lists the clips that cannot be used'
    )
  return [root] if is_records else [str(path.parent) for path in below]


def _inspect() -> None:
  if pathlib.Path(_INPUT.value).suffix.lower() in _SIGNED:
    print(manifest.read_manifest(_INPUT.value, _AUTHORITIES.value).text)
    return
  directories = _directories()
  count = 0
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
    drawn, undecoded = record_summary.draw_clips(records, _SHEET.value, _SHOWN)
    damaged = undecoded | damaged
    if drawn:
      print(_SHEET.value)
  if damaged:
    print('damaged:', *entries.list_rejected([damaged[row] for row in sorted(damaged)]), sep='\n')
  return len(damaged)


def _verify() -> None:
  faults = []
  for directory in _directories():
    if problems := reader.verify_records(directory):
      faults += problems
    else:
      rows = len(reader.Records(directory))
      print(f'{printable(directory)}: every file is as it was written, {rows} rows')
  if faults:
    raise DataError('\n'.join(faults))


def _preview() -> None:
  source = table.open_world(_WORLD.value, {}, 'train')
  clips = [source[index] for index in progress.track(range(_SHOWN), _SHOWN, 'clip')]
  videos, captions = ([clip[name] for clip in clips] for name in ('video', 'caption'))
  print(*viewing.write_sheets(_SHEET.value, videos, captions, source.fps), sep='\n')


COMMANDS = {
  'preview': _preview,
  'convert': _convert,
  'inspect': _inspect,
  'verify': _verify,
  'encode': _encode,
  'references': _references,
  'calibrate_faces': _calibrate_faces,
  'pairs': _pairs,
  'cross_pairs': _cross_pairs,
  'mark': _mark,
  'teach': _teach,
  'student': _student,
}


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
