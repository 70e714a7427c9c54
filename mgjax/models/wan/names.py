"""Names of the tensors of Wan's transformer, by diffusers and by the original code.

One table reads both layouts: a row has both names of a tensor, and of these the one that is there
counts. The numbers of the second and third norm of a layer are exchanged between the two layouts.
"""

from collections.abc import Iterator

from mgjax.models.foreign_weights.names import LAYER, TRANSPOSED, TensorName

EXPECTED = "those of Wan's transformer, by the names of diffusers or of the original"
PATCH = (1, 2, 2)
_BLOCK = f'blocks.{LAYER}'
_EMBEDDER = 'condition_embedder'
_PICTURE = f'{_EMBEDDER}.image_embedder'

# Maps and norms with a bias: ours, diffusers', the original's.
_LINEAR = (
  ('text_in', f'{_EMBEDDER}.text_embedder.linear_1', 'text_embedding.0'),
  ('text_out', f'{_EMBEDDER}.text_embedder.linear_2', 'text_embedding.2'),
  ('time_in', f'{_EMBEDDER}.time_embedder.linear_1', 'time_embedding.0'),
  ('time_out', f'{_EMBEDDER}.time_embedder.linear_2', 'time_embedding.2'),
  ('time_shared', f'{_EMBEDDER}.time_proj', 'time_projection.1'),
  ('image_in', f'{_PICTURE}.ff.net.0.proj', 'img_emb.proj.1'),
  ('image_out', f'{_PICTURE}.ff.net.2', 'img_emb.proj.3'),
  ('patch_out', 'proj_out', 'head.head'),
  ('layers/feed_forward/up', f'{_BLOCK}.ffn.net.0.proj', f'{_BLOCK}.ffn.0'),
  ('layers/feed_forward/down', f'{_BLOCK}.ffn.net.2', f'{_BLOCK}.ffn.2'),
)
_NORMS = (
  ('image_norm_in', f'{_PICTURE}.norm1', 'img_emb.proj.0'),
  ('image_norm_out', f'{_PICTURE}.norm2', 'img_emb.proj.4'),
  ('layers/cross_norm', f'{_BLOCK}.norm2', f'{_BLOCK}.norm3'),
)
_ATTENTIONS = (('self_attention', 'attn1', 'self_attn'), ('cross_attention', 'attn2', 'cross_attn'))
_ATTENTION_MAPS = (
  ('query', 'to_q', 'q'),
  ('key', 'to_k', 'k'),
  ('value', 'to_v', 'v'),
  ('out', 'to_out.0', 'o'),
  ('image_key', 'add_k_proj', 'k_img'),
  ('image_value', 'add_v_proj', 'v_img'),
)
_ATTENTION_NORMS = (
  ('query_norm', 'norm_q', 'norm_q'),
  ('key_norm', 'norm_k', 'norm_k'),
  ('image_key_norm', 'norm_added_k', 'norm_k_img'),
)


def _rows() -> Iterator[TensorName]:
  patch = ('patch_embedding.weight',)
  yield TensorName('patch_in/kernel', patch, (2, 3, 4, 1, 0), fold=PATCH)
  yield TensorName('patch_in/bias', 'patch_embedding.bias')
  maps, norms = [*_LINEAR], [*_NORMS]
  scales = []
  for part, diffusers, original in _ATTENTIONS:
    at = f'layers/{part}', f'{_BLOCK}.{diffusers}', f'{_BLOCK}.{original}'
    maps += [(f'{at[0]}/{a}', f'{at[1]}.{b}', f'{at[2]}.{c}') for a, b, c in _ATTENTION_MAPS]
    scales += [(f'{at[0]}/{a}', f'{at[1]}.{b}', f'{at[2]}.{c}') for a, b, c in _ATTENTION_NORMS]
  for ours, *theirs in maps:
    yield TensorName(f'{ours}/kernel', tuple(f'{name}.weight' for name in theirs), TRANSPOSED)
    yield TensorName(f'{ours}/bias', tuple(f'{name}.bias' for name in theirs))
  for ours, *theirs in (*norms, *scales):
    yield TensorName(f'{ours}/scale', tuple(f'{name}.weight' for name in theirs))
  for ours, *theirs in norms:
    yield TensorName(f'{ours}/bias', tuple(f'{name}.bias' for name in theirs))
  # Tables have a first axis of size 1.
  yield TensorName('modulation', ('scale_shift_table', 'head.modulation'), fold=(1,))
  tables = f'{_BLOCK}.scale_shift_table', f'{_BLOCK}.modulation'
  yield TensorName('layers/modulation', tables, fold=(1,))
  yield TensorName('image_positions', (f'{_PICTURE}.pos_embed', 'img_emb.emb_pos'), fold=(1,))
  yield TensorName(None, '*.norm_added_q.*')  # in some published files; nothing reads it


ROWS = tuple(_rows())


def rows_in(subtree: str) -> tuple[TensorName, ...]:
  """Returns the rows of a model that has the transformer as a subtree, as 'backbone'."""
  return tuple(row._replace(ours=row.ours and f'{subtree}/{row.ours}') for row in ROWS)
