"""An ArcFace network gets the pixels that it expects; a file that is none is a sentence."""

import types

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.media.faces.arcface import ArcFace, open_arcface
from mgjax.data.media.faces.face import Face


class Session:
  """Follows onnxruntime's protocol: a random projection of the pixels."""

  def __init__(self, shape=('n', 3, 112, 112)):
    self.shape, self.fed = shape, []
    self.weights = np.random.default_rng(0).standard_normal((3 * 112 * 112, 8), np.float32)

  def get_inputs(self):
    return [types.SimpleNamespace(name='data', shape=self.shape)]

  def run(self, names, feed):
    assert names is None
    self.fed.append(feed['data'])
    return [feed['data'].reshape(len(feed['data']), -1) @ self.weights]


def crops(count=3):
  return list(np.random.default_rng(1).integers(0, 256, (count, 112, 112, 3)).astype(np.uint8))


def test_pixels_are_scaled_and_channels_come_first():
  session = Session()
  vectors = ArcFace(session).embed(crops())
  (fed,) = session.fed
  assert fed.dtype == np.float32 and fed.shape == (3, 3, 112, 112)
  np.testing.assert_allclose(
    fed, np.moveaxis((np.stack(crops()) - 127.5) / 127.5, -1, 1), atol=1e-6
  )
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_network_of_one_picture_at_a_time_gets_one_at_a_time():
  session = Session((1, 3, 112, 112))
  vectors = ArcFace(session).embed(crops())
  assert [len(fed) for fed in session.fed] == [1, 1, 1]
  np.testing.assert_allclose(vectors, ArcFace(Session()).embed(crops()), atol=1e-5)


def test_a_network_of_other_pictures_is_refused():
  with pytest.raises(ConfigError, match='expected pictures of ArcFace'):
    ArcFace(Session(('n', 3, 224, 224)))


@pytest.mark.parametrize(('turn', 'scale'), [(0, 1), (30, 1), (-20, 3)])
def test_eyes_come_to_lie_where_arcface_has_them(turn, scale):
  """Bright dots at the eyes of a turned face are dots at ArcFace's places in the crop."""
  angle, middle = np.deg2rad(turn), 200.0
  along = 40 * scale * np.array([np.sin(angle), np.cos(angle)])  # (y, x) from left eye to right
  left, right = middle - along / 2, middle + along / 2
  ys, xs = np.indices((400, 400))
  frame = np.zeros((400, 400, 3), np.uint8)
  for (y, x), channel in ((left, 0), (right, 1)):
    frame[np.hypot(ys - y, xs - x) < 4 * scale, channel] = 255
  points = np.array([right, right, left, left, (middle, middle)], np.float32)
  face = Face(100, 100, 200, 200, points)
  crop = ArcFace(Session()).crop(frame, face)
  for channel, place in ((0, (51.6, 38.3)), (1, (51.5, 73.5))):
    found = np.argwhere(crop[..., channel] > 127).mean(0)
    assert np.abs(found - place).max() < 1.5


def test_a_file_that_is_no_network_is_a_sentence(tmp_path):
  pytest.importorskip('onnxruntime', reason='onnxruntime, of the extra arcface, is not installed')
  (tmp_path / 'a.onnx').write_text('no network')
  with pytest.raises(ConfigError, match='is no network that can be used'):
    open_arcface(str(tmp_path / 'a.onnx'))


def test_a_network_of_a_file_is_what_its_weights_say(tmp_path):
  onnx = pytest.importorskip('onnx', reason='onnx is not installed')
  pytest.importorskip('onnxruntime', reason='onnxruntime, of the extra arcface, is not installed')
  weights = Session().weights
  helper, kind = onnx.helper, onnx.TensorProto.FLOAT
  graph = helper.make_graph(
    [
      helper.make_node('Flatten', ['data'], ['flat']),
      helper.make_node('MatMul', ['flat', 'weights'], ['vector']),
    ],
    'tiny',
    [helper.make_tensor_value_info('data', kind, ['n', 3, 112, 112])],
    [helper.make_tensor_value_info('vector', kind, ['n', 8])],
    [onnx.numpy_helper.from_array(weights, 'weights')],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
  model.ir_version = 8
  onnx.save(model, str(tmp_path / 'tiny.onnx'))
  found = open_arcface(str(tmp_path / 'tiny.onnx')).embed(crops())
  np.testing.assert_allclose(found, ArcFace(Session()).embed(crops()), atol=1e-5)
