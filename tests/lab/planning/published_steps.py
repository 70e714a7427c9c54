"""Training steps that others timed and published, beside what the planner says of the same work.

Language models are no component of mgjax; here they are workloads in numbers, so that the planner's
links and shares of the peak meet what was measured. Nothing of it changes a plan.
"""

import dataclasses
from collections.abc import Mapping

from mgjax.lab.planning.efficiency import Ends, words
from mgjax.lab.planning.plan import Choices, make_plan
from mgjax.lab.planning.workload import LAYERS, Parameter, Workload
from mgjax.models.flow_model.flops import Flops


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A causal transformer: width d, FFN width f, L layers, heads, those of keys, v words, n tokens.

  Operations of a row, forward: linear 2 n (L (2 d^2 + 2 d k + 3 d f) + d v) with k the width of
  keys, attention 2 L n^2 d, half of what it is without a mask.
  """

  dim: int
  mlp_dim: int
  depth: int
  heads: int
  key_heads: int
  words: int
  tokens: int

  def workload(self, rows: int) -> Workload:
    """Returns it as a workload of `rows` rows a step, in bfloat16."""
    d, f, keys = self.dim, self.mlp_dim, self.dim // self.heads * self.key_heads
    maps = (  # q, k and v together, out, gate, up, down
      ('embed', 'heads', d, d + 2 * keys),
      ('heads', 'embed', d, d),
      ('embed', 'hidden', d, f),
      ('embed', 'hidden', d, f),
      ('hidden', 'embed', f, d),
    )
    parameters = [
      Parameter(f'{LAYERS}{n}', ('layers', i, o), (self.depth, a, b))
      for n, (i, o, a, b) in enumerate(maps)
    ]
    table = ('vocabulary', 'embed'), (self.words, d)
    parameters += [Parameter(name, *table) for name in ('table', 'head')]
    one = sum(a * b for *_, a, b in maps)
    linear = 2 * self.tokens * (self.depth * one + d * self.words)
    attention = 2 * self.depth * self.tokens**2 * d
    return Workload(
      bucket='',
      shape=(1, 1, 1),
      latents=(1, 1, self.tokens, 1),
      tokens=self.tokens,
      context=0,
      dim=d,
      mlp_dim=f,
      feed_forward='swiglu',
      affine=True,
      depth=self.depth,
      heads=self.heads,
      itemsize=2,
      stream_itemsize=2,
      parameters=tuple(parameters),
      flops=Flops(linear, attention, 0),
      mesh={},
      remat='full',
      attention='auto',
      exchange='auto',
      batch=rows,
    )


@dataclasses.dataclass(frozen=True)
class PublishedStep:
  """A step that was timed in bfloat16: the seconds, and how we would plan it."""

  what: str
  source: str
  model: LanguageModel
  topology: str
  mesh: Mapping[str, int]
  rows: int
  remat: str
  seconds: float

  def planned(self) -> Ends[float]:
    """Returns the planner's seconds of the same step at both ends of the efficiencies."""
    choices = Choices(self.mesh, self.rows, self.remat)
    plan = make_plan(self.model.workload(self.rows), self.topology, choices)
    return plan.chosen.time.map(lambda each: each.step)


_8B = LanguageModel(4096, 14336, 32, 32, 8, 128_256, 8192)
_70B = LanguageModel(8192, 28672, 80, 64, 8, 32_000, 4096)
_405B = LanguageModel(16384, 53248, 126, 128, 8, 128_256, 8192)
_HERD = 'arXiv 2407.21783, its fourth table'
_TITAN = 'torchtitan, benchmarks/llama3_h100_202412_torchtitan.md'


def _llama_3(gpus: int, mesh: Mapping[str, int], teraflops: float) -> PublishedStep:
  """A step of 2,048 rows, whose seconds follow from the operations a second and our count of them.

  Theirs has pipelines of 16 stages, which mgjax has not: its weights lie on fsdp instead.
  """
  seconds = 2048 * _405B.workload(1).flops.training / (teraflops * 1e12 * gpus)
  where = f'h100:8x{gpus // 8}'
  return PublishedStep(
    'Llama 3 405B, with pipelines', _HERD, _405B, where, mesh, 2048, 'full', seconds
  )


STEPS = (
  # GPUs of 500 W with memory of 2.4 TB/s; tokens a second of each, 6,667 and 6,514.
  PublishedStep(
    'Llama 3.1 8B',
    _TITAN,
    _8B,
    'h100:8',
    {'fsdp': 8},
    16,
    'attention_and_projections',
    2 * 8192 / 6667,
  ),
  PublishedStep(
    'Llama 3.1 8B',
    _TITAN,
    _8B,
    'h100:8x16',
    {'fsdp': 128},
    256,
    'attention_and_projections',
    2 * 8192 / 6514,
  ),
  _llama_3(8192, {'data': 16, 'fsdp': 64, 'tensor': 8}, 430),
  _llama_3(16384, {'data': 32, 'fsdp': 64, 'tensor': 8}, 400),
  PublishedStep(
    'Llama 2 70B, MaxText',
    'AI-Hypercomputer/tpu-recipes, trillium/Llama2-70B-MaxText',
    _70B,
    'v6e:16x16',
    {'fsdp': 256},
    1024,
    'full',
    17.373,
  ),
)


def table() -> list[str]:
  """Returns a row of Markdown for each step: what, where, seconds published and seconds planned."""
  rows = []
  for step in STEPS:
    mesh = ', '.join(f'{axis} {size}' for axis, size in step.mesh.items())
    told = f'{step.seconds:.3g} | {words(step.planned())}'
    rows.append(f'| {step.what} | {step.topology} | {mesh} | {told} | {step.source} |')
  return rows
