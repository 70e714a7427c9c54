"""Old names of modules lead to new ones, with a warning, for one release."""

import importlib
import pathlib
import sys
import warnings

import pytest

import mgjax
from mgjax.moved import MOVED, NAMES, new_name
from tests.binaries import python

# Public names of release 0.3, a line a module: `git ls-tree` and ast at the commit of the release.
NAMES_0_3 = pathlib.Path(__file__).parent / 'golden/public_names_0_3.txt'
GONE = {
  'mgjax.checkpoints.orbax_io.KEEP_KEYS',  # the fields of Keep
  'mgjax.worlds.table.WITH_PROMPTS',  # with_prompts(), which asks the provider of the rows
  'mgjax.data.ingest.edit_bench.VIDEOS',  # VIDEO.suffixes of mgjax.data.ingest.entries
  'mgjax.evaluation.human.statistics.CONFIDENCE',  # CONFIDENCE of mgjax.lab.statistics.intervals
  'mgjax.worlds.solids.judges.check.Range',  # Interval of mgjax.lab.statistics.intervals
  'mgjax.serving.queue.Queue',  # AnnotationQueue
  'mgjax.evaluation.record.measured.found_metric',  # estimate_metric
  'mgjax.evaluation.record.show.Shown',  # SampleViews
  'mgjax.evaluation.suites.tables.wanted',  # required_texts
  'mgjax.evaluation.worlds.alignment.write_shown',  # write_samples
  'mgjax.workflows.quickstart.shown',  # describe_result
  'mgjax.workflows.suite.Made',  # SuiteResult
  # Pages are made of templates by mgjax.lab.report.page.render.
  'mgjax.runtime.report.page.DARK',
  'mgjax.runtime.report.page.LIGHT',
  'mgjax.runtime.report.page.page',
  'mgjax.runtime.report.page.section',
  'mgjax.runtime.report.page.table',
  'mgjax.runtime.report.charts.DARK_COLOURS',
  'mgjax.curation.page_examples.show_examples',
  'mgjax.core.runs.places.Told',  # ErrorSentence of mgjax.training.checkpoints.hub
  'mgjax.planning.sampling.latency.Asked',  # SamplingRequest
  'mgjax.worlds.solids.judges.network.Told',  # ClipPredictions
  'mgjax.worlds.solids.judges.video.Wanted',  # Target
  'mgjax.registry.SECTIONS',  # COMPONENTS
  'mgjax.registry.section',  # find_component
  # Methods of a section's class.
  *(
    f'mgjax.{section}.task.{name}'
    for section in ('audio.codec', 'audio', 'clip', 'tae', 'upsampler', 'video')
    for name in ('make_spec', 'outline')
  ),
  *(f'mgjax.{section}.task.make_spec' for section in ('editing', 'personalization')),
  *(
    f'mgjax.{section}.task.make_encode_plan'
    for section in ('audio', 'editing', 'personalization', 'upsampler', 'video')
  ),
  *(
    f'mgjax.flow_models.task.make_{name}'
    for name in ('encode', 'flow_outline', 'flow_spec', 'video_encode_plan', 'video_outline')
  ),
  'mgjax.audio.codec.task.codec_settings',
  'mgjax.audio.task.AudioSettings',
  'mgjax.audio.task.make_audio_samples',
  'mgjax.flow_models.task.Show',
  # Of mgjax.lab.planning.step_spec.FlowRun, which reads a configuration once.
  'mgjax.planning.plan.planned_fields',
  'mgjax.planning.workload.check_preset',
  'mgjax.planning.workload.read_outline',
  'mgjax.registry.Section',  # Row, and the protocol mgjax.training.spec.Section
  'mgjax.evaluation.evaluate.Mesh',  # options of pipelines are declared there alone
  'mgjax.tae.task.autoencoder_settings',
  'mgjax.training.spec.EncodePlan',
  'mgjax.upsampler.task.SHOWN',
  'mgjax.upsampler.task.make_pairs',
  'mgjax.upsampler.task.make_reconstruct',
  'mgjax.video.task.SHOWN',
  'mgjax.video.task.make_video_spec',
}

IMPORT_ALL = """
import importlib, pathlib, sys, warnings
warnings.simplefilter('ignore', FutureWarning)
missing = []
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
  module, *names = line.split()
  found = importlib.import_module(module)
  missing += [f'{module}.{name}' for name in names if not hasattr(found, name)]
print(' '.join(missing))
"""


def test_every_public_name_of_the_last_release_is_imported_by_its_old_name():
  done = python('-c', IMPORT_ALL, str(NAMES_0_3))
  assert done.returncode == 0, done.stderr
  assert set(done.stdout.split()) == GONE


@pytest.mark.parametrize('old', ['mgjax.media.viewing', 'mgjax.core.runs.places'])
def test_an_old_name_warns_once_and_is_the_same_object(old):
  sys.modules.pop(old, None)
  with pytest.warns(FutureWarning, match=f'{old} is now mgjax.*; mgjax .* removes the old name'):
    module = importlib.import_module(old)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert importlib.import_module(old) is module
  new = importlib.import_module(f'mgjax.{new_name(old.removeprefix("mgjax."))}')
  public = [name for name in vars(new) if not name.startswith('_')]
  assert public and all(getattr(module, name) is getattr(new, name) for name in public)


def test_a_name_that_a_moved_module_lacks_is_a_usual_import_error():
  with (
    pytest.warns(FutureWarning),
    pytest.raises(ImportError, match="cannot import name 'nothing'"),
  ):
    sys.modules.pop('mgjax.media.titles', None)
    exec('from mgjax.media.titles import nothing')


@pytest.mark.parametrize('name', ['mgjax.nothing', 'mgjax.audio.nothing', 'mgjax.core.nothing'])
def test_what_never_was_is_not_found(name):
  with pytest.raises(ModuleNotFoundError, match='nothing'):
    importlib.import_module(name)


def test_every_row_leads_to_what_is_there_and_from_what_is_not():
  root = pathlib.Path(mgjax.__file__).parent
  for old, new in (*MOVED.items(), *((old, new_name(old)) for old in NAMES)):
    place, gone = root / new.replace('.', '/'), root / old.replace('.', '/')
    assert place.is_dir() or place.with_suffix('.py').exists(), new
    assert not gone.with_suffix('.py').exists() and not gone.is_dir(), old
