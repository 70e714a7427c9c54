"""Settings of data: what a configuration may say, and what is refused by the name of its key."""

import pytest

from configs.audio import audio, codec
from configs.digits import signs
from configs.digits import video as digits_video
from configs.video import t2iv_256
from mgjax.core.errors import ConfigError
from mgjax.data.settings import AudioShape, DataSettings, audio_shapes, data_settings, video_shapes

VIDEO = {'frames': 8, 'height': 8, 'width': 8}


@pytest.mark.parametrize('made', [t2iv_256, audio, codec, digits_video, signs])
def test_configurations_say_nothing_unknown(made):
  config = made.get_config()
  data = data_settings(config.data.to_dict())
  assert data.kind == config.data.kind and data.threads == config.data.threads
  if made in (audio, codec):
    shapes = audio_shapes(config.buckets.to_dict())
    assert {name: shape.seconds for name, shape in shapes.items()} == {
      name: bucket.seconds for name, bucket in config.buckets.items()
    }
  else:
    shapes = video_shapes(config.buckets.to_dict(), data.fps)
    assert all(shapes[name].frames == bucket.frames for name, bucket in config.buckets.items())


def test_what_is_left_out_has_a_default():
  assert data_settings({'kind': 'sounds', 'intervals': None}) == DataSettings('sounds')
  assert audio_shapes({'a': {'seconds': 2.0, 'batch_size': 8, 'weight': 1}}) == {
    'a': AudioShape(2.0)
  }


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'pth': 'x'}, r'unknown key data\.pth; did you mean data\.path\?'),
    ({'digits': {'colors': ('red',)}}, r'data\.digits\.colors; did you mean data\.digits\.colours'),
    ({'signs': {'length_': (1,)}}, r'data\.signs\.length_; did you mean data\.signs\.length'),
    ({'share': 'equal'}, r"data: share = 'equal'; expected 'samples' or 'given'"),
    ({'intervals': (0, 1)}, r'data\.intervals = 0; expected a whole number from 1'),
  ],
)
def test_what_is_wrong_is_refused_by_its_key(fields, words):
  with pytest.raises(ConfigError, match=words):
    data_settings({'kind': 'digits', **fields})


@pytest.mark.parametrize(
  ('make', 'fields', 'words'),
  [
    (video_shapes, VIDEO | {'frame': 8}, r'unknown key buckets\.a\.frame; did you mean.*frames'),
    (video_shapes, {'frames': 8}, r'buckets\.a\.height is missing'),
    (audio_shapes, {}, r'buckets\.a\.seconds is missing'),
    (audio_shapes, {'seconds': 1.0, 'height': 8}, r'width = None; expected both or neither'),
    (audio_shapes, {'seconds': 1.0, 'frames': 8}, r'unknown key buckets\.a\.frames'),
  ],
)
def test_what_is_wrong_with_a_bucket_is_refused_by_its_name(make, fields, words):
  with pytest.raises(ConfigError, match=words):
    make({'a': fields}, *([16] if make is video_shapes else []))
