"""A trained flow model with its autoencoder and text encoders: the base of all pipelines."""

import contextlib
import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

import jax

from mgjax.core.configuration.keys import JSON, differences
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, checked, fields_of, unpack
from mgjax.core.typing import Array, Batch, Sample, Tree
from mgjax.core.version import __version__
from mgjax.flow.schedules import make_time_grid
from mgjax.models.conditioning.numbers.number import Number
from mgjax.models.flow_model.build import make_flow_model, make_sampler_of, published_names
from mgjax.models.flow_model.conditions import (
  ConditionShapes,
  check_condition,
  derived_fields,
  field_names,
  is_file,
  prepare_samples,
  small_inputs,
  spread_conditions,
)
from mgjax.models.flow_model.prompts import describe_prompt, tell_prompts
from mgjax.models.flow_model.sampling import NEGATIVE, Experts, Stepwise, Watch
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.models.text.prompts import EMBEDDINGS, prompt_of, with_frame_rate
from mgjax.models.text.vocabulary import Vocabulary, unseen, words_in
from mgjax.nn.lora import attach, joined, shift
from mgjax.nn.quantize import store, widened
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import Place, make_place
from mgjax.sections.flow.calls import prompt_list
from mgjax.sections.flow.diffusers_names import DIFFUSERS_NAMES, instead_of, unknown_option
from mgjax.sections.flow.files import find_codec
from mgjax.sections.flow.lora_files import read_adapters, words_of_adapters
from mgjax.sections.text.embeddings import Embedder, TextSettings
from mgjax.training.checkpoints.find_run import find_beside
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config_of, read_notes

_RATE = Annotated[float, Range(least=0.01, most=1000)]  # frames a second that files may have
_VARIANTS = 8  # of other steps and guidance that are kept, with their programs
_MOST_REPORTED = 10_000


class FlowPipeline:
  """A flow model from a work directory of `launch.train`.

  Attributes:
    config: of the run.
    weights: the work directory and the step of the weights.
    words: that the captions of training had, of the model and of adapters; none if they were
      many, or are not known.
    settings: solver, schedule, steps and guidance in use, all that a sample depends on beside the
      weights, its conditions, seed, index and size.
  """

  component: str  # of the runs that it reads, as 'video'
  noun: str  # for messages, as in 'a video model'
  read_codec: Callable[[str | os.PathLike[str]], Any]  # an autoencoder, from its work directory

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    mesh: Mapping[str, int] | str | None = None,
    **changes: object,
  ):
    """Reads the averaged weights and the autoencoder.

    Args:
      workdir: of a run of `component`.
      mesh: sizes of the mesh axes, also as text, 'context=8': all devices then hold the weights in
        pieces and share the tokens ('context') or the videos ('data') of a batch; None for one
        device.
      **changes: of `config.sample`: solver, schedule, steps, guidance, weights; None keeps what
        the run has.

    Raises:
      ConfigError: the directory does not hold a model of this component.
      CheckpointError: it has no checkpoint that can be trusted.
    """
    self.config = read_config_of(workdir, self.component, self.noun)
    settings = unpack(SampleSettings, fields_of(self.config, 'sample'), 'sample')
    for name in changes:
      if name not in settings.__dataclass_fields__:
        raise unknown_option(name, ['mesh', *settings.__dataclass_fields__], self.noun)
    settings = settings.placed(functools.partial(find_beside, workdir)).changed(changes)
    for name, kind, none in (('shifts', 'video', 0), ('strength', 'editing', 1)):
      if (value := getattr(settings, name)) != none and self.component != kind:
        raise ConfigError(f'sample.{name} = {value} of {self.noun}; runs of {kind!r} have it')
    fields_of(self.config, 'model')  # or there is nothing to make
    if self.config.data.fps:  # 0 where buckets have their own, or there are no pictures
      checked(_RATE, self.config.data.fps, 'data.fps')
    if jax.default_backend() == 'cpu':  # which emulates bfloat16, five times slower
      with self.config.ignore_type():
        self.config.model.dtype = 'float32'
    self._model = make_flow_model(fields_of(self.config, 'model'))
    self._objective = unpack(ObjectiveSettings, fields_of(self.config, 'objective'), 'objective')
    self._use(settings)
    self._stepwise: dict[Hashable, Stepwise] = {}  # shared by all that `changed` returns
    self._variants: dict[str, Self] = {}
    self._reported: set[str] = set()  # prompts that `tell` has reported
    self._mesh = None if mesh is None else make_mesh(mesh)
    params, meta = load_params(workdir, sharding_of=self._shardings_of(workdir))
    self._params = self._adapted(params, workdir, self._settings.loras)
    if self._settings.expert:
      self._params = self._with_expert(meta['notes'])
    words = Vocabulary()
    words.add(words_in(meta['notes']))
    for path, _ in (*self._settings.loras, *self._settings.expert_loras):
      words.add(words_of_adapters(path))
    self.weights = {'workdir': os.fspath(workdir), 'step': meta['step']}
    self.words = words_in(words.notes())
    text = TextSettings.of(self.config.to_dict())
    self._learnt = meta['notes'].get('encoders', {})
    self._embed = Embedder(text, workdir, self._learnt)
    self._codec = find_codec(workdir, self.config.autoencoder, meta['notes'], self.read_codec)

  def changed(self, **changes: object) -> Self:
    """Returns a pipeline of the same weights in memory with changes of `config.sample`.

    Those are solver, schedule, steps and guidance. Raises ConfigError if the model cannot.
    """
    other = copy.copy(self)
    other._use(self._settings.changed(changes))
    return other

  def variant(self, **changes: object) -> Self:
    """Returns what `changed` does, and for the same changes the same, with its programs."""
    settings = self._settings.changed(changes)
    if settings == self._settings:
      return self
    key = repr(settings)
    if key not in self._variants:
      while len(self._variants) >= _VARIANTS:
        del self._variants[next(iter(self._variants))]
      self._variants[key] = self.changed(**changes)
    return self._variants[key]

  def __call__(self, *args: object, **options: object) -> Any:
    """Returns what `generate` does."""
    return self.generate(*args, **options)

  def generate(self, *args: object, **options: object) -> Any:
    """Makes what a section's pipeline makes."""
    raise NotImplementedError

  def _make_request(self, kind: Any, prompts: Any, out: Any, **options: Any) -> Any:
    """Makes a request of the options of `save`. Raises ConfigError for others."""
    known = {*kind.__dataclass_fields__, *self.reads}
    for name, value in options.items():
      if name not in known:
        raise unknown_option(name, sorted(known), f'save of {self.noun}')
      path = isinstance(value, str | os.PathLike | None)
      if name == 'video' and not path and 'negative' not in known:
        raise ConfigError('video is an array; save reads a file, and mgjax.save writes an array')
    return kind.of(prompts, out, **options)

  def __repr__(self) -> str:
    data = self.config.data.get('kind', 'clips')
    return (
      f'<{type(self).__name__}: {self.noun} from {self.weights["workdir"]!r}, step '
      f'{self.weights["step"]}, trained on {data!r}; {self._shape_said()}, '
      f'{self._settings.steps} steps of {self._settings.solver}>'
    )

  def _shape_said(self) -> str:
    """What a sample is, for people."""
    raise NotImplementedError

  def __getattr__(self, name: str) -> Any:
    hint = instead_of(name)
    message = f'{type(self).__name__!r} object has no attribute {name!r}' + (hint and f'; {hint}')
    raise AttributeError(message, name=name, obj=self)

  def __setattr__(self, name: str, value: Any) -> None:
    advice = f'give {name} to a call, or to mgjax.load' * (name in DIFFUSERS_NAMES)
    if hint := instead_of(name) or advice:  # nothing would read such an attribute
      raise AttributeError(f'{name} cannot be set; {hint}', name=name, obj=self)
    super().__setattr__(name, value)

  def _use(self, settings: SampleSettings) -> None:
    """Samples by these settings from now on."""
    self._settings = settings
    self.settings = dataclasses.asdict(settings)
    self._compiled: set[str] = set()  # samplers, as messages name them
    self._times = make_time_grid(steps=settings.steps, **settings.schedule)
    self._make = functools.partial(make_sampler_of, settings, self._objective, self._model)
    self._from = functools.cache(lambda *times: self._make(times=times or None))
    self._generate = self._from()

  def _adapted(
    self, params: Tree, workdir: str | os.PathLike[str], loras: Sequence[tuple[str, float]]
  ) -> Tree:
    """Returns the parameters of a run as they are sampled: in the stored type, with adapters."""
    names = published_names(fields_of(self.config, 'model'))
    try:
      several = [(read_adapters(path, params, names), weight) for path, weight in loras]
    except ConfigError as error:
      raise ConfigError(f'lora for {os.fspath(workdir)!r}: {error}') from error
    adapters = joined(several)
    stored = store(shift(adapters, params), self._settings.weights)
    return attach(adapters, widened(stored) if jax.default_backend() == 'cpu' else stored)

  def _sample(self, batch: Batch, noise: Array, watch: Watch | None, *times: float) -> Array:
    """Samples latents in one program, or step by step with a callback; by default from noise on."""
    if watch is None:
      return self._from(*times)(self._params, batch, noise)

    def make(model, *, times, guidance, widen, **options) -> Callable[[], Array]:
      del widen
      stepwise = Stepwise(model, guidance=guidance, **options)
      steps = self._stepwise.setdefault(stepwise.key, stepwise)
      return lambda: steps(self._params, batch, noise, times, guidance, watch)

    return self._make(make=make, times=times or None)()

  @property
  def size(self) -> int:
    """Bytes of the weights, without the autoencoder's."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(self._params))

  @property
  def mesh(self) -> dict[str, int] | None:
    """The sizes of the axes of the mesh that it samples on; None for one device."""
    return None if self._mesh is None else dict(self._mesh.shape)

  @property
  def provenance(self) -> JSON:
    """What made a sample, as plain JSON values: weights, settings and the version of mgjax."""
    return {'weights': self.weights, 'settings': self.settings, 'version': __version__}

  @property
  def reads(self) -> tuple[str, ...]:
    """The conditions that `generate` takes beside prompts, by name, without internal numbers."""
    conditionings = [
      conditioning
      for conditioning in self._model.conditionings
      if not (isinstance(conditioning, Number) and conditioning.internal)
    ]
    return field_names(conditionings)

  def tell(self, prompts: Sequence[str], rates: Sequence[float] | None = None) -> list[list[str]]:
    """Warns of words that training never showed and of prompts that are cut, at most three of each.

    A prompt is warned of once, also by `generate` and `stream`.

    Args:
      prompts: to be sampled.
      rates: frames a second of their videos; None of what has none.

    Returns:
      The words of each prompt that training never showed.
    """
    samples: list[dict[str, Any]] = [
      {'caption': with_frame_rate(prompt, None)} for prompt in prompt_list(prompts)
    ]
    if rates is not None:
      samples = [s | {'fps': rate} for s, rate in zip(samples, rates, strict=True)]
    first = not self._reported
    new = [sample for sample in samples if sample['caption'] not in self._reported]
    if len(self._reported) > _MOST_REPORTED:
      self._reported.clear()
    self._reported.update(sample['caption'] for sample in new)
    if new:
      tell_prompts(new, self.words, self._model.conditionings, self.weights['workdir'], first)
    words = set(self.words)
    return [unseen(sample['caption'], words) for sample in samples]

  def describe_prompt(self, prompt: str, rate: float | None, words: bool = True) -> list[str]:
    """Says which words of a prompt training never showed, if asked for, and what of it is cut."""
    sample = {'caption': with_frame_rate(prompt, None)} | ({'fps': rate} if rate else {})
    return describe_prompt(sample, self.words if words else (), self._model.conditionings)

  def without_weights(self) -> Self:
    """Returns a pipeline that holds no arrays and makes nothing, but knows what this one can do."""
    other = copy.copy(self)
    other._params = other._codec = other._embed = None
    other._variants = {}
    return other

  @property
  def takes_negative(self) -> bool:
    """Whether there is guidance, by passes of its own, that leads away from a negative prompt."""
    return any(scale != 1 for _, scale in self._objective.in_passes(self._settings).guidance)

  def conditions_of(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the conditions of samples beside text, in the form that `generate` takes.

    With it a model is sampled, or judged, under the conditions of data:
    `generate([sample['caption'] for sample in samples], **conditions_of(samples))`.

    `samples` are of a source, as in training; what one of them lacks is None.
    """
    conditionings = self._model.conditionings
    conditions = {}
    derived = [derived_fields(conditionings, sample) for sample in samples]
    for name in self.reads:
      pairs = zip(samples, derived, strict=True)
      conditions[name] = [sample.get(name, extra.get(name)) for sample, extra in pairs]
    for conditioning in conditionings:
      clips = [conditioning.clips(sample) for sample in samples]
      conditions |= {name: [clip.get(name) for clip in clips] for name in conditioning.encodes()}
    return conditions

  def _samples(
    self,
    prompts: Sequence[str],
    conditions: Mapping[str, object],
    fields: ConditionShapes,
    rates: Sequence[float] | None = None,
    negative: str = '',
  ) -> list[dict[str, Any]]:
    """Returns one sample a prompt, with its embeddings and its conditions, not read yet.

    Raises:
      ConfigError: a condition that the model does not read, or not one for every prompt; none that
        the model needs; or a negative prompt without guidance.
      DataError: a file is not there.
    """
    self.tell(prompts, rates)
    samples: list[Sample] = [{'caption': prompt} for prompt in prompts]
    if rates is not None:
      samples = [s | {'fps': rate} for s, rate in zip(samples, rates, strict=True)]
    embeddings = self._embed([prompt_of(sample) for sample in samples])
    if negative:
      if not self.takes_negative:
        raise ConfigError(
          f'negative = {negative!r:.60}, and no guidance that could lead away from it; give '
          'guidance above 1, to a model that did not learn it in one pass'
        )
      away = [sample | {'caption': negative} for sample in samples]
      negative_embeddings = self._embed([prompt_of(sample) for sample in away])
      away = [
        sample | {EMBEDDINGS: states}
        for sample, states in zip(away, negative_embeddings, strict=True)
      ]
      samples = [
        s | {NEGATIVE: negative_sample} for s, negative_sample in zip(samples, away, strict=True)
      ]
    sample_conditions = spread_conditions(conditions, fields, len(samples))
    for conditioning in self._model.conditionings:
      needs = set(conditioning.needs)
      if needs and any(needs.isdisjoint(given) for given in sample_conditions):
        raise ConfigError(
          f'the model animates pictures and a prompt has none; give one of '
          f'{", ".join(conditioning.needs)}, as in {conditioning.needs[0]}=picture.png'
        )
    return [
      sample | {EMBEDDINGS: states} | extra
      for sample, states, extra in zip(samples, embeddings, sample_conditions, strict=True)
    ]

  def _read_conditions(
    self, samples: Sequence[Mapping[str, Any]], fields: ConditionShapes
  ) -> list[JSON]:
    """Reads the conditions of samples of `_samples`."""

    def read(sample: Mapping[str, Any]) -> JSON:
      rate = sample.get('fps', 0)
      values = {name: sample[name] for name in fields if name in sample}
      return {n: _read_condition(value, fields[n], n, rate) for n, value in values.items()}

    return [{**sample, **read(sample)} for sample in samples]

  def _batch(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Turns samples of `_read_conditions` into the arrays that the model reads; encodes clips."""
    with self._devices():
      batch = prepare_samples(self._model, samples, self._encode)
      if any(NEGATIVE not in sample for sample in samples):
        return batch
      away = prepare_samples(self._model, [sample[NEGATIVE] for sample in samples])
      return batch | {NEGATIVE + name: array for name, array in away.items()}

  def _encode(self, clips: Array) -> Array:
    """Makes latents (b t h w c) of clips, for conditionings."""
    return self._codec.encode(clips)

  def _with_expert(self, notes: Mapping[str, object]) -> Experts:
    """Reads the expert of late times, which must be a model as this one of the same latents."""
    workdir, since = self._settings.expert_since
    other = read_config_of(workdir, self.component, self.noun)
    late, meta = load_params(workdir, sharding_of=self._shardings_of(workdir))
    wrong = differences(fields_of(other, 'model'), fields_of(self.config, 'model'))
    for name in ('latents', 'encoders'):
      wrong += differences({name: meta['notes'].get(name)}, {name: notes.get(name)})
    if wrong:
      raise ConfigError(f'the expert {workdir!r} is another model: {"; ".join(wrong)}')
    late = self._adapted(late, workdir, self._settings.expert_loras)
    return Experts(self._params, late, since)

  def _devices(self) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

  def _on_devices(self, parts: Iterator[Any]) -> Iterator[Any]:
    """Yields parts computed on the devices of the mesh."""
    while True:
      with self._devices():
        part = next(parts, None)
      if part is None:
        return
      yield part

  def _shardings_of(self, workdir: str | os.PathLike[str]) -> Place | None:
    if self._mesh is None:
      return None
    inputs = small_inputs(self._model, len(read_notes(workdir)['latents']['mean']))
    boxed = jax.eval_shape(self._model.init, jax.random.key(0), *inputs)['params']
    return make_place(boxed, self._mesh)


def _read_condition(value: Any, shape: tuple[int, ...], name: str, fps: float) -> Any:
  """Reads a condition of one sample, a video at `fps` and a picture at 0."""
  if not is_file(value, shape):
    return check_condition(value, shape, name)
  from mgjax.data.media.video import read_clip  # and with it FFmpeg, for files alone

  frames, height, width, _ = shape
  return read_clip(value, frames=frames, size=(height, width), fps=fps or 1.0)
