"""The quickstart of sound: what two trained models lead to, in a world that is very small."""

import json
import shutil

from mgjax.media.audio import probe_audio
from mgjax.workflows import quickstart
from tests import binaries, tiny_sound


def test_sounds_are_judged_and_a_second_call_says_the_same(tiny_sound_runs, tmp_path):
  workdir = shutil.copytree(tiny_sound_runs, tmp_path / 'quickstart')  # trained already, and moved
  stages, model = quickstart.train_both(tiny_sound.codec(), tiny_sound.audio(workdir), workdir)
  text, paths = quickstart.report_audio(stages, model, workdir, samples=4)
  report = json.loads((workdir / 'report.json').read_text())
  assert report['real']['clips'] == report['scores']['clips'] == 4
  assert report['real']['missed'] in (0, None)
  assert set(report['stages']) == {'codec', 'latents', 'audio', 'samples'}
  assert 'real (ceiling)' in text and all(path.exists() for path in paths)
  films = [path for path in paths if path.suffix == '.mp4']
  assert films and all(probe_audio(path).rate == 48_000 for path in films)
  assert quickstart.report_audio(stages, model, workdir, samples=4) == (text, paths)


def test_sound_of_clips_is_not_offered(tmp_path):
  done = binaries.run('quickstart', '--sound', f'--clips={tmp_path}')
  assert done.returncode == 2
  assert '--sound is for moving digits' in done.stderr
