"""What bad input is tried on: clips, records, runs, votes and tables, small and whole."""

import itertools
import json
import pathlib
import shlex
import shutil

import numpy as np
from PIL import Image

from mgjax.apps.weights.import_export import export_weights
from mgjax.data.ingest.convert import Workers, convert
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.media.audio import write_wav
from mgjax.lab.evaluation.human.study import Folders, begin
from mgjax.lab.evaluation.human.votes import import_votes
from tests import tiny
from tests.data.media.audio_files import encode_video, noise
from tests.end_to_end.test_curation import TINY
from tests.hostile import kinds
from tests.lab.scaling.test_comparison import SECOND
from tests.lab.scaling.test_parametric import SURFACES, noisy

PROMPT = "--prompt='the red digit 7 bounces'"
QUICK = '--steps=1 --workdir=digits'
SOUND = f'sample audio {QUICK}/audio --candidates=1 {PROMPT}'
_LITTLE = {f'train.{name}': 1 for name in ('save_every', 'evaluate_every')}
_LITTLE |= {'optimizer.warmup': 1, 'train.steps': 2}
# Commands that end well, by a name; each takes a second or two of a processor.
COMMANDS = {
  name: tuple(shlex.split(words))
  for name, _, words in (
    line.partition(': ')
    for line in f"""
train: train --config=digits/autoencoder --workdir=new --dry_run
sample a video: sample video {QUICK}/few_steps {PROMPT} --out=out.mp4
sample a sound: {SOUND} --seconds=1 --out=out.wav
sample a soundtrack: {SOUND} --video=clips/0.mp4 --out=out.mp4
go on with a sound: {SOUND} --continue=sound.wav --seconds=1 --out=out.wav
enlarge: sample upsample {QUICK}/upsampler --video=clips/0.mp4 --out=out.mp4
edit: sample edit {QUICK}/editing '--prompt=make the digit red' --video=clips/0.mp4 --out=out.mp4
show a person: sample personalize {QUICK}/personalization {PROMPT} --reference=picture.png
sample a suite: sample suite {QUICK}/few_steps --suite=digits:3 --out=suite
train a little: train --config=digits/autoencoder --workdir=new
convert: data convert --input=clips --output=converted
convert anew: data convert --input=clips --output=converted --full --reencode=gop=8,side=16
average: weights average --input=run,again --workdir=averaged --novalidate
inspect: data inspect --input=records
verify records: data verify --input=records
find references: data references --input=clips --output=people
curate: curate --input=clips --output=curated --workers=1 --config=curation/high_resolution
evaluate: evaluate --videos=a --suite=prompts.txt
analyse: compare analyse --study=votes
power: compare power --prompts_seen=100 --study=votes
export votes: compare export --study=votes --out=votes.csv
import votes: compare import --study=votes --csv=table.csv
plan: plan --config=digits/video --topology=h100:1
rehearse: rehearse --config=digits/video --topology=h100:8 --runs=2 --out=rehearsal
plan a sweep: scaling plan --config=scaling/isoflop
fit: scaling fit --records=runs.csv --arm=llama --resamples=10
predict: scaling predict --records=runs.csv --arm=llama --resamples=10 --compute=1e23
compare: scaling compare --records=runs.csv --first=llama --second=dit --resamples=10
compare seeds: scaling compare --records=seeds.jsonl --first=a --second=b
plot: scaling plot --records=runs.csv --arm=llama --resamples=10 --out=laws
list checkpoints: weights list --workdir=run
verify: weights verify --workdir=run
prune: weights prune --workdir=run --keep=latest=1
export: weights export --workdir=run --out=out.safetensors
import: weights import --input=run.safetensors --config=digits/autoencoder --workdir=imported
serve votes: serve votes --out=votes --host=256.0.0.1
serve a review: serve review --input=clips --output=curated --host=256.0.0.1
doctor: doctor --workdir=run
""".strip().splitlines()
  )
}
COMMANDS['train a little'] += tuple(tiny.flags(tiny.AUTOENCODER | _LITTLE))
COMMANDS['curate'] += tuple(tiny.flags(TINY))


def make(folder: pathlib.Path) -> pathlib.Path:
  """Makes all that the commands read."""
  folder.mkdir(parents=True)
  generator = np.random.default_rng(0)
  for name in ('clips', 'a', 'b'):
    (folder / name).mkdir()
    for index in range(3):
      frames = np.roll(generator.integers(0, 256, (16, 32, 32, 3), np.uint8), index, 1)
      file = folder / name / (f'{index}.mp4' if name == 'clips' else f'{index:05d}.mp4')
      encode_video(file, frames, noise(0.6) if not index else None)
      if name == 'clips':
        file.with_suffix('.txt').write_text(f'the digit {index}')
  write_wav(folder / 'sound.wav', noise(1.0, 16_000), 16_000)
  Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / 'picture.png')
  (folder / 'prompts.txt').write_text('\n'.join(f'the digit {index} moves' for index in range(3)))
  convert(open_inputs(folder / 'clips'), folder / 'records', workers=Workers(threads=1))
  kinds._make_run(folder)
  for name, kind in kinds.ADAPTERS.items():
    kind.make(folder / name)
  shutil.copytree(folder / 'run', folder / 'again')
  export_weights(folder / 'run', folder / 'run.safetensors')
  _make_votes(folder)
  _make_tables(folder)
  return folder


def _make_votes(folder: pathlib.Path) -> None:
  # Paths of a study are as they were given: from where the command stands.
  models = {name: str(folder / name) for name in 'ab'}
  raters = ('ann', 'ben', 'cy')
  begin(folder / 'votes', Folders(models), str(folder / 'prompts.txt'), 'video:overall', raters)
  text = json.dumps(json.loads((folder / 'votes/study.json').read_text()))
  (folder / 'votes/study.json').write_text(text.replace(f'{folder}/', ''))
  rows = [
    f'{prompt},overall,{rater},a,b,{choice}'
    for prompt, rater, choice in zip(
      (0, 0, 0, 1, 1, 1, 2, 2, 2), ('ann', 'ben', 'cy') * 3, 'aabatbaab', strict=True
    )
  ]
  header = 'prompt,question,rater,left,right,choice'
  (folder / 'table.csv').write_text('\n'.join([header, *rows]).replace(',t', ',tie'))
  import_votes(folder / 'table.csv', folder / 'votes')


def _make_tables(folder: pathlib.Path) -> None:
  lines = ['arm,parameters,tokens,loss']
  for arm, law in (('llama', SURFACES['hoffmann']), ('dit', SECOND)):
    lines += [
      f'{arm},{n:.8g},{d:.8g},{x:.8g}' for n, d, x in zip(*noisy(law, noise=0.002), strict=True)
    ]
  (folder / 'runs.csv').write_text('\n'.join(lines))
  seeds = [
    json.dumps({'arm': arm, 'seed': seed, 'validation_loss': 1 + seed / 10 + (arm == 'a')})
    for arm, seed in itertools.product('ab', range(3))
  ]
  (folder / 'seeds.jsonl').write_text('\n'.join(seeds))


def copied(ground: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """A copy that a try may spoil."""
  for path in (folder, *folder.glob('*')):  # which nobody could write to
    if path.is_dir() and not path.is_symlink():
      path.chmod(0o755)
  shutil.rmtree(folder, ignore_errors=True)
  return pathlib.Path(shutil.copytree(ground, folder, symlinks=True))
