"""Writes videos of somebody, and what of their pictures the model was shown."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.provenance import release
from mgjax.personalization.pipeline import PersonalizationPipeline
from mgjax.video.files import check_out, write_samples


def write_personalized(
  pipeline: PersonalizationPipeline,
  prompts: Sequence[str],
  references: Any,
  out: str | os.PathLike[str],
  *,
  shape: tuple[int, int, int] | None = None,
  **options: Any,
) -> list[pathlib.Path]:
  """Generates a video a prompt and writes them as `mgjax.video.files.write_samples` does.

  Beside them, `..._reference.png` has the crops that the model was shown, and is not signed, since
  no model made it. The json has digests of these crops, neither pixels nor names of files.

  Args:
    pipeline: the model.
    prompts: what to show.
    references: of one person, as `ReferenceReader.read` takes them, or what it returned.
    out: a file or a directory.
    shape: frames, height, width; by default as in training.
    **options: of `write_samples`.

  Returns:
    What was written, the crops first.

  Raises:
    ConfigError: as `ReferenceReader.read` and `write_samples`.
    DataError: a picture cannot be read.
  """
  release.admit(prompts)
  shape, out = shape or pipeline.default_shape, pathlib.Path(out)
  alone = check_out(out, len(prompts), shape[0])
  pipeline.check(shape)
  crops = pipeline.reader.read(references)
  shown = out.with_name(f'{out.stem}_reference.png') if alone else out / 'reference.png'
  there = [crop[None] for crop in crops if crop.any()]
  contact_sheet(shown, there, [f'reference {index + 1}' for index in range(len(there))])
  written = write_samples(pipeline, prompts, out, shape=shape, reference=crops, **options)
  return [shown, *written]
