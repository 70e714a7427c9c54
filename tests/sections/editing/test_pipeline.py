"""An editor edits what it is given, whatever is done at a time; SDEdit ends where it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgjax
from mgjax.core.errors import ConfigError, DataError
from mgjax.flow.frame_noise import frame_noise
from mgjax.flow.sample import sample
from mgjax.flow.schedules import make_time_grid
from mgjax.models.flow_model.sampling import make_generate
from mgjax.sections.editing.pipeline import Editor
from mgjax.sections.editing.sdedit import noised, rest_of_grid
from tests import tiny_editing
from tests.sections.upsampler.test_pipeline import close, pulled_ahead
from tests.tiny_editing import SIDE, WINDOW

RED = 'make the digit red'


@pytest.fixture(scope='module')
def plain(tiny_editing_runs):
  """An editor of a run of text to video, for SDEdit."""
  return Editor(tiny_editing_runs / 'video')


def clip(frames=WINDOW, height=SIDE, width=SIDE, seed=0):
  size = (frames, height, width, 3)
  return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_an_editor_is_loaded_by_its_run_and_reads_source_task_and_instruction(editor):
  assert isinstance(editor, Editor) and editor.window == WINDOW
  made = editor.generate(RED, video=clip(), task='recolour')
  assert made.shape == (1, *clip().shape)
  for other in (
    editor.generate(RED, video=clip(seed=1), task='recolour'),
    editor.generate(RED, video=clip(), task=''),
    editor.generate('remove the digit', video=clip(), task='recolour'),
    editor.generate(RED, video=clip(), task='recolour', seed=1),
    editor.generate(RED, video=clip(), task='recolour', first=1),
  ):
    assert (made != other).any()


def test_conditions_of_data_are_taken_as_the_model_was_trained_on_them(editor):
  samples = [
    {'caption': RED, 'video': clip(), 'source_video': clip(seed=row), 'task': task}
    for row, task in enumerate(('recolour', ''))
  ]
  captions = [sample['caption'] for sample in samples]
  by_field = editor.generate(captions, **editor.conditions_of(samples))
  videos = [sample['source_video'] for sample in samples]
  assert close(by_field, editor.generate(captions, video=videos, task=['recolour', '']))


@pytest.mark.slow
def test_a_video_does_not_depend_on_the_others_in_its_batch(editor):
  videos = [clip(), clip(1), clip(WINDOW + 3), clip(seed=4), clip(seed=5), clip(height=32)]
  tasks = ['recolour', None, '', 'remove', None, 'add']
  together = list(editor.stream([RED] * 6, video=videos, task=tasks, batch_size=2))
  for row, (video, task) in enumerate(zip(videos, tasks, strict=True)):
    (alone,) = editor.stream(RED, video=video, task=task, first=row)
    assert close(together[row], alone)


@pytest.mark.parametrize('how', ['edit', 'sdedit'])
@pytest.mark.parametrize(
  'frames', [WINDOW, *(pytest.param(frames, marks=pytest.mark.slow) for frames in (1, 3))]
)
def test_what_fits_a_window_is_made_in_one_piece(editor, how, frames):
  options = {'how': how, 'seed': 3}
  streamed = np.stack(list(editor.edit_frames(iter(clip(frames)), RED, **options)))
  assert np.array_equal(streamed, editor.generate(RED, video=clip(frames), **options)[0])


@pytest.mark.slow
@pytest.mark.parametrize('how', ['edit', 'sdedit'])
def test_rows_at_a_time_change_nothing(editor, how):
  one, many = (
    np.stack(list(editor.edit_frames(iter(clip(11)), RED, how=how, rows=rows))) for rows in (1, 8)
  )
  assert len(one) == 11 and close(one, many)


def windows_of(editor, video, how, strength):
  """Latents of a whole video by one program, with the noise of windows, from public pieces."""
  from mgjax.flow.multidiffusion import multi_diffusion
  from mgjax.flow.windows import windows

  codec = editor._codec
  latents = codec.encode(jnp.asarray(video[None]))
  places = latents.shape[2:]
  noise = frame_noise(0, np.array([0]), 0, latents.shape[1], places)
  times = make_time_grid(steps=editor.settings['steps'], **editor.settings['schedule'])
  given = {'source_video': latents} if how == 'edit' else {}
  if strength < 1:
    times, noise = rest_of_grid(times, strength), noised(latents, noise, strength)
  text = editor._batch(editor._samples([RED], {}, {}, [8.0]))
  cover = windows(latents.shape[1], 2, 1)
  generate = make_generate(
    editor._model,
    times=times,
    solver='euler',
    guidance=editor._settings.guidance,
    widen=lambda make: multi_diffusion(make, (cover,), along={'source_video': 1}),
  )
  made = generate(editor._params, {**text, **given, 'task_index': jnp.zeros(1, jnp.int32)}, noise)
  return np.asarray(codec.decode(made, len(video)))[0]


@pytest.mark.parametrize(
  ('frames', 'how', 'strength'),
  [
    (10, 'edit', 1.0),
    (10, 'edit', 0.7),
    *(
      pytest.param(frames, *way, marks=pytest.mark.slow)
      for way in (('edit', 1.0), ('edit', 0.7), ('sdedit', 0.7))
      for frames in (WINDOW, WINDOW + 1, 10)
      if (frames, way[0]) != (10, 'edit')
    ),
  ],
)
def test_windows_are_multi_diffusion_over_the_whole(editor, monkeypatch, frames, how, strength):
  """Also where one window is the whole, which is then what the plain program makes."""
  video = clip(frames)
  whole = windows_of(editor, video, how, strength)
  if frames == WINDOW:  # the plain program has other noise, so that it stays that of text to video
    from mgjax.sections.editing import pipeline

    monkeypatch.setattr(
      pipeline,
      'draw_noise',
      lambda seed, indices, shape: frame_noise(seed, indices, 0, shape[0], shape[1:]),
    )
  if how == 'edit':
    editor, options = editor.changed(strength=strength), {'task': ''}
  else:
    options = {'how': 'sdedit', 'strength': strength}
  assert close(editor.generate(RED, video=video, fps=8.0, **options)[0], whole)


@pytest.mark.slow
def test_frames_are_pulled_as_they_are_needed(editor):
  ahead = pulled_ahead(lambda frames: editor.edit_frames(frames, RED, rows=2), clip(400))
  tile = editor._codec.tiling.frames
  assert len(ahead) == 400 and max(ahead[:200]) >= max(ahead[200:]) - tile


@pytest.mark.parametrize('which', [pytest.param('editor', marks=pytest.mark.slow), 'plain'])
def test_all_of_sdedits_strength_is_text_to_video(request, which):
  model = request.getfixturevalue(which)
  made = model.generate([RED] * 2, video=[clip(), clip(seed=1)], how='sdedit', strength=1.0)
  assert np.array_equal(made, model.generate([RED] * 2))


def test_an_editor_may_begin_at_its_noised_source_watched_as_well(editor):
  later, video = editor.changed(strength=0.5), clip()
  made, seen = later.generate(RED, video=video), []
  assert np.array_equal(editor.generate(RED, video=video, strength=0.5), made)
  watched = later.generate(RED, video=video, callback=lambda *step: seen.append(step[:2]))
  assert close(watched, made) and (made != editor.generate(RED, video=video)).any()
  times = make_time_grid(steps=editor.settings['steps'], **editor.settings['schedule'])
  steps = len(rest_of_grid(times, 0.5)) - 1
  assert seen == [(step, steps) for step in range(1, steps + 1)]
  assert np.array_equal(later.generate(RED), editor.generate(RED))  # of text alone as ever
  (kept,) = editor.changed(strength=1e-5).generate(RED, video=video)
  assert close(kept, editor.reconstruct(video))
  with pytest.raises(ConfigError, match='strength'):
    editor.changed(strength=1.5)


def test_an_edit_that_changes_nothing_is_said(editor, caplog):
  editor.generate([RED, 'remove the digit'], video=[clip(), clip(seed=1)])
  assert 'changed nothing' not in caplog.text
  list(editor.changed(strength=1e-5).edit_frames(clip(), RED))
  assert "the edit 'make the digit red' changed nothing" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize('frames', [WINDOW, 11])
def test_hardly_any_of_it_leaves_what_the_autoencoder_makes(plain, frames):
  """x = z + O(strength), so that bytes are those of the reconstruction but where they round."""
  video = clip(frames)
  (made,) = plain.generate(RED, video=video, how='sdedit', strength=1e-5)
  assert close(made, plain.reconstruct(video))


@pytest.mark.slow
def test_more_strength_changes_more(plain):
  video = clip()
  kept = plain.reconstruct(video).astype(int)
  changes = [
    np.abs(plain.generate(RED, video=video, how='sdedit', strength=each)[0] - kept).mean()
    for each in (0.05, 0.3, 0.9)
  ]
  assert changes == sorted(changes) and changes[0] < changes[-1] / 2


def test_sdedit_begins_on_the_path_and_goes_its_rest():
  times = np.array([0, 0.1, 0.4, 1.0])
  np.testing.assert_allclose(rest_of_grid(times, 0.75), [0.25, 0.4, 1])
  assert np.array_equal(rest_of_grid(times, 1.0), times)
  data, noise = (jax.random.normal(jax.random.key(key), (2, 3)) for key in range(2))
  assert np.array_equal(noised(data, noise, 1.0), noise)
  # Along the straight path the velocity is constant, and any grid leads to the data.
  start = noised(data, noise, 0.75, sigma_min=0.0)
  end = sample(lambda x, time: data - noise, start, rest_of_grid(times, 0.75))
  np.testing.assert_allclose(end, data, atol=1e-6)


@pytest.mark.slow
def test_an_editor_at_its_beginning_answers_as_text_to_video_bit_for_bit(
  tiny_editing_runs, tmp_path
):
  workdir = tiny_editing.make_beginning(tiny_editing_runs, tmp_path / 'editing')
  guidance = (('text', 3.0),)
  before = mgjax.load(tiny_editing_runs / 'video', guidance=guidance).generate([RED])
  editor = mgjax.load(workdir, guidance=guidance)
  assert np.array_equal(editor.generate([RED]), before)
  assert np.array_equal(editor.generate(RED, video=clip(), fps=8.0), before)
  assert np.array_equal(editor.generate(RED, video=clip(), fps=8.0, task='recolour'), before)


def test_sizes_are_kept_where_the_model_can(editor):
  assert editor.size_for(100, (32, 24)) == (32, 24)
  assert editor.size_for(100, (8, 8)) == (SIDE, SIDE)
  assert editor.size_for(100, (33, 33)) == (SIDE, SIDE)
  assert editor.size_for(1, (720, 1280)) == (SIDE, SIDE)


@pytest.mark.slow
def test_videos_of_another_shape_get_the_nearest_size_of_training(tiny_editing_runs, tmp_path):
  workdir = tiny_editing.make_editor(
    tiny_editing_runs, tmp_path / 'editing', buckets__video__height=24
  )
  config = mgjax.load(workdir).config
  wide = config.buckets.video.copy_and_resolve_references()
  wide.height, wide.width = 16, 24
  config.buckets.wide = wide
  editor = Editor(workdir)
  editor.config = config
  assert editor.size_for(9, (1280, 720)) == (24, 16)
  assert editor.size_for(9, (720, 1280)) == (16, 24)


def test_what_cannot_be_is_said(editor, plain):
  for error, said, call in (
    (ConfigError, 'prompts = ', lambda: editor.generate([], video=clip())),
    (ConfigError, 'no instruction', lambda: editor.generate(' ', video=clip())),
    (ConfigError, "'paint'.*recolour", lambda: editor.generate(RED, video=clip(), task='paint')),
    (ConfigError, 'no source video.*--strength=0.6', lambda: plain.generate(RED, video=clip())),
    (ConfigError, '1 instructions for 2', lambda: editor.generate(RED, video=[clip(), clip()])),
    (ConfigError, "no video for how='sdedit'", lambda: editor.generate([RED], how='sdedit')),
    (ConfigError, "how='paint'", lambda: editor.generate(RED, video=clip(), how='paint')),
    (
      ConfigError,
      'strength',
      lambda: editor.generate(RED, video=clip(), how='sdedit', strength=1.5),
    ),
    (
      ConfigError,
      'reads a prompt and no task',
      lambda: editor.generate(RED, video=clip(), how='sdedit', task='add'),
    ),
    (ConfigError, 'make 4 frames of 20 x 16', lambda: editor.generate(RED, video=clip(4, 20))),
    (ConfigError, 'several shapes', lambda: editor.generate([RED] * 2, video=[clip(1), clip(2)])),
    (
      ConfigError,
      'does not go with a video',
      lambda: editor.generate(RED, video=clip(), shape=(4, 16, 16)),
    ),
    (DataError, 'expected uint8', lambda: editor.generate(RED, video=clip().astype(float))),
    (DataError, 'expected uint8', lambda: list(editor.edit_frames(iter(()), RED))),
    (
      DataError,
      'all of one size',
      lambda: list(editor.edit_frames(iter([clip()[0], clip(1, 24)[0]]), RED)),
    ),
    (DataError, 'none.mp4', lambda: editor.generate(RED, video='none.mp4')),
  ):
    with pytest.raises(error, match=said):
      call()
