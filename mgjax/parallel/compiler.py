"""Compiler options by chip, for every training program."""

from typing import Any

# Without it a device waits for every exchange of heads; with it the compiler starts one and goes on
# with what does not need it. Flags of other recipes are not taken over: on most chips they are
# refused, and each is to be compiled for every chip first (`tests/planning/test_aot.py`).
TPU = {'xla_tpu_enable_async_all_to_all': 'true'}
REFUSED_BY = ('TPU v5 lite',)  # 'not supported on limited ICI'


def compiler_options(device: Any) -> dict[str, str]:
  """Returns the options for a `jax.Device`, by its kind."""
  able = device.platform == 'tpu' and device.device_kind not in REFUSED_BY
  return dict(TPU) if able else {}
