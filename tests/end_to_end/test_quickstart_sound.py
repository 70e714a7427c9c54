"""The quickstart of sound: what two trained models lead to, with very small ones."""

import json
import shutil

from mgjax.apps.recipe import run_recipe
from mgjax.data.media.audio import probe_audio
from mgjax.lab.evaluation import quickstart
from tests import tiny_sound
from tests.end_to_end.test_quickstart import recipe


def test_sounds_are_judged_and_a_second_call_says_the_same(tiny_sound_runs, tmp_path):
  workdir = shutil.copytree(tiny_sound_runs, tmp_path / 'quickstart')  # trained already, and moved
  config = recipe(tiny_sound.codec(), tiny_sound.audio(workdir), judge='sound', samples=4)
  assert run_recipe(config.to_dict(), workdir)
  text = quickstart.describe_result(config.to_dict(), workdir)
  report = json.loads((workdir / 'report.json').read_text())
  assert report['real']['clips'] == report['scores']['clips'] == 4
  assert report['real']['missed'] in (0, None)
  seconds = json.loads((workdir / 'seconds.json').read_text())
  assert seconds.keys() == {'latents for audio', 'samples'}  # the models were trained
  films = list((workdir / 'samples').rglob('*.mp4'))
  assert films and all(probe_audio(path).rate == 48_000 for path in films)
  assert 'of another clip' in text and '--video=' in text
  assert (
    run_recipe(config.to_dict(), workdir)
    and quickstart.describe_result(config.to_dict(), workdir) == text
  )
