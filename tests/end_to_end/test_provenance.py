"""What commands write is refused, marked and signed as the environment asks, and `show` tells."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.data.media.audio import read_audio
from mgjax.data.media.provenance.manifest import read_manifest
from mgjax.data.media.provenance.release import CHECK, POSTPROCESS
from mgjax.data.media.video import decode_all, stream_frames, write_video
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.registry import COMPONENTS
from tests.binaries import finish, run
from tests.data.media.provenance.signing import configure, film, flip, needs_c2pa
from tests.tiny_personalization import SIDE

PROMPT = 'the green digit 3 moves left'
EXAMPLES = {
  CHECK: 'tests.data.media.provenance.signing:check',
  POSTPROCESS: 'tests.data.media.provenance.signing:postprocess',
}


@pytest.fixture
def denied(monkeypatch):
  monkeypatch.setenv(CHECK, EXAMPLES[CHECK])


@pytest.fixture
def marked(monkeypatch):
  monkeypatch.setenv(POSTPROCESS, EXAMPLES[POSTPROCESS])


@pytest.fixture
def clip(tmp_path):
  path = tmp_path / 'clip.mp4'
  write_video(path, Digits(captions='all', frames=40, size=(32, 32), fps=25)[0]['video'], 25)
  return path


def is_marked(path):
  """Whether the corner of a film is white, as the plug-in of these tests paints it."""
  frames = np.stack([frame for *_, frame in stream_frames(path)])
  return frames[:, : frames.shape[1] // 8, : frames.shape[2] // 8].mean() > 240


def done(*words):
  return finish(*words).stdout.split()


def sampled(workdir, out, *flags):
  word = COMPONENTS[workdir.name].sample_command
  words = (f'--workdir={workdir}', f'--prompt={PROMPT}', f'--out={out}')
  return done('sample', word, *words, *flags)


@needs_c2pa
def test_a_made_video_with_a_made_sound_is_signed_as_the_last_thing(
  tmp_path, tiny_sound_runs, clip, monkeypatch
):
  configure(monkeypatch, tmp_path / 'certificate')
  out = tmp_path / 'film.mp4'
  flags = (f'--video={clip}', '--candidates=1')
  written = sampled(tiny_sound_runs / 'audio', out, *flags)
  assert [path.rpartition('.')[2] for path in written] == ['mp4', 'wav', 'png', 'json']
  told = done('data', 'inspect', f'--input={out}')
  assert 'UNTRUSTED,' in told and 'clip.mp4' in told
  assert all(not read_manifest(path).made_from for path in written[1:3])
  assert decode_all(out) == 40 and len(read_audio(out)) == pytest.approx(1.6 * 48_000, abs=2048)
  record = json.loads(out.with_suffix('.json').read_text())
  assert len(record['release']['certificate']) == 16
  changed = flip(out, out.stat().st_size // 2, tmp_path / 'changed.mp4')
  for path, reason in ((changed, 'was changed after it was signed'), (clip, 'no C2PA manifest')):
    answer = run('data', 'inspect', f'--input={path}')
    assert answer.returncode == 3 and reason in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@needs_c2pa
@pytest.mark.usefixtures('marked')
def test_samples_and_their_sheets_are_marked_and_signed(tmp_path, tiny_runs, monkeypatch):
  configure(monkeypatch, tmp_path / 'certificate')
  out = tmp_path / 'three.mp4'
  *files, record = sampled(tiny_runs / 'video', out)
  for path in files:
    assert read_manifest(path).actions == (('c2pa.created', 'trainedAlgorithmicMedia'),)
  assert is_marked(out)
  released = json.loads((tmp_path / record).read_text())['release']
  assert released['postprocess'] == EXAMPLES[POSTPROCESS]


@pytest.mark.usefixtures('marked')
def test_a_sample_without_a_certificate_is_marked_and_its_digest_is_the_models(
  tmp_path, tiny_runs, monkeypatch
):
  digests = []
  for name in ('marked.mp4', 'plain.mp4'):
    written = sampled(tiny_runs / 'video', tmp_path / name)
    digests.append(json.loads(pathlib.Path(written[-1]).read_text())['samples'][0]['pixels'])
    monkeypatch.delenv(POSTPROCESS, raising=False)
  assert digests[0] == digests[1]
  assert is_marked(tmp_path / 'marked.mp4') and not is_marked(tmp_path / 'plain.mp4')


@needs_c2pa
def test_enlarged_and_edited_videos_name_their_source(
  tmp_path, tiny_upsampler_runs, tiny_editing_runs, monkeypatch
):
  configure(monkeypatch, tmp_path / 'certificate')
  source = film(tmp_path / 'source.mp4', side=64)
  calls = (
    (tiny_editing_runs / 'editing', ()),
    (tiny_upsampler_runs / 'upsampler', ('--factor=4',)),
  )
  for workdir, flags in calls:
    out = tmp_path / f'{workdir.name}.mp4'
    monkeypatch.setenv(POSTPROCESS, EXAMPLES[POSTPROCESS])
    written = sampled(workdir, out, f'--video={source}', '--steps=1', *flags)
    for path in written[:2]:
      manifest = read_manifest(path)
      assert manifest.made_from == ('source.mp4',)
      assert manifest.actions[-1] == ('c2pa.edited', 'compositeWithTrainedAlgorithmicMedia')
  assert is_marked(out)


@pytest.mark.usefixtures('denied')
def test_every_model_refuses_a_denied_prompt_before_anything_is_made(
  tmp_path,
  tiny_runs,
  tiny_sound_runs,
  tiny_upsampler_runs,
  tiny_editing_runs,
  tiny_personalization_runs,
  clip,
):
  face, people = tmp_path / 'face.png', tiny_personalization_runs / 'personalization'
  Image.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8)).save(face)
  calls = (
    (tiny_runs / 'video',),
    (tiny_sound_runs / 'audio', f'--video={clip}'),
    (tiny_upsampler_runs / 'upsampler', f'--video={clip}'),
    (tiny_editing_runs / 'editing', f'--video={clip}'),
    (people, f'--reference={face}'),
  )
  for workdir, *words in calls:
    words += ['--prompt=a CANNON fires', f'--out={tmp_path / "out.mp4"}']
    answer = run('sample', COMPONENTS[workdir.name].sample_command, f'--workdir={workdir}', *words)
    assert answer.returncode == 2, f'{workdir}: {answer.stderr}'
    (sentence,) = answer.stderr.splitlines()
    assert sentence.endswith("is refused: 'cannon' is on the list of denied words")
  with pytest.raises(ConfigError, match="'cannon' is on the list"):
    mgjax.load(people).save(['a cannon'], tmp_path / 'b.mp4', reference=face)
  assert {path.name for path in tmp_path.iterdir()} == {'clip.mp4', 'face.png'}
