"""What the configuration of a flow model says, checked where it is unpacked."""

import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings

TIME = {'name': 'uniform'}
GUIDANCE = (('text', 7.5), ('video', 2.0))
SAMPLE = SampleSettings(
  GUIDANCE, {'name': 'linear_quadratic', 'emulated': 250, 'shift_factor': 3.0}, 'euler', 50
)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'dropout': {'text': 1.5}}, r'dropout\.text = 1\.5; expected a finite number from 0 to 1'),
    ({'drop_all_probability': -0.1}, r'drop_all_probability = -0\.1; expected'),
    ({'prediction': {'name': 'x'}}, r"prediction\.name = 'x'; expected flow or v_prediction"),
  ],
)
def test_what_an_objective_cannot_be_is_refused_by_its_key(changes, said):
  with pytest.raises(ConfigError, match=said):
    ObjectiveSettings(**{'dropout': {'text': 0.1}, 'time': TIME} | changes)


def test_changes_of_sampling_keep_what_they_do_not_name():
  assert SAMPLE.changed({'solver': None, 'steps': None}) == SAMPLE
  assert SAMPLE.changed({'steps': 4}).steps == 4


def test_adapters_of_an_expert_are_read_as_those_of_a_run():
  changes = {'expert': 'late@0.125', 'lora': 'style:0.8', 'expert_lora': 'style:1.2,low'}
  settings = SAMPLE.changed(changes)
  assert settings.loras == [('style', 0.8)]
  assert settings.expert_loras == [('style', 1.2), ('low', 1.0)]
  placed = settings.placed(lambda place: f'/x/{place}')
  assert (placed.lora, placed.expert_lora) == ('/x/style:0.8', '/x/style:1.2,/x/low:1.0')
  with pytest.raises(ConfigError, match=r'expert_lora = .*; expected a finite weight'):
    SAMPLE.changed({**changes, 'expert_lora': 'style:nan'})
  with pytest.raises(ConfigError, match="expert_lora = 'low' without an expert; give an expert"):
    SAMPLE.changed({'expert_lora': 'low'})


@pytest.mark.parametrize(
  ('change', 'guidance'),
  [
    (3.0, (('text', 3.0), ('video', 3.0))),
    ((3.0, (0.2, 0.8)), (('text', (3.0, (0.2, 0.8))), ('video', (3.0, (0.2, 0.8))))),
    ({'video': 4.0}, (('text', 7.5), ('video', 4.0))),
    ({'text': (4.0, [0.2, 0.8])}, (('text', (4.0, (0.2, 0.8))), ('video', 2.0))),
    ({'video': 4.0, 'text': 3.0}, (('video', 4.0), ('text', 3.0))),
    ({'source': 1.5}, (('text', 7.5), ('video', 2.0), ('source', 1.5))),
    ({'source': 1.5, 'text': 3.0}, (('source', 1.5), ('video', 2.0), ('text', 3.0))),
    ([['video', 1.0]], (('video', 1.0),)),
    ((), ()),
  ],
)
def test_guidance_changes_where_it_is_named_and_keeps_its_order(change, guidance):
  assert SAMPLE.changed({'guidance': change}).guidance == guidance


@pytest.mark.parametrize(
  ('change', 'schedule'),
  [
    ({'emulated': 500}, {'name': 'linear_quadratic', 'emulated': 500, 'shift_factor': 3.0}),
    ({'name': 'linear_quadratic'}, SAMPLE.schedule),
    ({'name': 'linear'}, {'name': 'linear', 'shift_factor': 3.0}),
    (
      {'name': 'linear', 'emulated': 9},
      {'name': 'linear', 'emulated': 9, 'shift_factor': 3.0},  # asked for, to be refused
    ),
  ],
)
def test_a_schedule_keeps_the_options_that_it_still_takes(change, schedule):
  assert SAMPLE.changed({'schedule': change}).schedule == schedule


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'text': float('nan')}, r'guidance = nan; expected a finite number'),
    ({'text': (3.0, (0.2, 1.5))}, r'guidance = 1\.5; expected a finite number from 0 to 1'),
    ({'text': (3.0, (0.8, 0.2))}, r"guidance of 'text' holds from 0\.8 to 0\.2, at no time"),
    ({'text': 0.0}, r"guidance of 'text' is 0, but 'video' after it has 2"),
    ('text=3', r"guidance = 'text=3'; expected a list"),
  ],
)
def test_guidance_that_cannot_be_is_refused(change, said):
  with pytest.raises(ConfigError, match=said):
    SAMPLE.changed({'guidance': change})
