"""Whatever picture a stranger gives of somebody: the right face, or one sentence and no harm."""

import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.core.files import write_json
from mgjax.data.media.faces.recognition import open_faces
from mgjax.sections.personalization.files import ReferenceReader
from mgjax.sections.personalization.pipeline import PersonalizationPipeline
from tests.data.media.faces.pictured import astronaut, astronaut_crop, driver
from tests.tiny_personalization import make_untrained, untrained

SIDE = 64  # of references
FACE = (150, 44, 296, 190)  # left, top, right, bottom of the astronaut's, with some room
FACES = {'references__faces': 'cascade', 'model__conditionings__identity__references': 2}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Models without weights: one of faces that reads two references, and one of moving digits."""
  root = tmp_path_factory.mktemp('models')
  for name, config in (('faces', untrained(root, SIDE, **FACES)), ('digits', untrained(root))):
    write_json(root / name / 'config.json', config.to_dict())
  return root


def huge_png(path):
  """A header that promises 60,000 x 60,000 pixels."""

  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
  data = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0')) + chunk(b'IEND', b'')
  path.write_bytes(b'\x89PNG\r\n\x1a\n' + data)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Pictures of the astronaut and others, and deny lists."""
  place = tmp_path_factory.mktemp('pictures')
  her, face = Image.fromarray(astronaut()), Image.fromarray(astronaut_crop(*FACE, side=220))
  man = Image.fromarray(driver()[0])
  her.save(place / 'her.png')
  her.save(place / 'face.jpg', quality=95)
  her.convert('CMYK').save(place / 'cmyk.jpg', quality=95)
  tag = Image.Exif()
  tag[274] = 6  # shown turned by a quarter to the right
  her.transpose(Image.Transpose.ROTATE_90).save(place / 'turned.jpg', quality=95, exif=tag)
  face.resize((40, 40), Image.Resampling.BOX).save(place / 'small.png')
  man.save(place / 'man.png')
  Image.fromarray(np.tile(np.asarray(face), (3, 4, 1))).save(place / 'crowd.png')
  noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
  Image.fromarray(noise).save(place / 'nobody.png')
  Image.new('RGB', (1, 1), 'white').save(place / 'dot.png')
  Image.new('RGB', (64, 64)).save(place / 'black.png')
  data = (place / 'face.jpg').read_bytes()
  (place / 'half_face.jpg').write_bytes(data[: len(data) // 2])
  (place / 'pictures').mkdir()
  huge_png(place / 'bomb.png')
  faces = open_faces('cascade')
  pictures = [astronaut(), driver()[0]]
  vectors = faces.embed(pictures, [found[0] for found in faces.find(pictures)])
  np.save(place / 'both.npy', vectors)
  np.save(place / 'him.npy', vectors[1:])
  np.save(place / 'nobody.npy', vectors[:0])
  np.save(place / 'short.npy', vectors[:, :100])
  np.save(place / 'nan.npy', np.where(np.arange(2)[:, None] == 1, np.nan, vectors))
  np.save(place / 'words.npy', np.array(['anna', 'ben']))
  (place / 'pickled.npy').write_bytes(pickle.dumps(vectors))
  return place


@pytest.fixture(scope='module')
def reader(runs):
  return ReferenceReader(runs / 'faces')


def test_two_pictures_of_one_person_are_two_references(reader, folder):
  found = reader.read((folder / 'her.png', str(folder / 'cmyk.jpg')))
  assert found.shape == (2, SIDE, SIDE, 3) and found.any((1, 2, 3)).all()
  again = reader.read(found)  # crops are taken as they are
  assert np.array_equal(again, found)
  assert np.array_equal(reader.read((astronaut(), astronaut()))[0], found[0])


ALONE = r'expected one\. Give a picture of the person alone'
ROWS = r'shape \(.*\); expected rows of 2891 numbers'
# name: (references, list of those who are denied, exit code, what is said)
WRONG = {
  'nobody': ('nobody.png', '', 3, f'nobody.png: no face was found; {ALONE}'),
  'one pixel': ('dot.png', '', 3, 'dot.png: no face was found'),
  'black': ('black.png', '', 3, 'black.png: is all black'),
  'twelve faces': ('crowd.png', '', 3, f'crowd.png: 12 faces were found; {ALONE}'),
  'cut off': ('half_face.jpg', '', 3, 'half_face.jpg: .*cut off'),
  'far too large': ('bomb.png', '', 3, 'bomb.png: .*pixels'),
  'two people': (
    'her.png,man.png',
    '',
    3,
    r'man.png does not show the person of .*her.png \(cosine 0\.\d\d, expected 0\.69 or more\)',
  ),
  'two people in one': ('her.png,crowd.png', '', 3, 'crowd.png: 12 faces'),
  'too many': ('her.png,her.png,her.png', '', 2, '3 references; the model reads 1 to 2'),
  'denied': ('her.png', 'both.npy', 2, 'is of a person on the deny list'),
  'one of two denied': ('man.png,man.png', 'him.npy', 2, 'on the deny list'),
  'a list of other embeddings': ('her.png', 'short.npy', 3, f'short.npy.*{ROWS}'),
  'a list of NaN': ('her.png', 'nan.npy', 3, 'row 1 of .*nan.npy.* length nan'),
  'a list of words': ('her.png', 'words.npy', 3, 'cannot read .*words.npy'),
  'a pickled list': ('her.png', 'pickled.npy', 3, 'cannot read .*pickled.npy'),
  'a folder as list': ('her.png', 'pictures', 3, 'cannot read .*pictures'),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_shows_no_one_person_is_refused(runs, folder, name):
  references, denied, code, said = WRONG[name]
  places = [str(folder / each) for each in references.split(',')]
  with pytest.raises(MgjaxError, match=said) as caught:
    ReferenceReader(runs / 'faces', str(folder / denied) if denied else None).read(tuple(places))
  assert caught.value.exit_code == code and '\n' not in str(caught.value)


def test_people_who_are_not_on_the_deny_list_are_shown(runs, folder):
  for denied in ('him.npy', 'nobody.npy'):
    assert ReferenceReader(runs / 'faces', folder / denied).read(folder / 'her.png').any()


def test_a_face_of_forty_pixels_is_enough(reader, folder):
  assert reader.read(folder / 'small.png')[0].any()


def test_a_picture_becomes_videos_and_images(tiny_runs, folder, tmp_path):
  made = make_untrained(tiny_runs, tmp_path / 'model', side=SIDE, **FACES)
  model = PersonalizationPipeline(made, steps=1, deny_list=folder / 'him.npy')
  for out, shape in (('a.mp4', None), ('b.png', (1, 16, 16))):
    files = model.save(
      ['a person'], tmp_path / 'new' / out, reference=str(folder / 'turned.jpg'), shape=shape
    )
    assert all(path.exists() for path in files)
    with Image.open(tmp_path / 'new' / f'{out[0]}_reference.png') as crop:
      assert crop.height > SIDE
    assert 'turned' not in (tmp_path / 'new' / f'{out[0]}.json').read_text()
  with pytest.raises(ConfigError, match='17'):
    model.save(['a'], tmp_path / 'c.mp4', reference=str(folder / 'her.png'), shape=(4, 17, 16))
  assert not list(tmp_path.glob('c*'))
