"""Checks what tokenizer files ask of the libraries that read them, before those do.

Such a file says rules that are run on every text: a regular expression may take for ever, rules in
a chain may grow a text without end, a table of characters may point outside of itself. So only what
published tokenizers of the T5 family and of CLIP have gets through, known expressions letter by
letter, and whatever points somewhere is followed first.
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.files import parse_json

AGAIN = 'take the one that came with the weights'
_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
EXPRESSIONS = {
  r'\s+', ' {2,}', _CLIP, rf'<\|startoftext\|>|<\|endoftext\|>|{_CLIP}',
  r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
}  # fmt: skip
RULES = 16  # of one kind; published ones have four
GROWTH = 4  # of a text by all that is replaced, times
LONGEST_CHARACTER = 128  # bytes that a table makes of one; those of Unicode's NFKC are 33
ADDED = 10_000  # tokens beside the vocabulary
TOKENS, LETTERS = 1 << 22, 1 << 23  # of a vocabulary, and in all its words together
_LARGEST = 2**31 - 1


class Unfit(ConfigError):
  """A file is no tokenizer of such an encoder; the message goes on where its name ends."""


def check_json(data: bytes) -> tuple[str, int | None]:
  """Returns the rules of a tokenizer.json by which texts become tokens, and its padding token.

  How it cuts texts, fills them up and makes texts of tokens is left out: nobody asks it to.

  Raises:
    Unfit: it is no JSON, or asks for what no published tokenizer does.
  """
  found = parse_words(data)
  kept = ('version', 'normalizer', 'pre_tokenizer', 'post_processor', 'model')
  rules = {key: found.get(key) for key in kept}
  rules['added_tokens'] = added = found.get('added_tokens') or []
  _need(isinstance(added, list) and len(added) <= ADDED, 'wrong or too many added_tokens')
  for token in added:
    _need(isinstance(token, dict) and _is_id(token.get('id')), 'an added token', token)
    _need(_is_text(token.get('content'), 256), 'an added token', token)
  growth = math.prod(_normalizing(rule) for rule in _in_turn(rules['normalizer'], 'normalizers'))
  _need(growth <= GROWTH, f'a normalizer that makes texts {growth:.3g} times longer')
  splits = [*_in_turn(rules['pre_tokenizer'], 'pretokenizers')]
  for rule in splits:
    _check_split(rule)
  once = [rule['type'] for rule in splits if rule['type'] in ('ByteLevel', 'Metaspace')]
  _need(len(once) == len(set(once)), 'a pre_tokenizer with one rule twice')
  for rule in _in_turn(rules['post_processor'], 'processors'):
    _check_ends(rule)
  rules['model'] = _check_model(rules['model'])
  padding = found.get('padding')
  pad = padding.get('pad_id') if isinstance(padding, dict) else None
  _need(pad is None or _is_id(pad), 'the padding token', pad)
  return json.dumps(rules), pad


def parse_words(data: bytes) -> dict[str, Any]:
  """Reads a JSON object of a tokenizer.

  Raises:
    Unfit: it is none.
  """
  return parse_json(data, 'cannot be read as a tokenizer: it', error=Unfit, mend=AGAIN)


def check_words(tokens: Any) -> None:
  """Checks a vocabulary: words, and the number of each.

  Raises:
    Unfit: it is none.
  """
  _need(isinstance(tokens, dict) and 0 < len(tokens) <= TOKENS, 'no vocabulary, or too large a one')
  numbers = set(tokens.values()) if all(map(_is_id, tokens.values())) else ()
  _need(len(numbers) == len(tokens), 'words that share a number, or have none')
  _check_letters(tokens)


def check_pieces(data: bytes) -> bytes:
  """Returns a sentencepiece model without what does not make tokens of texts.

  Raises:
    Unfit: it asks for what no published tokenizer does.
  """
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(data)
  model.DiscardUnknownFields()
  model.ClearField('denormalizer_spec')
  _need(0 < len(model.pieces) <= TOKENS, f'{len(model.pieces)} pieces')
  _check_letters(piece.piece for piece in model.pieces)
  _check_scores(piece.score for piece in model.pieces)
  kinds = type(model.trainer_spec)
  known = (kinds.UNIGRAM, kinds.BPE)
  _need(model.trainer_spec.model_type in known, 'a model that is neither unigram nor BPE')
  if model.normalizer_spec.precompiled_charsmap:
    check_characters(model.normalizer_spec.precompiled_charsmap)
  return model.SerializeToString()


def check_characters(data: bytes) -> None:
  """Checks a table of characters as sentencepiece compiles it: a trie, and the texts it leads to.

  After its length come the units of the trie, 4 bytes each: a label of 8 bits, whether a value
  stands at its children, and where those are, relative to it. The texts end with a zero each.
  Libraries follow all this as it is.

  Raises:
    Unfit: it leads outside of itself, or makes a character long.
  """
  size = int.from_bytes(data[:4], 'little')
  texts = data[4 + size :]
  _need(len(data) > 4 + size and size >= 1024 and size % 4 == 0, 'a table of characters, not whole')
  try:
    texts.decode()
  except UnicodeDecodeError:
    raise Unfit(f'has a table of characters that makes no text; {AGAIN}') from None
  longest = max(map(len, texts.split(b'\0')))
  _need(longest <= LONGEST_CHARACTER and texts.endswith(b'\0'), 'a table of endless characters')
  units = np.frombuffer(data, '<u4', size // 4, 4).astype(np.int64)
  places = np.flatnonzero((units >> 31 == 0) | (np.arange(len(units)) == 0))  # the root is one
  nodes = units[places]
  children = places ^ ((nodes >> 10) << ((nodes & 512) >> 6))
  inside = bool((children | 255 < len(units)).all())
  if inside:
    values = units[children[nodes & 256 > 0]] & _LARGEST
    inside = bool((values < len(texts)).all())
    starts = np.frombuffer(texts, np.uint8)[values] if inside else np.zeros(0, np.uint8)
    inside = inside and not (starts & 0xC0 == 0x80).any()
  _need(inside, 'a table of characters that leads outside of itself')


def _need(condition: Any, what: str, value: Any = None) -> None:
  if not condition:
    shown = '' if value is None else f' {value!r:.80}'
    raise Unfit(f'has {what}{shown}, as no published tokenizer of T5 or CLIP has; {AGAIN}')


def _is_id(value: Any) -> bool:
  return type(value) is int and 0 <= value < _LARGEST


def _is_text(value: Any, longest: int) -> bool:
  return isinstance(value, str) and 0 < len(value) <= longest


def _in_turn(rule: Any, inside: str) -> Iterator[dict[str, Any]]:
  """Yields the rules of a sequence, or the only one; none of null."""
  if rule is None:
    return
  _need(isinstance(rule, dict) and isinstance(rule.get('type'), str), 'a rule', rule)
  rules = rule.get(inside) if rule['type'] == 'Sequence' else [rule]
  _need(isinstance(rules, list) and len(rules) <= RULES, f'wrong or too many {inside}')
  for each in rules:
    kind = each.get('type') if isinstance(each, dict) else None
    _need(isinstance(kind, str) and kind != 'Sequence', 'a rule', each)
    yield each


def _expression(rule: Mapping[str, Any]) -> int:
  """Returns how many characters the pattern of a rule matches at least."""
  pattern = rule.get('pattern')
  _need(isinstance(pattern, dict) and len(pattern) == 1, 'a pattern', pattern)
  ((kind, text),) = pattern.items()
  _need(_is_text(text, 256), 'a pattern', pattern)
  if kind == 'Regex':
    _need(text in EXPRESSIONS, 'the regular expression', text)
    return 1
  _need(kind == 'String', 'a pattern', pattern)
  return len(text)


def _normalizing(rule: Mapping[str, Any]) -> float:
  """Returns how many times longer a rule may make a text by replacing parts of it."""
  match rule['type']:
    case 'NFC' | 'NFD' | 'NFKC' | 'NFKD' | 'Nmt' | 'Lowercase' | 'StripAccents' | 'Strip':
      return 1
    case 'Prepend':
      _need(_is_text(rule.get('prepend'), 8), 'a rule', rule)
      return 1
    case 'Replace':
      content = rule.get('content')
      _need(isinstance(content, str), 'a rule', rule)
      return max(1, len(content) / _expression(rule))
    case 'Precompiled':
      try:
        check_characters(base64.b64decode(rule['precompiled_charsmap'], validate=True))
      except (KeyError, TypeError, ValueError):
        raise Unfit(f'has a table of characters that is damaged; {AGAIN}') from None
      return 3  # there may be one, not two
  _need(False, 'the normalizer', rule['type'])
  return 1


def _check_split(rule: Mapping[str, Any]) -> None:
  kind = rule['type']
  known = ('Split', 'ByteLevel', 'Metaspace', 'WhitespaceSplit', 'Whitespace')
  _need(kind in known, 'the pre_tokenizer', kind)
  if kind == 'Split':
    _expression(rule)


def _check_ends(rule: Mapping[str, Any]) -> None:
  """Checks what is put around a text."""
  match rule['type']:
    case 'RobertaProcessing' | 'BertProcessing':
      for name in ('sep', 'cls'):
        pair = rule.get(name)
        _need(isinstance(pair, list) and len(pair) == 2 and _is_id(pair[1]), f'the {name}', pair)
    case 'TemplateProcessing':
      parts, special = rule.get('single'), rule.get('special_tokens')
      whole = isinstance(parts, list) and isinstance(special, dict) and len(parts) <= RULES
      _need(whole and all(isinstance(part, dict) for part in parts), 'the template', parts)
      texts = [part for part in parts if 'Sequence' in part]
      _need(len(texts) == 1 and len(special) <= RULES, 'the template', parts)
      for token in special.values():
        ids = token.get('ids') if isinstance(token, dict) else None
        _need(isinstance(ids, list) and 0 < len(ids) <= RULES and all(map(_is_id, ids)),
              'a special token', token)  # fmt: skip
    case 'ByteLevel':
      pass
    case kind:
      _need(False, 'the post_processor', kind)


def _check_model(model: Any) -> dict[str, Any]:
  # Where the first ones of CLIP say no type, a library would guess it.
  model = {'type': 'BPE'} | model if isinstance(model, dict) else {}
  kind = model.get('type')
  _need(kind in ('Unigram', 'BPE', 'WordLevel'), 'the model', kind)
  _need(not model.get('dropout'), 'the dropout', model.get('dropout'))
  words = model.get('vocab')
  if kind != 'Unigram':
    check_words(words)
    return model
  _need(isinstance(words, list) and 0 < len(words) <= TOKENS, 'no vocabulary, or too large a one')
  for each in words:
    _need(isinstance(each, list) and len(each) == 2, 'the piece', each)
  _check_letters(each[0] for each in words)
  _check_scores(each[1] for each in words)
  unknown = model.get('unk_id')
  _need(_is_id(unknown) and unknown < len(words), 'the unk_id', unknown)
  return model


def _check_letters(words: Any) -> None:
  left = LETTERS
  for word in words:
    _need(_is_text(word, 4096), 'the word', word)
    left -= len(word)
  _need(left >= 0, f'words of more than {LETTERS} letters')


def _check_scores(scores: Any) -> None:
  for score in scores:
    known = isinstance(score, int | float) and not isinstance(score, bool)
    _need(known and abs(score) < 1e9, 'the score', score)
