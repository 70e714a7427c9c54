"""Evaluates a trained model of any component: its numbers, their page and record, and pictures.

`EVALUATORS` has the evaluation of each component. It loads a run by `SAMPLING` and its other
options of sampling, and judges what was loaded by the function's own options, among them

  samples: how many videos, sounds or clips are judged.
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
from mgjax.lab.evaluation.worlds.alignment import judge_for, judge_model, judge_of_data, write_shown
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

LONG_CLIPS = 16  # at most, of the comparison of ways to longer sound
SEAM_CLIPS = 8  # at most, of the search for seams in upsampled videos
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
  """Samples captions that training never showed, and judges the videos by the judge of their world.

  Of signs, numbers that training showed are sampled as well. Of a model of somebody's own clips it
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
    found, videos, prompts = judge_model(pipeline, samples=samples or 216, seed=seed)
    sheets, _ = write_shown(folder, videos, prompts, fps)
    found = _with_camera(pipeline, found, videos, samples or 216)
    found = _together(found, classify(pipeline, seed=seed)) if classifier else found
  else:
    most = samples or own_clips.SAMPLES
    found, videos, windows = judge_clips(pipeline, samples=most, seed=seed, clips=clips)
    sheets, _ = write_nearest(folder, found, videos, windows, fps)
  about = _about(pipeline, seed)
  return write_findings(workdir, 'video', found, about, sheets, clips_of(videos, fps))


def _with_camera(
  pipeline: VideoPipeline, found: Measured, videos: np.ndarray, samples: int
) -> Measured:
  """Adds the camera's paths, beside those read from real clips, where the judge follows it."""
  judge = judge_for(pipeline)
  if not isinstance(judge, CameraJudge):
    return found
  asked = [each for group in judge.asks(samples).values() for each in group]
  places = judge.moves(asked)
  if not places:
    return found
  asked = [asked[place] for place in places]
  real = [clip['video'] for clip in judge.clips(asked)]
  paths = {'model': judge.paths(videos[places], asked), 'real clips': judge.paths(real, asked)}
  return _together(found, compare_paths(paths))


def _together(found: Measured, more: Measured) -> Measured:
  return dataclasses.replace(
    found,
    metrics={**found.metrics, **more.metrics},
    record={**found.record, **more.record},
    notes=[*found.notes, *more.notes],
  )


def evaluate_personalization(
  pipeline: PersonalizationPipeline, *, samples: int = 216, seed: int = 0, clip: str = ''
) -> Findings:
  """Makes videos of identities not in training from a picture of each, one or more a caption.

  `clip` is the work directory of a CLIP with a head for identities, which says of frames whom they
  show.
  """
  recogniser = Clip(clip) if clip else None
  found, shown = judge_personalization(pipeline, samples=samples, seed=seed, recogniser=recogniser)
  some = [shown[place] for place in evenly(len(shown), SHEETS)]
  workdir = pipeline.weights['workdir']
  sheet = draw_below(evaluation_of(workdir) / 'personalized.png', some)
  show = clips_of([each.beside for each in shown], pipeline.config.data.fps)
  return write_findings(workdir, 'personalization', found, _about(pipeline, seed), [sheet], show)


def evaluate_editing(
  editor: Editor, *, samples: int = 216, seed: int = 0, untold: bool = False
) -> Findings:
  """Edits clips of handwriting and combinations that training never showed, in every task alike.

  With `untold` all edits are made again by the instruction alone, without the task.
  """
  found, rows = judge_editing(editor, samples=samples, seed=seed, untold=untold)
  workdir = editor.weights['workdir']
  sheet = draw_below(evaluation_of(workdir) / 'edited.png', [row[0] for row in rows.values()])
  videos = [each.beside for row in rows.values() for each in row]
  show = clips_of(videos, editor.config.data.fps)
  return write_findings(workdir, 'editing', found, _about(editor, seed), [sheet], show)


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
  """Measures reconstructions of clips of `frames` (1 for images) and `size`; the run decides.

  `perceptual` names weights of LPIPS; by default those that the run was trained with, if there.
  With `judged` the judge of the run's world reads `samples` clips of each of its groups instead.
  """
  config, codec = read_config(workdir), load_codec(workdir)
  data = data_settings(fields_of(config, 'data'))
  _, longest = longest_bucket(video_shapes(fields_of(config, 'buckets'), data.fps))
  if judged:
    judge = judge_of_data(data, longest.frames, longest.size)
    found = judge_reconstruction(codec, judge, samples)
    about = {'weights': _weights(workdir)}
    return write_findings(workdir, 'judged', found, about, files=apart('evaluation/judged'))
  about: JSON = {'weights': _weights(workdir), 'perceptual': None}
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
  shown = evenly(len(chosen), reconstruction.SHOWN)
  names = [f'clip {number}' for number in chosen]
  found, pairs = evaluate_reconstruction(codec, videos, perceive=perceive, shown=shown, names=names)
  some = [pairs[place] for place in shown]
  pictures = write_pictures(evaluation_of(workdir), some, config.data.fps)
  wide = {place: reconstruction.beside(pair) for place, pair in pairs.items()}
  show = clips_of(wide, config.data.fps)
  return write_findings(workdir, 'autoencoder', found, about, pictures, show, RECONSTRUCTION)


def evaluate_codec(
  workdir: pathlib.Path, *, samples: int = 64, sounds: str = '', seconds: float = SECONDS
) -> Findings:
  """Measures reconstructions of sounds of some seconds, beside an MDCT at the same rate."""
  config, codec = read_config(workdir), load_audio_codec(workdir)
  data = data_settings(fields_of(config, 'data'))
  channels = codec.model.channels
  chosen, settings = sample_audio(data, samples, sounds=sounds, channels=channels, seconds=seconds)
  shown = evenly(len(settings['chosen']), audio_reconstruction.SHOWN)
  found, pairs = evaluate_audio_reconstruction(
    codec,
    chosen,
    others={'MDCT': make_truncated_mdct(codec)},
    spectral_floor=config.objective.get('spectral_floor', SPECTRAL_FLOOR),
    shown=shown,
    names=[f'sound {number}' for number in settings['chosen']],
  )
  written = write_audio(evaluation_of(workdir), [pairs[place] for place in shown], codec.rate)
  heard = {place: pair.again[audio_reconstruction.CODEC] for place, pair in pairs.items()}
  about = {'weights': _weights(workdir), 'settings': settings}
  show = sounds_of(heard, codec.rate)
  return write_findings(workdir, 'codec', found, about, written, show, RECONSTRUCTION)


def evaluate_audio(
  pipeline: AudioPipeline,
  *,
  samples: int = 64,
  seed: int = 0,
  candidates: int = 1,
  scorer: Sequence[str] = (),
  long: int = 0,
) -> Findings:
  """Makes sounds for clips of moving digits that training never showed, and judges them.

  Of `candidates` the one counts whose onsets follow the pictures best. `scorer` is a command that
  judges the sounds as well, see `mgjax.lab.evaluation.external_scorers`. With `long` it instead
  makes clips so many times as long as in training in every way, and compares them.
  """
  about = _about(pipeline, seed) | {'candidates': candidates}
  workdir = pipeline.weights['workdir']
  folder = evaluation_of(workdir)
  if long:
    clips = min(samples, LONG_CLIPS)
    found, heard = compare_ways(
      pipeline, factor=long, clips=clips, seed=seed, candidates=candidates
    )
    written = write_heard(folder, heard, pipeline.rate)
    files = apart('evaluation/long')
    return write_findings(workdir, 'long audio', found, about, written, files=files)
  network = CommandScorer(tuple(scorer)) if scorer else None
  found, clips = judge_soundtracks(
    pipeline, samples=samples, seed=seed, candidates=candidates, scorer=network
  )
  shown = [clips[index] for index in evenly(len(clips), audio_alignment.SHOWN)]
  written = write_clips(folder, shown, pipeline.config.data.fps, pipeline.rate)
  show = soundtracks_of(clips, pipeline.config.data.fps, pipeline.rate)
  about['scorer'] = list(scorer)
  return write_findings(workdir, 'audio', found, about, written, show)


def evaluate_upsampler(
  pipeline: Upsampler,
  *,
  samples: int = 64,
  seed: int = 0,
  clips: str = '',
  baseline: str = '',
  long: int = 0,
) -> Findings:
  """Degrades clips, enlarges them and compares with what they were, beside other ways to enlarge.

  `baseline` is the work directory of a regression net to compare with. With `long` it instead makes
  clips so many times as long and as wide, and looks for seams.
  """
  about = _about(pipeline, seed)
  workdir = pipeline.weights['workdir']
  folder = evaluation_of(workdir)
  if long:
    found, ways = judge_seams(pipeline, factor=long, clips=min(samples, SEAM_CLIPS), seed=seed)
    written = write_seams(folder, ways)
    files = apart('evaluation/seams')
    return write_findings(workdir, 'seams', found, about, written, files=files)
  other = Upsampler(baseline, mesh=pipeline.mesh) if baseline else None
  found, shown = judge_upsampler(pipeline, samples=samples, seed=seed, baseline=other, clips=clips)
  written = [draw_upsampled(folder, shown)]
  show = clips_of([each.beside for each in shown], pipeline.config.data.fps)
  return write_findings(workdir, 'upsampler', found, about, written, show)


def evaluate_clip(clip: Clip, *, samples: int = 4096) -> Findings:
  """Retrieves images and captions of held-out handwriting, and the same handwriting again."""
  workdir = clip.weights['workdir']
  found, retrieved = judge_retrieval(clip, samples=samples)
  sheet = write_retrieved(evaluation_of(workdir), retrieved)
  return write_findings(workdir, 'clip', found, {'weights': clip.weights}, [sheet])


def evaluate_suite(
  videos: str | os.PathLike[str],
  prompts: str | os.PathLike[str],
  *,
  clip: str = '',
  judge: str = '',
  reference: str = '',
) -> Findings:
  """Scores videos of a suite, of any model, and writes the numbers into their folder.

  `find_videos` and `read_suite` say what the folder and the prompts are, `score_suite` the judge
  and the reference; `clip` is the work directory of a CLIP that compares frames with prompts.
  """
  suite = read_suite(prompts)
  files = find_videos(videos, suite)
  loaded = Clip(clip) if clip else None
  found = score_suite(files, suite, clip=loaded, judge=judge, reference=reference)
  weights = loaded.weights if loaded else None
  about = {'clip': weights, 'judge': judge, 'reference': reference}
  there = [files[place] for place in sorted(files)]
  folder = pathlib.Path(videos)
  return write_findings(folder, 'suite', found, about, show=lambda place, _: there[place])


def _about(pipeline: Any, seed: int) -> JSON:
  return {'weights': pipeline.weights, 'settings': pipeline.settings, 'seed': seed}


def _weights(workdir: pathlib.Path) -> JSON:
  step = open_checkpoints(workdir).steps()[-1]
  return {'workdir': os.fspath(workdir), 'step': step}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How runs of a component are evaluated.

  Attributes:
    judge: the function that judges what was loaded: `(loaded, **options) -> Findings`.
    load: loads a run: `(workdir, **changes) -> loaded`; by default the work directory itself.
    changes: the names of options that `load` takes.
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
  """Returns how runs of a component are evaluated. Raises ConfigError if nothing evaluates them."""
  if component not in EVALUATORS:
    raise ConfigError(
      f'the component {component!r} has no evaluation; expected one of {", ".join(EVALUATORS)}'
    )
  return EVALUATORS[component]
