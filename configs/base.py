"""Fields that every component has, with the usual values. Numbers and names only."""

from ml_collections import ConfigDict


def base() -> ConfigDict:
  """Returns the common fields; a configuration adds component, data, buckets, model, objective."""
  config = ConfigDict()
  config.seed = 0
  # Devices along each axis of the mesh; -1 takes what is left.
  config.mesh = ConfigDict({'slice': 1, 'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1})
  config.rules = 'single'  # parallel/rules.py
  config.optimizer = ConfigDict(
    {
      'name': 'adamw',  # mgjax/training/optimizers/optimizer.py
      'schedule': 'constant',  # shape of the learning rate
      'learning_rate': 1e-4,
      'warmup': 100,  # not in public sources
      'final_fraction': 0.0,  # fraction of it where a decay ends
      'beta1': 0.9,  # not in public sources
      'beta2': 0.95,  # not in public sources
      'weight_decay': 0.1,  # not in public sources for video; 0.1 for audio
      'clip': 1.0,  # not in public sources
      # (pattern of names, factor): the first that matches decides about a parameter, and 0 freezes
      # it, as in (('text/*', 0.0), ('backbone/*', 0.1)); see mgjax/training/optimizers/rates.py.
      'rates': (),
      # The rate falls when so many validations in a row bring nothing new; 0 for never. The report
      # halves it; what counts as flat is not in public sources
      # (mgjax/training/optimizers/plateau.py).
      'plateau': {'patience': 0, 'factor': 0.5, 'improvement': 1e-3, 'lowest': 0.1},
    }
  )
  # Adapters of kernels in place of all parameters, of the model at config.start_from
  # (mgjax/nn/lora.py); rank 0 is none.
  config.lora = ConfigDict(
    {'rank': 0, 'alpha': 0.0, 'targets': ('*',), 'dropout': 0.0, 'weights': ''}
  )
  config.train = ConfigDict(
    {
      'steps': 1000,
      'ema_decay': 0.999,  # of the average of parameters; 0.999 for audio, not public for video
      'accumulate': 1,
      # Groups of devices that `accumulate` is meant for: with fewer of them it rises, so that the
      # batch stays what it is. 0 for any number.
      'device_groups': 0,
      'log_every': 20,
      'evaluate_every': 500,
      'save_every': 500,
      'show_every': 0,
      'validation_batches': 4,
      # Where metrics go beside metrics.jsonl: 'tensorboard', 'trackio', 'wandb', 'mlflow'.
      'trackers': ('tensorboard',),
      'keep': 3,  # of the newest checkpoints
      'keep_every': 0,  # those whose step is a multiple of it stay for ever
      'keep_best': 0,  # so many with the lowest validation losses stay
      'checkpoints': '',  # an absolute path or a URL; '' has them in the work directory
      'faults': {
        # Bad steps in a row that are passed over; one more ends the run. A bad batch or two are no
        # reason to lose a night, and whatever is broken for good is bad at every step.
        'skip': 10,
        # How many times its running mean a gradient's norm may be; 0 for any. Clipping bounds what
        # a finite gradient does, and how far norms range only a run that has been seen can tell.
        'spike': 0.0,
      },
      # Seconds; 0 for any time. Whatever takes longer is taken for stuck: the process shows where
      # it is and ends with exit code 124 (docs/runs.md).
      'limits': {
        'compile': 7200,
        'step': 900,
        'evaluate': 3600,
        'save': 3600,
        'restore': 3600,
        'stop': 270,  # from a signal to the end; Slurm's recipe gives it 300
        'heartbeat': 100,  # of several processes, without a sign of life from one of them
      },
    }
  )
  return config


def encoder(component: str) -> ConfigDict:
  """Returns the common fields of a frozen encoder of text or images; a configuration adds model."""
  config = ConfigDict()
  config.component = component
  config.seed = 0
  config.mesh = ConfigDict({'slice': 1, 'data': 1, 'fsdp': -1, 'context': 1, 'tensor': 1})
  config.rules = 'fsdp'
  config.keep_type = False  # True keeps weights in the type of the files, half the bytes or fewer
  config.train = ConfigDict({'keep': 1, 'checkpoints': ''})
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
  """Returns the report's sampler: 50 Euler steps, linear-quadratic, guidance 7.5."""
  return ConfigDict(
    {
      'solver': 'euler',
      # Accounts of the report disagree on the steps it emulates; 250 is quoted as well.
      'schedule': {'name': 'linear_quadratic', 'emulated': 1000},
      'steps': 50,
      'guidance': (('text', 7.5),),  # in the order in which it is nested
    }
  )


def editing() -> ConfigDict:
  """Returns how pairs become training data of editing (Movie Gen §5)."""
  return ConfigDict(
    {
      'animated': (),  # buckets of clips that are made of pairs of pictures
      'prefix': 'animated: ',  # of their instructions; its words are not in public sources
      'motion': {'shift': 0.15, 'zoom': 0.3, 'turn': 15.0},  # not in public sources
      'random_place': True,  # of pictures, in the table of temporal positions
    }
  )


def masked_audio() -> tuple[ConfigDict, ConfigDict]:
  """Returns the audio model's objective and masking (Movie Gen §6)."""
  objective = {
    # Each by itself, and with probability `drop_all_probability` all that are ever dropped.
    'dropout': {'text': 0.1, 'video': 0.1, 'context': 0.0},
    'drop_all_probability': 0.2,
    'time': {'name': 'logit_normal', 'mean': 0.0, 'std': 1.0},
  }
  masking = {
    'full_mask_probability': 0.5,
    # The rest is masked in one piece: of which frames a mask is, is not in public sources.
    'min_masked_fraction': 0.75,
    'extension_probability': 0.5,  # not in public sources
  }
  return ConfigDict(objective), ConfigDict(masking)


def sound_sampling() -> ConfigDict:
  """Returns the report's sampler of sound: 64 midpoint steps, guidance 3 over text and video."""
  return ConfigDict(
    {
      'solver': 'midpoint',
      'schedule': {'name': 'linear'},
      'steps': 64,
      'guidance': (('text', 3.0), ('video', 3.0)),
    }
  )


def preferences(config: ConfigDict, model: str) -> ConfigDict:
  """Makes adapters of a model learn which of two samples of it a judge, or people, prefer."""
  config.start_from = model
  config.model.conditionings.rejected = ConfigDict({'kind': 'rejected'})
  config.objective.dropout.rejected = 0.0
  config.objective.preference = ConfigDict({'beta': 500.0, 'supervised': 0.1})
  config.preferences = ConfigDict(
    {
      'model': model,
      'votes': '',
      'prompts': 1024,
      'validation': 128,
      'strength': 0.9,
      'least': 0.05,
      'seed': 0,
    }
  )
  config.lora.update(rank=16, targets=('backbone/layers/*',))
  return config


def few_steps(config: ConfigDict, teacher: str, shift: float, steps: int = 32) -> ConfigDict:
  """Makes of a flow model's configuration one that learns a teacher's steps.

  See mgjax/flow/distillation/few_steps.py. The teacher, a work directory, is what it starts from
  too, and its guidance is learnt with its steps: `steps` of a linear grid, of which `shift` puts
  most near the noise. Neither this objective nor its numbers are the report's.
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

  See mgjax/flow/distillation/mean_flow.py. The velocity is learnt first: from nothing steps are not
  learnt (docs/results.md). Nothing of it is the report's.
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
  steps.sample.update(solver='euler', steps=1)
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
  learns at `critic_rate` times the student's rate. Nothing of it is the report's.
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

  See mgjax/flow/distillation/adversarial.py. Neither it nor its numbers are the report's.
  """
  few = config.objective.few_steps
  config.start_from = student
  config.objective.adversarial = ConfigDict(
    {'teacher': few.teacher, 'schedule': few.schedule, 'steps': (4,)}
  )
  del config.objective['few_steps']
  config.optimizer.update(learning_rate=5e-5, beta1=0.0, beta2=0.99, weight_decay=0.0)
  optimizer = config.optimizer.copy_and_resolve_references()
  optimizer.update(learning_rate=3e-4, warmup=0)
  config.discriminator = ConfigDict({'start': 0, 'optimizer': optimizer})
  return config


def distilled_guidance(config: ConfigDict, teacher: str, highest: float) -> ConfigDict:
  """Makes of a flow model's configuration one that learns a teacher's guidance in one pass.

  See mgjax/flow/distillation/guidance.py. The teacher, a work directory, is what it starts from
  too; scales of all that its configuration guides are learnt from 1 to `highest`. Neither this
  objective nor its numbers are the report's.
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


def reconstruction(**changes: float) -> ConfigDict:
  """Returns the weights of all terms of the autoencoder's objective beside L1."""
  weights = {
    'mse': 0.0,
    'kl': 1e-6,  # not in public sources; HunyuanVideo's
    'perceptual': 0.0,  # LPIPS; needs perceptual_weights
    'outlier': 0.0,  # 1e5 in the report, which others could not reproduce; see docs/results.md
    'outlier_sigmas': 3.0,
    'adversarial': 0.0,
    'adaptive': True,  # not in public sources
    'gradient_penalty': 0.0,  # not in public sources
  }
  return ConfigDict(weights | changes)


def discriminator(**changes) -> ConfigDict:
  """Returns the autoencoder's discriminator, of which all is not in public sources."""
  fields = {'widths': (64, 128, 256), 'groups': 8, 'start': 0}
  optimizer = {
    'name': 'adamw',
    'schedule': 'constant',
    'learning_rate': 1e-4,
    'warmup': 100,
    'final_fraction': 1.0,
    'beta1': 0.5,
    'beta2': 0.9,
    'weight_decay': 0.0,
    'clip': 1.0,
  }
  return ConfigDict(fields | changes | {'optimizer': optimizer})


def sound_reconstruction(**changes: float) -> ConfigDict:
  """Returns the codec's objective: DAC's weights (models/codec/objective.py)."""
  weights = {
    'mel': 15.0,
    'features': 2.0,
    'adversarial': 1.0,
    'mse': 0.0,
    'spectral_floor': 1e-5,
    'kl': 1e-4,  # Stable Audio's
  }
  return ConfigDict(weights | changes)


def sound_discriminator(**changes) -> ConfigDict:
  """Returns the codec's discriminators, borrowed from DAC."""
  fields = {
    'periods': (2, 3, 5, 7, 11),
    'period_widths': (32, 128, 512, 1024, 1024),
    'windows': (2048, 1024, 512),
    'window_width': 32,
    'start': 0,
  }
  optimizer = {
    'schedule': 'constant',
    'learning_rate': 1e-4,
    'warmup': 0,
    'final_fraction': 1.0,
    'beta1': 0.8,
    'beta2': 0.99,
    'weight_decay': 0.01,
    'clip': 10.0,
  }
  return ConfigDict(fields | changes | {'optimizer': optimizer})
