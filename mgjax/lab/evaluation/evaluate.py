"""Evaluates a trained model of any component: its numbers, their page and record, and pictures.

`EVALUATORS` has the evaluation of each component. It loads a run with `SAMPLING` and its other
sampling options, and calls the judging function with that function's own options, among them

  samples: how many videos, audio or clips are judged.
  seed: of the noise.
  clips, sounds: a folder (or manifest) in place of the run's validation data.
"""

import dataclasses
import hashlib
import inspect
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.data.clips import evenly
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.data.synthetic_datasets import WORLDS
from mgjax.lab.evaluation import audio_alignment, audio_reconstruction, own_clips, reconstruction
from mgjax.lab.evaluation.audio_alignment import judge_soundtracks, soundtracks_of, write_clips
from mgjax.lab.evaluation.audio_reconstruction import (
  SECONDS,
  evaluate_audio_reconstruction,
  make_truncated_mdct,
  sample_audio,
  write_audio,
)
from mgjax.lab.evaluation.editing import judge_editing
from mgjax.lab.evaluation.external_scorers import CommandScorer
from mgjax.lab.evaluation.long_audio import compare_ways, write_heard
from mgjax.lab.evaluation.metrics.similarity import make_perceive
from mgjax.lab.evaluation.own_clips import judge_clips, write_nearest
from mgjax.lab.evaluation.personalization import judge_personalization
from mgjax.lab.evaluation.reconstruction import (
  evaluate_reconstruction,
  sample_clips,
  write_pictures,
)
from mgjax.lab.evaluation.record.measured import Measured
from mgjax.lab.evaluation.record.show import clips_of, draw_below, sounds_of
from mgjax.lab.evaluation.record.write import (
  PAGE,
  Files,
  Findings,
  apart,
  evaluation_of,
  write_findings,
)
from mgjax.lab.evaluation.retrieval import judge_retrieval, write_retrieved
from mgjax.lab.evaluation.suites.score import find_videos, score_suite
from mgjax.lab.evaluation.suites.suite import read_suite
from mgjax.lab.evaluation.upsampling import (
  draw_upsampled,
  judge_seams,
  judge_upsampler,
  write_seams,
)
from mgjax.lab.evaluation.worlds.alignment import (
  judge_for,
  judge_model,
  judge_of_data,
  write_samples,
)
from mgjax.lab.evaluation.worlds.camera import compare_paths
from mgjax.lab.evaluation.worlds.classifier import classify
from mgjax.lab.evaluation.worlds.reconstruction import judge_reconstruction
from mgjax.lab.worlds.judging import CameraJudge
from mgjax.models.codec.losses import SPECTRAL_FLOOR
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.clip.pipeline import Clip
from mgjax.sections.codec.pipeline import load_audio_codec
from mgjax.sections.editing.pipeline import Editor
from mgjax.sections.personalization.pipeline import PersonalizationPipeline
from mgjax.sections.upsampler.pipeline import Upsampler
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config

LONG_CLIPS = 16  # maximum for the comparison of methods for long audio
SEAM_CLIPS = 8  # maximum for the search for seams in upsampled videos
RECONSTRUCTION = Files('evaluation/reconstruction.json', PAGE)
SHEETS = 6  # samples of a personalized model on the contact sheet

# Options of every pipeline that samples, see `sections.flow.pipeline.FlowPipeline`.
SAMPLING = ('steps', 'guidance', 'mesh')


def evaluate_video(
  pipeline: VideoPipeline,
  *,
  samples: int | None = None,
  seed: int = 0,
  clips: str = '',
  classifier: bool = False,
) -> Findings:
  """Samples captions that training never showed, and judges the videos by the judge of their
  dataset.

  Of signs, numbers that training showed are sampled as well. Of a model of your own clips it
  samples their captions and says which clips are nearest to the samples. `samples` are of each
  group of captions, 216 by default; of digits at least one a caption. Of clips they are at most
  one a caption, by default 64, and `clips` says where the run's own have moved.
  """
  kind = pipeline.config.data.kind
  fps = pipeline.config.data.fps
  workdir = pipeline.weights['workdir']
  folder = evaluation_of(workdir)
  if kind in WORLDS:
    if clips:
      raise ConfigError(f'--clips={clips}: this model was trained on {kind}; leave --clips out')
    measured, videos, prompts = judge_model(pipeline, samples=samples or 216, seed=seed)
    sheets, _ = write_samples(folder, videos, prompts, fps)
    measured = _with_camera(pipeline, measured, videos, samples or 216)
    measured = _together(measured, classify(pipeline, seed=seed)) if classifier else measured
  else:
    most = samples or own_clips.SAMPLES
    measured, videos, windows = judge_clips(pipeline, samples=most, seed=seed, clips=clips)
    sheets, _ = write_nearest(folder, measured, videos, windows, fps)
  about = _about(pipeline, seed)
  return write_findings(workdir, 'video', measured, about, sheets, clips_of(videos, fps))


def _with_camera(
  pipeline: VideoPipeline, measured: Measured, videos: np.ndarray, samples: int
) -> Measured:
  """Adds the camera's paths, beside those of real clips, if the judge can read them."""
  judge = judge_for(pipeline)
  if not isinstance(judge, CameraJudge):
    return measured
  requests = [request for group in judge.asks(samples).values() for request in group]
  indices = judge.moves(requests)
  if not indices:
    return measured
  requests = [requests[index] for index in indices]
  real = [clip['video'] for clip in judge.clips(requests)]
  paths = {
    'model': judge.paths(videos[indices], requests),
    'real clips': judge.paths(real, requests),
  }
  return _together(measured, compare_paths(paths))


def _together(first: Measured, second: Measured) -> Measured:
  return dataclasses.replace(
    first,
    metrics={**first.metrics, **second.metrics},
    record={**first.record, **second.record},
    notes=[*first.notes, *second.notes],
  )


def evaluate_personalization(
  pipeline: PersonalizationPipeline, *, samples: int = 216, seed: int = 0, clip: str = ''
) -> Findings:
  """Generates videos of held-out identities from a reference image, one or more a caption.

  `clip` is the work directory of a CLIP with a head for identities, which recognises the identities
  in frames.
  """
  recogniser = Clip(clip) if clip else None
  measured, views = judge_personalization(
    pipeline, samples=samples, seed=seed, recogniser=recogniser
  )
  selected = [views[index] for index in evenly(len(views), SHEETS)]
  workdir = pipeline.weights['workdir']
  sheet = draw_below(evaluation_of(workdir) / 'personalized.png', selected)
  show = clips_of([view.beside for view in views], pipeline.config.data.fps)
  return write_findings(workdir, 'personalization', measured, _about(pipeline, seed), [sheet], show)


def evaluate_editing(
  editor: Editor, *, samples: int = 216, seed: int = 0, untold: bool = False
) -> Findings:
  """Edits clips of held-out handwriting and combinations, equally often in every task.

  With `untold` all edits are made a second time from the instruction alone, without the task.
  """
  measured, rows = judge_editing(editor, samples=samples, seed=seed, untold=untold)
  workdir = editor.weights['workdir']
  sheet = draw_below(evaluation_of(workdir) / 'edited.png', [row[0] for row in rows.values()])
  videos = [view.beside for row in rows.values() for view in row]
  show = clips_of(videos, editor.config.data.fps)
  return write_findings(workdir, 'editing', measured, _about(editor, seed), [sheet], show)


def evaluate_autoencoder(
  workdir: pathlib.Path,
  *,
  samples: int = 64,
  clips: str = '',
  frames: int | None = None,
  size: tuple[int, int] | None = None,
  perceptual: str = '',
  judged: bool = False,
) -> Findings:
  """Measures reconstructions of clips of `frames` (1 for images) and `size`, by default the run's.

  `perceptual` is the path of LPIPS weights, by default those of the run's training, if they exist.
  With `judged` the judge of the run's world reads `samples` clips of each of its groups instead.
  """
  config = read_config(workdir)
  codec = load_codec(workdir)
  data = data_settings(fields_of(config, 'data'))
  _, longest = longest_bucket(video_shapes(fields_of(config, 'buckets'), data.fps))
  if judged:
    judge = judge_of_data(data, longest.frames, longest.size)
    measured = judge_reconstruction(codec, judge, samples)
    about = {'weights': _weights(workdir)}
    return write_findings(workdir, 'judged', measured, about, files=apart('evaluation/judged'))
  about: dict[str, Any] = {'weights': _weights(workdir), 'perceptual': None}
  weights = pathlib.Path(perceptual or config.get('perceptual_weights', ''))
  perceive = None
  if perceptual or weights.is_file():
    perceive = make_perceive(weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    about['perceptual'] = {'path': os.fspath(weights), 'sha256': digest}
  videos, about['settings'] = sample_clips(
    data, longest, samples, clips=clips, frames=frames, size=size
  )
  chosen = about['settings']['chosen']
  indices = evenly(len(chosen), reconstruction.SHOWN)
  names = [f'clip {number}' for number in chosen]
  measured, pairs = evaluate_reconstruction(
    codec, videos, perceive=perceive, keep=indices, names=names
  )
  selected = [pairs[index] for index in indices]
  pictures = write_pictures(evaluation_of(workdir), selected, config.data.fps)
  side_by_side = {index: reconstruction.beside(pair) for index, pair in pairs.items()}
  show = clips_of(side_by_side, config.data.fps)
  return write_findings(workdir, 'autoencoder', measured, about, pictures, show, RECONSTRUCTION)


def evaluate_codec(
  workdir: pathlib.Path, *, samples: int = 64, sounds: str = '', seconds: float = SECONDS
) -> Findings:
  """Measures reconstructions of audio clips of `seconds`, beside an MDCT at the same rate."""
  config = read_config(workdir)
  codec = load_audio_codec(workdir)
  data = data_settings(fields_of(config, 'data'))
  channels = codec.model.channels
  chosen, settings = sample_audio(data, samples, sounds=sounds, channels=channels, seconds=seconds)
  indices = evenly(len(settings['chosen']), audio_reconstruction.SHOWN)
  measured, pairs = evaluate_audio_reconstruction(
    codec,
    chosen,
    others={'MDCT': make_truncated_mdct(codec)},
    spectral_floor=config.objective.get('spectral_floor', SPECTRAL_FLOOR),
    keep=indices,
    names=[f'sound {number}' for number in settings['chosen']],
  )
  written = write_audio(evaluation_of(workdir), [pairs[index] for index in indices], codec.rate)
  reconstructions = {index: pair.again[audio_reconstruction.CODEC] for index, pair in pairs.items()}
  about = {'weights': _weights(workdir), 'settings': settings}
  show = sounds_of(reconstructions, codec.rate)
  return write_findings(workdir, 'codec', measured, about, written, show, RECONSTRUCTION)


def evaluate_audio(
  pipeline: AudioPipeline,
  *,
  samples: int = 64,
  seed: int = 0,
  candidates: int = 1,
  scorer: Sequence[str] = (),
  long: int = 0,
) -> Findings:
  """Makes audio for clips of moving digits that training never showed, and judges them.

  Of `candidates` the one counts whose onsets follow the pictures best. `scorer` is a command that
  judges the audio as well, see `mgjax.lab.evaluation.external_scorers`. With `long` it instead
  makes clips so many times as long as in training in every way, and compares them.
  """
  about = _about(pipeline, seed) | {'candidates': candidates}
  workdir = pipeline.weights['workdir']
  folder = evaluation_of(workdir)
  if long:
    clips = min(samples, LONG_CLIPS)
    measured, sounds = compare_ways(
      pipeline, factor=long, clips=clips, seed=seed, candidates=candidates
    )
    written = write_heard(folder, sounds, pipeline.rate)
    files = apart('evaluation/long')
    return write_findings(workdir, 'long audio', measured, about, written, files=files)
  network = CommandScorer(tuple(scorer)) if scorer else None
  measured, clips = judge_soundtracks(
    pipeline, samples=samples, seed=seed, candidates=candidates, scorer=network
  )
  selected = [clips[index] for index in evenly(len(clips), audio_alignment.SHOWN)]
  written = write_clips(folder, selected, pipeline.config.data.fps, pipeline.rate)
  show = soundtracks_of(clips, pipeline.config.data.fps, pipeline.rate)
  about['scorer'] = list(scorer)
  return write_findings(workdir, 'audio', measured, about, written, show)


def evaluate_upsampler(
  pipeline: Upsampler,
  *,
  samples: int = 64,
  seed: int = 0,
  clips: str = '',
  baseline: str = '',
  long: int = 0,
) -> Findings:
  """Degrades clips, upsamples them and compares the results with the originals, beside baselines.

  `baseline` is the work directory of a regression net to compare with. With `long` it instead
  upsamples clips `long` times as long and as wide as a window, and looks for seams.
  """
  about = _about(pipeline, seed)
  workdir = pipeline.weights['workdir']
  folder = evaluation_of(workdir)
  if long:
    measured, ways = judge_seams(pipeline, factor=long, clips=min(samples, SEAM_CLIPS), seed=seed)
    written = write_seams(folder, ways)
    files = apart('evaluation/seams')
    return write_findings(workdir, 'seams', measured, about, written, files=files)
  other = Upsampler(baseline, mesh=pipeline.mesh) if baseline else None
  measured, views = judge_upsampler(
    pipeline, samples=samples, seed=seed, baseline=other, clips=clips
  )
  written = [draw_upsampled(folder, views)]
  show = clips_of([view.beside for view in views], pipeline.config.data.fps)
  return write_findings(workdir, 'upsampler', measured, about, written, show)


def evaluate_clip(clip: Clip, *, samples: int = 4096) -> Findings:
  """Retrieves images and captions of held-out handwriting, and the same handwriting again."""
  workdir = clip.weights['workdir']
  measured, retrieved = judge_retrieval(clip, samples=samples)
  sheet = write_retrieved(evaluation_of(workdir), retrieved)
  return write_findings(workdir, 'clip', measured, {'weights': clip.weights}, [sheet])


def evaluate_suite(
  videos: str | os.PathLike[str],
  prompts: str | os.PathLike[str],
  *,
  clip: str = '',
  judge: str = '',
  reference: str = '',
) -> Findings:
  """Scores videos of a suite, of any model, and writes the numbers into their folder.

  See `find_videos` for the folder, `read_suite` for the prompts, and `score_suite` for the judge
  and the reference. `clip` is the work directory of a CLIP that compares frames with prompts.
  """
  suite = read_suite(prompts)
  files = find_videos(videos, suite)
  loaded = Clip(clip) if clip else None
  measured = score_suite(files, suite, clip=loaded, judge=judge, reference=reference)
  weights = loaded.weights if loaded else None
  about = {'clip': weights, 'judge': judge, 'reference': reference}
  paths = [files[index] for index in sorted(files)]
  folder = pathlib.Path(videos)
  return write_findings(folder, 'suite', measured, about, show=lambda index, _: paths[index])


def _about(pipeline: Any, seed: int) -> JSON:
  return {'weights': pipeline.weights, 'settings': pipeline.settings, 'seed': seed}


def _weights(workdir: pathlib.Path) -> JSON:
  step = open_checkpoints(workdir).steps()[-1]
  return {'workdir': os.fspath(workdir), 'step': step}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The evaluation of runs of a component.

  Attributes:
    judge: judges a loaded run: `(loaded, **options) -> Findings`.
    load: loads a run: `(workdir, **changes) -> loaded`; by default returns the work directory.
    changes: names of the options of `load`.
  """

  judge: Callable[..., Findings]
  load: Callable[..., Any] = pathlib.Path
  changes: tuple[str, ...] = ()

  @property
  def options(self) -> list[str]:
    """The names of all options, such as `samples`."""
    return [*self.changes, *list(inspect.signature(self.judge).parameters)[1:]]

  def __call__(self, workdir: str | os.PathLike[str], **options: object) -> Findings:
    """Loads the run in a work directory and judges it."""
    changes = {name: options.pop(name) for name in self.changes if name in options}
    return self.judge(self.load(workdir, **changes), **options)


# By component.
EVALUATORS = {
  'audio': Evaluation(evaluate_audio, AudioPipeline, SAMPLING),
  'autoencoder': Evaluation(evaluate_autoencoder),
  'clip': Evaluation(evaluate_clip, Clip),
  'codec': Evaluation(evaluate_codec),
  'editing': Evaluation(evaluate_editing, Editor, (*SAMPLING, 'strength')),
  'personalization': Evaluation(evaluate_personalization, PersonalizationPipeline, SAMPLING),
  'upsampler': Evaluation(evaluate_upsampler, Upsampler, SAMPLING),
  'video': Evaluation(evaluate_video, VideoPipeline, (*SAMPLING, 'reuse', 'shifts', 'weights')),
}


def evaluator_of(component: str) -> Evaluation:
  """Returns the evaluation of a component; raises ConfigError if it has none."""
  if component not in EVALUATORS:
    raise ConfigError(
      f'the component {component!r} has no evaluation; expected one of {", ".join(EVALUATORS)}'
    )
  return EVALUATORS[component]
