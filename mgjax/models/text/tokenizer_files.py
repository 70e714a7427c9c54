"""Finds and reads the tokenizer files of published encoders.

Of the T5 family `spiece.model`, of CLIP `vocab.json` with `merges.txt` or OpenAI's and OpenCLIP's
`bpe_simple_vocab_16e6.txt.gz`, of either `tokenizer.json`. Special tokens that a user types are
text to sentencepiece, and themselves to the others, as in the reference tokenizers.

The libraries run a file's rules on every text as they are: a damaged one may crash them, fill
memory or never end. So files that nobody has tried are first read in a process of their own with
limits of time and memory, where some texts become tokens:

  python -m mgjax.models.text.tokenizer_files FILE...    prints why these are no tokenizer, or
  nothing
"""

import functools
import hashlib
import os
import pathlib
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError, printable
from mgjax.core.files import parse_json

VOCABULARY = 'vocab.json'
MERGES = 'merges.txt'
EXPECTED_TOKENIZER = (
  f'expected spiece.model, tokenizer.json, {VOCABULARY} with {MERGES}, or '
  'bpe_simple_vocab_16e6.txt.gz'
)
# What else transformers has, which this project writes back but does not read.
COMPANIONS = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json')
KNOWN_FILES = ('spiece.model', 'tokenizer.json', VOCABULARY, MERGES, *COMPANIONS)

# OpenAI's CLIP: what begins and ends a text, how many merges of its file count, what is a word.
_BEGIN = '<|startoftext|>'
END = '<|endoftext|>'
WORD_END = '</w>'
_MERGES_READ = 49152 - 256 - 2
_LARGEST = 1 << 26  # bytes of a file, four times those of the largest published one
# of the trial; 256,000 words take 1.2 s and 0.9 GB
_SECONDS = 60
_MEMORY = 4 << 30
_GROWTH = 100  # tokens of a byte of text; published ones make three at most
_TRIALS = (
  '',
  'a cat',
  'the sign says "407", it\'s Joe\'s',
  ' \t\n',
  'a' * 3000 + '!',
  ' ' * 3000,
  '\u732b' * 500,
  'e\u0301\u0302' * 200,
  '\0\x01\x7f',
  ''.join(map(chr, range(1, 0x3000, 7))),
)
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class Unfit(ConfigError):
  """A file is no tokenizer of such an encoder; the message goes on after its name."""


class TokenizerEncoding(NamedTuple):
  """What tokenizer files say.

  Attributes:
    encode: text -> tokens, those that begin and end it included.
    pad: the token to fill up with.
    begins: how many tokens stand before any text.
    ends: how many stand behind it, at least one.
    size: the largest token + 1.
  """

  encode: Callable[[str], Sequence[int] | np.ndarray]
  pad: int
  begins: int
  ends: int
  size: int


def tokenizer_files(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the files, one or two, that make the tokenizer at `path`, a folder or one of them.

  In a folder with several tokenizers sentencepiece's, which the T5 family was trained with, comes
  first, then `tokenizer.json`, then the others; [] where there is none.
  Raises ConfigError if there is no such file, or one of two that belong together is missing.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    for pattern in ('spiece.model', '*.model', 'tokenizer.json', VOCABULARY, MERGES, '*.txt.gz'):
      matches = sorted(path.glob(pattern))
      if len(matches) > 1:
        raise ConfigError(
          f'{os.fspath(path)!r} has {matches[0].name} and {matches[1].name}; name one of them'
        )
      if matches:
        return tokenizer_files(matches[0])
    return []
  pair = [path.with_name(VOCABULARY), path.with_name(MERGES)]
  files = pair if path in pair else [path]
  for file in files:
    if not file.is_file():
      beside = f' beside {path.name}' if file != path else ''
      raise ConfigError(
        f'there is no tokenizer file {os.fspath(file)!r}{beside}; {EXPECTED_TOKENIZER}: mend the '
        'path, or get the file from where the weights are'
      )
  return files


def read_vocabulary(path: str | os.PathLike[str], tried: bool = False) -> TokenizerEncoding:
  """Reads the tokenizer at `path`, a folder or a file; `tried` if these files were read before.
  Raises ConfigError if there is none, or it is damaged, or it does not end a text with a token.
  """
  files = tokenizer_files(path)
  if not files:
    raise ConfigError(
      f'{os.fspath(path)!r} has no tokenizer; {EXPECTED_TOKENIZER}: get it from where the '
      'weights are'
    )
  names = ' with '.join([repr(os.fspath(files[0])), *[file.name for file in files[1:]]])
  readers = {
    VOCABULARY: _read_pair,
    '.model': _read_pieces,
    '.json': _read_json,
    '.txt.gz': _read_merges_alone,
  }
  reader = next((readers[end] for end in readers if files[0].name.endswith(end)), None)
  if reader is None:
    raise ConfigError(
      f'{os.fspath(files[0])!r} is no tokenizer file by its name; {EXPECTED_TOKENIZER}'
    )
  data = [read_tokenizer_file(file) for file in files]
  digest = hashlib.sha256(b''.join(data)).hexdigest()
  if not tried and (fault := _tried(digest, *map(os.fspath, files))):
    raise ConfigError(f'{names} {fault}')
  try:
    return reader(*data)
  except Unfit as error:
    raise ConfigError(f'{names} {error}') from error
  except BaseException as error:
    if not is_of_library(error):
      raise
    raise ConfigError(
      f'{names} cannot be read as a tokenizer: {error!r:.200}; {EXPECTED_TOKENIZER}: get it again'
    ) from error


@functools.lru_cache(16)
def _tried(digest: str, *files: str) -> str:
  """Reads files in a process of their own; returns why they are no tokenizer, or ''."""
  del digest  # a file with other content is tried anew
  words = [sys.executable, '-m', __name__, *files]
  paths = os.pathsep.join(filter(None, sys.path))
  try:
    ended = subprocess.run(
      words,
      capture_output=True,
      check=False,
      timeout=2 * _SECONDS,
      env=os.environ | {'PYTHONPATH': paths},
    )
  except subprocess.TimeoutExpired:
    return f'makes no tokens of {len(_TRIALS)} texts in {2 * _SECONDS} s; get it again'
  if ended.returncode:
    return (
      f'ends the library that reads it (exit code {ended.returncode}: a crash, more than '
      f'{_SECONDS} s or {_MEMORY >> 30} GiB); get it again'
    )
  return printable(ended.stdout.decode(errors='replace').strip())


def _fault_of(files: Sequence[str]) -> str:
  """Returns what is wrong with the tokens of a tokenizer; '' also of files that raise when read."""
  try:
    vocabulary = read_vocabulary(files[0], tried=True)
    for text in _TRIALS:
      tokens = np.array(vocabulary.encode(text), np.int64)
      if tokens.tolist() != list(vocabulary.encode(text)):
        return f'makes other tokens of {text[:20]!a} each time; get it again'
      if len(tokens) > _GROWTH * (len(text.encode()) + 1):
        return f'makes {len(tokens)} tokens of {len(text)} letters; get it again'
      if not 0 <= min(tokens) <= max(tokens) < vocabulary.size <= 2**31:
        return f'makes tokens that are none, such as {max(tokens)}; get it again'
  except ConfigError:
    return ''
  except BaseException as error:
    if not is_of_library(error):
      raise
    return f'makes no tokens of some texts: {error!r:.200}; get it again'
  return ''


def read_tokenizer_file(path: pathlib.Path) -> bytes:
  """Reads a file of a tokenizer; ConfigError if it cannot be read, is empty or larger than any."""
  try:
    with path.open('rb') as file:
      data = file.read(_LARGEST + 1)
  except OSError as error:
    raise ConfigError(f'{os.fspath(path)!r} cannot be read: {error}; mend the path') from error
  if not data:
    raise ConfigError(f'the tokenizer file {os.fspath(path)!r} is empty; get it again')
  if len(data) > _LARGEST:
    raise ConfigError(
      f'the tokenizer file {os.fspath(path)!r} has more than {_LARGEST >> 20} MiB, as no tokenizer '
      'has; get it again'
    )
  return data


def is_of_library(error: BaseException) -> bool:
  """Says whether an error is a library's about a tokenizer: one in Rust is no `Exception`."""
  if type(error).__name__ == 'PanicException':
    return True
  return isinstance(error, Exception) and not isinstance(error, ImportError | MemoryError)


def _read_pieces(data: bytes) -> TokenizerEncoding:
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(data)
  # Cut between two of its parts such a file still loads: with fewer pieces, or without its rules.
  rules = sentencepiece.SentencePieceNormalizer(model_proto=data).serialized_normalizer_spec()
  if not rules:
    raise Unfit('ends before the rules by which it normalises texts; get it again')
  special = {'<pad>': processor.pad_id(), '</s>': processor.eos_id()}
  if absent := [name for name, token in special.items() if token < 0]:
    raise Unfit(
      f'has no token {" and no ".join(absent)}, by which the T5 family fills up and ends a text; '
      'take the spiece.model that came with the weights'
    )
  return TokenizerEncoding(
    functools.partial(_encode_pieces, processor), special['<pad>'], 0, 1, processor.vocab_size()
  )


def _encode_pieces(processor: Any, text: str) -> list[int]:
  return [*processor.encode(text), processor.eos_id()]


def _read_json(data: bytes) -> TokenizerEncoding:
  import tokenizers

  tokenizer = tokenizers.Tokenizer.from_buffer(data)
  pad = (tokenizer.padding or {}).get('pad_id')
  tokenizer.no_padding()
  tokenizer.no_truncation()
  # Of a text, -1 stands for the tokens that its post-processor adds.
  added = [-1 if index is None else index for index in tokenizer.encode('a').sequence_ids]
  begins = next((index for index, of in enumerate(added) if of >= 0), len(added))
  ends = next((index for index, of in enumerate(reversed(added)) if of >= 0), 0)
  if not ends:
    raise Unfit(
      'ends a text with no token; expected a post_processor that adds </s> or <|endoftext|>: take '
      'the tokenizer.json that came with the weights'
    )
  around = tokenizer.encode('').ids
  if pad is None:
    pad = tokenizer.token_to_id('<pad>')
    pad = around[-1] if pad is None else pad
  size = 1 + max(*tokenizer.get_vocab(with_added_tokens=True).values(), *around)
  return TokenizerEncoding(functools.partial(_encode_fast, tokenizer), pad, begins, ends, size)


def _encode_fast(tokenizer: Any, text: str) -> list[int]:
  return tokenizer.encode(text).ids


def _read_pair(vocabulary: bytes, merges: bytes) -> TokenizerEncoding:
  """Reads CLIP's two files; as in transformers the end token fills up."""
  tokens = parse_json(
    vocabulary,
    'cannot be read as a tokenizer: it',
    error=Unfit,
    mend='take the one that came with the weights',
  )
  if not all(type(token) is int and 0 <= token < 2**31 for token in tokens.values()):
    raise Unfit('has words without a number; take the one that came with the weights')
  if len(set(tokens.values())) < len(tokens):
    raise Unfit('has words that share a number; take the one that came with the weights')
  lines = merges.decode().splitlines()
  if lines and lines[0].startswith('#version'):
    del lines[0]
  pairs = _pairs(lines)
  tokenizer = _clip(tokens, pairs, pad=tokens.get(END, 0))
  merged_words = {''.join(pair) for pair in pairs}.union(_own_tokens())
  if rest := [word for word in tokens if word not in merged_words]:
    raise Unfit(
      f'has {len(rest)} words ({_shown(rest)}) that no merge makes: one of the two is of '
      'another tokenizer, or not whole; get both again'
    )
  return tokenizer


def _read_merges_alone(data: bytes) -> TokenizerEncoding:
  """Reads OpenAI's file, whose merges make the vocabulary; 0 fills up."""
  try:
    packed = zlib.decompressobj(wbits=31)
    text = packed.decompress(data, _LARGEST // 4)
  except zlib.error as error:
    raise Unfit(f'is no gzip file ({error}); get it again') from error
  if not packed.eof:
    raise Unfit(f'is no whole gzip file of at most {_LARGEST >> 22} MiB; get it again')
  lines = text.decode().splitlines()
  merges = _pairs(lines[1 : 1 + _MERGES_READ])  # the first line is a title
  letters = _letters()
  words = [*letters, *[f'{letter}{WORD_END}' for letter in letters]]
  words += [''.join(pair) for pair in merges] + [_BEGIN, END]
  return _clip({word: token for token, word in enumerate(words)}, merges, pad=0)


def _letters() -> list[str]:
  """Returns the letters that stand for the 256 bytes, in OpenAI's order."""
  from tokenizers.pre_tokenizers import ByteLevel

  return sorted(ByteLevel.alphabet())


def _own_tokens() -> list[str]:
  """Returns CLIP's tokens that no merge makes."""
  return [_BEGIN, END, *[f'{letter}{end}' for letter in _letters() for end in ('', WORD_END)]]


def _pairs(lines: Sequence[str]) -> list[tuple[str, str]]:
  pairs = [tuple(line.split()) for line in lines if line.strip()]
  if wrong := [pair for pair in pairs if len(pair) != 2]:
    raise Unfit(
      f'merges {" ".join(wrong[0])[:40]!r}, where two parts of a word are expected; get it again'
    )
  return pairs


def _shown(words: Iterable[str]) -> str:
  return ', '.join([ascii(word)[1:-1][:40] for word in words][:3])


def _clip(tokens: dict[str, int], merges: list[tuple[str, str]], pad: int) -> TokenizerEncoding:
  """Makes CLIP's tokenizer: NFC, one space for many, lower case, pairs of bytes within words."""
  from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

  special_tokens = _own_tokens()
  if absent := [word for word in special_tokens if word not in tokens]:
    raise Unfit(
      f"lacks {len(absent)} of CLIP's {len(special_tokens)} own tokens ({_shown(absent)}); take "
      'the files that came with the weights'
    )
  tokenizer = Tokenizer(
    models.BPE(tokens, merges, unk_token=END, end_of_word_suffix=WORD_END, fuse_unk=False)
  )
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Lowercase()]
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(_WORDS), 'removed', invert=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.add_special_tokens([_BEGIN, END])
  tokenizer.post_processor = processors.TemplateProcessing(
    single=[_BEGIN, '$A', END], special_tokens=[(word, tokens[word]) for word in (_BEGIN, END)]
  )
  size = 1 + max(tokens.values())
  return TokenizerEncoding(functools.partial(_encode_fast, tokenizer), pad, 1, 1, size)


if __name__ == '__main__':
  resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
  resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
  print(_fault_of(sys.argv[1:]))
