"""The family of text-to-video models: widths and depths (Movie Gen §3.1.3, Table 1; §3.6.2)."""

from typing import Any

from mgjax.core.errors import ConfigError

from ..text.encoders import VIDEO, conditioning, split

SIZES = {
  # Small enough to run anywhere; learns nothing worth looking at.
  'debug': {'dim': 64, 'depth': 2, 'heads': 4, 'mlp_dim': 128},
  # Not in public sources; the size that an open re-implementation calls 1B.
  '1b': {'dim': 1536, 'depth': 24, 'heads': 16, 'mlp_dim': 4096},
  # The model of the report's ablations.
  '5b': {'dim': 3072, 'depth': 32, 'heads': 24, 'mlp_dim': 8192},
  # The report names a 7B model but not its sizes. Chosen: the depth of 5B, heads of 128 as in all
  # the report's models, and FFN = 3 d, which makes 7.0B.
  '7b': {'dim': 3584, 'depth': 32, 'heads': 28, 'mlp_dim': 10752},
  '30b': {'dim': 6144, 'depth': 48, 'heads': 48, 'mlp_dim': 16384},
}

# The byte encoder that stands where the report has three frozen ones, as '30b,encoders' does: it
# needs no weights of others. Its size is chosen so that it is a small part of the model, its length
# so that captions of about 100 words fit.
TEXT = {
  'debug': {'width': 32, 'depth': 1, 'heads': 2, 'length': 64},
  '1b': {'width': 512, 'depth': 4, 'heads': 8, 'length': 768},
  '5b': {'width': 512, 'depth': 4, 'heads': 8, 'length': 768},
  '7b': {'width': 768, 'depth': 6, 'heads': 12, 'length': 768},
  '30b': {'width': 1024, 'depth': 6, 'heads': 16, 'length': 768},
}

# The block of the report's other arm (Table 9), which differs in norm, activation and biases alone.
# That its norms have no weights beside the modulation's, and their epsilon, are those of the
# published DiT: not in public sources.
DIT = {
  'feed_forward': 'silu',
  'norm': 'layer',
  'affine': False,
  'bias': True,
  'epsilon': 1e-6,
}

# What may stand behind a size: '30b,encoders' reads text by the report's frozen encoders;
# '30b,equal_cost' gives batches of shorter samples more rows (`stage.joint_buckets`); '5b,dit' has
# the block of a DiT, '5b,v_prediction' the objective of a diffusion model (`stage.stage`).
WORDS = ('encoders', 'equal_cost', 'dit', 'v_prediction')


def fields(size: str, positions: tuple[int, int, int]) -> dict[str, Any]:
  """Returns the fields of a model of a named size, with position tables of the stage's lengths.

  '30b,encoders' reads the paper's frozen encoders of text, '30b' bytes. '5b,dit' has two matrices
  where '5b' has three, and an FFN 3/2 as wide: as many parameters and operations, and the 4 d of
  the published DiT (its width is not in public sources).
  """
  size, words = split(size, *WORDS)
  if size not in SIZES:
    raise ConfigError(f'there is no size {size!r}; choose one of {", ".join(SIZES)}')
  text = conditioning(VIDEO) if 'encoders' in words else {'kind': 'byte_text', **TEXT[size]}
  dit = {**DIT, 'mlp_dim': 3 * SIZES[size]['mlp_dim'] // 2} if 'dit' in words else {}
  return {
    **SIZES[size],
    'positions': positions,
    'remat': 'nothing' if size in ('debug', '1b') else 'attention',
    'dtype': 'float32' if size == 'debug' else 'bfloat16',
    'conditionings': {'text': text},
    **dit,
  }
