"""tokenizer.json, damaged or made to hurt: a sentence, or tokens in time and of a sane number."""

import base64
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


def vocabularies() -> tuple[bytes, list[tuple[str, str]], dict[str, Any]]:
  """Returns a sentencepiece model, CLIP's merges, and its tokenizer.json."""
  with np.load(oracle.VECTORS) as file:
    merges = [tuple(pair) for pair in json.loads(str(file['merges']))]
    return oracle.give_pieces(file), merges, json.loads(str(file['json']))


def _json_seeds(folder: Path) -> list[Path]:
  pieces, _, clip = vocabularies()
  found = []
  for name, value in (('clip', clip), ('t5', unigram_json(pieces))):
    (folder / name).mkdir()
    path = folder / name / 'tokenizer.json'
    path.write_text(json.dumps(value))
    load_tokenizer(path)
    found.append(path.parent)
  return found


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
      _change_characters(value, rng)
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
      change_vocabulary(value['model'], rng)
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


def _change_characters(value: dict[str, Any], rng: Rng) -> None:
  rules = value.get('normalizer')
  rules = rules.get('normalizers', [rules]) if isinstance(rules, dict) else []
  for rule in rules if isinstance(rules, list) else []:
    if isinstance(rule, dict) and isinstance(text := rule.get('precompiled_charsmap'), str):
      try:
        data = base64.b64decode(text)
      except ValueError:
        continue
      rule['precompiled_charsmap'] = base64.b64encode(damage_characters(data, rng)).decode()


def damage_characters(data: bytes, rng: Rng) -> bytes:
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


def change_vocabulary(model: dict[str, Any], rng: Rng) -> None:
  """Changes a word, its number or score, or a merge."""
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


def read_tokens(path: Path) -> None:
  """Loads a tokenizer, and checks the tokens of some texts."""
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


FAMILIES = (Family('tokenizer.json', _json_seeds, _mutate_json, read_tokens),)
