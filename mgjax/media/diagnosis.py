"""Says what a file is that cannot be opened as a video or a sound, by its bytes, and what to do."""

import codecs
import io
import re

_BEGIN = 4096  # bytes of which a file is known
AGAIN = 'copy or download it again'
# How a file begins -> what it is, and what to do.
_OTHERS = {
  rb'(?i)\s*<(!doctype html|html)': ('a web page (HTML)', 'the download failed: try it again'),
  rb'version https://git-lfs': ('a pointer of Git LFS', 'get the file itself by `git lfs pull`'),
  rb'#EXTM3U|ffconcat': ('a list of other files', 'give those files themselves'),
  rb'PK(\x03\x04|\x05\x06)': ('a zip archive', 'unpack it'),
  rb'\x1f\x8b': ('a gzip archive', 'unpack it'),
  rb'Rar!\x1a\x07': ('a rar archive', 'unpack it'),
  rb"7z\xbc\xaf'\x1c": ('a 7z archive', 'unpack it'),
  rb'\xfd7zXZ': ('an xz archive', 'unpack it'),
  rb'BZh\d': ('a bzip2 archive', 'unpack it'),
  rb'.{257}ustar': ('a tar archive', 'unpack it'),
  rb'%PDF-': ('a PDF', ''),
}
# How a file begins -> of what kind it says that it is.
_MEDIA = {
  rb'\x1aE\xdf\xa3': 'mkv or webm', rb'RIFF.{4}AVI': 'avi', rb'RIFF.{4}WAVE': 'wav',
  rb'RIFF.{4}WEBP': 'webp', rb'GIF8': 'gif', rb'\x89PNG': 'png', rb'\xff\xd8\xff': 'jpg',
  rb'OggS': 'ogg', rb'fLaC': 'flac', rb'ID3': 'mp3', rb'FORM.{4}AIF': 'aiff',
}  # fmt: skip
_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'styp', b'moof')  # of an mp4


def diagnosis(file: io.BufferedIOBase, what: str) -> str:
  """Says what a file is instead of what was expected, and what to do.

  Args:
    file: open, may be sought in, and not empty.
    what: was expected: 'a video' or 'a sound'.

  Returns:
    A sentence that lacks its subject, the file; '' where its bytes tell nothing.
  """
  size = file.seek(0, 2)
  file.seek(0)
  begin = file.read(_BEGIN)
  if not any(begin):
    zeros = 'only zeros' if size <= _BEGIN else f'zeros where {what} has its header'
    return f'holds {zeros}; {AGAIN}'
  if begin[4:8] in _BOXES:
    return _of_boxes(file, size)
  for start, (name, mend) in _OTHERS.items():
    if re.match(start, begin, re.S):
      return f'is {name}, not {what}{"; " * bool(mend)}{mend}'
  for start, name in _MEDIA.items():
    if re.match(start, begin, re.S):
      return f'begins as {name}, but is damaged or cut off; {AGAIN}'
  return f'is a text file, not {what}' if _is_text(begin) else ''


def _of_boxes(file: io.BufferedIOBase, size: int) -> str:
  """What is wrong with an mp4: it is a row of boxes, of which `moov` is the index of the others."""
  place, head = 0, b''
  while place + 8 <= size:
    file.seek(place)
    head = file.read(16)
    length = int.from_bytes(head[:4])
    if length == 1:
      length = int.from_bytes(head[8:16])
    if head[4:8] == b'moov':
      cut = place + length > size
      return f'is an mp4 whose index (moov) is {"cut off" if cut else "damaged"}; {AGAIN}'
    if length == 0:  # the rest of the file
      place = size
    elif length < 8 or not head[4:8].isascii():
      return f'is an mp4 that is damaged; {AGAIN}'
    else:
      place += length
  if place != size:
    return f'is an mp4 that is cut off: its index (moov), which comes last, is missing; {AGAIN}'
  return 'is an mp4 without an index (moov): it was never finished; record or encode it again'


def _is_text(begin: bytes) -> bool:
  wide = begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
  decoder = codecs.getincrementaldecoder('utf-16' if wide else 'utf-8')()
  try:
    text = decoder.decode(begin)  # its last letter may be cut
  except UnicodeDecodeError:
    return False
  return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
