"""What configurations have in common: every setting at the default that its class declares."""

from typing import Any

from ml_collections import ConfigDict

from mgjax.core.settings import defaults
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.codec.discriminators import Discriminators
from mgjax.models.codec.model import Codec
from mgjax.models.codec.objective import LossWeights as SoundWeights
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.discriminator import Discriminator
from mgjax.models.tae.objective import LossWeights
from mgjax.nn.lora import Lora
from mgjax.training.settings import OptimizerSettings, RunSettings


def base(component: str) -> ConfigDict:
  """Returns the fields that every trained component has; a configuration adds the others."""
  config = ConfigDict(
    {
      'component': component,
      'seed': 0,
      # Devices along each axis of the mesh; -1 takes what is left.
      'mesh': {'slice': 1, 'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1},
      'rules': 'single',  # a preset of mgjax/parallel/rules.py
      # Rate, warm-up, betas, decay and clipping are not in public sources for video.
      'optimizer': defaults(OptimizerSettings, learning_rate=1e-4, warmup=100),
      'lora': defaults(Lora),
      'train': defaults(
        RunSettings,
        steps=1000,
        log_every=20,
        evaluate_every=500,
        save_every=500,
        validation_batches=4,
      ),
      'start_from': '',  # the work directory of a run whose weights it begins with
    }
  )
  del config.train.seed  # which stands above
  return config


def flow_model(component: str, backbone: type[Any] = Transformer, **model: Any) -> ConfigDict:
  """Returns the fields of a flow model; `model` are those of `config.model` that differ."""
  conditionings = model.pop('conditionings', {})
  config = base(component)
  config.model = defaults(backbone, **model)
  config.model.conditionings = ConfigDict(conditionings)
  if backbone is Transformer and 'depthwise' not in model:
    del config.model.depthwise  # not the report's; models that have it say so
  # What is dropped, and how often, is not in public sources.
  time = {'name': 'logit_normal', 'mean': 0.0, 'std': 1.0}
  config.objective = defaults(ObjectiveSettings, dropout={'text': 0.1}, time=time)
  config.encode = encoding()
  config.sample = sampling()
  return config


def encoder(component: str, model: type[Any], **fields: Any) -> ConfigDict:
  """Returns the fields of a frozen encoder of text or images; `fields` are those of its model."""
  config = ConfigDict()
  config.component = component
  config.seed = 0
  config.mesh = ConfigDict({'slice': 1, 'data': 1, 'fsdp': -1, 'context': 1, 'tensor': 1})
  config.rules = 'fsdp'
  config.keep_type = False  # True keeps weights in the type of the files, half the bytes or fewer
  config.train = ConfigDict({'keep': 1, 'checkpoints': ''})
  config.model = defaults(model, **fields)
  return config


def clips(path: str = 'data/clips', fps: int = 16, threads: int = 16) -> ConfigDict:
  """Returns data that are video files: a folder with captions, or a manifest."""
  return ConfigDict(
    {
      'kind': 'clips',
      'path': path,
      'validation_path': '',  # '' validates on the training clips
      'latents': '',  # of launch.data encode; without, every batch is encoded on the fly
      'fps': fps,  # of buckets that have none of their own
      # In a group of buckets (videos or images of one source) every sample comes equally often, so
      # their weights must be equal; 'given' goes by the buckets' weights alone.
      'share': 'samples',
      'skip_missing': False,  # True goes on without shards that are lost
      'in_memory': 0,  # so many windows of a bucket, each read once and kept; 0 takes all
      'intervals': (1,),  # between frames of training clips; one of them is drawn
      'threads': threads,
      'workers': 0,  # processes instead; threads are enough for decoding
    }
  )


def encoding(train: int = 1_000_000_000, validation: int = 4096) -> ConfigDict:
  """Returns what launch.data encode does, at most so many rows of each bucket."""
  return ConfigDict(
    {
      'train': train,
      'validation': validation,
      'dtype': 'bfloat16',  # of the latents on disk
      'pixels_per_device': 2
      ** 21,  # pixels, or samples of sound, on a device: 32 frames of 256 x 256
    }
  )


def sampling() -> ConfigDict:
  """Returns the paper's sampler: 50 Euler steps, linear-quadratic, guidance 7.5."""
  return defaults(
    SampleSettings,
    solver='euler',
    # Accounts of the report disagree on the steps it emulates; 250 is quoted as well.
    schedule={'name': 'linear_quadratic', 'emulated': 1000},
    steps=50,
    guidance=(('text', 7.5),),  # in the order in which it is nested
  )


def audio_model(**model: Any) -> ConfigDict:
  """Returns the fields of a model of sound (Movie Gen §6); `model` as of `flow_model`."""
  config = flow_model('audio', **model)
  # Each by itself, and with probability `drop_all_probability` all that are ever dropped.
  config.objective.dropout = ConfigDict({'text': 0.1, 'video': 0.1, 'context': 0.0})
  config.objective.drop_all_probability = 0.2
  config.masking = ConfigDict(
    {
      'full_mask_probability': 0.5,
      # The rest is masked in one piece: of which frames a mask is, is not in public sources.
      'min_masked_fraction': 0.75,
      'extension_probability': 0.5,  # not in public sources
    }
  )
  # The report's sampler: 64 midpoint steps, guidance 3 over text and video.
  config.sample.update(solver='midpoint', steps=64, guidance=(('text', 3.0), ('video', 3.0)))
  config.sample.schedule = ConfigDict({'name': 'linear'})
  # The encoder of frames: the work directory of a vision tower; '' takes their pixels.
  config.vision = ''
  return config


def preferences(config: ConfigDict, model: str) -> ConfigDict:
  """Makes adapters of a model learn which of two samples of it a judge, or people, prefer."""
  from mgjax.apps.pairs.preferences import Preferences  # which reads data: only where it is asked

  config.start_from = model
  config.model.conditionings.rejected = ConfigDict({'kind': 'rejected'})
  config.objective.dropout.rejected = 0.0
  config.objective.preference = ConfigDict({'beta': 500.0, 'supervised': 0.1})
  config.preferences = defaults(Preferences, model=model, strength=0.9, least=0.05)
  config.lora.update(rank=16, targets=('backbone/layers/*',))
  return config


def few_steps(config: ConfigDict, teacher: str, shift: float, steps: int = 32) -> ConfigDict:
  """Makes of a flow model's configuration one that learns a teacher's steps.

  See mgjax/flow/distillation/few_steps.py. The teacher, a work directory, is what it starts from
  too, and its guidance is learned with its steps: `steps` of a linear grid, of which `shift` puts
  most near the noise. Neither this objective nor its numbers are the paper's.
  """
  grid = {'name': 'linear', 'shift_factor': shift}
  guidance = config.sample.guidance
  config.start_from = teacher
  config.model.conditionings.step_size = ConfigDict({'kind': 'step_size'})
  config.objective.dropout.step_size = 0.0
  config.objective.few_steps = ConfigDict(
    {'teacher': teacher, 'guidance': guidance, 'schedule': grid, 'steps': steps}
  )
  config.sample.schedule = ConfigDict(grid)
  config.sample.update(solver='euler', steps=4)
  config.sample.guidance = tuple((name, 1.0) for name, _ in guidance)
  return config


def mean_flow(config: ConfigDict, guidance: float) -> ConfigDict:
  """Makes of a configuration a recipe of what learns steps of any length from data, guided.

  See mgjax/flow/distillation/mean_flow.py. The velocity is trained first, because steps cannot be
  trained from nothing (docs/experiments/mean_flow.md). Nothing of it is the paper's.
  """
  # Derivatives by time: waves of 1000 radians would be all that they have.
  config.model.time_unit = 50.0
  steps = config.copy_and_resolve_references()
  steps.start_from = 'velocity'
  steps.model.conditionings.step_size = ConfigDict({'kind': 'step_size', 'unit': 50.0})
  steps.objective.dropout.step_size = 0.0
  # A step begins at the earlier of two times and ends at the later: these are to be far apart.
  steps.objective.time.update(std=max(1.5, config.objective.time.get('std', 1.0)))
  steps.objective.mean_flow = ConfigDict({'guidance': guidance, 'every': 4, 'power': 1.0})
  steps.optimizer.learning_rate = config.optimizer.learning_rate / 2
  steps.sample.schedule = ConfigDict({'name': 'linear'})
  steps.sample.steps = 1
  steps.sample.guidance = tuple((name, 1.0) for name, _ in steps.sample.guidance)
  stages = {'velocity': config, 'steps': steps}
  recipe = ConfigDict({'autoencoder': config.autoencoder, 'latents': config.data.latents})
  for stage in stages.values():
    stage.autoencoder = recipe.get_oneway_ref('autoencoder')
    stage.data.latents = recipe.get_oneway_ref('latents')
  recipe.update(stages=stages, order=tuple(stages))
  return recipe


def distribution_matching(config: ConfigDict, critic_rate: float) -> ConfigDict:
  """Makes of a configuration of few steps one that learns them by matching distributions.

  See mgjax/flow/distillation/distribution_matching.py. The critic must follow the student: it
  learns at `critic_rate` times the student's rate. Nothing of it is the paper's.
  """
  few = config.objective.few_steps
  config.objective.distribution_matching = ConfigDict(
    {key: few[key] for key in ('teacher', 'guidance', 'schedule')} | {'steps': (1, 2, 4)}
  )
  del config.objective['few_steps']
  optimizer = config.optimizer.copy_and_resolve_references()
  optimizer.learning_rate *= critic_rate
  config.discriminator = ConfigDict({'start': 0, 'optimizer': optimizer})
  return config


def adversarial(config: ConfigDict, student: str) -> ConfigDict:
  """Makes of a configuration of few steps one that goes on from `student` against data.

  See mgjax/flow/distillation/adversarial.py. Neither it nor its numbers are the paper's.
  """
  few = config.objective.few_steps
  config.start_from = student
  config.objective.adversarial = ConfigDict(
    {'teacher': few.teacher, 'schedule': few.schedule, 'steps': (4,)}
  )
  del config.objective['few_steps']
  config.optimizer.update(learning_rate=5e-5, beta1=0.0, weight_decay=0.0)
  optimizer = config.optimizer.copy_and_resolve_references()
  optimizer.update(learning_rate=3e-4, warmup=0)
  config.discriminator = ConfigDict({'start': 0, 'optimizer': optimizer})
  return config


def distilled_guidance(config: ConfigDict, teacher: str, highest: float) -> ConfigDict:
  """Makes of a flow model's configuration one that learns a teacher's guidance in one pass.

  See mgjax/flow/distillation/guidance.py. The teacher, a work directory, is what it starts from
  too; scales of all that its configuration guides are learned from 1 to `highest`. Neither this
  objective nor its numbers are the paper's.
  """
  names = tuple(name for name, _ in config.sample.guidance)
  config.start_from = teacher
  config.model.conditionings.guidance_scale = ConfigDict(
    {'kind': 'guidance_scale', 'conditions': names}
  )
  config.objective.dropout.guidance_scale = 0.0
  config.objective.guidance_distillation = ConfigDict(
    {'teacher': teacher, 'scales': tuple((name, (1.0, highest)) for name in names)}
  )
  return config


def autoencoder(**model: Any) -> ConfigDict:
  """Returns the fields of an autoencoder of video; `model` are those of `config.model`."""
  config = base('autoencoder')
  config.model = defaults(Autoencoder, **model)
  config.objective = defaults(LossWeights)
  # Of the discriminator nothing is in public sources.
  optimizer = {'warmup': 100, 'beta1': 0.5, 'beta2': 0.9, 'weight_decay': 0.0}
  config.discriminator = _discriminator(Discriminator, **optimizer)
  config.perceptual_weights = ''  # of LPIPS; mgjax/models/tae/perceptual.py says how to make them
  return config


def codec(**model: Any) -> ConfigDict:
  """Returns the fields of a codec of sound, whose objective and discriminators are DAC's."""
  config = base('codec')
  config.model = defaults(Codec, **model)
  config.objective = defaults(SoundWeights)
  optimizer = {'beta1': 0.8, 'beta2': 0.99, 'weight_decay': 0.01, 'clip': 10.0}
  config.discriminator = _discriminator(Discriminators, **optimizer)
  return config


def _discriminator(network: type[Any], **optimizer: Any) -> ConfigDict:
  """Returns the fields of a discriminator; `optimizer` are those of its optimizer that differ."""
  found = defaults(network)
  del found.dtype  # that of the model
  learning = defaults(OptimizerSettings, learning_rate=1e-4, final_fraction=1.0, **optimizer)
  found.update(start=0, optimizer=learning)
  return found
