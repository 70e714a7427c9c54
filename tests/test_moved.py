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
  'mgjax.planning.programs.placement.gpu_kernels',  # list_kernels, of TPUs as well
  'mgjax.flow_models.files.find_autoencoder_config',  # find_autoencoder, the work directory
  'mgjax.checkpoints.orbax_io.KEEP_KEYS',  # the fields of Keep
  'mgjax.worlds.table.WITH_PROMPTS',  # with_prompts(), which asks the provider of the rows
  'mgjax.data.ingest.edit_bench.VIDEOS',  # VIDEO.suffixes of mgjax.data.ingest.entries
  'mgjax.evaluation.human.statistics.CONFIDENCE',  # CONFIDENCE of mgjax.lab.statistics.intervals
  'mgjax.planning.rehearsal.study.Interval',  # CheckpointInterval
  'mgjax.flow_models.conditions.Fields',  # ConditionShapes
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
  # Names that a module alone reads have an underscore now.
  'mgjax.flow.guidance.Scale',
  'mgjax.audio.codec.discriminators.BANDS',
  'mgjax.audio.codec.discriminators.SLOPE',
  'mgjax.audio.codec.layers.FAN_IN',
  'mgjax.audio.codec.losses.BANDS',
  'mgjax.audio.codec.model.SMALLEST',
  'mgjax.audio.codec.task.SHOWN',
  'mgjax.audio.codec.task.STATISTICS_BATCHES',
  'mgjax.audio.codec.task.make_adversary',
  'mgjax.audio.frame_features.SIDE',
  'mgjax.audio.task.SHOWN',
  'mgjax.backbone.position.TABLES',
  'mgjax.checkpoints.workdir.RECORDED',
  'mgjax.checkpoints.workdir.T',
  'mgjax.clip.model.normalised',
  'mgjax.clip.pipeline.BATCH_SIZE',
  'mgjax.clip.weights.ACTIVATIONS',
  'mgjax.clip.weights.LARGEST',
  'mgjax.clip.weights.Rows',
  'mgjax.clip.weights.SIZES',
  'mgjax.conditioning.byte_text.WINDOW',
  'mgjax.conditioning.edit_task.INDEX',
  'mgjax.conditioning.identity.TOKENS',
  'mgjax.core.renamed_keys.KINDS',
  'mgjax.core.runs.places.LONGEST',
  'mgjax.core.runs.published.KINDS',
  'mgjax.core.runs.published.LARGEST',
  'mgjax.core.weights.pickles.T',
  'mgjax.core.weights.tensors.SHOWN',
  'mgjax.data.ingest.edit_bench.TABLES',
  'mgjax.data.records.writer.FORMAT',
  'mgjax.data.settings.Workers',
  'mgjax.data.shape.Rate',
  'mgjax.editing.pipeline.Video',
  'mgjax.flow.objective.FLOW',
  'mgjax.flow_models.alignment.LATENTS',
  'mgjax.flow_models.alignment.normalised',
  'mgjax.flow_models.prompts.MOST',
  'mgjax.flow_models.sampling.FLOW',
  'mgjax.media.viewing.Video',
  'mgjax.nn.conv.Frames',
  'mgjax.nn.kernels.splash.LANES',
  'mgjax.nn.kernels.splash.SMALLEST',
  'mgjax.nn.kernels.tpu.blocks.STEP',
  'mgjax.nn.multihead.AXES',
  'mgjax.parallel.ring.AXIS',
  'mgjax.parallel.stationary.Local',
  'mgjax.parallel.ulysses.AXIS',
  'mgjax.runtime.metrics.FILE',
  'mgjax.runtime.trackers.SHOWN',
  'mgjax.runtime.watchdog.Seconds',
  'mgjax.tae.discriminator.SLOPE',
  'mgjax.tae.discriminator.STEP',
  'mgjax.tae.inflate.MOST',
  'mgjax.tae.inflate.SCALING',
  'mgjax.tae.objective.LARGEST',
  'mgjax.tae.perceptual.SCALE',
  'mgjax.tae.perceptual.SMALLEST',
  'mgjax.tae.task.SHOWN',
  'mgjax.tae.task.STATISTICS_BATCHES',
  'mgjax.tae.task.make_adversary',
  'mgjax.text.encoder.BATCH_SIZE',
  'mgjax.text.prompts.Rate',
  'mgjax.text.t5_weights.PLAIN',
  'mgjax.text.t5_weights.SIZES',
  'mgjax.text.tokenizer_files.BEGIN',
  'mgjax.text.tokenizer_files.LARGEST',
  'mgjax.text.vocabulary.MOST',
  'mgjax.training.faults.SHOWN',
  'mgjax.training.log_window.SHOWN',
  'mgjax.training.log_window.TIMES',
  'mgjax.training.run.RECORDED',
  'mgjax.training.settings.SCHEDULES',
  'mgjax.upsampler.geometry.LARGEST',
  'mgjax.video.shifts.Video',
  # Names that say of what they are; each with its new one.
  'mgjax.audio.captions.COLUMNS',  # CAPTION_COLUMNS
  'mgjax.audio.codec.model.RATE',  # CODEC_RATE
  'mgjax.audio.codec.streaming.STEP',  # STREAMING_STEP
  'mgjax.audio.codec.weights.FORMAT',  # CODEC_FORMAT
  'mgjax.audio.extend.Generate',  # GenerateAudio
  'mgjax.audio.extend.Noise',  # DrawNoise
  'mgjax.audio.frame_features.WAYS',  # FRAME_ENCODERS
  'mgjax.audio.rerank.RATE',  # ALIGNMENT_RATE
  'mgjax.checkpoints.lora_files.FORMS',  # ADAPTER_FORMATS
  'mgjax.checkpoints.warm_start.Source',  # WarmStartSource
  'mgjax.checkpoints.weights_file.FILE',  # WEIGHTS_FILE
  'mgjax.conditioning.clips.low_resolution.KEY',  # LOW_RESOLUTION_KEY
  'mgjax.conditioning.clips.source_video.KEY',  # SOURCE_VIDEO_KEY
  'mgjax.conditioning.edit_task.KEY',  # TASK_KEY
  'mgjax.conditioning.frame_features.KEY',  # FRAME_FEATURES_KEY
  'mgjax.conditioning.identity.KEY',  # REFERENCE_KEY
  'mgjax.conditioning.known_latents.KEY',  # CONTEXT_KEY
  'mgjax.conditioning.temporal_place.KEY',  # TEMPORAL_PLACE_KEY
  'mgjax.core.axes.AXES',  # LOGICAL_AXES
  'mgjax.core.config.LARGEST',  # LARGEST_INTEGER
  'mgjax.core.resize.to_bytes',  # round_to_bytes
  'mgjax.core.runs.places.Folder',  # UrlFolder
  'mgjax.core.runs.places.Name',  # RunName of mgjax.core.run_names
  'mgjax.core.runs.published.fetch',  # fetch_run
  'mgjax.core.weights.format.number_in',  # config_number
  'mgjax.core.weights.pickles.LARGEST',  # LARGEST_PICKLE_BYTES
  'mgjax.core.weights.pickles.Name',  # PickledName
  'mgjax.core.weights.torch_pickle.SUFFIXES',  # TORCH_SUFFIXES
  'mgjax.data.clip_index.Clip',  # IndexedClip
  'mgjax.data.clips.Clips',  # VideoClips
  'mgjax.data.clips.Windows',  # ClipWindows
  'mgjax.data.ingest.convert.REJECTED',  # REJECTED_FILE
  'mgjax.data.ingest.entries.Entry',  # MediaEntry
  'mgjax.data.ingest.entries.Rejected',  # RejectedEntry
  'mgjax.data.ingest.entries.listed',  # list_rejected
  'mgjax.data.ingest.manifest.SUFFIXES',  # MANIFEST_SUFFIXES
  'mgjax.data.ingest.record_summary.Damaged',  # DamagedRows
  'mgjax.data.loader.WORLDS',  # MOVING_WORLDS
  'mgjax.data.records.writer.read_manifest',  # read_record_manifest
  'mgjax.flow.distillation.few_steps.STEP',  # STEP_SIZE
  'mgjax.flow.distillation.few_steps.check_learnt',  # check_trained_steps
  'mgjax.flow.distillation.preference.REJECTED',  # REJECTED_KEY
  'mgjax.flow.multidiffusion.check_shape',  # check_window_shape
  'mgjax.flow.streaming.SOLVERS',  # STREAMING_SOLVERS
  'mgjax.flow_models.build.FORMAT',  # FLOW_MODEL_FORMAT
  'mgjax.flow_models.build.check_learnt',  # check_training_inputs
  'mgjax.flow_models.requests.Frame',  # VideoFrame
  'mgjax.media.containers.source_of',  # readable_input
  'mgjax.media.faces.recognition.Embedder',  # FaceEmbedder
  'mgjax.media.faces.recognition.SMALLEST',  # SMALLEST_FACE
  'mgjax.media.provenance.manifest.KEY',  # KEY_FILE
  'mgjax.nn.attention.KERNELS',  # ATTENTION_KERNELS
  'mgjax.nn.kernels.splash.Blocks',  # SplashBlocks
  'mgjax.nn.kernels.tiles.Sizes',  # TileSizes
  'mgjax.parallel.compiler.TPU',  # TPU_OPTIONS
  'mgjax.personalization.task.Pairs',  # ReferencePairs
  'mgjax.personalization.task.identity_of',  # identity_conditioning
  'mgjax.runtime.goodput.FILE',  # GOODPUT_FILE
  'mgjax.runtime.trackers.Files',  # MediaFiles
  'mgjax.runtime.watchdog.Limits',  # PhaseLimits
  'mgjax.tae.shortcut.joined',  # unblock
  'mgjax.tae.tiling.Frames',  # FrameArray
  'mgjax.tae.weights.FORMAT',  # AUTOENCODER_FORMAT
  'mgjax.text.encoder.identity_of',  # encoder_identity
  'mgjax.text.prompts.LONGEST',  # LONGEST_PROMPT
  'mgjax.text.t5_weights.FORMAT',  # T5_FORMAT
  'mgjax.text.tokenizer_files.EXPECTED',  # EXPECTED_TOKENIZER
  'mgjax.text.tokenizer_files.KNOWN',  # KNOWN_FILES
  'mgjax.text.tokenizer_files.Vocabulary',  # TokenizerEncoding
  'mgjax.text.tokenizer_folder.Files',  # TokenizerFiles
  'mgjax.text.tokenizer_folder.NAMES',  # TOKENIZER_NAMES
  'mgjax.upsampler.blur.KINDS',  # BLUR_KINDS
  'mgjax.upsampler.recipe.describe',  # describe_degradation
  'mgjax.video.extend.Generate',  # GenerateVideos
  'mgjax.video.extend.check_length',  # check_continuation
  'mgjax.workflows.cards.Found',  # Numbers
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
