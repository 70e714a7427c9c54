"""What was made is shown as a picture outside of notebooks, and saved as files."""

import base64
import pathlib
import re
import sys
import types
import wave

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.data.media.clips import Clips, formed, fps_of
from mgjax.data.media.show import save, show
from mgjax.data.media.video import probe

VIDEOS = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24, 3), np.uint8)
SOUNDS = np.random.default_rng(1).normal(0, 0.1, (2, 4800, 1)).astype(np.float32)


@pytest.fixture
def displayed(monkeypatch):
  """What a notebook that this process seems to run in was given to display."""
  shown = []
  display = types.SimpleNamespace(
    display=shown.append,
    Image=lambda data: ('image', len(data)),
    HTML=lambda text: ('page', text),
    Audio=lambda data, rate: ('audio', data.shape, rate),
  )
  shell = types.SimpleNamespace(kernel=None)
  monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: shell))
  monkeypatch.setitem(sys.modules, 'IPython.display', display)
  return shown


@pytest.mark.parametrize('made', [VIDEOS, VIDEOS[0], VIDEOS[:, :1], SOUNDS, SOUNDS[0]])
def test_outside_of_a_notebook_it_is_a_picture(made, tmp_path, capsys):
  path = show(made, path=tmp_path / 'shown.png')
  with Image.open(path) as picture:
    assert picture.size > (10, 10)
  said = [pathlib.Path(line) for line in capsys.readouterr().out.splitlines()]
  moves = np.asarray(made).dtype == np.uint8 and made.shape[-4] > 1
  assert said == [path, path.with_suffix('.webp')][: 1 + moves]
  assert all(place.exists() for place in said)


def test_samples_are_shown_with_their_captions(tmp_path):
  captions = ['a red ball', 'a blue cube']
  samples = [{'video': v, 'caption': c} for v, c in zip(VIDEOS, captions, strict=True)]
  ours, told, bare = (tmp_path / f'{name}.png' for name in ('samples', 'told', 'bare'))
  for path, *made in ((ours, samples), (told, VIDEOS, captions), (bare, VIDEOS)):
    show(*made, path=path)
  assert ours.read_bytes() == told.read_bytes() != bare.read_bytes()


def test_in_a_notebook_it_is_displayed(displayed):
  assert show(VIDEOS) is None and show(SOUNDS, rate=16_000) is None
  assert [each[0] for each in displayed] == ['image', 'page', 'image', 'audio', 'audio']
  assert displayed[1][1].startswith('<img src="data:image/webp;')
  assert displayed[1][1].endswith('" alt="Animated clips: 0; 1">')
  assert displayed[-1] == ('audio', (1, 4800), 16_000)


def test_a_file_is_named(tmp_path, capsys):
  video = save(VIDEOS[:1], tmp_path)[0]
  assert show(video) == video and capsys.readouterr().out == f'{video}\n'


def test_a_file_plays_in_a_notebook(tmp_path, displayed):
  video, sound = save(VIDEOS[:1], tmp_path / 'v')[0], save(SOUNDS[:1], tmp_path / 's')[0]
  assert show(video) is None and show(str(sound)) is None
  kinds = 'video/mp4', 'audio/wav'
  for (_, page), kind, path in zip(displayed, kinds, (video, sound), strict=True):
    data = re.search(rf'src="data:{kind};base64,([^"]+)"', page)[1]
    assert base64.b64decode(data) == path.read_bytes()
  with pytest.raises(ConfigError, match=r'expected an \.mp4 or a \.wav'):
    show(tmp_path / 'v/sheet.png')


def test_files_are_named_by_number_beside_a_sheet(tmp_path):
  names = [path.name for path in save(VIDEOS, tmp_path / 'videos')]
  assert names == ['0000.mp4', '0001.mp4', 'sheet.png', 'sheet.webp']
  assert save(VIDEOS[:1, :1], tmp_path / 'images')[0].name == '0000.png'
  paths = save(SOUNDS, tmp_path / 'sounds')
  assert [path.name for path in paths] == ['0000.wav', '0001.wav', 'sheet.png']
  assert all(path.stat().st_size for path in paths)


@pytest.mark.parametrize('fps', [8, 24, 45, 60, 240, 1000])
@pytest.mark.parametrize(('suffix', 'least'), [('gif', 20), ('webp', 11)])
def test_an_animation_plays_as_long_as_its_video_in_browsers_too(tmp_path, suffix, least, fps):
  video = np.random.default_rng(0).integers(0, 256, (fps, 8, 8, 3), np.uint8)  # a second
  (path,) = save(video, tmp_path / f'a.{suffix}', fps=fps, scale=1)
  with Image.open(path) as image:
    lengths = []
    for number in range(image.n_frames):
      image.seek(number)
      image.load()
      lengths.append(image.info['duration'])
  assert sum(lengths) == 1000 and min(lengths) >= least
  assert len(lengths) == min(fps, 1000 // least)


@pytest.mark.parametrize('one', [False, True])
def test_images_of_pil_keep_their_rate(tmp_path, one):
  made = [formed(Clips.of(video, fps=24), 'pil') for video in VIDEOS]
  assert fps_of(made[0] if one else made, 1 if one else 2, 16)[0] == pytest.approx(24)
  path, *_ = save(made[0] if one else made, tmp_path / ('a.mp4' if one else 'all'))
  assert probe(path).fps == pytest.approx(24)


@pytest.mark.parametrize('suffix', ['mp4', 'gif', 'webp', 'png', 'GIF'])
def test_one_video_is_one_file_with_its_rate(tmp_path, suffix):
  path = tmp_path / 'deep' / f'one.{suffix}'
  clip = Clips.of(VIDEOS, fps=5.0)[0]
  assert save(clip, path, scale=2) == [path] and [*path.parent.iterdir()] == [path]
  if suffix == 'mp4':
    assert probe(path).fps == 5
  elif suffix != 'png':
    with Image.open(path) as picture:
      assert (picture.n_frames, picture.size) == (3, (48, 32))
      durations = []
      for number in range(3):
        picture.seek(number)
        picture.load()  # WebP says how long a frame lasts when it is decoded
        durations.append(picture.info['duration'])
      assert sum(durations) == 600
  else:
    with Image.open(path) as picture:
      assert picture.width > 3 * 24


def test_videos_of_a_list_keep_their_rates(tmp_path):
  several = [Clips.of(VIDEOS[0], fps=5.0), VIDEOS[1], Clips.of(VIDEOS[0], fps=24.0)]
  first, second, third, *_ = save(several, tmp_path)
  assert [probe(path).fps for path in (first, second, third)] == [5, 16, 24]


def test_one_sound_is_one_file_with_its_rate(tmp_path):
  save(Clips.of(SOUNDS, rate=16_000)[0], tmp_path / 'one.wav')
  with wave.open(str(tmp_path / 'one.wav')) as file:
    assert file.getframerate() == 16_000


def test_videos_of_pil_and_of_several_sizes_are_saved(tmp_path):
  frames = [[Image.fromarray(frame) for frame in video] for video in VIDEOS]
  assert len(save(frames, tmp_path / 'pil')) == 4
  assert len(save([VIDEOS[0], VIDEOS[1][:2]], tmp_path / 'several')) == 4


@pytest.mark.parametrize(
  ('made', 'out', 'options', 'said'),
  [
    (VIDEOS, 'one.mp4', {}, '2 videos or tracks; save one'),
    (VIDEOS[0], 'one.avi', {}, r'a video is written as \.mp4'),
    (SOUNDS[0], 'one.mp4', {}, r'a sound is written as \.wav'),
    (VIDEOS, 'out', {'fps': 0}, 'fps = 0; expected'),
    (VIDEOS, 'out', {'fps': 1e9}, 'fps = 1000000000.0; expected'),
    (VIDEOS, 'out', {'scale': 0}, 'scale = 0; expected'),
    (SOUNDS, 'out', {'rate': 0}, 'rate = 0; expected'),
    (VIDEOS.astype(float), 'out', {}, 'an array of float64'),
    ('text', 'out', {}, 'an array of'),
    (VIDEOS[:0], 'out', {}, 'there is nothing in it'),
    (VIDEOS[0, :0], 'one.mp4', {}, 'there is nothing in it'),
    (SOUNDS[0].T, 'one.wav', {}, r'an array of float32\[1, 4800\]'),
  ],
)
def test_what_cannot_be_saved_is_said(tmp_path, made, out, options, said):
  with pytest.raises(ConfigError, match=said):
    save(made, tmp_path / out, **options)
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'titles': ['a']}, '1 titles for 2 items'),
    ({'path': 'x.jpg'}, r'x\.jpg.; expected a name that ends with \.png'),
  ],
)
def test_what_cannot_be_shown_is_said(options, said):
  with pytest.raises(ConfigError, match=said):
    show(VIDEOS, **options)
  with pytest.raises(ConfigError, match=r'nope\.mp4: expected .* that is there'):
    show('nope.mp4')


def test_one_title_and_one_video_of_pil_are_shown(tmp_path):
  frames = [Image.fromarray(frame) for frame in VIDEOS[0]]
  assert show(frames, 'the red digit', path=tmp_path / 'a.png').exists()
  assert len(save(frames, tmp_path / 'folder')) == 3
  save(Clips.of(VIDEOS, fps=8)[0], tmp_path / 'b.mp4', fps=np.float32(12))
  assert probe(tmp_path / 'b.mp4').fps == 12
