"""Says what a file is that was found in place of another: a failed download, a pointer, an archive.

Only its first bytes are looked at.
"""

import codecs
import re

# How a file begins -> what it is, and what to do.
_OTHERS = {
  rb'(?i)\s*<(!doctype|html|head|body)': (
    'a web page (HTML)',
    'the download failed: try it again',
  ),
  rb'\s*version https://git-lfs': (
    'a pointer of Git LFS',
    'get the file itself by `git lfs pull`',
  ),
  rb'\s*(/annex/objects/|\S*\.git/annex/objects/)': (
    'a pointer of git-annex',
    'get the file itself by `git annex get`',
  ),
  rb'#EXTM3U|ffconcat': ('a list of other files', 'give those files themselves'),
  rb'PK(\x03\x04|\x05\x06)': ('a zip archive', 'unpack it'),
  rb'\x1f\x8b': ('a gzip archive', 'unpack it'),
  rb'Rar!\x1a\x07': ('a rar archive', 'unpack it'),
  rb"7z\xbc\xaf'\x1c": ('a 7z archive', 'unpack it'),
  rb'\xfd7zXZ': ('an xz archive', 'unpack it'),
  rb'BZh\d': ('a bzip2 archive', 'unpack it'),
  rb'\x28\xb5\x2f\xfd': ('a zstd archive', 'unpack it'),
  rb'.{257}ustar': ('a tar archive', 'unpack it'),
  rb'%PDF-': ('a PDF', ''),
}
BEGIN = 4096  # bytes that tell


def impostor(begin: bytes) -> tuple[str, str]:
  """Returns what begins so, and what to do; '' where the bytes do not tell."""
  begin = begin.removeprefix(codecs.BOM_UTF8)
  return next((told for start, told in _OTHERS.items() if re.match(start, begin, re.S)), ('', ''))


def is_text(begin: bytes) -> bool:
  """Returns whether a file that begins so is one of text."""
  wide = begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
  decoder = codecs.getincrementaldecoder('utf-16' if wide else 'utf-8-sig')()
  try:
    text = decoder.decode(begin)  # its last letter may be cut
  except UnicodeDecodeError:
    return False
  return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
