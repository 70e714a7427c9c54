"""What peft saves is read as peft merges it, whatever its settings say, or refused by its name."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.nn.lora import merge
from mgjax.sections.flow.lora_files import read_adapters

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')
peft = pytest.importorskip('peft')

# peft warns of what it does not do with some settings.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings('ignore::Warning:peft')]

WITHIN = 1e-5
ALL = ['query', 'key', 'head', 'patch']
LINEAR = ALL[:3]
FIRST = 'backbone.layers.0.attention.query'
READ = [
  {'target_modules': ALL},
  {'target_modules': ALL, 'use_rslora': True},
  {'target_modules': ALL, 'use_dora': True},
  {'target_modules': ALL, 'use_dora': True, 'use_rslora': True, 'alpha_pattern': {'head': 3}},
  {'target_modules': LINEAR, 'fan_in_fan_out': True},
  {'target_modules': 'all-linear'},
  {'target_modules': r'.*layers\.\d+\.attention\.(query|key)'},
  {'target_modules': LINEAR, 'exclude_modules': ['key']},
  {'target_modules': LINEAR, 'exclude_modules': r'.*\.0\..*'},
  {'target_modules': ['query', 'key'], 'layers_to_transform': [1]},
  {'target_modules': ['query', 'head'], 'layers_to_transform': 0},
  {
    'target_modules': LINEAR,
    'rank_pattern': {'uery': 2},
    'alpha_pattern': {'^query': 5, 'he.d': 4},
  },
  {'target_modules': LINEAR, 'rank_pattern': {r'.*\.1\..*': 3, 'head': 2}, 'use_rslora': True},
  {'target_modules': LINEAR, 'alpha_pattern': {'query|head': 5, 'key': 2, f'^{FIRST}': 11}},
  {'target_modules': LINEAR, 'alpha_pattern': {f'^{FIRST}': 11, r'layers.\d.attention.query': 3}},
  *({'target_modules': LINEAR, 'init_lora_weights': how} for how in ('mica', 'orthogonal')),
  *({'target_modules': LINEAR, 'init_lora_weights': how} for how in ('gaussian', True, False)),
]
REFUSED = [
  ({'target_modules': LINEAR, 'init_lora_weights': 'pissa'}, "init_lora_weights = 'pissa'"),
  ({'target_modules': LINEAR, 'init_lora_weights': 'olora'}, "init_lora_weights = 'olora'"),
  ({'target_modules': LINEAR, 'bias': 'lora_only'}, 'bias = '),
  ({'target_modules': LINEAR, 'bias': 'all'}, 'bias = '),
  ({'target_modules': LINEAR, 'lora_bias': True}, 'lora_bias = True'),
  ({'target_modules': ['query'], 'modules_to_save': ['head']}, 'modules_to_save = '),
  ({'target_modules': [], 'target_parameters': ['head.weight']}, 'target_parameters = '),
  ({'target_modules': ['query'], 'velora_config': {'num_groups': 4}}, 'velora_config = '),
]
OTHERS = {
  'LoHaConfig': {'r': 2},
  'LoKrConfig': {'r': 2},
  'IA3Config': {'feedforward_modules': []},
  'OFTConfig': {'r': 0, 'oft_block_size': 4},
  'BOFTConfig': {'boft_block_size': 4},
  'VeraConfig': {'r': 2},
  'AdaLoraConfig': {'init_r': 4, 'target_r': 2, 'total_step': 10},
  'FourierFTConfig': {'n_frequency': 4},
  'HRAConfig': {'r': 2},
  'MissConfig': {'r': 2},
  'RandLoraConfig': {'r': 2},
  'C3AConfig': {'block_size': 2},
  'ShiraConfig': {'r': 2},
  'DeloraConfig': {'r': 2},
  'RoadConfig': {'group_size': 2},
  'WaveFTConfig': {'n_frequency': 4},
  'GraloraConfig': {'r': 4, 'gralora_k': 2},
}


class Attention(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.query, self.key = torch.nn.Linear(8, 6), torch.nn.Linear(8, 8)


class Layer(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.attention = Attention()


class Backbone(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.layers = torch.nn.ModuleList([Layer(), Layer()])


class Model(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.backbone, self.head = Backbone(), torch.nn.Linear(8, 4)
    self.patch = torch.nn.Conv2d(5, 8, (2, 3))


def kernels(model):
  """The kernels as ours: stacks of layers, inputs and outputs last."""
  found = {key: value.detach().numpy() for key, value in model.state_dict().items()}
  ours = {
    f'backbone/layers/attention/{name}/kernel': np.stack(
      [found[f'backbone.layers.{layer}.attention.{name}.weight'].T for layer in (0, 1)]
    )
    for name in ('query', 'key')
  }
  patch = np.moveaxis(found['patch.weight'], (0, 1), (-1, -2))
  return ours | {'head/kernel': found['head.weight'].T.copy(), 'patch/kernel': patch.copy()}


def saved(config, folder):
  """A model, and a folder of adapters of it that have trained a little."""
  torch.manual_seed(0)
  plain, trained = Model(), Model()
  trained.load_state_dict(plain.state_dict())
  adapted = peft.get_peft_model(trained, config)
  with torch.no_grad():
    for name, parameter in adapted.named_parameters():
      if 'lora_' in name:
        parameter.add_(0.1 * torch.randn_like(parameter))
  adapted.save_pretrained(folder)
  return plain


@pytest.mark.parametrize('settings', READ)
def test_settings_mean_what_peft_does(tmp_path, settings):
  plain = saved(peft.LoraConfig(r=4, lora_alpha=7, **settings), tmp_path)
  base = kernels(plain)
  ours = named_leaves(merge(read_adapters(tmp_path, nest(base)), nest(base)))
  theirs = kernels(peft.PeftModel.from_pretrained(plain, str(tmp_path)).merge_and_unload())
  for name, kernel in theirs.items():
    np.testing.assert_allclose(ours[name], kernel, atol=WITHIN, err_msg=name)
  changes = [np.abs(theirs[name] - base[name]).max() for name in theirs]
  assert max(changes) > 100 * WITHIN


@pytest.mark.parametrize(('settings', 'said'), REFUSED)
def test_settings_that_are_not_read_are_refused_by_name(tmp_path, settings, said):
  plain = saved(peft.LoraConfig(r=4, lora_alpha=7, **settings), tmp_path)
  with pytest.raises(ConfigError, match=said):
    read_adapters(tmp_path, nest(kernels(plain)))


@pytest.mark.parametrize('kind', OTHERS)
def test_other_kinds_of_peft_are_refused_by_name(tmp_path, kind):
  config = getattr(peft, kind)(target_modules=['key'], **OTHERS[kind])
  plain = saved(config, tmp_path)
  with pytest.raises(ConfigError, match='peft_type = '):
    read_adapters(tmp_path, nest(kernels(plain)))
  (tmp_path / 'adapter_model.safetensors').rename(tmp_path / 'alone.safetensors')
  with pytest.raises(ConfigError, match=r'holds .*, which is not read'):
    read_adapters(tmp_path / 'alone.safetensors', nest(kernels(plain)))
