"""The ladder of sizes: depth and FFN width that go with a width (Movie Gen §3.6.2, Table 10)."""

import dataclasses
from typing import Annotated

from mgjax.core.settings import Checked, Positive, Range

# The report's 5B is 3072 wide and has 32 layers, its 30B 6144 and 48; 9B and 17B are between them.
_WIDTH, _DEPTH = 3072, 32
_DEEPER = 0.585  # log2(48 / 32): depth goes with this power of the width
_FFN = 8 / 3  # of the width, as Llama's


@dataclasses.dataclass(frozen=True)
class Rung(Checked):
  """Sizes of a backbone as fields of `config.model`; `mlp_dim` is f of SwiGLU's three matrices."""

  dim: Positive
  depth: Positive
  heads: Positive
  mlp_dim: Positive

  @property
  def name(self) -> str:
    """Names it in tables and folders, as 'd3072_l32'."""
    return f'd{self.dim}_l{self.depth}'


def rung(heads: Positive, head_dim: Annotated[int, Range(least=2)] = 128) -> Rung:
  """Returns the rung with a number of heads, which are 128 wide in all of the paper's models.

    d = heads head_dim,  L = 32 (d / 3072)^0.585,  f = 8/3 d

  L is rounded, and f to a multiple of 256. Below a width of 1024 it is one of 8. The paper's models
  of 5B and 30B are the rungs of 24 and 48 heads.
  """
  dim = heads * head_dim
  multiple = 256 if dim >= 1024 else 8
  depth = max(1, round(_DEPTH * (dim / _WIDTH) ** _DEEPER))
  return Rung(dim, depth, heads, max(1, round(_FFN * dim / multiple)) * multiple)
