"""LowResolution: the video that is enlarged, in latents (Movie Gen §3.1.5)."""

from typing import ClassVar

from mgjax.conditioning.clips.clip_tokens import ClipTokens

KEY = 'low_resolution'


class LowResolution(ClipTokens):
  """Reads 'low_resolution', the small video enlarged bilinearly; attributes as `ClipTokens`."""

  key: ClassVar[str] = KEY
