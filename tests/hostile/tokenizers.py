"""Tokenizer files, damaged or made to hurt: a sentence, or tokens in time and of a sane number."""

import base64
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from mgjax.text.tokenizers import encode_texts, load_tokenizer
from tests.hostile.family import Family, Silent
from tests.hostile.mutations import (
  STRANGE,
  Rng,
  mutate_bytes,
  mutate_json,
  mutate_lines,
  mutate_value,
  pick,
)
from tests.oracles import tokens as oracle

TEXTS = (
  '', 'a cat', ' \t\n', 'the sign says "407", it\'s Joe\'s', 'a' * 3000, 'ab' * 1500, ' ' * 3000,
  '猫' * 500, 'ﬁ½①㌀﷽' * 50, 'e\u0301\u0302' * 200, '\0\x01\x7f', '🏴󠁧󠁢👩🏽‍🚀' * 50, '▁' * 500,
  'x' * 29 + '!', '\ud800', ''.join(map(chr, range(1, 0x3000, 7))),
)  # fmt: skip
REGEXES = (
  '(a+)+$', '(a|a)*b', '(x+x+)+y', '((a*)*)*b', '(?:(?=a)*)*', '[', '(', r'\p{Foo}', '(?<=a+)b',
  '(a{1,999}){1,999}', '', '.*', r'(a)\1+$', r'(\s|\s)+!', '(?:.?){40}.{40}', '.', '$', r'\s+',
)  # fmt: skip
NORMALIZERS = (
  {'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'aa'},
  {'type': 'Replace', 'pattern': {'String': ' '}, 'content': ' ' * 4000},
  {'type': 'Replace', 'pattern': {'String': ''}, 'content': 'x'},
  {'type': 'Replace', 'pattern': {'String': 'a'}, 'content': ''},
  {'type': 'Prepend', 'prepend': 'a' * 100_000}, {'type': 'Prepend', 'prepend': ''},
  {'type': 'ByteLevel'}, {'type': 'NFKD'}, {'type': 'Nmt'}, {'type': 'Lowercase'},
  {'type': 'StripAccents'}, {'type': 'Strip', 'strip_left': True, 'strip_right': True},
  {'type': 'Precompiled', 'precompiled_charsmap': 'AAAAAAAA'},
  {'type': 'Precompiled', 'precompiled_charsmap': ''}, {'type': 'Unheard'},
)  # fmt: skip
PRE_TOKENIZERS = (
  {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True},
  {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False},
  {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True},
  {'type': 'Metaspace', 'replacement': 'ab', 'prepend_scheme': 'always', 'split': True},
  {'type': 'Split', 'pattern': {'String': ''}, 'behavior': 'Isolated', 'invert': False},
  {'type': 'WhitespaceSplit'}, {'type': 'Whitespace'},
  {'type': 'Digits', 'individual_digits': True}, {'type': 'UnicodeScripts'},
  {'type': 'CharDelimiterSplit', 'delimiter': 'a'},
)  # fmt: skip
MANY = 40  # copies of what grows a text


def unigram_json(model: bytes) -> dict[str, Any]:
  """Returns the tokenizer.json that transformers makes of a sentencepiece model of T5."""
  proto = sentencepiece_model_pb2.ModelProto.FromString(model)
  charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
  special = {'id': 1, 'content': '</s>', 'single_word': False, 'lstrip': False, 'rstrip': False,
             'normalized': False, 'special': True}  # fmt: skip
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
    'pre_tokenizer': PRE_TOKENIZERS[2],
    'post_processor': {
      'type': 'TemplateProcessing',
      'single': [text, {'SpecialToken': {'id': '</s>', 'type_id': 0}}],
      'pair': [text, {'Sequence': {'id': 'B', 'type_id': 0}}],
      'special_tokens': {'</s>': {'id': '</s>', 'ids': [1], 'tokens': ['</s>']}},
    },
    'decoder': PRE_TOKENIZERS[2],
    'model': {
      'type': 'Unigram', 'unk_id': 2, 'byte_fallback': False,
      'vocab': [[piece.piece, piece.score] for piece in proto.pieces],
    },
  }  # fmt: skip


def _model() -> tuple[bytes, list[tuple[str, str]], dict[str, Any]]:
  with np.load(oracle.VECTORS) as file:
    merges = [tuple(pair) for pair in json.loads(str(file['merges']))]
    return oracle.give_pieces(file), merges, json.loads(str(file['json']))


def _json_seeds(folder: Path) -> list[Path]:
  pieces, _, clip = _model()
  found = []
  for name, value in (('clip', clip), ('t5', unigram_json(pieces))):
    (folder / name).mkdir()
    path = folder / name / 'tokenizer.json'
    path.write_text(json.dumps(value))
    load_tokenizer(path)
    found.append(path.parent)
  return found


def _piece_seeds(folder: Path) -> list[Path]:
  (folder / 't5').mkdir()
  (folder / 't5/spiece.model').write_bytes(_model()[0])
  load_tokenizer(folder / 't5')
  return [folder / 't5']


def _pair_seeds(folder: Path) -> list[Path]:
  merges = _model()[1]
  found = [oracle.write_clip(folder / 'clip', merges)]
  (folder / 'openai').mkdir()
  oracle.write_merges(folder / 'openai/bpe_simple_vocab_16e6.txt.gz', merges)
  return [*found, folder / 'openai']


def _mutate_json(source: Path, rng: Rng, target: Path) -> None:
  target.mkdir()
  data = (source / 'tokenizer.json').read_bytes()
  if rng.random() < 0.15:
    data = mutate_bytes(data, rng) if rng.random() < 0.7 else mutate_json(b'[{}]', rng)
  else:
    value = json.loads(data)
    for _ in range(int(rng.geometric(0.7))):
      if '[[[[[[' not in data.decode() and isinstance(value, dict):  # too deep to be changed again
        value = _change(value, rng)
        data = json.dumps(value).encode()
  (target / 'tokenizer.json').write_bytes(data)


def _change(value: dict[str, Any], rng: Rng) -> Any:
  value = json.loads(json.dumps(value))
  match pick(rng, ('part', 'part', 'rules', 'words', 'splits', 'chain', 'charsmap', 'model',
                   'vocab', 'added', 'post', 'padding')):  # fmt: skip
    case 'part':  # any field but the vocabulary, which would be hit nearly always
      kept = {}
      if isinstance(value.get('model'), dict):
        kept = {k: value['model'].pop(k) for k in ('vocab', 'merges') if k in value['model']}
      value = mutate_value(value, rng)
      if isinstance(value, dict) and isinstance(value.get('model'), dict):
        value['model'] |= kept
    case 'rules':
      rule = {'type': 'Replace', 'pattern': {'Regex': pick(rng, REGEXES)}, 'content': 'a'}
      value['normalizer'] = pick(rng, (rule, {'type': 'Sequence', 'normalizers': [rule]}))
    case 'words':
      rule = {'type': 'Split', 'pattern': {'Regex': pick(rng, REGEXES)}, 'behavior': 'Isolated',
              'invert': bool(rng.integers(2))}  # fmt: skip
      value['pre_tokenizer'] = pick(rng, (rule, {'type': 'Sequence', 'pretokenizers': [rule]}))
    case 'splits':
      rules = [pick(rng, PRE_TOKENIZERS)] * int(pick(rng, (1, 2, MANY)))
      value['pre_tokenizer'] = {'type': 'Sequence', 'pretokenizers': rules}
    case 'chain':
      rules = [pick(rng, NORMALIZERS)] * int(pick(rng, (1, 2, 5, MANY)))
      rules += [pick(rng, NORMALIZERS) for _ in range(int(rng.integers(3)))]
      for _ in range(int(pick(rng, (0, 0, 200)))):
        rules = [{'type': 'Sequence', 'normalizers': rules}]
      value['normalizer'] = {'type': 'Sequence', 'normalizers': rules}
    case 'charsmap':
      _change_charsmap(value, rng)
    case 'model' if isinstance(value.get('model'), dict):
      model = value['model']
      match pick(rng, ('type', 'field', 'field')):
        case 'type':
          model['type'] = pick(rng, ('BPE', 'Unigram', 'WordLevel', 'WordPiece', 'X', None))
        case 'field':
          field = pick(rng, ('dropout', 'unk_token', 'unk_id', 'byte_fallback', 'ignore_merges',
                             'end_of_word_suffix', 'continuing_subword_prefix', 'fuse_unk',
                             'vocab', 'merges'))  # fmt: skip
          model[field] = pick(rng, (*STRANGE, 0.9, 1e9, '</w>', 'a' * 99, 5, 2**32 - 1))
    case 'vocab' if isinstance(value.get('model'), dict):
      _change_vocabulary(value['model'], rng)
    case 'added' if isinstance(value.get('added_tokens'), list) and value['added_tokens']:
      tokens = value['added_tokens']
      token = dict(tokens[0]) if isinstance(tokens[0], dict) else {}
      field = pick(rng, ('id', 'content', 'normalized', 'special', 'lstrip', 'single_word'))
      token[field] = pick(rng, (*STRANGE, 'a', ' ', 2**31, 2**32 - 1, 7, 'a' * 10**6))
      value['added_tokens'] = pick(rng, ([token], [*tokens, token], [token] * 3000))
    case 'post':
      value['post_processor'] = _post(rng)
    case 'padding':
      value['padding'] = {
        'strategy': pick(rng, ('BatchLongest', {'Fixed': 10**12}, {'Fixed': -1}, 7)),
        'direction': pick(rng, ('Right', 'Left', 'x')), 'pad_to_multiple_of': 10**9,
        'pad_id': pick(rng, (0, -1, 2**31, 2**32 - 1, 10**30, 'x', None)), 'pad_type_id': 0,
        'pad_token': 'x',
      }  # fmt: skip
      value['truncation'] = {
        'direction': 'Right', 'max_length': pick(rng, (0, 1, 5, -1, 10**12)),
        'strategy': 'LongestFirst', 'stride': pick(rng, (0, 5, 10**9)),
      }  # fmt: skip
  return value


def _change_charsmap(value: dict[str, Any], rng: Rng) -> None:
  rules = value.get('normalizer')
  rules = rules.get('normalizers', [rules]) if isinstance(rules, dict) else []
  for rule in rules if isinstance(rules, list) else []:
    if isinstance(rule, dict) and isinstance(text := rule.get('precompiled_charsmap'), str):
      try:
        data = base64.b64decode(text)
      except ValueError:
        continue
      rule['precompiled_charsmap'] = base64.b64encode(_damage_charsmap(data, rng)).decode()


def _damage_charsmap(data: bytes, rng: Rng) -> bytes:
  """Damages the size, the trie's units, or what texts it gives."""
  if len(data) < 8 or rng.random() < 0.3:
    return mutate_bytes(data, rng)
  size = min(int.from_bytes(data[:4], 'little') // 4, (len(data) - 4) // 4)
  units = np.frombuffer(data[4 : 4 + 4 * size], '<u4').copy()
  texts = data[4 + 4 * size :]
  match pick(rng, ('units', 'offsets', 'leaves', 'size', 'texts', 'long')):
    case 'units':
      places = rng.integers(len(units), size=int(pick(rng, (1, 30, 3000))))
      units[places] = rng.integers(2**32, size=len(places), dtype=np.uint32)
    case 'offsets':  # the root's first, which every text takes
      units[: int(rng.integers(1, 300))] |= np.uint32(pick(rng, (0x3FFFFF << 10, 1 << 9, 1 << 30)))
    case 'leaves':
      leaves = np.flatnonzero(units >> 31)
      units[leaves] = np.uint32(1 << 31) | rng.integers(
        pick(rng, (2**31, len(texts))), size=len(leaves), dtype=np.uint32
      )
    case 'size':
      return int(pick(rng, (0, 3, 2**32 - 1, 2**31, len(data)))).to_bytes(4, 'little') + data[4:]
    case 'texts':
      texts = pick(rng, (b'', b'\xff' * len(texts), texts[: len(texts) // 2], b'a' * len(texts)))
    case 'long':
      texts = b'a' * 2_000_000
  return data[:4] + units.tobytes() + texts


def _change_vocabulary(model: dict[str, Any], rng: Rng) -> None:
  vocab = model.get('vocab')
  if isinstance(vocab, list) and vocab:
    at = int(rng.integers(len(vocab)))
    scores = (float('nan'), float('inf'), -float('inf'), 1e308, -1e308, 'x', None, 0)
    vocab[at] = pick(
      rng,
      (
        [vocab[at][0], pick(rng, scores)], [pick(rng, STRANGE), -1.0], vocab[at - 1], 7, [],
        ['', -1.0], ['a' * 10**6, -1.0], [*vocab[at], 1],
      ),
    )  # fmt: skip
    if rng.random() < 0.2:
      score = pick(rng, (float('nan'), 1e308, -1e308, 0.0))
      vocab[:] = [[each[0], score] for each in vocab if isinstance(each, list) and each]
  elif isinstance(vocab, dict) and vocab:
    words = [*vocab]
    word = words[int(rng.integers(len(words)))]
    match pick(rng, ('id', 'drop', 'same', 'word', 'merges')):
      case 'id':
        vocab[word] = pick(rng, (-1, 2**31, 2**32 - 1, 2**33, 10**30, 1.5, 'x', None, True))
      case 'drop':
        del vocab[word]
      case 'same':
        vocab[word] = vocab[words[0]]
      case 'word':
        vocab['a' * 10**6] = len(vocab)
      case 'merges' if isinstance(model.get('merges'), list) and model['merges']:
        merges = model['merges']
        merges[int(rng.integers(len(merges)))] = pick(
          rng, (['x'], ['', 'x'], ['x', ''], 'x y z', 'xy', 7, None, [1, 2], ['q', 'never'], [])
        )


def _post(rng: Rng) -> Any:
  text, end = {'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': 'e', 'type_id': 0}}
  ids = pick(rng, ([1], [], [2**32 - 1], [-1], [10**30], [1] * 10**6, [1, 2], ['x'], 7))
  single = pick(
    rng,
    ([text, end], [end], [text, text, end], [end] * 5000 + [text], [], [text], [end, text], '$A e',
     [{'Sequence': {'id': 'B', 'type_id': 0}}, end], 7, [7], [text, end] * 50),
  )  # fmt: skip
  tokens = ['e'] * len(ids) if isinstance(ids, list) else ['e']
  special = {'e': {'id': 'e', 'ids': ids, 'tokens': pick(rng, (tokens, tokens, ['e'], [], 'e'))}}
  template = {'type': 'TemplateProcessing', 'single': single, 'pair': [], 'special_tokens': special}
  roberta = {'type': 'RobertaProcessing', 'sep': ['e', pick(rng, (1, -1, 2**32 - 1, 'x'))],
             'cls': ['b', 0], 'trim_offsets': True, 'add_prefix_space': False}  # fmt: skip
  return pick(
    rng,
    (template, template, template, roberta, None, {'type': 'BertProcessing', 'sep': ['e', 1],
     'cls': ['b', 2**31]}, {'type': 'Sequence', 'processors': [template] * 12},
     {'type': 'Sequence', 'processors': [roberta] * 2}, {'type': 'ByteLevel'}, {'type': 'X'}),
  )  # fmt: skip


def _mutate_pieces(source: Path, rng: Rng, target: Path) -> None:
  target.mkdir()
  data = (source / 'spiece.model').read_bytes()
  if rng.random() < 0.25:
    data = mutate_bytes(data, rng)
  else:
    proto = sentencepiece_model_pb2.ModelProto.FromString(data)
    for _ in range(int(rng.geometric(0.7))):
      _change_proto(proto, rng)
    data = proto.SerializeToString()
    if rng.random() < 0.1:  # what protobuf itself would not write
      # The first is a test of the model itself, by which it should find 'b' in 'a'.
      data += pick(
        rng,
        (
          b'\x22\x08\x0a\x06\x0a\x01a\x12\x01b',
          b'\x0a\xff\xff\xff\xff\x07',
          b'\x0b' * 500,
          b'\x0a\x03\x0a\x01\xff',
          b'\x80',
        ),
      )
  (target / 'spiece.model').write_bytes(data)


def _change_proto(proto: Any, rng: Rng) -> None:
  rules, trainer = proto.normalizer_spec, proto.trainer_spec
  at = int(rng.integers(len(proto.pieces))) if len(proto.pieces) else 0
  match pick(rng, ('score', 'scores', 'text', 'kind', 'kinds', 'repeat', 'drop', 'ids', 'charsmap',
                   'charsmap', 'charsmap', 'rules', 'model', 'denormalize', 'long',
                   'symbols')):  # fmt: skip
    case 'score' if proto.pieces:
      proto.pieces[at].score = pick(rng, (float('nan'), float('inf'), -float('inf'), 3e38, -3e38))
    case 'scores':
      score = pick(rng, (float('nan'), 3e38, -3e38, 0.0, float('inf')))
      for piece in proto.pieces:
        piece.score = score
    case 'text' if proto.pieces:
      proto.pieces[at].piece = pick(
        rng, ('', 'a\0b', '\0', 'a' * 10**6, '▁', proto.pieces[0].piece)
      )
    case 'kind' if proto.pieces:
      proto.pieces[at].type = int(rng.integers(1, 7))
    case 'kinds':
      kind = int(rng.integers(1, 7))
      for piece in proto.pieces:
        piece.type = kind
    case 'repeat' if proto.pieces:
      proto.pieces.add().CopyFrom(proto.pieces[at])
    case 'drop':
      del proto.pieces[at : at + int(pick(rng, (1, 1, 10, 10**6)))]
    case 'ids':
      field = pick(rng, ('unk_id', 'bos_id', 'eos_id', 'pad_id', 'vocab_size'))
      setattr(trainer, field, int(pick(rng, (-1, 0, 1, 2, 5, 2**31 - 1, -(2**31)))))
    case 'charsmap':
      rules.precompiled_charsmap = _damage_charsmap(rules.precompiled_charsmap, rng)
    case 'rules':
      rules.name = pick(rng, ('', 'identity', 'nfkc', 'x' * 5000, 'user_defined'))
      rules.add_dummy_prefix = bool(rng.integers(2))
      rules.remove_extra_whitespaces = bool(rng.integers(2))
      rules.escape_whitespaces = bool(rng.integers(2))
      rules.normalization_rule_tsv = pick(rng, ('', '/etc/passwd', 'a\tb'))
    case 'model':
      trainer.model_type = int(rng.integers(1, 5))
      trainer.byte_fallback = bool(rng.integers(2))
      trainer.treat_whitespace_as_suffix = bool(rng.integers(2))
      trainer.unk_surface = pick(rng, ('', 'x', 'a' * 10**5))
      trainer.unk_piece = pick(rng, ('<unk>', '', 'x', 'a'))
    case 'denormalize':
      proto.denormalizer_spec.precompiled_charsmap = _damage_charsmap(
        rules.precompiled_charsmap, rng
      )
    case 'long':  # each the beginning of the next
      for length in range(2, 300):
        proto.pieces.add(piece='a' * length, score=-float(length), type=int(rng.integers(1, 7)))
    case 'symbols':
      for text in ('a', 'aa', ' ', '▁', 'cat', ''):
        proto.pieces.add(piece=text, score=0.0, type=4)


def _mutate_pair(source: Path, rng: Rng, target: Path) -> None:
  target.mkdir()
  for file in source.iterdir():
    (target / file.name).write_bytes(file.read_bytes())
  file = pick(rng, sorted(target.iterdir()))
  data = file.read_bytes()
  if file.name == 'vocab.json':
    model = {'vocab': json.loads(data)}
    _change_vocabulary(model, rng)
    data = json.dumps(model['vocab']).encode() if rng.random() < 0.7 else mutate_json(data, rng)
  elif file.name == 'merges.txt':
    data = _mutate_merges(data, rng)
  else:
    match pick(rng, ('bytes', 'lines', 'lines', 'bomb')):
      case 'bytes':
        data = mutate_bytes(data, rng)
      case 'lines':
        data = gzip.compress(_mutate_merges(gzip.decompress(data), rng), 1)
      case 'bomb':
        filler = pick(rng, (b'\0', b'\n', b'a b\n', b'a'))
        data = gzip.compress(filler * (100_000_000 // len(filler)), 1)
  file.write_bytes(data)


def _mutate_merges(data: bytes, rng: Rng) -> bytes:
  if rng.random() < 0.3:
    return pick(rng, (b'', b'a b\n' * 200_000, b'a ' * 10**6, b'\xff\xfe', b'#version\n', b'a b'))
  return mutate_lines(data, rng)


def _read(path: Path) -> None:
  began = time.monotonic()
  tokenizer = load_tokenizer(path)
  for text in TEXTS:
    tokens = tokenizer(text)
    if tokens.dtype != np.int32 or tokens.ndim != 1 or not len(tokens):
      raise Silent(f'{tokens!r:.100} of {text[:20]!a}')
    if tokens.min() < 0 or tokens.max() >= tokenizer.size or not 0 <= tokenizer.pad < 2**31:
      raise Silent(
        f'tokens {tokens.min()} to {tokens.max()}, pad {tokenizer.pad} of {tokenizer.size}'
      )
    if len(tokens) > 100 * len(text.encode(errors='replace')) + 100:
      raise Silent(f'{len(tokens)} tokens of {len(text)} letters')
    if tokenizer(text).tolist() != tokens.tolist():
      raise Silent(f'{text[:20]!a} has other tokens each time')
  encode_texts(tokenizer, TEXTS[:4], 64)
  if time.monotonic() - began > 15:
    raise Silent('slow')


FAMILIES = (
  Family('tokenizer.json', _json_seeds, _mutate_json, _read),
  Family('spiece.model', _piece_seeds, _mutate_pieces, _read),
  Family('vocab and merges', _pair_seeds, _mutate_pair, _read),
)
