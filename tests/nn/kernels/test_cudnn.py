"""cuDNN attention: what surrounds the primitives on any machine, the primitives on a GPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mgjax.core.errors import ConfigError
from mgjax.nn.kernels import cudnn
from tests.experimental.tpu_attention.test_tpu_promises import (
  arrays,
  assert_close,
  assert_parts_add_up,
  assert_softmax,
  assert_zero_without_keys,
  exact_backward,
  exact_forward,
  holes,
  scores,
)


def backward(q, k, v, mask, o, lse, do):
  return cudnn.backward((q, k, v, mask, o, lse), do)


def first_keys(k, lengths):
  return np.arange(k.shape[1]) < np.asarray(lengths)[:, None]


def forward_twin(q, k, v, lengths):
  """Does what cuDNN does, in float64; 0 / 0 where it would have it."""
  s = scores(q, k, None if lengths is None else first_keys(k, lengths))
  p = np.exp(s)
  total = p.sum(axis=-1)
  o = np.einsum('bgnm,bmgk->bngk', p / total[..., None], np.asarray(v, np.float64))
  return jnp.asarray(o, q.dtype), jnp.asarray(np.log(total), jnp.float32)


def backward_twin(q, k, v, lengths, o, lse, do):
  """Does what cuDNN does, in float64, and leaves behind the lengths what it finds: here NaN."""
  assert (np.asarray(lse) > -1e29).all()  # or exp(S - L) would overflow
  read = None if lengths is None else first_keys(k, lengths)
  dq, dk, dv = exact_backward(q, k, v, read, o, lse, do)
  if read is not None:
    dk[~read], dv[~read] = np.nan, np.nan
  return tuple(jnp.asarray(x, jnp.float32) for x in (dq, dk, dv))


@pytest.fixture
def twins(monkeypatch):
  monkeypatch.setattr(cudnn, 'call_forward', forward_twin)
  monkeypatch.setattr(cudnn, 'call_backward', backward_twin)


def shapes(masked, dtype=jnp.bfloat16):
  """Returns the inputs of `forward` and those of `backward`, as shapes."""
  q, k = (jax.ShapeDtypeStruct((2, length, 4, 128), dtype) for length in (64, 40))
  mask = jax.ShapeDtypeStruct((2, 40), jnp.bool_) if masked else None
  lse = jax.ShapeDtypeStruct((2, 4, 64), jnp.float32)
  return (q, k, k, mask), (q, k, k, mask, q, lse, q)


@pytest.mark.parametrize('masked', [False, True])
def test_masks_with_holes_become_lengths(twins, masked):
  assert_softmax(cudnn.forward, backward, (3, 20, 33, 2, 16), masked)


def test_a_row_that_may_read_nothing_is_zero_and_has_no_gradient(twins):
  assert_zero_without_keys(cudnn.forward, backward, (2, 8, 12, 1, 16))


def test_parts_of_the_keys_add_up_given_the_whole_output(twins):
  q, k, v, do = arrays((2, 16, 24, 2, 16))
  mask = holes(2, 24).at[1, :12].set(False)  # of which row 1 sees nothing in the first half
  assert_parts_add_up(backward, q, k, v, mask, do)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_primitives_give_results_in_the_types_of_the_inputs(masked, dtype):
  ahead, back = shapes(masked, dtype)
  q, k = ahead[:2]
  o, lse = jax.make_jaxpr(cudnn.forward)(*ahead).out_avals
  gradients = jax.make_jaxpr(backward)(*back).out_avals
  for ours, like in zip((o, *gradients), (q, q, k, k), strict=True):
    assert (ours.shape, ours.dtype) == (like.shape, like.dtype)
  # The log-sum-exp decides exp(S - L): bfloat16 would be wrong by percents.
  assert (lse.shape, lse.dtype) == ((2, 4, 64), jnp.float32)


def calls(function, *inputs):
  """Returns name, operands and their types of each cuDNN call in the program for a GPU."""
  text = jax.jit(function).trace(*inputs).lower(lowering_platforms=('cuda',)).as_text()
  found = re.findall(r'custom_call @__cudnn\$(\w+)\((.*?)\).*: \((.*)\) -> ', text)
  return [
    (name, operands.split(', '), re.findall(r'tensor<([^>]*)>', types))
    for name, operands, types in found
  ]


def test_programs_for_gpus_are_made_without_one():
  ahead, back = shapes(masked=True)
  q, k, lse, rows = '2x64x4x128xbf16', '2x40x4x128xbf16', '2x4x64xf32', '2xi32'
  ((name, _, types),) = calls(cudnn.forward, *ahead)
  assert (name, types) == ('fmhaSoftmax', [q, k, k, rows, rows])
  ((name, _, types),) = calls(backward, *back)
  assert (name, types) == ('fmhaSoftmaxBackward', [q, k, k, lse, q, q, rows, rows])


def test_the_backward_pass_gives_cudnn_what_it_expects_where():
  _, back = shapes(masked=False)
  ((_, operands, _),) = calls(backward, *back)
  q, k, v, o, lse, do = (f'%arg{i}' for i in range(6))
  assert operands == [q, k, v, lse, do, o]


def test_each_device_of_a_mesh_can_run_it():
  mesh = jax.make_mesh((2,), ('tensor',), axis_types=(AxisType.Auto,))
  heads, rows = PartitionSpec(None, None, 'tensor'), PartitionSpec(None, 'tensor')
  spread = jax.shard_map(
    lambda q, k, v: cudnn.forward(q, k, v, None),
    mesh=mesh,
    in_specs=heads,
    out_specs=(heads, rows),
    check_vma=False,
  )
  local = ['2x64x2x128xbf16', '2x40x2x128xbf16', '2x40x2x128xbf16']
  ((_, _, types),) = calls(spread, *shapes(masked=False)[0][:3])
  assert types == local


@pytest.mark.parametrize(
  ('dtype', 'size', 'takes'),
  [
    (jnp.bfloat16, 128, True),
    (jnp.float16, 64, True),
    (jnp.float32, 128, False),
    (jnp.bfloat16, 136, False),
    (jnp.bfloat16, 20, False),
  ],
)
def test_what_cudnn_takes_is_known_ahead(dtype, size, takes):
  assert cudnn.supported((1, 5, 2, size), (1, 3, 2, size), jnp.dtype(dtype)) == takes


def test_a_jax_without_the_primitives_is_named(monkeypatch):
  from jax._src.cudnn import fused_attention_stablehlo as fused

  monkeypatch.delattr(fused, '_dot_product_attention_fwd_p_wrapper')
  with pytest.raises(ConfigError, match=rf'jax {re.escape(jax.__version__)} has other cuDNN'):
    jax.make_jaxpr(lambda *inputs: cudnn.forward(*inputs))(*shapes(masked=False)[0])


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['full', 'masked', 'part of the keys'])
@pytest.mark.parametrize('size', [64, 128])
def test_cudnn_is_softmax_attention(size, kind):
  q, k, v, do = arrays((2, 256, 320, 2, size), jnp.bfloat16)
  mask = None if kind == 'full' else holes(2, 320).at[1, :200].set(False)
  exact = exact_forward(q, k, v, mask)
  o, lse = jax.jit(cudnn.forward)(q, k, v, mask)
  # Scores are float32: a log-sum-exp near 6 that was rounded to bfloat16 would be off by .012.
  np.testing.assert_allclose(lse, exact[1], atol=1e-3)
  # P, dS and the results are rounded to 2^-9 of values below 1.
  tolerance = {'atol': 0.012, 'rtol': 3 * 2**-8}
  assert_close((o,), exact[:1], **tolerance)
  part = slice(0, 160 if kind == 'part of the keys' else None)
  keys = k[:, part], v[:, part], None if mask is None else mask[:, part]
  ours = jax.jit(backward)(q, *keys, o, lse, do)
  assert_close(ours, exact_backward(q, *keys, *exact, do), **tolerance)


@pytest.mark.gpu
def test_a_row_that_may_read_nothing_is_zero_in_cudnn_too():
  q, k, v, do = arrays((2, 128, 256, 2, 64), jnp.bfloat16)
  mask = holes(2, 256).at[1].set(False)
  o, lse = jax.jit(cudnn.forward)(q, k, v, mask)
  gradients = jax.jit(backward)(q, k, v, mask, o, lse, do)
  assert (lse[1] <= -1e29).all()
  for x in (o, *gradients):
    assert np.isfinite(np.asarray(x, np.float32)).all() and not x[1].any()
