"""A trained flow model with its autoencoder and text encoders: the base of all pipelines."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

import mgjax
from mgjax.checkpoints.workdir import load_params, places_of, read_config_of, read_shapes
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.flow_models.build import make_flow_model, make_sampler_of, small_inputs
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import Place, make_place
from mgjax.text.embeddings import Embedder, TextSettings


class FlowPipeline:
  """A flow model from a work directory of `launch.train`.

  Attributes:
    config: of the run.
    weights: the work directory and the step of the weights.
    settings: solver, schedule, steps and guidance in use, all that a sample depends on beside the
      weights, its conditions, seed, index and size.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    component: str,
    noun: str,
    load: Callable[[str | os.PathLike[str]], Any],
    mesh: Mapping[str, int] | None,
    changes: Mapping[str, Any],
  ):
    """Reads the averaged weights and the autoencoder.

    Args:
      workdir: of a run of `component`.
      component: 'video' or 'audio'.
      noun: for messages, as in 'a video model'.
      load: reads the autoencoder from its work directory.
      mesh: sizes of the mesh axes over which the weights are spread; None for one device.
      changes: of `config.sample`; None keeps the run's, a number for guidance is the scale of
        every condition that the run guides.

    Raises:
      ConfigError: the directory does not hold a model of this component.
      CheckpointError: it has no checkpoint that can be trusted.
    """
    self.config = read_config_of(workdir, component, noun)
    settings = unpack(SampleSettings, fields_of(self.config, 'sample'), 'sample')
    self._settings = settings.changed(changes)
    self._model = make_flow_model(fields_of(self.config, 'model'))
    self._mesh = None if mesh is None else make_mesh(mesh)
    self._params, meta = load_params(workdir, place=self._place(workdir))
    self.weights = {'workdir': os.fspath(workdir), 'step': meta['step']}
    text, learnt = TextSettings.of(self.config.to_dict()), meta['notes'].get('encoders', {})
    self._embed = Embedder(text, workdir, learnt)
    self._codec = _find_codec(workdir, self.config.autoencoder, meta['notes'], load)
    self.settings = dataclasses.asdict(self._settings)
    self._objective = unpack(ObjectiveSettings, fields_of(self.config, 'objective'), 'objective')
    self._generate = make_sampler_of(self._settings, self._objective, self._model)

  @property
  def provenance(self) -> dict[str, Any]:
    """What made a sample, as plain JSON values: weights, settings and the version of mgjax."""
    return {'weights': self.weights, 'settings': self.settings, 'version': mgjax.__version__}

  def _check_conditions(self, conditions: Mapping[str, Any]) -> None:
    """Raises ConfigError if a condition is given that the model does not read."""
    given = sorted(name for name, value in conditions.items() if value is not None)
    if given:
      reads = ', '.join(each.name for each in self._model.conditionings)
      raise ConfigError(
        f'{", ".join(given)}: the model at {self.weights["workdir"]!r} takes no such condition; '
        f'its conditionings are {reads}'
      )

  def _devices(self) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

  def _place(self, workdir: str | os.PathLike[str]) -> Place | None:
    if self._mesh is None:
      return None
    channels = read_shapes(workdir)['backbone/patch_in/kernel'][0]
    inputs = small_inputs(self._model, channels // math.prod(self._model.backbone.patch))
    boxed = jax.eval_shape(self._model.init, jax.random.key(0), *inputs)['params']
    return make_place(boxed, self._mesh)


def _find_codec(
  workdir: str | os.PathLike[str],
  autoencoder: str,
  notes: Mapping[str, Any],
  load: Callable[[str | os.PathLike[str]], Any],
) -> Any:
  """Loads the autoencoder whose latents the model learnt, also from beside a moved model."""
  given, sibling = places_of(workdir, autoencoder)
  places = [path for path in (given, sibling) if path.exists()]
  for place in places:
    codec = load(place)
    if notes.get('latents', codec.statistics.as_dict()) == codec.statistics.as_dict():
      return codec
  if places:
    raise ConfigError(
      f'the autoencoder at {os.fspath(places[0])!r} is not the one that {os.fspath(workdir)!r} '
      'learnt the latents of (was it trained on?); put that one back'
    )
  raise ConfigError(
    f'the autoencoder of {os.fspath(workdir)!r} is neither at {autoencoder!r} nor at '
    f'{os.fspath(sibling)!r}; put it at one of them'
  )
