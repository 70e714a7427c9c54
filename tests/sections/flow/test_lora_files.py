"""Adapters leave in the forms that others read, come back from them, and are taken off again."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mgjax.api import load, train
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.text.vocabulary import WORDS
from mgjax.nn.lora import merge
from mgjax.sections.flow.lora_files import ADAPTER_FORMATS, read_adapters, words_of_adapters
from mgjax.training.checkpoints.load_params import load_adapters, load_params
from mgjax.training.checkpoints.workdir import read_config, read_notes, write_workdir
from tests import tiny

pytestmark = pytest.mark.usefixtures('on_one_device')

PROMPT = ['a red 3']


@pytest.fixture(scope='module')
def style(tiny_runs, tmp_path_factory):
  """A run of adapters with large enough B that they are seen."""
  where = tmp_path_factory.mktemp('style') / 'style'
  config = tiny.video(
    tiny_runs,
    start_from=str(tiny_runs / 'video'),
    optimizer__learning_rate=0.05,
    lora__rank=4,
    lora__alpha=8.0,
    lora__targets=('backbone/*', 'text/project/*'),
  )
  train(config, where)
  return where


@pytest.mark.parametrize('form', ADAPTER_FORMATS)
def test_what_is_written_is_read_back_and_sampled_as_merged(tiny_runs, style, tmp_path, form):
  out = tmp_path / ('folder' if form == 'peft' else 'style.safetensors')
  export_weights(style, out, form)
  base, _ = load_params(tiny_runs / 'video')
  ours, _ = load_adapters(style)
  found = named_leaves(read_adapters(out, base))
  for name, leaf in named_leaves(ours).items():
    factor = 2 if name.endswith('lora_a') else 1  # alpha / r
    np.testing.assert_array_equal(found[name], factor * np.asarray(leaf), err_msg=name)

  tensors = load_file(out / 'adapter_model.safetensors' if form == 'peft' else out)
  key = {
    'peft': 'base_model.model.backbone.layers.0.self_attention.query.lora_A.weight',
    'comfyui': 'diffusion_model.backbone.layers.0.self_attention.query.lora_A.weight',
    'kohya': 'lora_unet_backbone_layers_0_self_attention_query.lora_down.weight',
  }[form]
  assert tensors[key].shape == (4, 16)
  if form == 'peft':
    described = json.loads((out / 'adapter_config.json').read_text())
    assert (described['r'], described['lora_alpha']) == (4, 8.0)
    assert 'backbone.layers.0.self_attention.query' in described['target_modules']

  plain = load(tiny_runs / 'video').generate(PROMPT, seed=0)
  merged = load(style).generate(PROMPT, seed=0).astype(int)
  added = load(tiny_runs / 'video', lora=str(out)).generate(PROMPT, seed=0)
  assert np.abs(added - merged).max() <= 1
  assert np.abs(merged - plain).max() > 10
  # With the weight 0, or half of them twice.
  none = load(tiny_runs / 'video', lora=f'{out}:0').generate(PROMPT, seed=0)
  np.testing.assert_array_equal(none, plain)
  halves = load(tiny_runs / 'video', lora=f'{out}:0.5,{style}:0.5').generate(PROMPT, seed=0)
  assert np.abs(halves - merged).max() <= 1


def test_the_checkpoint_that_was_asked_for_is_written(style, tmp_path):
  export_weights(style, tmp_path / 'one.safetensors', 'kohya', which='params')
  export_weights(style, tmp_path / 'mean.safetensors', 'kohya')
  one, mean = (load_file(tmp_path / f'{name}.safetensors') for name in ('one', 'mean'))
  assert any((one[name] != mean[name]).any() for name in one)
  with pytest.raises(CheckpointError, match='77'):
    export_weights(style, tmp_path / 'one.safetensors', 'kohya', step=77)
  with pytest.raises(ConfigError, match="weights = 'int8' of the format 'kohya'"):
    export_weights(style, tmp_path / 'one.safetensors', 'kohya', weights='int8')


def test_a_weight_of_adapters_is_a_number(tiny_runs, style):
  for weight in ('nan', '1e39', '-1e39', '1_0', '\u0663', ' 1'):
    with pytest.raises(ConfigError, match='expected a finite weight'):
      load(tiny_runs / 'video', lora=f'{style}:{weight}')


@pytest.mark.parametrize('places', [',', '{},', ',{}', '{},,{}', ':0.5'])
def test_a_place_of_adapters_is_not_empty(tiny_runs, style, places):
  with pytest.raises(ConfigError, match='expected a finite weight behind a place'):
    load(tiny_runs / 'video', lora=places.format(style, style))


@pytest.mark.parametrize('rank', [0, 2, 16])
def test_adapters_of_another_rank_than_their_run_says_are_refused(tiny_runs, style, rank, tmp_path):
  base, _ = load_params(tiny_runs / 'video')
  other = shutil.copytree(style, tmp_path / 'other')
  config = json.loads((other / 'config.json').read_text())
  config['lora']['rank'] = rank
  (other / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ConfigError, match=rf'lora.rank = {rank}, and the adapters are of rank \[4\]'):
    read_adapters(other, base)
  with pytest.raises(ConfigError, match=rf'lora.rank = {rank}, and the adapters are of rank'):
    load_params(other)


def test_a_link_to_settings_that_are_gone_is_not_their_absence(tiny_runs, style, tmp_path):
  export_weights(style, tmp_path / 'peft', 'peft')
  settings = tmp_path / 'peft' / 'adapter_config.json'
  settings.unlink()
  settings.symlink_to(tmp_path / 'evicted')
  base, _ = load_params(tiny_runs / 'video')
  with pytest.raises(ConfigError, match='adapter_config'):
    read_adapters(tmp_path / 'peft' / 'adapter_model.safetensors', base)


@pytest.mark.parametrize('place', ['x' * 300, 'x' * 5000])
def test_a_place_that_no_disk_can_have_is_refused(tiny_runs, place):
  for workdir in (tiny_runs / 'video', 'digits/few_steps'):
    with pytest.raises(ConfigError, match='name too long; expected a file') as caught:
      load(workdir, lora=place)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize('form', ['run', 'kohya', 'peft'])
def test_adapters_of_another_base_are_refused_by_the_names_of_both(style, tmp_path, form):
  place = style
  if form != 'run':
    place = tmp_path / ('style' if form == 'peft' else 'style.safetensors')
    export_weights(style, place, form)
  with pytest.raises(ConfigError, match=r"lora for 'digits/few_steps': .*made for .*video"):
    load('digits/few_steps', lora=str(place))
  with pytest.raises(ConfigError, match='nothing of this name; expected a file, folder or work'):
    load('digits/few_steps', lora='nothing.safetensors')


def test_a_weight_that_makes_adapters_infinite_is_refused(tiny_runs, style):
  with pytest.raises(ConfigError, match=r'with the weights 3e\+38 change .* by no finite number'):
    load(tiny_runs / 'video', lora=f'{style}:3e38')


def said_of(model, prompt, caplog):
  caplog.clear()
  (unknown,) = model.tell([prompt])
  assert bool(unknown) == ('training never showed' in caplog.text)
  return unknown


@pytest.mark.parametrize('form', ['run', *ADAPTER_FORMATS])
def test_words_of_adapters_are_known_where_they_are_sampled(
  tiny_runs, style, tmp_path, caplog, monkeypatch, form
):
  """The base knows 'digit'; the adapters, in a run or a file, a word more."""
  notes = read_notes(style) | {WORDS: ['digit', 'zebra']}
  place = tmp_path / ('style.safetensors' if form in ('comfyui', 'kohya') else 'style')
  params, meta = load_adapters(style)
  write_workdir(read_config(style).to_dict(), params, notes, tmp_path / 'run', origin={})
  if form == 'run':
    place = tmp_path / 'run'
  else:
    export_weights(tmp_path / 'run', place, form)
  assert words_of_adapters(place) == ('digit', 'zebra')

  base = tmp_path / 'base'
  params, meta = load_params(tiny_runs / 'video')
  notes = meta['notes'] | {WORDS: ['digit', 'red']}
  write_workdir(read_config(tiny_runs / 'video').to_dict(), params, notes, base, origin={})
  plain, adapted = (load(base, lora=lora) for lora in ('', str(place)))
  assert said_of(plain, 'a red zebra runs', caplog) == ['a', 'zebra', 'runs']
  assert said_of(adapted, 'a red zebra runs', caplog) == ['a', 'runs']

  if form != 'run':  # an import remembers them as well
    config = tiny.video(tiny_runs, start_from=str(base))
    import_weights(config, place, tmp_path / 'again')
    assert read_notes(tmp_path / 'again')[WORDS] == ['digit', 'red', 'zebra']


@pytest.mark.parametrize('words', [None, 'x', '5', '[1]', '{}', '[' * 9999, '["a"'])
def test_adapters_whose_words_nobody_knows_may_know_every_word(
  tiny_runs, style, tmp_path, caplog, words
):
  export_weights(style, tmp_path / 'style.safetensors', 'kohya')
  metadata = {} if words is None else {'mgjax.words': words}
  save_file(load_file(tmp_path / 'style.safetensors'), tmp_path / 'style.safetensors', metadata)
  assert words_of_adapters(tmp_path / 'style.safetensors') == ()
  if words is None:
    adapted = load(tiny_runs / 'video', lora=str(tmp_path / 'style.safetensors'))
    assert said_of(adapted, 'a purple zebra', caplog) == []


def test_dora_and_ranks_of_their_own_are_sampled_and_imported_alike(tiny_runs, style, tmp_path):
  export_weights(style, tmp_path / 'style.safetensors', 'comfyui')
  tensors, place = load_file(tmp_path / 'style.safetensors'), tmp_path / 'style.safetensors'
  query = 'diffusion_model.backbone.layers.0.self_attention.query'
  tensors[f'{query}.lora_magnitude_vector'] = np.full(16, 30, np.float32)
  key = query.replace('query', 'key')
  for name, axis in (('A', 0), ('B', 1)):
    one = tensors[f'{key}.lora_{name}.weight']
    tensors[f'{key}.lora_{name}.weight'] = np.ascontiguousarray(
      one[:2] if axis == 0 else one[:, :2]
    )
  save_file(tensors, place)
  config = tiny.video(tiny_runs, start_from=str(tiny_runs / 'video'))
  import_weights(config, place, tmp_path / 'again')
  merged = load(tmp_path / 'again').generate(PROMPT, seed=0).astype(int)
  added = load(tiny_runs / 'video', lora=str(place)).generate(PROMPT, seed=0)
  assert np.abs(added - merged).max() <= 1
  assert np.abs(merged - load(style).generate(PROMPT, seed=0)).max() > 2
  # Out again they have one rank, with which they count as before.
  export_weights(tmp_path / 'again', tmp_path / 'out.safetensors', 'kohya')
  base, _ = load_params(tiny_runs / 'video')
  wanted, found = (
    named_leaves(merge(read_adapters(each, base), base))
    for each in (place, tmp_path / 'out.safetensors')
  )
  for name, leaf in wanted.items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-5, atol=1e-5, err_msg=name)


def test_imported_adapters_train_on_and_sample_alike(tiny_runs, style, tmp_path):
  export_weights(style, tmp_path / 'style.safetensors', 'kohya')
  config = tiny.video(tiny_runs, start_from=str(tiny_runs / 'video'))
  # Of the name of its model, which is looked for beside it as well.
  import_weights(config, tmp_path / 'style.safetensors', tmp_path / 'video')
  one = load(tmp_path / 'video').generate(PROMPT, seed=0).astype(int)
  assert np.abs(one - load(style).generate(PROMPT, seed=0)).max() <= 1
  with pytest.raises(ConfigError, match=r"adapters are imported with config.start_from = ''"):
    import_weights(tiny.video(tiny_runs), tmp_path / 'style.safetensors', tmp_path / 'no')


def test_layers_that_a_file_lacks_stay_as_they_are(tiny_runs, style, tmp_path):
  export_weights(style, tmp_path / 'style.safetensors', 'comfyui')
  tensors = load_file(tmp_path / 'style.safetensors')
  kept = {name: tensor for name, tensor in tensors.items() if 'self_attention.query' in name}
  save_file(kept, tmp_path / 'few.safetensors')
  base, _ = load_params(tiny_runs / 'video')
  found = named_leaves(read_adapters(tmp_path / 'few.safetensors', base))
  assert set(found) == {f'backbone/layers/self_attention/query/kernel/lora_{each}' for each in 'ab'}


def test_a_file_of_another_model_says_which_keys_do_not_fit(tiny_runs, style, tmp_path):
  base, _ = load_params(tiny_runs / 'video')
  path = tmp_path / 'other.safetensors'
  save_file(
    {
      'transformer.blocks.0.attn.to_q.lora_A.weight': np.ones((4, 16), np.float32),
      'transformer.blocks.0.attn.to_q.lora_B.weight': np.ones((16, 4), np.float32),
    },
    path,
  )
  with pytest.raises(
    ConfigError, match=r'2 of its 2 keys do not fit, as transformer\.blocks\.0\.attn'
  ):
    read_adapters(path, base)
  name = 'diffusion_model.backbone.layers.0.self_attention.query'
  half = {f'{name}.lora_A.weight': np.ones((4, 8), np.float32)}
  save_file(half | {f'{name}.lora_B.weight': np.ones((16, 4), np.float32)}, path)
  with pytest.raises(
    ConfigError, match=r'A \(4, 8\) and B \(16, 4\) of backbone/layers/self_attention'
  ):
    read_adapters(path, base)
  save_file(half, path)
  with pytest.raises(ConfigError, match='one of A and B alone'):
    read_adapters(path, base)
  with pytest.raises(ConfigError, match='trained all parameters'):
    load_adapters(tiny_runs / 'video')
