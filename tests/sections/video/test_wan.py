"""A Wan in a work directory: samples, data, training of all weights and of adapters."""

import json
import shutil
import time
import warnings

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

import mgjax
from configs.base import distilled_guidance, few_steps, preferences
from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.apps.pairs.preferences import prefer
from mgjax.apps.weights.import_export import publish
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.tree import named_leaves
from mgjax.data.media.video import read_clip
from mgjax.data.media.viewing import write_clip
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.text.embeddings import TextSettings, embed_prompts
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests import tiny, tiny_wan
from tests.apps.serving.tiny_service import Server


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Random weights, four captioned clips, their latents and embeddings."""
  runs = tiny_wan.make_runs(tmp_path_factory.mktemp('wan'))
  clips = runs / 'clips'
  clips.mkdir()
  for index, clip in enumerate(tiny_wan.draw_clips(4)):
    write_clip(clips / f'{index}.mp4', np.repeat(clip, 2, axis=0), 16)
    (clips / f'{index}.txt').write_text(f'clip {index}')
  encode(tiny_wan.video(runs, data__path=str(clips)), runs / 'latents')
  return runs


def config_of(runs, size='debug', **changes):
  return tiny_wan.video(
    runs, size, data__path=str(runs / 'clips'), data__latents=str(runs / 'latents'), **changes
  )


@pytest.mark.usefixtures('on_one_device')
def test_prompts_become_clips_step_by_step_too(runs):
  wan = mgjax.load(runs / 'video')
  clips = wan(['a cat', ''], seed=3)
  assert clips[0].shape == (5, 16, 32, 3)
  seen = []
  watched = wan(['a cat', ''], seed=3, callback=lambda step, total, preview: seen.append(step))
  np.testing.assert_array_equal(watched, clips)
  assert seen == [1, 2, 3, 4]
  assert np.any(clips[0] != wan('a cat', negative='a dog', seed=3)[0])
  with pytest.raises(DataError, match=r'8 frames; expected 1 \+ 4 k, as 5 or 9'):
    wan('a cat', frames=8)
  with pytest.raises(ConfigError, match='height is a multiple of 16'):
    wan('a cat', height=24)


def test_a_clip_is_encoded_and_decoded_whole_and_its_size_filled_up(runs):
  codec = load_codec(runs / 'autoencoder')
  clip = np.stack(tiny_wan.draw_clips(1))
  latents = codec.encode(clip)
  assert latents.shape == (1, 2, 2, 4, 4) == (1, *codec.latent_shape(clip.shape[1:4]))
  pieces = codec.encode_stream([clip[:, :2], clip[:, 2:]])
  np.testing.assert_array_equal(np.concatenate(list(pieces), axis=1), latents)
  assert codec.decode(latents).shape == clip.shape
  assert codec.decode(latents, frames=3).shape[1] == 3
  assert codec.encode(clip[:, :, :13, :30]).shape == latents.shape
  with pytest.raises(DataError, match='6 frames were asked for, the latents stand for 5'):
    codec.decode(latents, frames=6)


@pytest.mark.usefixtures('on_one_device')
def test_all_weights_are_trained_on_clips_and_a_stopped_run_ends_alike(runs, tmp_path):
  config = config_of(runs, start_from=str(runs / 'video'), objective__dropout__text=0.5)
  tiny.resumed(config, tmp_path, 2)
  paths = runs / 'video', tmp_path / 'whole'
  before, after = (named_leaves(load_params(path)[0]) for path in paths)
  assert before.keys() == after.keys()
  assert [name for name in before if np.array_equal(before[name], after[name])] == []


@pytest.mark.usefixtures('on_one_device')
def test_adapters_are_trained_beside_the_weights(runs, tmp_path):
  config = config_of(runs, 'debug,lora', start_from=str(runs / 'video'), lora__rank=2)
  train(config, tmp_path / 'style')
  base = mgjax.load(runs / 'video')('a cat', seed=1)
  style = mgjax.load(tmp_path / 'style')('a cat', seed=1)
  attached = mgjax.load(runs / 'video', lora=str(tmp_path / 'style'))('a cat', seed=1)
  assert np.any(style[0] != base[0])
  assert np.abs(style[0].astype(int) - attached[0]).max() <= 1


@pytest.mark.parametrize(
  'mesh', [{'data': 2, 'fsdp': 4}, {'context': 4, 'fsdp': 2}, {'tensor': 2, 'data': 4}]
)
def test_samples_on_a_mesh_are_those_of_one_device(runs, mesh):
  expected = mgjax.load(runs / 'video')(['a cat', 'a dog'])
  found = mgjax.load(runs / 'video', mesh=mesh)(['a cat', 'a dog'])
  assert np.abs(np.stack(found).astype(int) - np.stack(expected)).max() <= 1


@pytest.mark.usefixtures('on_one_device')
@pytest.mark.parametrize('learned', ['few_steps', 'guidance'])
def test_students_learn_from_it_and_are_sampled(runs, tmp_path, learned):
  config = config_of(runs)
  teacher = str(runs / 'video')
  if learned == 'few_steps':
    config = few_steps(config, teacher, shift=5.0, steps=8)
    options = {'num_inference_steps': 2}
  else:
    config = distilled_guidance(config, teacher, highest=6.0)
    options = {'guidance_scale': 3.0}
  train(config, tmp_path)
  losses = [row['loss'] for row in tiny.metrics(tmp_path) if 'loss' in row]
  assert len(losses) == 4 and np.isfinite(losses).all()
  assert mgjax.load(tmp_path)('a cat', **options)[0].shape == (5, 16, 32, 3)


@pytest.mark.usefixtures('on_one_device')
def test_votes_change_it_towards_what_was_chosen(runs, tmp_path):
  lines = []
  for index, clip in enumerate(tiny_wan.draw_clips(12)):
    for name, offset in (('bright', 150), ('dark', 0)):
      write_clip(tmp_path / f'{name}{index}.mp4', clip // 3 + np.uint8(offset), 16, scale=1)
    lines.append(
      {'prompt': 'a cat', 'chosen': f'bright{index}.mp4', 'rejected': f'dark{index}.mp4'}
    )
  (tmp_path / 'votes.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  config = preferences(config_of(runs), str(runs / 'video'))
  config.preferences.update(model='', votes=str(tmp_path / 'votes.jsonl'))
  config.data.latents = str(tmp_path / 'pairs')
  config.lora.rank = 4
  config.optimizer.learning_rate = 0.02
  config.train.steps = 16
  config.embeddings = str(tmp_path / 'embeddings')
  embed_prompts(TextSettings.of(config.to_dict()), config.embeddings, ['a cat'])
  prefer(config.to_dict(), tmp_path / 'pairs', batch_size=4)
  train(config, tmp_path / 'liked')
  margins = [row['margin'] for row in tiny.metrics(tmp_path / 'liked') if 'margin' in row]
  assert margins[0] == pytest.approx(0, abs=1e-5) and np.mean(margins[-4:]) > 0


@pytest.fixture
def server(runs, tmp_path):
  server = Server(tmp_path / 'out', model=str(runs / 'video')).start()
  yield server
  assert server.end() == 0


def test_the_client_of_openai_makes_downloads_and_cancels_a_clip(server):
  openai = pytest.importorskip('openai')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)
    client = openai.OpenAI(base_url=f'{server.url}/v1', api_key='none')
    made = client.videos.create_and_poll(prompt='a cat', size='32x16', poll_interval_ms=50)
    assert (made.status, made.size) == ('completed', '32x16'), made
    assert client.videos.download_content(made.id).read()[4:8] == b'ftyp'
  fields = {'prompt': 'a dog', 'num_inference_steps': 100}
  status, _, video = server.ask('POST', '/v1/videos', fields)
  assert status == 200, video
  while server.ask('GET', f'/v1/videos/{video["id"]}')[2]['progress'] == 0:
    time.sleep(0.01)
  assert server.ask('DELETE', f'/v1/videos/{video["id"]}')[2]['deleted']
  assert server.ask('GET', f'/v1/videos/{video["id"]}')[0] == 404


def test_the_service_gives_adapters_to_the_run_and_to_its_expert(runs, tmp_path):
  tiny_wan.make_video(tiny_wan.video(runs), runs / 'late', seed=1)
  config = tiny_wan.video(runs)
  config.sample.expert = f'{runs / "late"}@0.1'  # the last two steps
  tiny_wan.make_video(config, runs / 'early')
  options = {}
  for number, name in enumerate(('lora', 'expert_lora')):
    draw = np.random.default_rng(number).normal
    shapes = {'A': (2, 48), 'B': (48, 2)}
    options[name] = str(tmp_path / f'{name}.safetensors')
    adapters = {
      f'diffusion_model.blocks.1.cross_attn.o.lora_{side}.weight': draw(size=shape)
      for side, shape in shapes.items()
    }
    save_file({key: value.astype(np.float32) for key, value in adapters.items()}, options[name])
  flags = [f'--{name}=style={path}' for name, path in options.items()]
  flags.append(f'--lora=early={options["lora"]}')
  server = Server(tmp_path / 'out', *flags, model=str(runs / 'early')).start()
  requests = {'plain': {}, 'early': {'lora': 'early'}, 'style': {'lora': 'style'}}
  made = {
    name: server.make(prompt='a cat', seed=1, **fields)['id'] for name, fields in requests.items()
  }
  assert server.end() == 0
  changes = {'plain': {}, 'early': {'lora': options['lora']}, 'style': options}
  clips = [mgjax.load(runs / 'early', **change)('a cat', seed=1)[0] for change in changes.values()]
  for index, name in enumerate(changes):
    path = tmp_path / 'out' / made[name] / 'video.mp4'
    served = read_clip(path, frames=5, size=(16, 32), fps=16.0)
    errors = [np.abs(served.astype(int) - other).mean() for other in clips]
    assert np.argmin(errors) == index and errors.count(min(errors)) == 1


def test_a_published_run_brings_its_autoencoder_and_encoder(runs, tmp_path, monkeypatch):
  monkeypatch.setattr(constants, 'HF_HOME', str(tmp_path / 'home'))
  run = shutil.copytree(runs, tmp_path / 'runs') / 'video'
  name = str(publish(run, (tmp_path / 'there').as_uri()))
  config = read_config(tmp_path / 'there')
  assert (config.autoencoder, config.text.umt5.workdir) == ('autoencoder', 'umt5')
  clips = mgjax.load(name)(['a cat', 'a dog'], seed=1)  # which reads nothing outside its folder
  before = mgjax.load(run)(['a cat', 'a dog'], seed=1)
  errors = [[np.abs(a.astype(int) - b).mean() for a in clips] for b in before]
  assert max(errors[0][0], errors[1][1]) < 2  # weights are rounded to bfloat16
  assert min(errors[0][1], errors[1][0]) > 50
  publish(tmp_path / 'there', (tmp_path / 'again').as_uri())
  assert (tmp_path / 'again' / 'umt5' / 'config.json').exists()

  encoder = str(publish(tmp_path / 'runs' / 'umt5', (tmp_path / 'encoder').as_uri()))
  shutil.rmtree(tmp_path / 'runs' / 'umt5')
  for place in (encoder, 'gone/umt5'):
    config = json.loads((run / 'config.json').read_text())
    config['text']['umt5']['workdir'] = place
    (run / 'config.json').write_text(json.dumps(config))
    if place == encoder:
      name = str(publish(run, (tmp_path / 'small').as_uri()))
      assert not (tmp_path / 'small' / 'umt5').exists()
      mgjax.load(name)('a cat')
    else:
      with pytest.raises(ConfigError, match=r'the umt5 encoder.* is not there'):
        publish(run, (tmp_path / 'other').as_uri())
