"""Instructions: what the grammar reads of them, and what turns them round."""

import pytest

from configs.digits import editing
from mgjax.core.errors import ConfigError
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.lab.worlds.digits.edits import TASKS, all_instructions
from mgjax.sections.editing import instructions


@pytest.mark.parametrize('task', TASKS)
def test_the_task_of_every_instruction_of_the_small_world_is_guessed(task):
  said = list(all_instructions((task,), ('red', 'white')))
  assert said
  assert {instructions.guess_task(instruction, TASKS) for instruction in said} == {task}


@pytest.mark.parametrize(
  ('instruction', 'task'),
  [
    ('Make the car dark red.', 'recolour'),
    ('turn it into a watercolour painting', 'style'),
    ('remove the dog', 'remove'),
    ('change the sky to a sunset', 'background'),
    ('make the dog jump over a fence', 'motion'),
    ('replace the cat with a dog', 'replace'),
    ('put a hat on the man', 'add'),
    ('write "hello" on the wall', 'text'),
    ('do something nice', ''),
    ('', ''),
  ],
)
def test_the_task_of_an_instruction_is_guessed(instruction, task):
  assert instructions.guess_task(instruction, list(instructions.GRAMMAR)) == task


def test_a_task_that_the_model_does_not_have_is_not_guessed():
  assert instructions.guess_task('remove the dog', ('add', 'recolour')) == ''


def test_instructions_of_the_small_world_lead_there_and_back():
  data = data_settings(editing.get_config('backtranslation').data.to_dict())
  source = make_world(data, 'train', frames=1, size=(32, 32))
  indices = range(60)
  told = instructions.write_of_world(source)(indices, [source[index] for index in indices])
  for index, instruction in zip(indices, told, strict=True):
    sample = source[index]
    assert instruction.backward == sample['caption']  # what training is told of the pair
    assert instructions.guess_task(instruction.forward, TASKS) == instruction.forward_task
    assert instructions.guess_task(instruction.backward, TASKS) == instruction.backward_task
    assert instruction.caption != instruction.target
  ways = {(each.forward_task, each.backward_task) for each in told}
  assert {('add', 'remove'), ('remove', 'add'), ('recolour', 'recolour')} <= ways


def test_what_cannot_be_undone_has_no_instruction():
  data = data_settings(editing.get_config('frames').data.to_dict())
  source = make_world(data, 'train', frames=2, size=(32, 32), edits=('mark', 'still'))
  assert instructions.write_of_world(source)([0, 1], [{}, {}]) == [None, None]


GOOD = {'task': 'recolour', 'instruction': 'make the car blue', 'reverse': 'make the car red'}
GOOD |= {'target': 'a blue car drives'}


def test_an_answer_becomes_an_instruction():
  told = instructions.read_answer(GOOD)
  assert (told.forward, told.backward, told.target) == tuple(
    GOOD[name] for name in ('instruction', 'reverse', 'target')
  )
  assert instructions.read_answer(GOOD | {'task': 'remove'}).backward_task == 'add'


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'task': 'dance'}, "'task' is 'dance'"),
    ({'reverse': ''}, "'reverse' is missing"),
    ({'target': 3}, "'target' is missing"),
    ({'reverse': 'Make the car BLUE'}, 'the instruction itself'),
    ({'instruction': 'x' * 300}, 'over 200 characters'),
  ],
)
def test_a_wrong_answer_is_told_what_is_wrong(changes, said):
  with pytest.raises(ValueError, match=said):
    instructions.read_answer(GOOD | changes)


def test_a_request_says_what_the_clip_shows_and_what_is_wanted():
  text = instructions.make_request('a red car drives', 'recolour')
  assert 'a red car drives' in text and '"task": "recolour"' in text and '{' not in text


def test_tasks_of_clips_are_drawn_alike_and_only_those_that_are_undone():
  drawn = [instructions.draw_task(('add', 'style'), 0, index) for index in range(400)]
  assert abs(drawn.count('add') - 200) < 50  # five deviations of a fair coin
  with pytest.raises(ConfigError, match="'mark'"):
    instructions.draw_task(('mark',), 0, 0)
