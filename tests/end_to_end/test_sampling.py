"""Prompts in, files out: what is written, that it can be made again, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.data.media.video import probe
from mgjax.sections.flow.requests import read_prompts
from mgjax.sections.video.pipeline import VideoPipeline
from tests import binaries
from tests.lab.language_models.chat_server import Server

PROMPT = 'the green digit 3 moves left'
VIDEO = (4, 16, 16)
SAMPLED = ('three.mp4', 'three_sheet.png', 'three_sheet.webp', 'three.json')
WEIRD = (
  'le chiffre 3 é 👩‍👩‍👧 bouge',
  'الرقم ثلاثة يتحرك',
  'red\x1b[31m digit\x00 3\t\u202e moves',
  '../../etc/passwd; rm -rf *',
  'x' * 100_000,
)


@pytest.fixture(scope='module')
def sampler(tiny_runs):
  return VideoPipeline(tiny_runs / 'video')


def make(sampler, out, prompts=(PROMPT,), seed=0, shape=VIDEO, batch_size=2):
  paths = sampler.save(prompts, out, seed=seed, shape=shape, batch_size=batch_size)
  return paths, json.loads(paths[-1].read_text())


def sample(workdir, *arguments):
  return binaries.finish('sample', 'video', f'--workdir={workdir}', *arguments)


def test_the_binary_writes_what_a_second_call_repeats_bit_by_bit(tiny_runs, sampler, tmp_path):
  out = tmp_path / 'new' / 'three.mp4'
  done = sample(tiny_runs / 'video', f'--prompt={PROMPT}', '--seed=5', f'--out={out}')
  written = [tmp_path / 'new' / name for name in SAMPLED]
  assert done.stdout.split() == [str(path) for path in written]
  record = json.loads(written[-1].read_text())
  assert probe(out).height == 256 and record['scale'] == 16
  assert record['samples'][0]['prompt'] == PROMPT and record['seed'] == 5
  assert record['settings']['solver'] == 'euler' and record['weights']['step'] == 8
  # Another process, the same seed: the same pixels, however large they are written.
  options = {'shape': VIDEO, 'batch_size': record['batch_size']}
  paths = sampler.save([PROMPT], tmp_path / 'a.mp4', seed=5, scale=1, **options)
  again = json.loads(paths[-1].read_text())
  assert probe(paths[0]).height == 16 and again['scale'] == 1
  assert again['samples'][0]['pixels'] == record['samples'][0]['pixels']
  _, other = make(sampler, tmp_path / 'other.mp4', seed=6)
  assert other['samples'][0]['pixels'] != record['samples'][0]['pixels']


def test_the_frame_rate_asked_for_is_read_by_the_model_and_written_into_the_file(
  tiny_runs, sampler, tmp_path
):
  out = tmp_path / 'fast.mp4'
  changes = ['--guidance=text=3@0.2-0.8', '--schedule=linear', '--steps=2', '--mesh=context=8']
  changes += ['--scale=1']
  sample(tiny_runs / 'video', f'--prompt={PROMPT}', '--fps=24', f'--out={out}', *changes)
  record = json.loads(out.with_suffix('.json').read_text())
  assert record['settings']['guidance'] == [['text', [3.0, [0.2, 0.8]]]]
  assert record['settings']['schedule'] == {'name': 'linear'} and record['samples'][0]['fps'] == 24
  assert probe(out).fps == 24 and probe(out).height == 16
  # A typed rate is the same rate; another one is another prompt.
  asked, typed, usual = (
    sampler.generate([prompt], fps=fps)
    for prompt, fps in ((PROMPT, 24), (f'FPS-24 {PROMPT}', None), (PROMPT, None))
  )
  np.testing.assert_array_equal(typed, asked)
  assert (usual != asked).any()
  sampler.save([f'FPS-24 {PROMPT}', PROMPT], tmp_path / 'two', shape=VIDEO)
  rates = [probe(path).fps for path in sorted((tmp_path / 'two').glob('*.mp4'))]
  assert rates == [24, sampler.config.data.fps]


def test_prompts_are_rewritten_by_a_server_before_the_model_reads_them(tiny_runs, tmp_path):
  workdir = tmp_path / 'video'
  shutil.copytree(tiny_runs / 'video', workdir)
  shutil.copytree(tiny_runs / 'autoencoder', tmp_path / 'autoencoder')
  out = tmp_path / 'out.mp4'
  with Server(lambda text: json.dumps({'prompt': PROMPT})) as server:
    asking = (f'--rewrite=tiny@{server.url}', f'--out={out}', '--steps=2')
    sample(workdir, '--prompt=green 3 moves', *asking)
    record = json.loads(out.with_suffix('.json').read_text())['samples'][0]
    assert (record['prompt'], record['typed']) == (PROMPT, 'green 3 moves')
    sample(workdir, f'--prompt={PROMPT}', f'--out={out}', '--steps=2')
    again = json.loads(out.with_suffix('.json').read_text())['samples'][0]
    assert again['pixels'] == record['pixels'] and 'typed' not in again
    assert len(server.requests) == 1


def test_a_file_of_prompts_gives_a_directory(sampler, tmp_path):
  file = tmp_path / 'prompts.txt'
  file.write_bytes(('\ufeff' + '\r\n\n'.join(WEIRD)).encode())
  prompts, _ = read_prompts(file)
  assert len(prompts) == len(WEIRD) and prompts[0] == WEIRD[0]
  paths, record = make(sampler, tmp_path / 'out', prompts)
  videos = paths[:-3]
  assert [path.name[:5] for path in videos] == ['0000_', '0001_', '0002_', '0003_', '0004_']
  assert all(path.parent == tmp_path / 'out' and len(path.name) == 17 for path in videos)
  assert [entry['prompt'] for entry in record['samples']] == prompts
  assert not any(c in ''.join(prompts) for c in '\x1b\x00\t\u202e\ufeff')
  assert max(map(len, prompts)) == 4096
  # The same prompt twice draws two noises.
  _, record = make(sampler, tmp_path / 'twice', [PROMPT, PROMPT])
  assert len({entry['pixels'] for entry in record['samples']}) == 2


def test_the_batch_size_changes_no_more_than_rounding(sampler):
  prompts = [f'the red digit {digit} moves up' for digit in range(5)]
  one, two, all_at_once = (
    sampler.generate(prompts, seed=1, batch_size=size).astype(int) for size in (1, 2, 32)
  )
  # Programs of other batch sizes add up in other orders; a byte can then round the other way.
  for other in (one, two):
    assert abs(other - all_at_once).max() <= 1
  np.testing.assert_array_equal(sampler.generate(prompts, seed=1, batch_size=2), two)
  # Sample i is the same, whichever others are asked for.
  later = sampler.generate(prompts[3:], seed=1, first=3, batch_size=2).astype(int)
  assert abs(later - all_at_once[3:]).max() <= 1


def test_away_from_the_prompt_itself_leads_nowhere(tiny_runs, sampler, tmp_path):
  """v(n) + s (v(p) - v(n)) of n = p is v(p), and of another n is not."""
  away = sampler.generate([PROMPT], shape=VIDEO, negative=PROMPT)
  plain = VideoPipeline(tiny_runs / 'video', guidance=1)
  alone = plain.generate([PROMPT], shape=VIDEO)
  assert np.abs(away.astype(int) - alone).max() <= 1  # rounding of pixels
  paths = sampler.save([PROMPT], tmp_path / 'a.mp4', shape=VIDEO, negative='blur')
  assert json.loads(paths[-1].read_text())['negative'] == 'blur'
  other = sampler.generate([PROMPT], shape=VIDEO, negative='blur')
  assert (other != away).any() and (other != sampler.generate([PROMPT], shape=VIDEO)).any()
  with pytest.raises(ConfigError, match="negative = 'blur', and no guidance"):
    plain.generate([PROMPT], shape=VIDEO, negative='blur')


def test_one_frame_makes_an_image(sampler, tmp_path):
  paths, record = make(
    sampler, tmp_path / 'a.png', ['a photo of the red digit 1'], shape=(1, 16, 16)
  )
  assert [path.name for path in paths] == ['a.png', 'a_sheet.png', 'a.json']
  with Image.open(paths[0]) as image:
    assert image.size == (256, 256) and record['frames'] == 1


def test_a_run_with_a_mapping_for_guidance_samples_what_it_did(tiny_runs, tmp_path, sampler):
  shutil.copytree(tiny_runs / 'video', tmp_path / 'video')
  shutil.copytree(tiny_runs / 'autoencoder', tmp_path / 'autoencoder')
  saved = json.loads((tmp_path / 'video/config.json').read_text())
  assert saved['sample']['guidance'] == [['text', 4.0]]
  saved['sample']['guidance'] = {'text': 4.0}
  (tmp_path / 'video/config.json').write_text(json.dumps(saved))
  old = VideoPipeline(tmp_path / 'video')
  assert old.settings == sampler.settings
  np.testing.assert_array_equal(old.generate([PROMPT]), sampler.generate([PROMPT]))


@pytest.mark.parametrize(
  ('mesh', 'guidance'),
  [({'fsdp': 2, 'context': 4}, None), ('context=8', (6.0, (0.1, 0.9)))],
  ids=['weights and tokens', 'tokens, guided in an interval'],
)
def test_devices_that_share_the_tokens_make_the_videos_of_one(tiny_runs, mesh, guidance):
  prompts = [PROMPT] * 2
  alone, shared = (
    VideoPipeline(tiny_runs / 'video', mesh=each, guidance=guidance) for each in (None, mesh)
  )
  alone = alone.generate(prompts, seed=3, shape=VIDEO)
  kernel = shared._params['backbone']['layers']['feed_forward']['up']['kernel']
  assert not kernel.is_fully_replicated
  together = shared.generate(prompts, seed=3, shape=VIDEO)
  # Sums in another order move a value across the edge between two bytes, now and then.
  difference = np.abs(together.astype(int) - alone.astype(int))
  assert difference.max() <= 1 and (difference > 0).mean() < 0.01
