"""Numbers of editing (Movie Gen §5), beside the report's."""

from configs.editing import recipe
from mgjax.conditioning.edit_task import EditTask
from mgjax.data.mixture import samples_seen
from mgjax.flow_models.build import make_flow_model
from tests.golden.report_row import UNKNOWN, Row
from tests.turns import training_buckets


def editing() -> list[Row]:
  """Rows of `test_paper_numbers`."""
  config = recipe.get_config('30b')
  stages = {name: config.stages[name] for name in config.order}
  turns = samples_seen(training_buckets(stages['images'], 10**6), 6000)
  batches = {name: turns[name] // stages['images'].buckets[name].batch_size for name in turns}
  edits = sum(count for name, count in batches.items() if name.startswith('pictures'))
  shares = samples_seen(training_buckets(stages['frames'], 10**6), 6000)
  parts = tuple(
    sum(count for name, count in shares.items() if name.startswith(kind)) / sum(shares.values())
    for kind in ('animated', 'marked')
  )
  made, first = stages['backtranslation'].backtranslation, stages['images']
  pictures = {first.buckets[name].frames for name in turns if name.startswith('pictures')}
  place, guidance = '§5', dict(first.sample.guidance)
  known = make_flow_model(first.model.to_dict()).conditionings
  (task,) = (each for each in known if isinstance(each, EditTask))
  return [
    Row(place, 'frames of a picture that is edited', tuple(pictures), (1,)),
    Row(place, 'batches of edits to one of text to video, images',
        edits / (sum(batches.values()) - edits), 5.0),
    Row(place, 'places of pictures drawn at random', first.edits.random_place, True),
    Row(place, 'tokens of the task', task.tokens, 4),
    Row(place, 'steps, images', first.train.steps, UNKNOWN, 'from memory'),
    Row(place, 'steps, frames', stages['frames'].train.steps, 1000),
    Row(place, 'steps, backtranslation', stages['backtranslation'].train.steps, UNKNOWN,
        'from memory'),
    Row(place, 'editor of the pairs', made.editor, 'frames'),
    Row(place, 'shares of animated pairs and of marked clips, frames', parts, UNKNOWN, 'chosen'),
    Row(place, 'learning rate of editing', first.optimizer.learning_rate, UNKNOWN, 'chosen'),
    Row(place, 'tasks', len(task.tasks), UNKNOWN, 'chosen'),
    Row(place, 'source video dropped', first.objective.dropout.source_video, UNKNOWN, 'chosen'),
    Row(place, 'task dropped', first.objective.dropout.task, UNKNOWN, 'chosen'),
    Row(place, 'guidance of the source video', guidance['source_video'], UNKNOWN, 'chosen'),
    Row(place, 'guidance of the instruction', guidance['text'], UNKNOWN, 'chosen'),
    Row(place, 'least directional similarity', made.direction, UNKNOWN, 'chosen'),
    Row(place, 'least structural similarity', made.structure, UNKNOWN, 'chosen'),
    Row(place, 'noise of the edited clip', made.noise, UNKNOWN, 'chosen'),
  ]  # fmt: skip
