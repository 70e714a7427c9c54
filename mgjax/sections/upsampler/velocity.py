"""The velocity of windows whose frames are covered by tiles of space (Movie Gen §3.1.5)."""

from collections.abc import Callable, Sequence

import flax.linen as nn

from mgjax.core.typing import Array, Batch, Tree
from mgjax.flow.guidance import Guidance, make_guided
from mgjax.flow.multidiffusion import multi_diffusion
from mgjax.flow.prediction import Prediction
from mgjax.flow.windows import Cover, windows
from mgjax.models.conditioning.clips.low_resolution import LOW_RESOLUTION_KEY
from mgjax.models.flow_model.sampling import make_predict
from mgjax.parallel.rules import place_rows


def make_tiled_velocity(
  model: nn.Module,
  covers: Sequence[Cover],
  *,
  prediction: Prediction,
  guidance: Guidance,
  rows: int,
) -> Callable[[Tree, Batch, Array, Array], Array]:
  """Makes `velocity(params, batch, x, time)` of windows (b t h w c), a function to compile.

  Args:
    model: a `FlowModel`.
    guidance: pairs of a conditioning's name and scale.
    rows: tiles in a call of the model.
  """

  def velocity(params: Tree, batch: Batch, x: Array, time: Array) -> Array:
    predict = prediction.as_velocity(make_predict(model, params))
    tiled = multi_diffusion(
      lambda batch: make_guided(predict, batch, guidance),
      (windows(x.shape[1], x.shape[1]), *covers),
      along={LOW_RESOLUTION_KEY: 3},
      rows=rows,
    )
    return tiled({name: place_rows(value) for name, value in batch.items()})(place_rows(x), time)

  return velocity
