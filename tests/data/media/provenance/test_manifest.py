"""A signed file says what made it and that nobody changed it, and still plays."""

import functools
import http.server
import struct

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.media.audio import read_audio, write_soundtrack, write_wav
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.provenance.manifest import VARIABLE, check_signing, read_manifest, sign
from mgjax.data.media.video import read_clip, stream_frames
from mgjax.data.media.viewing import write_sheets
from tests.apps.serving.browser import EXECUTABLE, browser
from tests.data.media.provenance.signing import (
  RATE,
  configure,
  film,
  flip,
  make_certificate,
  needs_c2pa,
)
from tests.servers import serving

pytestmark = needs_c2pa
MADE = ('c2pa.created', 'trainedAlgorithmicMedia')


@pytest.fixture
def authority(tmp_path, monkeypatch):
  return configure(monkeypatch, tmp_path / 'certificate')


@pytest.fixture
def signed(tmp_path, authority):
  path = film(tmp_path / 'film.mp4')
  sign([path])
  return path


def test_a_signed_video_with_sound_verifies_and_decodes_to_the_same(tmp_path, signed):
  plain = film(tmp_path / 'plain.mp4')
  manifest = read_manifest(signed)
  assert manifest.actions == (MADE,) and manifest.made_by[0].startswith('mgjax ')
  for path in (signed, plain):
    assert len(list(stream_frames(path))) == 8
  pictures = [read_clip(path, frames=8, size=(64, 64), fps=8) for path in (signed, plain)]
  np.testing.assert_array_equal(*pictures)
  np.testing.assert_array_equal(*[read_audio(path, rate=RATE) for path in (signed, plain)])


def test_a_certificate_is_called_untrusted_until_its_authority_is_given(signed, authority):
  without, given = read_manifest(signed), read_manifest(signed, authority)
  assert not without.trusted
  assert 'UNTRUSTED, no authorities were given' in without.text
  assert given.trusted and 'UNTRUSTED' not in given.text


def test_another_authority_vouches_for_nothing(tmp_path, signed):
  *_, other = make_certificate(tmp_path / 'other')
  assert not read_manifest(signed, other).trusted


def boxes(data):
  """The boxes of an mp4: kind -> where it begins and ends."""
  found, place = {}, 0
  while place < len(data):
    size, kind = struct.unpack_from('>I4s', data, place)
    found[kind] = place, place + size
    place += size
  return found


def test_one_flipped_byte_of_media_or_index_does_not_verify(tmp_path, signed):
  """Every 97th byte; C2PA leaves out the kind of file, `ftyp`, and padding in the manifest."""
  found = boxes(signed.read_bytes())
  assert set(found) >= {b'mdat', b'moov', b'uuid'}
  for kind in (b'mdat', b'moov'):
    for place in range(*found[kind], 97):
      with pytest.raises(
        DataError, match='changed after it was signed' if kind == b'mdat' else '.'
      ):
        read_manifest(flip(signed, place, tmp_path / 'changed.mp4'))


def test_a_file_without_a_manifest_says_so(tmp_path):
  with pytest.raises(DataError, match='has no C2PA manifest: it was not signed'):
    read_manifest(film(tmp_path / 'plain.mp4'))


def test_writing_the_film_anew_drops_the_manifest(tmp_path, signed):
  sound = np.zeros((RATE, 1), np.float32)
  write_soundtrack(tmp_path / 'again.mp4', signed, [sound], RATE)
  with pytest.raises(DataError, match='no C2PA manifest'):
    read_manifest(tmp_path / 'again.mp4')


def test_what_was_made_from_a_file_names_it(tmp_path, signed):
  changed = film(tmp_path / 'changed.mp4', seconds=2)
  sign([changed], made_from=signed)
  manifest = read_manifest(changed)
  assert manifest.made_from == ('film.mp4',)
  assert manifest.actions[-1] == ('c2pa.edited', 'compositeWithTrainedAlgorithmicMedia')
  assert manifest.actions[0][0] == 'c2pa.opened'


@pytest.mark.parametrize('name', ['clip.mkv', 'clip.mp4'])
def test_a_source_that_c2pa_cannot_read_is_left_out_aloud(tmp_path, signed, name, caplog):
  (tmp_path / name).write_bytes(b'what only others read')
  sign([signed], made_from=tmp_path / name)
  manifest = read_manifest(signed)
  assert manifest.made_from == () and manifest.actions[0][1] != MADE[1]
  assert f'{name} is not named in the manifest' in caplog.text


def test_pictures_animations_and_sounds_are_signed_and_other_files_are_not(tmp_path, authority):
  pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
  contact_sheet(tmp_path / 'a.png', [pictures], ['a'])
  paths = [tmp_path / 'a.png', *write_sheets(tmp_path / 'b.png', [pictures], ['b'], 8)]
  paths.append(tmp_path / 'c.wav')
  write_wav(paths[-1], np.zeros((RATE, 1), np.float32), RATE)
  (tmp_path / 'd.json').write_text('{}')
  sign([*paths, tmp_path / 'd.json'])
  assert {path.suffix for path in paths} == {'.png', '.webp', '.wav'}
  for path in paths:
    assert read_manifest(path).actions == (MADE,)
  with Image.open(paths[2]) as animation:
    assert animation.n_frames == 3
  assert len(read_audio(paths[-1])) == RATE
  assert (tmp_path / 'd.json').read_text() == '{}'


def test_without_a_certificate_no_file_changes(tmp_path, monkeypatch):
  monkeypatch.delenv(VARIABLE, raising=False)
  path = film(tmp_path / 'film.mp4')
  before = path.read_bytes()
  sign([path])
  assert path.read_bytes() == before and check_signing() is None


def test_a_file_that_cannot_be_signed_stays_as_it_was(tmp_path, authority):
  (tmp_path / 'broken.mp4').write_bytes(b'no film')
  with pytest.raises(DataError, match=r'broken\.mp4: cannot be signed'):
    sign([tmp_path / 'broken.mp4'])
  assert sorted(path.name for path in tmp_path.iterdir()) == ['broken.mp4', 'certificate']
  assert (tmp_path / 'broken.mp4').read_bytes() == b'no film'


def test_a_certificate_for_another_purpose_is_refused_before_anything_is_made(
  tmp_path, authority, monkeypatch
):
  """The authority's own: it may issue certificates, and sign no files."""
  chain = authority.read_bytes()
  key = (tmp_path / 'certificate' / 'key.pem').read_bytes()
  (tmp_path / 'own.pem').write_bytes(chain + key)
  monkeypatch.setenv(VARIABLE, str(tmp_path / 'own.pem'))
  with pytest.raises(ConfigError, match='cannot sign'):
    check_signing()


@pytest.mark.parametrize('content', [None, b'', b'a film of old'])
def test_what_is_no_file_of_a_kind_that_is_signed_is_a_sentence(tmp_path, content):
  if content is not None:
    (tmp_path / 'a.mkv').write_bytes(content)
  with pytest.raises(DataError, match=r"a\.mkv'.* read"):
    read_manifest(tmp_path / 'a.mkv')


@pytest.mark.skipif(EXECUTABLE is None, reason='no chromium is installed; apt install chromium')
def test_a_signed_film_plays_in_chromium(tmp_path, signed):
  (tmp_path / 'page.html').write_text('<video src="film.mp4" muted></video>')
  handler = functools.partial(_Quiet, directory=str(tmp_path))
  files = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  with serving(files) as server, browser() as window:
    page = window.open(f'http://127.0.0.1:{server.server_port}/page.html')
    page.evaluate('let film = document.querySelector("video"); film.play()')
    page.wait('film.ended')
    shown = page.evaluate('[film.videoWidth, film.error, film.webkitAudioDecodedByteCount > 0]')
  assert shown == [64, None, True]


class _Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass
