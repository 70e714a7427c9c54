r"""Makes a training set of raw videos: measures, selects and cuts their clips (Movie Gen §3.2.1).

python -m launch.curate --input=raw/ --output=data/curated \
  --config=configs/curation/high_resolution.py
--input is a folder of videos with captions (video.mp4, video.txt), a .csv or .jsonl that names
them, WebDataset tars or parquet files, or the URL of videos in a bucket, as gs://bucket/raw. The
same command again goes on where it stopped. A changed threshold, as --config.keep.motion=3,
measures nothing again; with --config.gate=True what is dropped by length or size is not decoded.
Train on what is kept with --config.data.kind=records --config.data.path=data/curated/records.
--limit=1000 measures a fair sample of about as many videos, prints its funnel, what each filter
costs and the hours that all videos take, and cuts nothing. --engine=ray spreads the work by Ray, on
this machine or, with --address, on a cluster that sees the same folders.
python -m launch.serve review --input=raw/ --output=data/curated --people=ann,ben
shows people the clips that a run left; the next run does what they decided. See
docs/how_to/curate.md.
"""

import pathlib

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line

_INPUT = command_line.define_required('input', 'raw/', 'Videos.')
_OUTPUT = command_line.define_required('output', 'data/curated', 'Folder for scores and records.')
_CONFIG = command_line.define_config('configs/curation/high_resolution.py')
_ENGINE = flags.DEFINE_enum('engine', 'plain', ['plain', 'ray'], 'What spreads the work.')
_ADDRESS = flags.DEFINE_string(
  'address', '', 'Of a Ray cluster, as auto; by default Ray is started here.'
)
_WORKERS = flags.DEFINE_integer('workers', 0, 'Processes; 0 for one a core.', lower_bound=0)
_LIMIT = flags.DEFINE_integer('limit', 0, 'Videos to measure; 0 for all.', lower_bound=0)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Say what there is to do, and stop.')
_LAYOUT = flags.DEFINE_enum(
  'layout', 'auto', ['auto', 'files', 'tar', 'parquet'], 'How the videos lie.'
)
_MEDIA = flags.DEFINE_string('media_column', '', 'Of a list or parquet: the column of videos.')
_CAPTION = flags.DEFINE_string(
  'caption_column', '', 'Of a list or parquet: the column of captions.'
)


def main(arguments) -> None:
  if command_line.print_config(_CONFIG.value):
    return
  from mgjax.core.settings import unpack
  from mgjax.data.ingest.entries import without_caption
  from mgjax.data.ingest.open_inputs import open_inputs
  from mgjax.lab.curation import curate
  from mgjax.lab.curation.settings import CurationSettings

  settings = unpack(CurationSettings, _CONFIG.value.to_dict(), 'config')
  options = curate.Options(_ENGINE.value, _ADDRESS.value, _WORKERS.value, _LIMIT.value)
  inputs = open_inputs(
    _folder(), _LAYOUT.value, media_column=_MEDIA.value, caption_column=_CAPTION.value
  )
  if lacking := inputs.uncaptioned:
    print(without_caption(lacking, inputs.clips))
  if _DRY_RUN.value:
    print(*curate.plan(settings, inputs, _OUTPUT.value), sep='\n')
  else:
    print(*curate.curate(settings, inputs, _OUTPUT.value, options), sep='\n')


def _folder() -> str:
  source, output = _INPUT.value, _OUTPUT.value
  if '://' in output:
    raise ConfigError(f'--output={output} is a URL; mount it, and give the folder')
  if '://' in source:
    return source
  folder = pathlib.Path(output).resolve()
  if pathlib.Path(source).resolve() in (folder, *folder.parents):
    raise ConfigError(f'--output={output} lies in --input={source}; name a folder outside')
  return source


if __name__ == '__main__':
  command_line.run(main)
