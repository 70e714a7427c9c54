"""Tokenizers of T5 and CLIP in their own files, damaged or made to hurt: see `tokenizers`."""

import gzip
import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from mgjax.text.tokenizers import load_tokenizer
from tests.hostile.family import Family
from tests.hostile.mutations import Rng, mutate_bytes, mutate_json, mutate_lines, pick
from tests.hostile.tokenizers import (
  change_vocabulary,
  damage_characters,
  read_tokens,
  vocabularies,
)
from tests.oracles import tokens as oracle


def _piece_seeds(folder: Path) -> list[Path]:
  (folder / 't5').mkdir()
  (folder / 't5/spiece.model').write_bytes(vocabularies()[0])
  load_tokenizer(folder / 't5')
  return [folder / 't5']


def _pair_seeds(folder: Path) -> list[Path]:
  merges = vocabularies()[1]
  found = [oracle.write_clip(folder / 'clip', merges)]
  (folder / 'openai').mkdir()
  oracle.write_merges(folder / 'openai/bpe_simple_vocab_16e6.txt.gz', merges)
  return [*found, folder / 'openai']


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
      rules.precompiled_charsmap = damage_characters(rules.precompiled_charsmap, rng)
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
      proto.denormalizer_spec.precompiled_charsmap = damage_characters(
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
    change_vocabulary(model, rng)
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


FAMILIES = (
  Family('spiece.model', _piece_seeds, _mutate_pieces, read_tokens),
  Family('vocab and merges', _pair_seeds, _mutate_pair, read_tokens),
)
