"""SourceVideo: the video that is edited, in latents (Movie Gen §5)."""

from typing import ClassVar

from mgjax.models.conditioning.clips.clip_tokens import ClipTokens

SOURCE_VIDEO_KEY = 'source_video'


class SourceVideo(ClipTokens):
  """Reads 'source_video'; a black one says that there is nothing to edit, as in text to video.

  Attributes as `ClipTokens`.
  """

  key: ClassVar[str] = SOURCE_VIDEO_KEY
