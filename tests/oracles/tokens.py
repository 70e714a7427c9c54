"""Makes tokens.npz: small vocabularies, and what the reference tokenizers make of 1,000 texts.

python -m tests.oracles.tokens
It was made with transformers 5.23.0, tokenizers 0.23.3, sentencepiece 0.2.3 and numpy 2.4.6. The
texts are not in the file: both sides draw them, from numpy's RandomState, whose numbers never
change. The vocabularies are: sentencepiece's trainer's and that of a small BPE are not promised to
come out the same in another version.
"""
# ruff: noqa: RUF001

import base64
import contextlib
import gzip
import io
import json
import pathlib
import tempfile
import zlib

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.models.text.prompts import clean_prompt

VECTORS = pathlib.Path(__file__).with_suffix('.npz')
BEGIN, END = '<|startoftext|>', '<|endoftext|>'
MERGES = 300  # of CLIP's small vocabulary
PIECES = 1500  # of sentencepiece's
LONG = 3000  # characters
# Letters by script, as ranges of code points.
SCRIPTS = {
  'english': ['az', 'az', 'AZ'],
  'accented': ['az', '\u00c0\u00d6', '\u00d8\u00f6', '\u00f8\u017f', '\u1ea0\u1ef9'],
  'cyrillic': ['\u0410\u044f', '\u0400\u045f'],
  'greek': ['\u0391\u03a1', '\u03a3\u03c9', '\u0384\u0390', '\u1f00\u1f15'],
  'arabic': ['\u0621\u063a', '\u0641\u0652', '\u0660\u0669'],
  'hebrew': ['\u05d0\u05ea', '\u05b0\u05bc'],
  'devanagari': ['\u0904\u0939', '\u093e\u094d', '\u0958\u095f'],
  'thai': ['\u0e01\u0e3a', '\u0e40\u0e4e'],
  'chinese': ['\u4e00\u4fff', '\u3001\u3002', '\uff01\uff5e'],
  'japanese': ['\u3041\u3096', '\u30a1\u30fa', '\uff66\uff9d', '\u3300\u3357'],
  'korean': ['\uac00\ud7a3', '\u1100\u1112', '\u1161\u1175', '\u11a8\u11c2'],
  'emoji': ['\U0001f600\U0001f64f', '\U0001f3fb\U0001f3ff', '\u200d\u200d', '\ufe0f\ufe0f'],
  'marks': ['az', '\u0300\u036f', '\u20d0\u20dc'],
  'numbers': ['09', '\u00b2\u00b3', '\u00bc\u00be', '\u2160\u216f', '\uff10\uff19'],
  'controls': ['az', '\u0001\u001f', '\u007f\u009f', '\u200b\u200f', '\ufeff\ufeff'],
  'signs': ['az', '!/', ':@', '[`', '{~', '\u2010\u2027', '\u00a1\u00bf', '\u2190\u2199'],
  'compatible': ['\ufb00\ufb06', '\u2460\u2473', '\u2100\u213a', '\u3200\u321e', '\ufe50\ufe52'],
  'rare': ['\U00010330\U0001034a', '\U0001d400\U0001d433', '\ue000\ue010', '\U00020000\U00020040'],
}
SPACES = [' ', ' ', ' ', ' ', '  ', '\t', '\n', '\u00a0', '\u3000']
GIVEN = [
  '',
  ' ',
  '   \t\n',
  '\u3000',
  'a',
  'FPS-16 a cat',
  'the green digit 3 moves left',
  'the sign says "407", it\'s Joe\'s',
  "don't we'll I'd you're I've I'm she's rock 'n' roll",
  "DON'T WE'LL !'s ''t \"'re",
  'A man in a “VOTE” T-shirt, ‘maybe’',
  'une porte « sortie »',
  'naïve café, cafe\u0301, \ufb01ne o\ufb03ce',
  'Straße STRASSE ẞ',
  'İstanbul ıI',
  'ΟΔΥΣΣΕΥΣ οδυσσεύς',
  'Москва слезам не верит',
  'قطة تركض على الشاطئ',
  'כלב רץ בחוף הים',
  'बिल्ली समुद्र तट पर दौड़ती है',
  'แมววิ่งบนชายหาด',
  '一只猫在海滩上奔跑',
  '猫が浜辺を走る',
  '고양이가 해변을 달린다',
  '👩🏽‍🚀 waves 🎉',
  '👨‍👩‍👧‍👦🇫🇷🏴󠁧󠁢󠁥󠁮󠁧󠁿',
  '3.14159 1,000,000 ½ 10²',
  'x' * LONG,
  'a cat ' * (LONG // 6),
  '猫' * (LONG // 6),
  'a\u0300\u0301\u0302' * 40,
  '\u0000a\u0000b',
  'a\u202eb\u202cc',
  '▁under▁scores ▁',
  '<s> <extra_id>',
  '&amp; &lt;b&gt; &quot;',
  'a<|b|>c',
  '\\n \\u0041 %s {}',
  '\u2028a\u2029b',
]
COUNT = 1000


def draw_texts() -> list[str]:
  """Returns 1,000 texts of many scripts: a few by hand, then of each script alone, then mixed."""
  random = np.random.RandomState(0)
  texts = list(GIVEN)
  names = list(SCRIPTS)
  while len(texts) < COUNT:
    alone = len(texts) < COUNT * 2 // 3
    first = names[len(texts) % len(names)]
    words = []
    for _ in range(random.randint(1, 9)):
      ranges = SCRIPTS[first if alone else names[random.randint(len(names))]]
      words.append(_word(random, ranges))
      words.append(SPACES[random.randint(len(SPACES))] if random.randint(6) else '')
    texts.append(''.join(words))
  return texts


def _word(random: np.random.RandomState, ranges: list[str]) -> str:
  picked = [ranges[random.randint(len(ranges))] for _ in range(random.randint(1, 8))]
  return ''.join(chr(random.randint(ord(first), ord(last) + 1)) for first, last in picked)


def train_pieces(texts: list[str], eos_id: int = 1) -> bytes:
  """Trains a vocabulary as the T5 family's: unigrams, <pad> 0, </s> 1, <unk> 2, no <s>."""
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=model,
    vocab_size=PIECES,
    model_type='unigram',
    pad_id=0,
    eos_id=eos_id,
    unk_id=2,
    bos_id=-1,
    character_coverage=0.98,
    num_threads=1,
    minloglevel=2,
  )
  return model.getvalue()


def train_merges(texts: list[str]) -> list[tuple[str, str]]:
  """Trains the merges of a vocabulary as CLIP's."""
  from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  tokenizer = Tokenizer(models.BPE(end_of_word_suffix='</w>'))
  tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  trainer = trainers.BpeTrainer(
    vocab_size=2 * len(letters) + MERGES,
    initial_alphabet=letters,
    end_of_word_suffix='</w>',
    min_frequency=2,
    show_progress=False,
  )
  tokenizer.train_from_iterator((text.lower() for text in texts), trainer)
  return [tuple(pair) for pair in json.loads(tokenizer.to_str())['model']['merges']]


def vocabulary(merges) -> dict[str, int]:
  """Returns the words of CLIP: letters of bytes, the same at the end of a word, merges, marks."""
  letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
  letters += [chr(256 + number) for number in range(256 - len(letters))]
  words = [*letters, *[f'{letter}</w>' for letter in letters]]
  words += [''.join(pair) for pair in merges] + [BEGIN, END]
  return {word: token for token, word in enumerate(words)}


def write_clip(folder: pathlib.Path, merges) -> pathlib.Path:
  """Writes vocab.json and merges.txt."""
  folder.mkdir(exist_ok=True)
  (folder / 'vocab.json').write_text(json.dumps(vocabulary(merges)))
  lines = ['#version: 0.2', *[' '.join(pair) for pair in merges]]
  (folder / 'merges.txt').write_text('\n'.join(lines) + '\n')
  return folder


def write_merges(path: pathlib.Path, merges) -> pathlib.Path:
  """Writes merges as OpenAI and OpenCLIP pack them, behind a title."""
  lines = ['"bpe_simple_vocab#version: 0.2', *[' '.join(pair) for pair in merges]]
  path.write_bytes(gzip.compress('\n'.join(lines).encode()))
  return path


def seal(tokens) -> tuple[int, int]:
  """Returns how many tokens there are, and a checksum of them in their order."""
  return len(tokens), zlib.crc32(np.array(tokens, '<i4').tobytes())


def cleaned(texts: list[str]) -> list[str]:
  """Returns texts as encoders of prompts get them, without those that hold nothing."""
  kept = []
  for text in texts:
    with contextlib.suppress(ConfigError):
      kept.append(clean_prompt(text))
  return kept


def references(folder: pathlib.Path) -> dict:
  """Returns transformers' tokenizers, by name, of the vocabularies in a folder.

  T5Tokenizer takes no sentencepiece file but a list of pieces with their scores, and the table of
  its normaliser. `from_pretrained` reads them from spiece.model, and tokenizers' own normaliser and
  Unigram, not sentencepiece's, then find the pieces. The two programs are the same but for texts
  whose marks stand in no canonical order (a grapheme is looked up whole), for spaces among control
  characters, and for ties; see test_transformers_tokens.py.
  """
  import transformers

  return {
    't5': transformers.T5Tokenizer.from_pretrained(folder / 't5', extra_ids=0),
    'byt5': transformers.ByT5Tokenizer(),
    'clip': transformers.CLIPTokenizer.from_pretrained(folder / 'clip'),
  }


def sentencepiece_tokens(path: pathlib.Path, texts: list[str]) -> list[list[int]]:
  """Returns the pieces that sentencepiece itself finds, and T5's end."""
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
  return [[*pieces, 1] for pieces in processor.encode(texts)]


def write_vocabularies(folder: pathlib.Path, pieces: bytes, merges) -> pathlib.Path:
  """Writes what `references` reads: 't5/spiece.model' and the files of 'clip/'."""
  (folder / 't5').mkdir(parents=True)
  (folder / 't5/spiece.model').write_bytes(pieces)
  write_clip(folder / 'clip', merges)
  return folder


def take_pieces(model: bytes) -> dict[str, np.ndarray]:
  """Returns what was learnt of a vocabulary; its normaliser, the most of it, is sentencepiece's."""
  from sentencepiece import sentencepiece_model_pb2

  pieces = sentencepiece_model_pb2.ModelProto.FromString(model).pieces
  return {
    'pieces': np.array(json.dumps([[piece.piece, piece.type] for piece in pieces])),
    'scores': np.array([piece.score for piece in pieces], np.float32),
  }


def give_pieces(taken) -> bytes:
  """Makes the same vocabulary of them."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(train_pieces(draw_texts()))
  del model.pieces[:]
  model.trainer_spec.vocab_size = len(taken['scores'])
  scores = taken['scores'].tolist()
  for (piece, kind), score in zip(json.loads(str(taken['pieces'])), scores, strict=True):
    model.pieces.add(piece=piece, type=kind, score=score)
  return model.SerializeToString()


def unigram_json(model: bytes):
  """Returns the tokenizer.json that transformers makes of a sentencepiece model of T5."""
  from sentencepiece import sentencepiece_model_pb2

  proto = sentencepiece_model_pb2.ModelProto.FromString(model)
  space_mark = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True}
  charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
  special = {
    'id': 1,
    'content': '</s>',
    'single_word': False,
    'lstrip': False,
    'rstrip': False,
    'normalized': False,
    'special': True,
  }
  space = {'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': '▁'}
  strip = {'type': 'Strip', 'strip_left': False, 'strip_right': True}
  text = {'Sequence': {'id': 'A', 'type_id': 0}}
  normalizers = [strip, {'type': 'Precompiled', 'precompiled_charsmap': charsmap}, space]
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [special, special | {'id': 0, 'content': '<pad>'}],
    'normalizer': {'type': 'Sequence', 'normalizers': normalizers},
    'pre_tokenizer': space_mark,
    'post_processor': {
      'type': 'TemplateProcessing',
      'single': [text, {'SpecialToken': {'id': '</s>', 'type_id': 0}}],
      'pair': [text, {'Sequence': {'id': 'B', 'type_id': 0}}],
      'special_tokens': {'</s>': {'id': '</s>', 'ids': [1], 'tokens': ['</s>']}},
    },
    'decoder': space_mark,
    'model': {
      'type': 'Unigram',
      'unk_id': 2,
      'byte_fallback': False,
      'vocab': [[piece.piece, piece.score] for piece in proto.pieces],
    },
  }


if __name__ == '__main__':
  texts = draw_texts()
  merges = train_merges(texts)
  found = take_pieces(train_pieces(texts)) | {'merges': np.array(json.dumps(merges))}
  with tempfile.TemporaryDirectory() as temporary:
    folder = write_vocabularies(pathlib.Path(temporary), give_pieces(found), merges)
    answers = {'sentencepiece': sentencepiece_tokens(folder / 't5/spiece.model', texts)}
    for name, tokenizer in references(folder).items():
      given = cleaned(texts) if name == 't5' else texts
      answers[name] = [tokenizer(text).input_ids for text in given]
      if name == 'clip':  # as a file may be found: with the padding and truncation of its last use
        tokenizer(texts[:2], padding='max_length', truncation=True, max_length=20)
        found['json'] = np.array(tokenizer.backend_tokenizer.to_str())
  for name, rows in answers.items():
    found[name] = np.array([seal(row) for row in rows], np.uint32)
  np.savez_compressed(VECTORS, **found)
