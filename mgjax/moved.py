"""Old names of modules, for one release: importing one warns and leads to the new module.

`mgjax/__init__.py` puts `Finder` behind Python's own finders, so it is asked only for modules that
are not there. The page docs/reference/where_things_moved.md shows the same table to readers.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import types
import warnings
from collections.abc import Sequence

# Old module or package -> the new one, without `mgjax.`. The longest row that fits counts.
MOVED = {
  'audio': 'sections.audio',
  'audio.codec': 'models.codec',
  'audio.codec.pipeline': 'sections.codec.pipeline',
  'audio.codec.task': 'sections.codec.section',
  'audio.task': 'sections.audio.section',
  'backbone': 'models.backbone',
  'benchmarks': 'lab.benchmarks',
  'checkpoints': 'training.checkpoints',
  'checkpoints.lora': 'nn.lora',
  'checkpoints.lora_files': 'sections.flow.lora_files',
  'checkpoints.quantize': 'nn.quantize',
  'clip': 'models.clip',
  'clip.pipeline': 'sections.clip.pipeline',
  'clip.task': 'sections.clip.section',
  'conditioning': 'models.conditioning',
  'core.config': 'core.configuration.keys',
  'core.config_files': 'core.configuration.config_files',
  'core.renamed_keys': 'core.configuration.renamed_keys',
  'core.runs': 'training.checkpoints',
  'core.runs.find': 'training.checkpoints.find_run',
  'core.runs.places': 'training.checkpoints.hub',
  'core.tables': 'lab.report.tables',
  'core.weights': 'models.foreign_weights',
  'core.weights.tensors': 'core.safetensors_files',
  'curation': 'lab.curation',
  'curation.page': 'lab.curation.pages.page',
  'curation.page_examples': 'lab.curation.pages.page_examples',
  'curation.people.references': 'lab.curation.people.single_person_references',
  'curation.scores.global_motion': 'lab.curation.scores.camera_motion',
  'data.replacement': 'data.broken_samples',
  'editing': 'sections.editing',
  'editing.task': 'sections.editing.section',
  'evaluation': 'lab.evaluation',
  'evaluation.human.statistics': 'lab.evaluation.human.win_rates',
  'evaluation.metrics.correlations': 'lab.statistics.correlations',
  'evaluation.metrics.intervals': 'lab.statistics.intervals',
  'evaluation.metrics.sets': 'lab.evaluation.metrics.frechet',
  'evaluation.metrics.values': 'lab.statistics.values',
  'evaluation.scorers': 'lab.evaluation.external_scorers',
  'flow.noise': 'flow.frame_noise',
  'flow_models': 'models.flow_model',
  'flow_models.files': 'sections.flow.files',
  'flow_models.pipeline': 'sections.flow.pipeline',
  'flow_models.requests': 'sections.flow.requests',
  'flow_models.task': 'sections.flow.section',
  'media': 'data.media',
  'nn.kernels.tpu': 'experimental.tpu_attention',
  'nn.kernels.tpu.blocks': 'nn.kernels.tpu_blocks',
  'nn.sinusoids': 'nn.sinusoidal_embedding',
  'nn.stack': 'nn.remat_scan',
  'personalization': 'sections.personalization',
  'personalization.task': 'sections.personalization.section',
  'planning': 'lab.planning',
  'runtime': 'training.monitoring',
  'runtime.collector': 'training.monitoring.garbage_collection',
  'runtime.compilation_cache': 'parallel.compilation_cache',
  'runtime.doctor': 'apps.doctor',
  'runtime.endpoint': 'lab.language_models.endpoint',
  'runtime.report': 'lab.report',
  'runtime.report.evaluation': 'lab.report.evaluation_page',
  'runtime.tpu_presence': 'parallel.tpu_presence',
  'scaling': 'lab.scaling',
  'serving': 'apps.serving',
  'serving.queue': 'apps.serving.annotation_queue',
  'tae': 'models.tae',
  'tae.pipeline': 'sections.autoencoder.pipeline',
  'tae.task': 'sections.autoencoder.section',
  'text': 'models.text',
  'text.embeddings': 'sections.text.embeddings',
  'text.encoder': 'sections.text.encoder',
  'text.rewriting': 'lab.language_models.rewriting',
  'text.tokenizer_folder': 'sections.text.tokenizer_folder',
  'training.faults': 'training.non_finite',
  'training.muon': 'training.optimizers.muon',
  'training.optimizer': 'training.optimizers.optimizer',
  'training.plateau': 'training.optimizers.plateau',
  'training.rates': 'training.optimizers.rates',
  'upsampler': 'sections.upsampler',
  'upsampler.task': 'sections.upsampler.section',
  'video': 'sections.video',
  'video.task': 'sections.video.section',
  'workflows': 'apps.pairs',
  'workflows.average_runs': 'apps.weights.average_runs',
  'workflows.cards': 'apps.weights.cards',
  'workflows.curate': 'lab.curation.curate',
  'workflows.demo': 'apps.demo',
  'workflows.dry_run': 'apps.dry_run',
  'workflows.encode': 'apps.encode',
  'workflows.quickstart': 'lab.evaluation.quickstart',
  'workflows.recipe': 'apps.recipe',
  'workflows.suite': 'lab.evaluation.suites.make_videos',
  'workflows.sweep': 'lab.scaling.sweep',
  'workflows.weights': 'apps.weights.import_export',
  'worlds': 'lab.worlds',
  'worlds.table': 'data.synthetic_datasets',
}
# Names that left their module: old module -> name -> new module.
NAMES = {
  'audio.task': {'longest_audio_bucket': 'data.settings'},
  'checkpoints.workdir': dict.fromkeys(
    (
      'describe_average',
      'identity_of',
      'load_adapters',
      'load_base',
      'load_params',
      'read_shapes',
    ),
    'training.checkpoints.load_params',
  )
  | {'read_needed': 'training.checkpoints.find_run'},
  'core.runs.places': dict.fromkeys(('is_name', 'own_folder', 'read_name'), 'core.run_names'),
  'core.weights.format': {'check_sizes': 'core.settings'},
  'flow_models.task': {'about_videos': 'sections.video.section'},
  'flow_models.sampling': dict.fromkeys(
    ('draw', 'draw_noise', 'seeds_of'), 'models.flow_model.initial_noise'
  ),
  'workflows.cross_pairs': {'digest_of': 'training.checkpoints.load_params'},
}
REMOVED_IN = '0.5'


def new_name(old: str) -> str:
  """Returns the new name of a module, both without `mgjax.`; the same name if it did not move."""
  parts = old.split('.')
  for length in range(len(parts), 0, -1):
    head = '.'.join(parts[:length])
    if head in MOVED:
      return MOVED[head] + old[len(head) :]
  return old


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Makes a module for an old name, whose attributes are those of the new one."""

  def find_spec(
    self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
  ) -> importlib.machinery.ModuleSpec | None:
    """Returns a spec for an old name, None for every other one."""
    package, _, old = fullname.partition('.')
    if package != 'mgjax' or new_name(old) == old:
      return None
    try:
      new = importlib.util.find_spec(f'mgjax.{new_name(old)}')
    except ModuleNotFoundError:  # the new package is a module
      new = None
    inside = new and new.submodule_search_locations is not None
    return new and importlib.machinery.ModuleSpec(fullname, self, is_package=inside)

  def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
    """Leaves it to Python to make an empty module."""

  def exec_module(self, module: types.ModuleType) -> None:
    """Warns, unless the old name is of a package alone, and forwards attributes."""
    old = module.__name__.removeprefix('mgjax.')
    new = importlib.import_module(f'mgjax.{new_name(old)}')
    names = NAMES.get(old, {})

    def get(name: str) -> object:
      if name.startswith('__'):
        raise AttributeError(f'module {module.__name__!r} has no attribute {name!r}')
      if name in names:
        return getattr(importlib.import_module(f'mgjax.{names[name]}'), name)
      return getattr(new, name)

    module.__getattr__ = get
    module.__dir__ = lambda: sorted({*dir(new), *names})
    if not hasattr(new, '__path__'):
      warnings.warn(
        f'{module.__name__} is now {new.__name__}; mgjax {REMOVED_IN} removes the old name',
        FutureWarning,
        stacklevel=2,
      )
