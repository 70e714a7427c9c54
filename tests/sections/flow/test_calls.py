"""Pipelines are called as people guess, in names of diffusers too, and wrong calls say what is."""

import inspect

import numpy as np
import pytest
from PIL import Image

import mgjax
from mgjax.core.errors import ConfigError, DataError
from mgjax.sections.flow.calls import rows_of
from mgjax.sections.video.pipeline import VideoPipeline

PROMPT = 'the green digit 3 moves left'
SHAPE = {'num_frames': 8, 'height': 32, 'width': 32}


@pytest.fixture(scope='module')
def pipeline():
  return mgjax.load('digits/few_steps')


@pytest.fixture(scope='module')
def made(pipeline):
  return pipeline.generate([PROMPT], seed=3)


def test_a_text_is_one_prompt_and_keeps_the_axis_of_the_batch(pipeline, made):
  for call in (pipeline, pipeline.generate):
    assert call(PROMPT, seed=3).shape == (1, 16, 32, 32, 3)
  np.testing.assert_array_equal(pipeline(PROMPT, seed=3), made)
  assert mgjax.load('digits/audio', steps=1).generate('the red digit 3', seconds=0.4).ndim == 3


@pytest.mark.parametrize(
  'names',
  [
    {'prompt': PROMPT},
    {'prompts': [PROMPT]},
    {'prompts': (PROMPT,)},
    {'prompts': np.array([PROMPT])},
    {'num_inference_steps': 4},
    {'num_inference_steps': np.int64(4)},
    {'steps': 4},
    {'num_frames': 16, 'height': 32, 'width': 32},
    {'shape': (16, 32, 32)},
    {'shape': [16, 32, 32]},
    {'frame_rate': 8},
    {'seed': np.int64(3)},
    {'seed': [3]},
    {'seed': np.array([3])},
    {'negative_prompt': None},
    {'guidance_scale': None},
    {'output_type': 'np'},
    {'generator': None, 'prompt_embeds': None},
    {'schedule': {'name': 'linear'}},
    {'shape': np.array([16, 32, 32])},
  ],
  ids=repr,
)
def test_what_says_the_same_makes_the_same(pipeline, made, names):
  given = {'seed': 3, **({} if {'prompt', 'prompts'} & names.keys() else {'prompt': PROMPT})}
  np.testing.assert_array_equal(pipeline(**given | names), made)


def test_a_call_may_change_steps_and_guidance_and_keeps_the_programs_of_each():
  video = mgjax.load('digits/video', steps=2)
  asked = {'prompt': PROMPT, 'seed': 3, **SHAPE}
  other = video(num_inference_steps=3, guidance_scale=1.0, **asked)
  np.testing.assert_array_equal(other, video.changed(steps=3, guidance=1.0)(**asked))
  assert video.variant(steps=3, guidance=1.0) is video.variant(guidance=1.0, steps=3)
  assert video.variant() is video.variant(steps=2) is video
  assert (video(**asked) != other).any()


def test_latents_and_images_of_pil_are_of_the_same_videos(pipeline, made):
  latents = pipeline(PROMPT, seed=3, output_type='latent')
  assert latents.dtype == np.float32
  decoded = np.asarray(pipeline._codec.decode(latents, 16))
  assert np.abs(decoded.astype(int) - made).max() <= 1  # of 255, by rounding
  ((first, *rest),) = pipeline(PROMPT, seed=3, output_type='pil')
  np.testing.assert_array_equal(np.asarray(first), made[0, 0])
  assert len(rest) == 15


def test_a_callback_is_told_of_every_step_and_may_look(pipeline, made):
  seen = []
  pipeline(PROMPT, seed=3, callback=lambda step, total, preview: seen.append((step, preview())))
  assert [step for step, _ in seen] == [1, 2, 3, 4]
  assert np.abs(seen[-1][1].astype(int) - made).max() <= 1


def test_a_drawn_seed_is_said_and_makes_the_video_again(pipeline, caplog):
  drawn = pipeline(PROMPT, seed=None)
  seed = int(caplog.text.split('seed = ')[1].split()[0])
  np.testing.assert_array_equal(pipeline(PROMPT, seed=seed), drawn)
  assert (pipeline(PROMPT, seed=-1) != drawn).any()


@pytest.mark.parametrize(
  ('names', 'said'),
  [
    ({'prompt': 3}, 'prompts = 3; expected text, or a list'),
    ({'prompt': [3]}, r'prompts = \[3\]; expected text'),
    ({'prompt': []}, r'prompts = \[\]; expected text'),
    ({'prompt': {'a': 1}}, 'prompts = .*; expected text'),
    ({'prompts': 'a', 'prompt': 'b'}, 'prompts is given twice, also as prompt'),
    ({'seed': 1.5}, r'seed = 1\.5; expected a whole number'),
    ({'seed': 2**63}, 'seed = 9223372036854775808; expected'),
    ({'seed': -2}, 'seed = -2; expected'),
    ({'seed': '3'}, "seed = '3'; expected"),
    ({'seed': True}, 'seed = True; expected'),
    ({'seed': [1, 2], 'prompt': ['a'] * 3}, '2 seeds for 3 prompts; give one, or one for each'),
    ({'seed': [1, 2]}, '2 seeds for 1 prompts'),
    ({'seed': []}, '0 seeds for 1 prompts'),
    ({'batch_size': 0}, 'batch_size = 0; expected a whole number from 1'),
    ({'batch_size': 2.0}, r'batch_size = 2\.0; expected a whole number'),
    ({'num_frames': '8'}, "num_frames = '8'; expected a whole number"),
    ({'height': 32.5}, r'height = 32\.5; expected a whole number'),
    ({'shape': (8, 32)}, r'shape = \(8, 32\); expected 3 values'),
    ({'shape': (8, 32, 32), 'width': 32}, 'shape = .* and frames, height or width as well'),
    ({'num_inference_steps': 0}, 'steps = 0; expected'),
    ({'num_inference_steps': 'many'}, "steps = 'many'; expected"),
    ({'guidance_scale': 'high'}, 'guidance = '),
    ({'fps': 0}, 'fps = 0; expected'),
    ({'fps': 'fast'}, "fps = 'fast'; expected a number"),
    ({'negative_prompt': 3}, 'negative_prompt = 3; expected text'),
    ({'negative_prompt': 'blur'}, 'no guidance that could lead away'),
    ({'num_inference_steps': 0}, 'num_inference_steps: steps = 0'),
    ({'schedule': 3}, 'schedule = 3; expected'),
    ({'schedule': 'none'}, "'none'"),
    ({'first': -1}, 'first = -1; expected'),
    ({'first': 1.5}, r'first = 1\.5; expected'),
    ({'first': '1'}, "first = '1'; expected"),
    ({'first': [0], 'prompt': ['a', 'b']}, 'first: 1 indices for 2 prompts'),
    ({'callback': 3}, 'callback = 3; expected a function'),
    ({'output_type': 'pt'}, "output_type.*'pt'"),
    ({'generator': 0}, 'generator is no option of a video model: give seed=0'),
    ({'num_videos_per_prompt': 4}, r"\['a dog'\] \* 4"),
    ({'latents': 0}, 'noise is drawn from the seed'),
    ({'prompt_embeds': 0}, 'give the prompt as text'),
    ({'return_dict': False}, 'an array is returned'),
    ({'callback_on_step_end': print}, r'f\(step, total, preview\)'),
    ({'eta': 0.0}, 'eta is no option of a video model: expected one of batch_size'),
    ({'num_frame': 8}, 'did you mean num_frames|did you mean frames'),
    ({'first_frame': 'a.png'}, 'first_frame is no option of a video model: .* see `reads`'),
    ({'reference': 'a.png'}, 'reference is no option of a video model: .* see `reads`'),
    ({'prompt': np.zeros((4, 4))}, r'^prompts = array[^\n]*; expected text'),
    ({'step_size': 0.5}, 'step_size is no option of a video model: give steps=4'),
  ],
)
def test_a_wrong_call_names_the_argument_and_the_way(pipeline, names, said):
  with pytest.raises(ConfigError, match=said):
    pipeline(**({} if {'prompt', 'prompts'} & names.keys() else {'prompt': PROMPT}) | names)


def test_images_of_pil_are_frames_of_one_video_to_edit(pipeline):
  editor = mgjax.load('digits/editing', steps=1)
  clip = pipeline.generate([PROMPT], seed=3)
  edited = editor('make the digit blue', video=clip, seed=0)
  images = [Image.fromarray(np.asarray(frame)) for frame in clip[0]]
  for video in (images, [images]):
    np.testing.assert_array_equal(editor('make the digit blue', video=video, seed=0), edited)


def test_an_upsampler_says_what_takes_a_file():
  with pytest.raises(DataError, match=r"video = 'a\.mp4' is a file; .* save\(None, 'out\.mp4'"):
    mgjax.load('digits/upsampler')(video='a.mp4')


def test_values_without_a_name_are_no_option(pipeline):
  for call in (lambda: pipeline(PROMPT, 4), lambda: pipeline(PROMPT, prompt='a')):
    with pytest.raises(ConfigError, match=r'prompts by place, once|prompts is given twice'):
      call()


def test_what_is_made_with_one_seed_takes_no_several():
  with pytest.raises(ConfigError, match=r'seed = \[1, 2\]; expected a whole number'):
    mgjax.load('digits/audio', steps=1).generate(['a', 'b'], seed=[1, 2])


@pytest.mark.parametrize(
  ('names', 'said'),
  [
    ({'torch_dtype': 'float16'}, "weights='bfloat16'"),
    ({'device': 'cuda'}, 'JAX places arrays'),
    ({'stepps': 3}, 'did you mean steps'),
    ({'revision': 'main'}, 'hf://owner/name@revision'),
    ({'use_safetensors': True}, 'leave it out'),
    ({'cache_dir': '/tmp'}, 'HF_HOME'),
    ({'num_inference_steps': 'four'}, "steps = 'four'"),
  ],
)
def test_a_wrong_option_of_load_names_the_right_one(names, said):
  with pytest.raises(ConfigError, match=said):
    mgjax.load('digits/few_steps', **names)
  with pytest.raises(ConfigError, match='is no option of an autoencoder'):
    mgjax.load('digits/autoencoder', **names)


def test_load_takes_the_names_of_diffusers():
  assert mgjax.load('digits/video', num_inference_steps=3).settings['steps'] == 3


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('to', 'mesh='),
    ('enable_model_cpu_offload', 'leave it out'),
    ('enable_vae_tiling', 'leave it out'),
    ('load_lora_weights', 'lora='),
    ('scheduler', 'solver='),
    ('vae', 'digits/autoencoder'),
    ('save_pretrained', 'launch.weights export'),
    ('unload_lora_weights', 'lora='),
    ('nothing_like_it', 'no attribute'),
  ],
)
def test_what_a_pipeline_lacks_is_said_with_what_it_has(pipeline, name, said):
  with pytest.raises(AttributeError, match=said):
    getattr(pipeline, name)


@pytest.mark.parametrize(
  ('name', 'said'),
  [('scheduler', 'solver='), ('guidance_scale', 'to a call'), ('num_frames', 'to a call')],
)
def test_what_nobody_would_read_cannot_be_set(pipeline, name, said):
  with pytest.raises(AttributeError, match=f'{name} cannot be set; .*{said}'):
    setattr(pipeline, name, 3)


@pytest.mark.parametrize(
  'name', ['from_pretrained', 'DiffusionPipeline', 'WanPipeline', 'export_to_video']
)
def test_what_the_package_lacks_is_said_with_what_it_has(name):
  with pytest.raises(AttributeError, match=r'mgjax\.(load|save)\('):
    getattr(mgjax, name)


def test_help_shows_arguments_and_repr_what_it_is(pipeline):
  for method in (pipeline.generate, pipeline.stream):
    shown = inspect.signature(method).parameters
    assert {'prompts', 'seed', 'frames', 'num_frames', 'num_inference_steps'} <= shown.keys()
  personal = mgjax.load('digits/personalization')
  assert 'reference' in inspect.signature(personal.generate).parameters
  assert 'task' in inspect.signature(mgjax.load('digits/editing').generate).parameters
  assert "'digits/few_steps'" in repr(pipeline) and '16 frames of 32 x 32' in repr(pipeline)
  assert isinstance(pipeline, VideoPipeline)


def test_what_ships_is_listed_and_loads():
  listed = mgjax.list_models()
  assert listed['digits/few_steps'] == 'a video model'
  assert all(mgjax.load(name) is not None for name in ('solids/objects', 'digits/codec'))


@pytest.mark.parametrize(
  ('count', 'most', 'rows'),
  [
    *((1, 32, 1), (2, 32, 2), (3, 32, 4), (5, 32, 8), (8, 32, 8), (9, 32, 16), (17, 32, 8)),
    *((28, 32, 32), (33, 32, 8), (64, 32, 32), (3, 2, 2), (100, 6, 6), (5, 1, 1), (12, 12, 12)),
  ],
)
def test_batches_are_filled_up_to_few_sizes(count, most, rows):
  assert rows_of(count, most) == rows


def test_a_word_is_reported_once_by_the_model_that_does_not_know_it(caplog):
  video = mgjax.load('digits/few_steps')
  for _ in range(2):
    video('the gren digit 3')
  (line,) = [each for each in caplog.messages if 'gren' in each]
  assert line == (
    "digits/few_steps: prompt 'the gren digit 3': training never showed 'gren' (did you mean "
    "'green'?)"
  )


def test_a_schedule_may_be_named_alone():
  video = mgjax.load('digits/video', steps=2, schedule='linear', guidance=np.float32(3))
  assert video.settings['schedule'] == {'name': 'linear'}
  assert video.settings['guidance'] == (('text', 3.0),)


@pytest.mark.parametrize(
  ('name', 'options', 'said'),
  [
    ('audio', {'video': 'a.mp4', 'seconds': 1}, 'seconds is for sound without a video'),
    ('upsampler', {}, 'video is missing'),
    (
      'upsampler',
      {'video': np.zeros((2, 8, 8, 3), np.uint8), 'scale': 2, 'size': (9, 9)},
      'one of',
    ),
    (
      'upsampler',
      {'guidance_scale': 30},
      r"guides by no condition; name one, as in \{'text': 30\}",
    ),
  ],
)
def test_what_does_not_go_together_is_said(name, options, said):
  with pytest.raises(ConfigError, match=said):
    mgjax.load(f'digits/{name}').generate('the red digit 7', **options)


def test_save_has_the_options_of_its_files_alone(pipeline, tmp_path):
  for options, said in (
    ({'callback': print}, 'callback is no option of save'),
    ({'output_type': 'pil'}, 'output_type is no option of save'),
    ({'sede': 3}, 'did you mean seed'),
  ):
    with pytest.raises(ConfigError, match=said):
      pipeline.save(PROMPT, tmp_path / 'a.mp4', **options)
  with pytest.raises(ConfigError, match=r'video is an array.*mgjax\.save'):
    mgjax.load('digits/editing').save('make it red', tmp_path / 'a.mp4', video=np.zeros(3))
  assert not [*tmp_path.iterdir()]


def test_a_reference_may_be_an_image_of_pil():
  personal = mgjax.load('digits/personalization', steps=1)
  side = personal.reader.shape[1]
  picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
  ours = personal('a digit', reference=picture)
  np.testing.assert_array_equal(personal('a digit', reference=Image.fromarray(picture)), ours)
