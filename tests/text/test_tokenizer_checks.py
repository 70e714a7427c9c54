"""What tokenizer files may not ask of the libraries that read them, and what published ones do."""

import base64
import gzip
import json
import os
import re

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.text import tokenizer_files
from mgjax.text.tokenizer_checks import EXPRESSIONS, check_characters
from mgjax.text.tokenizer_files import Vocabulary
from mgjax.text.tokenizers import Tokenizer, load_tokenizer
from tests.hostile.tokenizers import NORMALIZERS, PRE_TOKENIZERS, REGEXES, unigram_json
from tests.oracles import tokens as oracle

SPLIT = {'type': 'Split', 'behavior': 'Isolated', 'invert': False}
DOUBLE = NORMALIZERS[0]


@pytest.fixture(scope='module')
def pieces():
  with np.load(oracle.VECTORS) as file:
    return oracle.give_pieces(file)


@pytest.fixture
def load(tmp_path, pieces):
  """Loads T5's tokenizer.json with some parts replaced."""

  def write(**parts):
    value = unigram_json(pieces)
    value['model'] |= parts.pop('model', {})
    (tmp_path / 'tokenizer.json').write_text(json.dumps(value | parts))
    return load_tokenizer(tmp_path / 'tokenizer.json')

  return write


def characters(pieces):
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(pieces)
  return model.normalizer_spec.precompiled_charsmap


def test_t5_s_tokenizer_json_gives_sentencepiece_s_tokens(load, pieces, tmp_path):
  (tmp_path / 'spiece.model').write_bytes(pieces)
  tokenizer, other = load(), load_tokenizer(tmp_path / 'spiece.model')
  for text in ['', 'a cat', 'the sign says "407"', '\ufb01ne \u00bd', 'a  b']:
    assert tokenizer(text).tolist() == other(text).tolist()
  assert (tokenizer.pad, tokenizer.end, tokenizer.size) == (0, 1, other.size)


@pytest.mark.parametrize('expression', [each for each in REGEXES if each not in EXPRESSIONS])
def test_no_expression_of_a_stranger_is_run(expression, load):
  pattern = {'Regex': expression}
  replace = {'type': 'Replace', 'pattern': pattern, 'content': 'a'}
  split = {'type': 'Sequence', 'pretokenizers': [SPLIT | {'pattern': pattern}]}
  for rules in ({'normalizer': replace}, {'pre_tokenizer': split}):
    with pytest.raises(ConfigError, match=r'has (the regular expression|a pattern) .* came with'):
      load(**rules)


def test_the_expressions_of_published_tokenizers_are_known(load):
  for expression in EXPRESSIONS:
    load(pre_tokenizer=SPLIT | {'pattern': {'Regex': expression}})('the "407" ' * 300)


@pytest.mark.parametrize(
  ('rules', 'message'),
  [
    ([DOUBLE] * 3, 'a normalizer that makes texts 8 times longer'),
    ([DOUBLE | {'pattern': {'String': ''}}], 'a pattern'),
    ([DOUBLE] * 40, 'wrong or too many normalizers'),
    ([{'type': 'Prepend', 'prepend': 'a' * 1000}], 'a rule'),
    ([{'type': 'Sequence', 'normalizers': [DOUBLE]}], 'a rule'),
    ([{'type': 'ByteLevel'}] * 2, "the normalizer 'ByteLevel'"),
    ('x', 'wrong or too many normalizers'),
    ([[]], r'a rule \[\]'),
  ],
)
def test_rules_that_grow_a_text_or_are_none_are_refused(rules, message, load):
  with pytest.raises(ConfigError, match=f'has {message}'):
    load(normalizer={'type': 'Sequence', 'normalizers': rules})


def test_no_splitting_rule_stands_twice(load):
  for rule in PRE_TOKENIZERS[:3]:
    with pytest.raises(ConfigError, match='a pre_tokenizer with one rule twice'):
      load(pre_tokenizer={'type': 'Sequence', 'pretokenizers': [rule] * 2})


def outside(units, texts):
  units[0] |= 0x3FFFFF << 10


def far_value(units, texts):
  units[units >> 31 == 1] = 1 << 31 | len(texts)


def amid(units, texts):
  (places,) = np.nonzero(np.frombuffer(bytes(texts), np.uint8) & 0xC0 == 0x80)
  units[units >> 31 == 1] = 1 << 31 | places[0]


def endless(units, texts):
  texts[:] = b'a' * 10_000 + b'\0'


def unended(units, texts):
  texts[-1:] = b'a'


def not_text(units, texts):
  texts[0] = 0xFF


@pytest.mark.parametrize('damage', [outside, far_value, amid, endless, unended, not_text])
def test_a_table_of_characters_is_followed_before_a_library_does(damage, load, pieces, tmp_path):
  from sentencepiece import sentencepiece_model_pb2

  whole = characters(pieces)
  check_characters(whole)
  size = int.from_bytes(whole[:4], 'little')
  units, texts = np.frombuffer(whole, '<u4', size // 4, 4).copy(), bytearray(whole[4 + size :])
  damage(units, texts)
  broken = whole[:4] + units.tobytes() + bytes(texts)
  model = sentencepiece_model_pb2.ModelProto.FromString(pieces)
  model.normalizer_spec.precompiled_charsmap = broken
  (tmp_path / 'spiece.model').write_bytes(model.SerializeToString())
  with pytest.raises(ConfigError, match='has a table of'):
    load_tokenizer(tmp_path / 'spiece.model')
  text = base64.b64encode(broken).decode()
  with pytest.raises(ConfigError, match='has a table of'):
    load(normalizer={'type': 'Precompiled', 'precompiled_charsmap': text})


@pytest.mark.parametrize('data', [b'', b'\0', b'\xff' * 9, bytes(4), b'\0\4\0\0' + bytes(1024)])
def test_half_a_table_of_characters_is_refused(data):
  with pytest.raises(ConfigError, match='has a table of characters, not whole'):
    check_characters(data)


@pytest.mark.parametrize(
  ('parts', 'message'),
  [
    ({'model': {'vocab': [['a', float('nan')]]}}, 'the score nan'),
    ({'model': {'vocab': [['a', 10**400]]}}, 'the score 1000'),
    ({'model': {'vocab': [['', -1.0]]}}, "the word ''"),
    ({'model': {'vocab': [['a' * 10**5, -1.0]]}}, "the word 'aaa"),
    ({'model': {'unk_id': 10**6}}, 'the unk_id 1000000'),
    ({'model': {'unk_id': None}}, 'the unk_id'),
    ({'model': {'type': 'BPE', 'vocab': {'a': 0, 'b': 0}}}, 'words that share a number'),
    ({'model': {'type': 'BPE', 'vocab': {'a': 2**32 - 1}}}, 'words that share a number, or have'),
    ({'model': {'type': 'BPE', 'vocab': {'a': 0}, 'dropout': 0.5}}, 'the dropout 0.5'),
    ({'model': {'type': 'WordPiece'}}, "the model 'WordPiece'"),
    ({'padding': {'pad_id': 2**32 - 1}}, 'the padding token 4294967295'),
    ({'added_tokens': [{'id': 1, 'content': ''}]}, 'an added token'),
    ({'added_tokens': [{'id': -1, 'content': 'a'}]}, 'an added token'),
    ({'post_processor': {'type': 'X\x1b[31m'}}, r"the post_processor 'X\\x1b\[31m'"),
    ({'post_processor': {'type': 'TemplateProcessing', 'single': []}}, 'the template'),
    ({'post_processor': {'type': 'BertProcessing', 'sep': ['a', 2**31], 'cls': []}}, 'the sep'),
  ],
)
def test_what_no_published_tokenizer_has_is_a_sentence(parts, message, load):
  with pytest.raises(ConfigError, match=f'has {message}') as caught:
    load(**parts)
  assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_model_of_damaged_pieces_is_a_sentence(pieces, tmp_path):
  from sentencepiece import sentencepiece_model_pb2

  def spoil(**fields):
    model = sentencepiece_model_pb2.ModelProto.FromString(pieces)
    for name, value in fields.items():
      setattr(model.trainer_spec if name == 'model_type' else model.pieces[7], name, value)
    (tmp_path / 'spiece.model').write_bytes(model.SerializeToString())
    return load_tokenizer(tmp_path / 'spiece.model')

  for fields, message in (
    ({'score': float('nan')}, 'the score nan'),
    ({'score': float('-inf')}, 'the score -inf'),
    ({'piece': ''}, "the word ''"),
    ({'model_type': 3}, 'a model that is neither unigram nor BPE'),
  ):
    with pytest.raises(ConfigError, match=f'has {message}'):
      spoil(**fields)
  assert spoil(score=-3.0)('a cat')[-1] == 1


def test_files_larger_than_any_tokenizer_are_not_read(tmp_path, monkeypatch):
  packed = tmp_path / 'bpe.txt.gz'
  packed.write_bytes(gzip.compress(bytes(20 << 20), 1))
  with pytest.raises(ConfigError, match='is no whole gzip file of at most 16 MiB; get it again'):
    load_tokenizer(packed)
  os.truncate(packed, tokenizer_files.LARGEST + 1)
  with pytest.raises(ConfigError, match='has more than 64 MiB, as no tokenizer has; get it again'):
    load_tokenizer(packed)


class PanicException(BaseException):
  """As errors in Rust come: no `Exception`."""


@pytest.mark.parametrize(
  'error', [PanicException('index 7'), ValueError('unk'), KeyboardInterrupt()]
)
def test_an_error_of_a_library_at_a_text_is_a_sentence_and_others_pass(error):
  def encode(text):
    if text:
      raise error
    return [1]

  tokenizer = Tokenizer(Vocabulary(encode, 0, 0, 1, 2))
  with pytest.raises(BaseException) as caught:
    tokenizer('a cat')
  if isinstance(error, KeyboardInterrupt):
    assert caught.value is error
  else:
    assert isinstance(caught.value, ConfigError)
    assert re.search("makes no tokens of 'a cat': .*(index 7|unk)", str(caught.value))
