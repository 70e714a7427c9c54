"""Every conditioning of the library keeps the contract, and text means what it says."""

import dataclasses
import functools
import importlib
import inspect
import logging
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgjax
from mgjax.core.axes import LOGICAL_AXES
from mgjax.core.errors import ConfigError
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.clip.towers import ClipVision
from mgjax.models.conditioning import byte_text
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.conditioning.clips.clip_tokens import ClipTokens
from mgjax.models.conditioning.clips.rejected import Rejected
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.conditioning.numbers.number import Number
from mgjax.models.conditioning.pictures.frame_channels import FrameChannels
from mgjax.models.conditioning.ports import Ports
from mgjax.models.conditioning.text_states import TextStates
from mgjax.models.conditioning.word_text import WordText
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.text.tokenizers import EOS, byte_tokens
from mgjax.models.text.words import word_tokens
from tests.random_parameters import random_parameters

DIM = 32
TOWER = ClipVision(8, patch=4, dim=16, depth=1, heads=2, mlp_dim=32, projection=None)
# Fields of each conditioning that make it small; one that is not here is tried with its defaults.
SMALL = {
  'ByteText': {'width': 16, 'depth': 1, 'heads': 2, 'length': 24},
  'EncodedText': {
    'encoders': {'long': {'features': 7, 'length': 9}, 'short': {'features': 3, 'length': 4}}
  },
  'WordText': {'width': 16, 'depth': 1, 'heads': 2, 'length': 24, 'vocabulary': 64},
  'EditTask': {'tasks': ('one', 'two', 'three'), 'width': 8},
  'TextStates': {'encoder': 'long', 'features': 7, 'length': 9},
  'FrameFeatures': {'features': 5},
  'Frames': {'stride': 2},
  'FrameChannels': {'stride': 2},
  'Identity': {'vision': TOWER},
  'PictureTokens': {'vision': TOWER},
}
LATENTS = (4, 4, 4, 3)  # t h w c of a row
SHAPE = (8, 32, 32)  # of the video that they are of
ROWS = 3


def conditionings():
  """Finds the classes by walking the packages."""
  found = set()
  for module in pkgutil.walk_packages(mgjax.__path__, 'mgjax.'):
    for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
      if issubclass(each, Conditioning) and each not in (Conditioning, ClipTokens, Number):
        found.add(each)
  return sorted(found, key=lambda each: each.__qualname__)


ALL = pytest.mark.parametrize('kind', conditionings(), ids=lambda kind: kind.__name__)


SPEAKING = pytest.mark.parametrize(
  'kind',
  [kind for kind in conditionings() if kind is not Rejected],
  ids=lambda kind: kind.__name__,
)
OPTIONAL = pytest.mark.parametrize(
  'kind', [kind for kind in conditionings() if kind.optional], ids=lambda kind: kind.__name__
)


def make(kind):
  fields = {field.name for field in dataclasses.fields(kind)}
  handed = {'dim': DIM, 'patch': (1, 2, 2)}
  known = {name: value for name, value in handed.items() if name in fields}
  return kind(**known, **SMALL.get(kind.__name__, {}))


def drawn(name, like):
  """An array of a batch, other in every row; whole numbers that every table has an entry for."""
  draw = np.random.default_rng(len(name))
  shape = (ROWS, *like.shape)
  if jnp.issubdtype(like.dtype, jnp.floating):
    return jnp.asarray(draw.normal(size=shape), like.dtype)
  return jnp.asarray(draw.integers(*((0, 2) if like.dtype == bool else (1, 4)), shape), like.dtype)


@functools.cache
def batch_of(kind):
  with jax.ensure_compile_time_eval():  # a tracer must not be cached
    return {name: drawn(name, like) for name, like in make(kind).requires(LATENTS).items()}


def sample_of(kind):
  """What a source may give that has all that a conditioning reads."""
  draw, made = np.random.default_rng(0), make(kind)
  shape = (SHAPE[0] - (kind is FrameChannels), *SHAPE[1:])  # 1 + 2 k frames
  sample = {'caption': 'the green digit 3', 'fps': 16, 'video': np.ones((*shape, 3), np.uint8)}
  sample['embeddings'] = {'long': draw.normal(size=(8, 7)), 'short': draw.normal(size=(3, 3))}
  fields = made.fields(shape, LATENTS).items()
  pictures = {n: draw.integers(256, size=s, dtype=np.uint8) for n, s in fields if s[-1:] == (3,)}
  numbers = {n: draw.normal(size=s) for n, s in fields}
  named = {'task': 'two', 'temporal_place': 3, 'known': np.ones(shape[0])}
  return sample | numbers | pictures | named


@functools.cache
def parameters(kind):
  init = lambda key, batch, drop: make(kind).init(key, batch, drop, LATENTS)  # noqa: E731
  return random_parameters(init, batch_of(kind), jnp.zeros(ROWS, bool))


def apply(kind, batch, drop):
  call = jax.jit(make(kind).apply, static_argnums=3)
  return call({'params': parameters(kind)}, batch, jnp.array(drop), LATENTS)


def arrays(ports):
  """What ports carry: 'tokens', 'context', ..., 'gated[0].tokens', ..., and their arrays."""
  leaves = jax.tree_util.tree_leaves_with_path(ports)
  return {jax.tree_util.keystr(path).lstrip('.'): np.asarray(leaf) for path, leaf in leaves}


@ALL
def test_a_sample_becomes_what_it_requires(kind):
  made, sample = make(kind), sample_of(kind)
  prepared, clips = made.prepare(sample), made.clips(sample)
  assert set(clips) == set(made.encodes())
  wanted = made.requires(LATENTS)
  for name, array in prepared.items():
    assert (array.shape, array.dtype) == (wanted[name].shape, wanted[name].dtype), name
  assert prepared.keys() | clips.keys() == wanted.keys()


@ALL
def test_a_sample_that_lacks_what_is_optional_becomes_nothing(kind):
  bare = {'caption': 'a', 'embeddings': {}}
  assert (not make(kind).prepare(bare) and not make(kind).clips(bare)) == kind.optional


@OPTIONAL
def test_what_is_absent_is_as_if_dropped(kind):
  batch = batch_of(kind)
  dropped = arrays(apply(kind, batch, [True] * ROWS))
  zeros = arrays(
    apply(kind, {name: jnp.zeros_like(a) for name, a in batch.items()}, [False] * ROWS)
  )
  for name, array in dropped.items():
    np.testing.assert_array_equal(array, zeros[name])
  missing = arrays(apply(kind, {}, [False] * ROWS))
  for name, array in missing.items():  # published kernels read channels in any case
    assert name in ('channels', 'picture')
    np.testing.assert_array_equal(array, dropped[name])
  assert not any(
    dropped[name].any() for name in ('tokens', 'vector', 'context_mask') if name in dropped
  )


@pytest.mark.parametrize(
  'kind',
  # The backbone itself maps the states of text, all of them.
  [kind for kind in conditionings() if kind not in (Rejected, TextStates)],
  ids=lambda kind: kind.__name__,
)
def test_it_speaks_through_ports_of_the_model_width(kind):
  ports = apply(kind, batch_of(kind), [False] * 3)
  assert isinstance(ports, Ports)
  given = arrays(ports)
  assert given
  for name, array in given.items():
    assert array.shape[0] == ROWS
    if name.endswith('gate'):
      assert array.shape[1:] in ((1,), (DIM,))
    elif name.startswith(('channels', 'picture', 'known')):  # as wide as latents and encoders are
      assert array.shape[1] in (1, LATENTS[0], 5)
    elif name != 'offset' and not name.endswith('mask'):
      assert array.shape[-1] == DIM
  assert ('context' in given) == ('context_mask' in given)


@ALL
def test_a_dropped_row_says_the_same_whatever_it_held(kind):
  batch = batch_of(kind)
  other = {name: array[::-1] for name, array in batch.items()}
  for mine, theirs in zip(
    arrays(apply(kind, batch, [True] * 3)).values(),
    arrays(apply(kind, other, [True] * 3)).values(),
    strict=True,
  ):
    np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(mine, np.broadcast_to(mine[:1], mine.shape))


@SPEAKING
def test_a_row_that_is_kept_does_not_notice_dropped_ones(kind):
  some = arrays(apply(kind, batch_of(kind), [False, True, True]))
  none = arrays(apply(kind, batch_of(kind), [False, False, False]))
  for name, array in some.items():
    np.testing.assert_array_equal(array[0], none[name][0])
  assert any((array[2] != none[name][2]).any() for name, array in some.items())


@ALL
def test_every_parameter_names_all_its_axes(kind):
  init = lambda key: make(kind).init(key, batch_of(kind), jnp.zeros(3, bool), LATENTS)  # noqa: E731
  boxed = jax.eval_shape(init, jax.random.key(0)).get('params', {})
  for box in jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)):
    assert len(box.names) == len(box.value.shape)
    assert set(box.names) <= LOGICAL_AXES.keys()


def test_dropped_text_is_the_empty_prompt():
  empty = {'text': jnp.asarray(np.stack([byte_tokens('', 24)] * 3))}
  dropped = arrays(apply(ByteText, batch_of(ByteText), [True] * 3))
  for name, array in arrays(apply(ByteText, empty, [False] * 3)).items():
    np.testing.assert_array_equal(dropped[name], array)


def test_padding_is_masked_and_not_read():
  captions = ('the green digit 3', 'a', 'x' * 100)  # the last is longer than it reads
  tokens = np.stack([byte_tokens(caption, 24) for caption in captions])
  ports = apply(ByteText, {'text': jnp.asarray(tokens)}, [False] * 3)
  lengths = (tokens == EOS).argmax(axis=1) + 1
  np.testing.assert_array_equal(ports.context_mask, np.arange(24)[None] < lengths[:, None])
  # Fewer columns of padding: the same context of what is left.
  shorter = {'text': jnp.asarray(tokens[1:2, :10])}
  context = jax.jit(make(ByteText).apply, static_argnums=3)(
    {'params': parameters(ByteText)}, shorter, jnp.zeros(1, bool), ()
  ).context
  # Some 200 roundings of numbers of a LayerNorm's size, at most sqrt(width) = 5.7.
  kept = lengths[1]
  np.testing.assert_allclose(context[0, :kept], ports.context[1, :kept], atol=200 * 6 * 2**-23)


def test_frame_rate_of_videos_reaches_the_tokens():
  text = make(ByteText)
  video = text.prepare({'caption': 'a cat', 'fps': 16})['text']
  image = text.prepare({'caption': 'a cat'})['text']
  np.testing.assert_array_equal(video, byte_tokens('FPS-16 a cat', 24))
  np.testing.assert_array_equal(image, byte_tokens('a cat', 24))


@pytest.mark.parametrize(
  ('kind', 'unit', 'one'), [(ByteText, 'bytes', 'x'), (WordText, 'words', 'x ')]
)
def test_the_first_prompt_that_is_cut_is_cut_aloud(kind, unit, one, caplog, monkeypatch):
  monkeypatch.setattr(byte_text, '_warned', set())
  with caplog.at_level(logging.WARNING, logger='mgjax.models.conditioning.byte_text'):
    make(kind).prepare({'caption': one * 23})
    assert not caplog.text
    for _ in range(3):
      make(kind).prepare({'caption': one * 24})
    assert caplog.text.count(f'a prompt of 24 {unit} was cut to the 23 read') == 1


def test_words_are_read_by_the_same_encoder():
  text = make(WordText)
  tokens = text.prepare({'caption': 'a cat', 'fps': 16})['text']
  np.testing.assert_array_equal(tokens, word_tokens('FPS-16 a cat', 24, 64))
  shapes = [jax.tree.map(jnp.shape, parameters(kind)) for kind in (ByteText, WordText)]
  assert shapes[0].pop('table') != shapes[1].pop('table') == (3 + 64, 16)
  assert shapes[0] == shapes[1]


def test_what_is_quoted_can_be_read_alone():
  caption = 'the green sign says "407"'
  text = ByteText(DIM, length=24, reads='visual_text', name='characters')
  tokens = text.prepare({'caption': caption, 'fps': 16})
  assert list(tokens) == ['characters'] == list(text.requires(LATENTS))
  np.testing.assert_array_equal(tokens['characters'], byte_tokens('407', 24))
  nothing = text.prepare({'caption': 'the green digit 3'})['characters']
  np.testing.assert_array_equal(nothing, byte_tokens('', 24))  # as if dropped
  with pytest.raises(ConfigError, match=r"a\.reads = 'quotes'; expected one of prompt, visual_tex"):
    ByteText(DIM, reads='quotes', name='a').prepare({'caption': caption})


def test_two_encoders_of_text_are_named_and_dropped_each_by_itself():
  small = {'width': 16, 'depth': 1, 'heads': 2, 'length': 24}
  encoders = (
    WordText(DIM, **small, vocabulary=64, name='text'),
    ByteText(DIM, **small, reads='visual_text', name='characters'),
  )
  sizes = {'dim': DIM, 'depth': 1, 'heads': 2, 'mlp_dim': 32, 'patch': (1, 1, 1)}
  model = FlowModel(Transformer(**sizes, positions=(1, 1, 2), name='backbone'), encoders)
  x, time = jnp.ones((1, 1, 1, 2, 3)), jnp.zeros(1)

  def batch(caption):
    rows = {}
    for encoder in encoders:
      rows |= encoder.prepare({'caption': caption})
    return {name: jnp.asarray(row[None]) for name, row in rows.items()}

  params = random_parameters(model.init, x, time, batch('a'), {})
  assert {'text', 'characters', 'backbone'} == set(params)
  call = jax.jit(model.apply)

  def velocity(caption, *dropped):
    drop = {name: jnp.array([name in dropped]) for name in ('text', 'characters')}
    return np.asarray(call({'params': params}, x, time, batch(caption), drop))

  green, red = 'the green sign says "407"', 'the red sign says "407"'
  assert (velocity(green) != velocity(red)).any()
  np.testing.assert_array_equal(velocity(green, 'text'), velocity(red, 'text'))
  other = 'the green sign says "12"'
  assert (velocity(green, 'text') != velocity(other, 'text')).any()
  assert (velocity(green, 'characters') != velocity(other, 'characters')).any()
  both = ('text', 'characters')
  np.testing.assert_array_equal(velocity(green, *both), velocity('a cat', *both))


def test_a_width_that_does_not_divide_into_the_heads_is_refused():
  text = ByteText(32, width=16, depth=1, heads=3, length=8, name='text')
  batch = {'text': jnp.ones((1, 8), jnp.int32)}
  with pytest.raises(ConfigError, match=r'text\.width = 16 does not divide into 3 heads'):
    text.init(jax.random.key(0), batch, jnp.zeros(1, bool), LATENTS)
