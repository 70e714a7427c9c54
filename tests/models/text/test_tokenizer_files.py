"""Tokenizer files of published encoders: the reference's tokens, and files that are none."""

import json
import logging
import pickle
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, models, processors

from mgjax.core.errors import ConfigError
from mgjax.models.text import tokenizer_files
from mgjax.models.text import tokenizers as library
from mgjax.models.text.tokenizers import encode_texts, load_tokenizer
from tests.oracles import tokens as oracle

TEXTS = oracle.draw_texts()
NAMES = ['t5', 'byt5', 'clip']


@pytest.fixture(scope='module')
def vectors():
  with np.load(oracle.VECTORS) as file:
    return dict(file)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, vectors):
  merges = json.loads(str(vectors['merges']))
  place = tmp_path_factory.mktemp('tokenizers') / 'all'
  return oracle.write_vocabularies(place, oracle.give_pieces(vectors), merges)


@pytest.fixture(scope='module')
def loaded(folder):
  paths = {'t5': folder / 't5/spiece.model', 'byt5': 'bytes', 'clip': folder / 'clip'}
  return {name: load_tokenizer(path) for name, path in paths.items()}


def compare(tokenizer, texts, sealed, apart=()):
  for text, wanted in zip(texts, sealed.tolist(), strict=True):
    found = tokenizer(text)
    assert found.dtype == np.int32
    assert (list(oracle.seal(found)) == wanted) == (text not in apart), ascii(text)


@pytest.mark.parametrize(
  ('name', 'reference'), [('t5', 'sentencepiece'), ('byt5', 'byt5'), ('clip', 'clip')]
)
def test_tokens_of_a_thousand_texts_are_the_reference_s(name, reference, loaded, vectors):
  assert len(TEXTS) == 1000 and len(set(TEXTS)) > 990
  compare(loaded[name], TEXTS, vectors[reference])


def test_tokens_of_a_thousand_prompts_are_transformers_own(loaded, vectors):
  """Its T5Tokenizer is another program than sentencepiece; where they differ the latter is right.

  Two texts are ties; in one the other program drops a mark (a Hebrew point) behind a fraction.
  """
  prompts = oracle.cleaned(TEXTS)
  assert len(prompts) > 980
  apart = [
    'x' * oracle.LONG,
    '猫' * (oracle.LONG // 6),
    *[each for each in prompts if '\xbc\u05b5' in each],
  ]
  assert len(apart) == 3
  compare(loaded['t5'], prompts, vectors['t5'], apart)


def test_tokenizer_json_is_read_without_its_padding_and_truncation(folder, vectors, loaded):
  said = json.loads(str(vectors['json']))
  assert said['padding'] is not None and said['truncation']['max_length'] < 50
  (folder / 'tokenizer.json').write_text(json.dumps(said))
  tokenizer = load_tokenizer(folder / 'tokenizer.json')
  compare(tokenizer, TEXTS, vectors['clip'])
  assert tokenizer.pad == said['padding']['pad_id']
  one, other = (each.cut(each('x' * 99), 7).tolist() for each in (tokenizer, loaded['clip']))
  assert one == other


def test_openai_s_file_makes_the_same_tokenizer(folder, vectors, loaded):
  merges = json.loads(str(vectors['merges']))
  path = oracle.write_merges(folder / 'bpe_simple_vocab_16e6.txt.gz', merges)
  tokenizer = load_tokenizer(path)
  assert (tokenizer.size, tokenizer.end) == (loaded['clip'].size, loaded['clip'].end)
  assert tokenizer.pad == 0  # as in OpenAI's and OpenCLIP's code
  for text in TEXTS:
    assert tokenizer(text).tolist() == loaded['clip'](text).tolist(), ascii(text)


def test_of_openai_s_file_so_many_merges_count_that_the_end_is_49407(tmp_path):
  words = [
    f'{a}{b}{c}{d}'
    for a in 'abcdefghijklmnop'
    for b in 'abcdefghijklmnop'
    for c in 'abcdefghijklmnop'
    for d in 'abcdefghijklmnop'
  ]
  merges = [(first, second) for first in 'abcdefghijklmnop' for second in 'abcdefghijklmnop']
  merges += [(word[:2], word[2:]) for word in words]
  assert len(merges) > 48894
  tokenizer = load_tokenizer(oracle.write_merges(tmp_path / 'bpe.txt.gz', merges))
  # 'a' and 'a</w>' of the published vocabulary are 64 and 320.
  assert tokenizer('a').tolist() == [49406, 320, 49407]
  assert tokenizer.size == 49408


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('length', [2, 3, 16, 77])
def test_what_is_cut_keeps_the_beginning_and_the_end(name, length, loaded):
  tokenizer = loaded[name]
  for text in TEXTS[::7]:
    whole = tokenizer(text)
    kept = tokenizer.cut(whole, length)
    assert len(kept) == min(len(whole), length)
    assert kept[-1] == tokenizer.end
    np.testing.assert_array_equal(kept[:-1], whole[: len(kept) - 1])


def test_a_length_without_room_for_the_end_is_refused(loaded):
  with pytest.raises(ConfigError, match='length = 1 has no room for the 2 tokens that begin and'):
    loaded['clip'].cut(loaded['clip']('a'), 1)
  with pytest.raises(ConfigError, match='length = 0 has no room for the 1 tokens'):
    encode_texts(loaded['byt5'], ['a'], 0)
  assert loaded['byt5'].cut(loaded['byt5']('a'), 1).tolist() == [1]


@pytest.mark.parametrize('name', NAMES)
def test_texts_become_rows_with_their_masks(name, loaded):
  tokenizer = loaded[name]
  tokens, mask = encode_texts(tokenizer, ['', 'a cat', 'x' * 99], 12)
  assert tokens.shape == mask.shape == (3, 12)
  assert (tokens.dtype, mask.dtype) == (np.int32, bool)
  for row, text in enumerate(['', 'a cat', 'x' * 99]):
    kept = tokenizer.cut(tokenizer(text), 12)
    assert tokens[row, mask[row]].tolist() == kept.tolist()
    assert (tokens[row, len(kept) :] == tokenizer.pad).all() and not mask[row, len(kept) :].any()
  assert mask[0].any()  # the empty text is its end token
  assert encode_texts(tokenizer, [], 12)[0].shape == (0, 12)


def test_a_cut_is_said_once_for_a_length(loaded, caplog, monkeypatch):
  monkeypatch.setattr(library, '_warned', set())
  with caplog.at_level(logging.WARNING, 'mgjax.models.text.tokenizers'):
    for length in (8, 8, 9):
      encode_texts(loaded['byt5'], ['short', 'a' * 30], length)
    encode_texts(loaded['byt5'], ['short'], 6)
  assert caplog.messages == [
    f'{"a" * 30!r} is cut after {length} of 31 tokens: read is {"a" * (length - 1)!r}'
    for length in (8, 9)
  ]


@pytest.mark.parametrize('name', NAMES)
def test_half_a_surrogate_pair_is_a_question_mark(name, loaded):
  assert loaded[name]('a\ud83d').tolist() == loaded[name]('a?').tolist()


@pytest.mark.parametrize('name', NAMES)
def test_a_tokenizer_travels_to_other_processes(name, loaded):
  again = pickle.loads(pickle.dumps(loaded[name]))
  for text in TEXTS[:30]:
    assert again(text).tolist() == loaded[name](text).tolist()
  assert (again.pad, again.end, again.size) == (
    loaded[name].pad,
    loaded[name].end,
    loaded[name].size,
  )


def word_level(path, end=7, ends=True, **vocabulary):
  """A tokenizer.json of two words."""
  vocabulary = {'a': 0, 'b': 1, '</s>': end} | vocabulary
  tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='a'))
  if ends:
    tokenizer.post_processor = processors.TemplateProcessing(
      single=['$A', '</s>'], special_tokens=[('</s>', end)]
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(path))
  return path


def test_of_tokenizer_json_the_padding_is_pad_or_else_the_end(tmp_path):
  tokenizer = load_tokenizer(word_level(tmp_path / 'tokenizer.json'))
  assert (tokenizer('b').tolist(), tokenizer.pad, tokenizer.size) == ([1, 7], 7, 8)
  padded = load_tokenizer(word_level(tmp_path / 'padded.json', **{'<pad>': 3}))
  assert padded.pad == 3


def test_of_a_folder_with_several_tokenizers_sentencepiece_s_is_read(tmp_path, folder, loaded):
  (tmp_path / 'spiece.model').write_bytes((folder / 't5/spiece.model').read_bytes())
  word_level(tmp_path / 'tokenizer.json')
  assert load_tokenizer(tmp_path)('a cat').tolist() == loaded['t5']('a cat').tolist()
  (tmp_path / 'spiece.model').unlink()
  oracle.write_clip(tmp_path, [])
  assert load_tokenizer(tmp_path).size == 8


def test_missing_files_are_named_with_what_would_do(tmp_path, folder):
  for path in (tmp_path / 'spiece.model', tmp_path / 'nowhere'):
    with pytest.raises(ConfigError, match=rf"no tokenizer file '{path}'; expected spiece\.model"):
      load_tokenizer(path)
  with pytest.raises(ConfigError, match=f"'{tmp_path}' has no tokenizer; expected .* weights are"):
    load_tokenizer(tmp_path)
  (tmp_path / 'notes.txt').write_text('hello')
  with pytest.raises(ConfigError, match='is no tokenizer file by its name; expected spiece'):
    load_tokenizer(tmp_path / 'notes.txt')
  (tmp_path / 'vocab.json').write_bytes((folder / 'clip/vocab.json').read_bytes())
  for path in (tmp_path, tmp_path / 'vocab.json'):
    with pytest.raises(ConfigError, match=r"merges\.txt' beside vocab\.json; expected"):
      load_tokenizer(path)
  (tmp_path / 'one.model').touch()
  (tmp_path / 'two.model').touch()
  with pytest.raises(ConfigError, match=r'has one\.model and two\.model; name one of them'):
    load_tokenizer(tmp_path)


def refused(path, why='get it again|came with the weights'):
  with pytest.raises(ConfigError) as caught:
    load_tokenizer(path)
  said = str(caught.value)
  assert said.startswith(('the tokenizer file ', repr(str(path)))) and re.search(why, said)
  assert said.isprintable() and len(said) < 500 + len(str(path))


def rule(kind, **fields):
  return {'type': kind} | fields


DOUBLE = rule('Replace', pattern={'String': 'a'}, content='aaaaaaaa')


@pytest.mark.parametrize(
  ('parts', 'why'),
  [
    ({'normalizer': rule('Sequence', normalizers=[DOUBLE] * 3)}, 'tokens of 5 letters'),
    ({'normalizer': rule('Prepend', prepend='a' * 100_000)}, 'tokens of 5 letters'),
    (
      {'pre_tokenizer': rule('Split', pattern={'Regex': '('}, behavior='Isolated', invert=False)},
      'get it again',
    ),
    ({'model': {'type': 'WordLevel', 'vocab': {'a': 2**32 - 1}, 'unk_token': 'a'}}, 'none'),
    ({'post_processor': None}, 'ends a text with no token'),
  ],
)
def test_rules_that_hurt_end_with_a_sentence(parts, why, tmp_path, vectors):
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps(oracle.unigram_json(oracle.give_pieces(vectors)) | parts))
  refused(path, why)


def test_a_file_that_ends_the_library_or_takes_for_ever_ends_a_process_of_its_own(
  tmp_path, monkeypatch
):
  path = word_level(tmp_path / 'tokenizer.json')
  tokenizer_files._tried.cache_clear()  # of the same file in other tests
  monkeypatch.setattr(tokenizer_files, '_SECONDS', 0.0005)  # less than a process takes to begin
  refused(path, r'makes no tokens of \d+ texts in 0.001 s')
  tokenizer_files._tried.cache_clear()
  monkeypatch.setattr(tokenizer_files, '_SECONDS', 60)
  monkeypatch.setattr(tokenizer_files.sys, 'executable', '/bin/false')
  refused(path, 'ends the library that reads it .exit code 1')
  assert load_tokenizer(path, tried=True)('b').tolist() == [1, 7]


def test_t5_s_tokenizer_json_gives_sentencepiece_s_tokens(tmp_path, vectors):
  pieces = oracle.give_pieces(vectors)
  (tmp_path / 'spiece.model').write_bytes(pieces)
  (tmp_path / 'tokenizer.json').write_text(json.dumps(oracle.unigram_json(pieces)))
  tokenizer = load_tokenizer(tmp_path / 'tokenizer.json')
  other = load_tokenizer(tmp_path / 'spiece.model')
  for text in ['', 'a cat', 'the sign says "407"', '\ufb01ne \u00bd', 'a  b']:
    assert tokenizer(text).tolist() == other(text).tolist()
  assert (tokenizer.pad, tokenizer.end, tokenizer.size) == (0, 1, other.size)


class PanicException(BaseException):
  """As errors in Rust come: no `Exception`."""


@pytest.mark.parametrize('error', [PanicException('unk'), ValueError('unk'), KeyboardInterrupt()])
def test_an_error_of_a_library_at_a_text_is_a_sentence_and_others_pass(error):
  def encode(text):
    if text:
      raise error
    return [1]

  tokenizer = library.Tokenizer(tokenizer_files.TokenizerEncoding(encode, 0, 0, 1, 2))
  kind = type(error) if isinstance(error, KeyboardInterrupt) else ConfigError
  with pytest.raises(kind, match=r"makes no tokens of 'a cat': .*unk|^$"):
    tokenizer('a cat')


def test_a_file_that_ends_between_two_of_its_parts_is_refused(folder, tmp_path, vectors):
  from sentencepiece import sentencepiece_model_pb2

  whole = sentencepiece_model_pb2.ModelProto.FromString(oracle.give_pieces(vectors))
  for part in ('normalizer_spec', 'trainer_spec'):
    whole.ClearField(part)
    (tmp_path / 'spiece.model').write_bytes(whole.SerializeToString())
    with pytest.raises(ConfigError, match='ends before the rules by which it normalises texts; ge'):
      load_tokenizer(tmp_path)
  merges = (folder / 'clip/merges.txt').read_text().splitlines()
  (tmp_path / 'vocab.json').write_bytes((folder / 'clip/vocab.json').read_bytes())
  (tmp_path / 'merges.txt').write_text('\n'.join(merges[:-2]))
  with pytest.raises(ConfigError, match=r'with merges\.txt has 2 words .* that no merge makes'):
    load_tokenizer(tmp_path / 'vocab.json')


def test_a_vocabulary_without_the_end_token_is_refused(tmp_path, vectors):
  pieces = oracle.train_pieces(TEXTS, eos_id=-1)
  (tmp_path / 'spiece.model').write_bytes(pieces)
  with pytest.raises(ConfigError, match='has no token </s>, by which the T5 family'):
    load_tokenizer(tmp_path)
  with pytest.raises(ConfigError, match='ends a text with no token; expected a post_processor'):
    load_tokenizer(word_level(tmp_path / 'tokenizer.json', ends=False))
  vocabulary = oracle.vocabulary([])
  del vocabulary[oracle.END]
  (tmp_path / 'vocab.json').write_text(json.dumps(vocabulary))
  (tmp_path / 'merges.txt').write_text('#version: 0.2\n')
  with pytest.raises(ConfigError, match=r"lacks 1 of CLIP's 514 own tokens \(<\|endoftext\|>\)"):
    load_tokenizer(tmp_path / 'vocab.json')


def test_special_tokens_that_are_typed_are_text_to_sentencepiece_alone(loaded):
  assert loaded['clip']('a<|endoftext|>').tolist() == [*loaded['clip']('a'), loaded['clip'].end]
  assert loaded['t5']('a</s>').tolist().count(1) == 1
  assert loaded['byt5']('a</s>').tolist().count(1) == 1
