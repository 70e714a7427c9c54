"""Evaluates a trained model of any component: a table, a JSON record and pictures."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mgjax.audio.codec.losses import SPECTRAL_FLOOR
from mgjax.audio.codec.pipeline import load_audio_codec
from mgjax.audio.pipeline import AudioPipeline
from mgjax.checkpoints.workdir import open_checkpoints, read_config
from mgjax.clip.pipeline import Clip
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.editing.pipeline import Editor
from mgjax.evaluation import (
  audio_alignment,
  audio_reconstruction,
  editing,
  own_clips,
  personalization,
  reconstruction,
)
from mgjax.evaluation.alignment import judge_model, write_shown
from mgjax.evaluation.audio_alignment import judge_soundtracks, soundtracks_of, write_clips
from mgjax.evaluation.audio_reconstruction import (
  SECONDS,
  evaluate_audio_reconstruction,
  sample_audio,
  sounds_of,
  write_audio,
)
from mgjax.evaluation.editing import judge_editing
from mgjax.evaluation.long_audio import compare_ways
from mgjax.evaluation.mdct_baseline import make_truncated_mdct
from mgjax.evaluation.metrics.similarity import make_perceive
from mgjax.evaluation.own_clips import judge_clips, write_nearest
from mgjax.evaluation.personalization import judge_personalization
from mgjax.evaluation.reconstruction import (
  evaluate_reconstruction,
  evenly,
  sample_clips,
  write_pictures,
)
from mgjax.evaluation.record.write import (
  PAGE,
  Evaluated,
  Findings,
  Show,
  clips_of,
  write_findings,
)
from mgjax.evaluation.retrieval import judge_retrieval, write_retrieved
from mgjax.evaluation.scorers import CommandScorer
from mgjax.evaluation.sign_alignment import judge_signs, write_sheet
from mgjax.evaluation.suites.score import find_videos, score_suite
from mgjax.evaluation.suites.suite import read_suite
from mgjax.evaluation.upsampling import quality
from mgjax.evaluation.upsampling.quality import judge_upsampler
from mgjax.evaluation.upsampling.seams import judge_seams, write_seams
from mgjax.personalization.pipeline import PersonalizationPipeline
from mgjax.tae.pipeline import load_codec
from mgjax.upsampler.pipeline import Upsampler
from mgjax.video.pipeline import VideoPipeline

BESIDE = ('long audio', 'seams')  # that have a page of their own
LONG_CLIPS = 16  # at most, of the comparison of ways to longer sound
SEAM_CLIPS = 8  # at most, of the search for seams in upsampled videos


def evaluate_video(
  workdir: pathlib.Path,
  *,
  samples: int | None = None,
  seed: int = 0,
  steps: int | None = None,
  guidance: Any = None,
  reuse: float | None = None,
  weights: str | None = None,
  mesh: Mapping[str, int] | str | None = None,
  clips: str = '',
) -> Findings:
  """Samples captions of the small world that training never showed, and judges the videos.

  Of signs, numbers that training showed are sampled as well. Of a model of somebody's own clips it
  samples their captions and says which clips are nearest to the samples.

  Args:
    workdir: of the model.
    samples: videos, at least one a caption; of signs, of either kind of numbers; 216 by default. Of
      clips at most one a caption, by default 64.
    seed: of the noise.
    steps: of sampling; the run decides by default.
    guidance: changes of it, see `SampleSettings.changed`; the run decides by default.
    reuse: of velocities, see `SampleSettings`; the run decides by default.
    weights: type of the kernels, see `SampleSettings`; the run decides by default.
    mesh: devices, see `mgjax.parallel.mesh.make_mesh`; one by default.
    clips: a folder or manifest of the clips, if the run's own have moved.
  """
  changes = {'steps': steps, 'guidance': guidance, 'reuse': reuse, 'weights': weights}
  pipeline = VideoPipeline(workdir, mesh=mesh, **changes)
  kind, fps = pipeline.config.data.kind, pipeline.config.data.fps
  if clips and kind in ('digits', 'signs'):
    raise ConfigError(f'--clips={clips}: this model was trained on {kind}; leave --clips out')
  if kind == 'signs':
    found, made = judge_signs(pipeline, samples=samples or 216, seed=seed)
    sheets = [write_sheet(workdir / 'evaluation', made)]
    videos = [video for some, _ in made.values() for video in some]
  elif kind == 'digits':
    found, videos, prompts = judge_model(pipeline, samples=samples or 216, seed=seed)
    sheets, _ = write_shown(workdir / 'evaluation', videos, prompts, fps)
  else:
    most = samples or own_clips.SAMPLES
    found, videos, windows = judge_clips(pipeline, samples=most, seed=seed, clips=clips)
    sheets, _ = write_nearest(workdir / 'evaluation', found, videos, windows, fps)
  record = {'weights': pipeline.weights, 'settings': pipeline.settings, 'seed': seed}
  return _finish(workdir, 'video', found, record, sheets, clips_of(videos, fps))


def evaluate_personalization(
  workdir: pathlib.Path,
  *,
  samples: int = 216,
  seed: int = 0,
  steps: int | None = None,
  guidance: Any = None,
  mesh: Mapping[str, int] | str | None = None,
) -> Findings:
  """Makes videos of handwriting that training never showed, from one picture of it each.

  Args:
    workdir: of the model.
    samples: videos, at least one a caption.
    seed: of the noise.
    steps: of sampling; the run decides by default.
    guidance: changes of it, see `SampleSettings.changed`; the run decides by default.
    mesh: devices, see `mgjax.parallel.mesh.make_mesh`; one by default.
  """
  pipeline = PersonalizationPipeline(workdir, mesh=mesh, steps=steps, guidance=guidance)
  found, shown = judge_personalization(pipeline, samples=samples, seed=seed)
  sheet = personalization.write_shown(workdir / 'evaluation', shown)
  show = clips_of([each.beside for each in shown], pipeline.config.data.fps)
  record = {'weights': pipeline.weights, 'settings': pipeline.settings, 'seed': seed}
  return _finish(workdir, 'personalization', found, record, [sheet], show)


def evaluate_editing(
  workdir: pathlib.Path,
  *,
  samples: int = 216,
  seed: int = 0,
  steps: int | None = None,
  guidance: Any = None,
  mesh: Mapping[str, int] | str | None = None,
  untold: bool = False,
) -> Findings:
  """Edits clips of handwriting and combinations that training never showed, in every task.

  Args:
    workdir: of the model.
    samples: edits, shared out evenly to tasks.
    seed: of the noise.
    steps: of sampling; the run decides by default.
    guidance: changes of it, see `SampleSettings.changed`; the run decides by default.
    mesh: devices, see `mgjax.parallel.mesh.make_mesh`; one by default.
    untold: whether all edits are made again by the instruction alone, without the task.
  """
  editor = Editor(workdir, mesh=mesh, steps=steps, guidance=guidance)
  found, shown = judge_editing(editor, samples=samples, seed=seed, untold=untold)
  sheet = editing.write_shown(workdir / 'evaluation', shown)
  show = clips_of([each.beside for each in shown], editor.config.data.fps)
  record = {'weights': editor.weights, 'settings': editor.settings, 'seed': seed}
  return _finish(workdir, 'editing', found, record, [sheet], show)


def evaluate_autoencoder(
  workdir: pathlib.Path,
  *,
  samples: int = 64,
  clips: str = '',
  frames: int | None = None,
  size: tuple[int, int] | None = None,
  perceptual: str = '',
) -> Findings:
  """Measures reconstructions of clips.

  Args:
    workdir: of the autoencoder.
    samples: clips.
    clips: a folder or manifest; the run's validation data by default.
    frames: of a clip, 1 for images; the run decides by default.
    size: height and width; the run decides by default.
    perceptual: weights of LPIPS; those that the run was trained with by default, if there.
  """
  config, codec = read_config(workdir), load_codec(workdir)
  record = {'weights': _weights(workdir), 'perceptual': None}
  weights, perceive = pathlib.Path(perceptual or config.get('perceptual_weights', '')), None
  if perceptual or weights.is_file():
    perceive = make_perceive(weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    record['perceptual'] = {'path': os.fspath(weights), 'sha256': digest}
  data = data_settings(fields_of(config, 'data'))
  _, longest = longest_bucket(video_shapes(fields_of(config, 'buckets'), data.fps))
  videos, record['settings'] = sample_clips(
    data, longest, samples, clips=clips, frames=frames, size=size
  )
  chosen = record['settings']['chosen']
  shown = evenly(len(chosen), reconstruction.SHOWN)
  found = evaluate_reconstruction(codec, videos, perceive=perceive, shown=shown)
  found = dataclasses.replace(found, names=[f'clip {number}' for number in chosen])
  pictures = write_pictures(workdir / 'evaluation', found.shown, config.data.fps)
  pairs = dict(zip(shown, found.shown, strict=True)) | dict(found.extremes)
  wide = {place: reconstruction.beside(pair) for place, pair in pairs.items()}
  show, name = _of_some(wide, clips_of(wide, config.data.fps)), 'evaluation/reconstruction.json'
  return _finish(workdir, 'autoencoder', found, record, pictures, show, name)


def evaluate_codec(
  workdir: pathlib.Path, *, samples: int = 64, sounds: str = '', seconds: float = SECONDS
) -> Findings:
  """Measures reconstructions of sounds, beside an MDCT baseline at the same rate.

  Args:
    workdir: of the codec.
    samples: sounds.
    sounds: a folder of files; the run's validation data by default.
    seconds: of a sound.
  """
  config, codec = read_config(workdir), load_audio_codec(workdir)
  record = {'weights': _weights(workdir)}
  data, channels = data_settings(fields_of(config, 'data')), codec.model.channels
  chosen, record['settings'] = sample_audio(
    data, samples, sounds=sounds, channels=channels, seconds=seconds
  )
  sounds_chosen = record['settings']['chosen']
  shown = evenly(len(sounds_chosen), audio_reconstruction.SHOWN)
  others = {'MDCT': make_truncated_mdct(codec)}
  spectral_floor = config.objective.get('spectral_floor', SPECTRAL_FLOOR)
  found = evaluate_audio_reconstruction(
    codec, chosen, others=others, spectral_floor=spectral_floor, shown=shown
  )
  found = dataclasses.replace(found, names=[f'sound {number}' for number in sounds_chosen])
  written = write_audio(workdir / 'evaluation', found.shown, codec.rate)
  pairs = dict(zip(shown, found.shown, strict=True)) | dict(found.extremes)
  heard = {place: pair.again[audio_reconstruction.CODEC] for place, pair in pairs.items()}
  show, name = _of_some(heard, sounds_of(heard, codec.rate)), 'evaluation/reconstruction.json'
  return _finish(workdir, 'codec', found, record, written, show, name)


def evaluate_audio(
  workdir: pathlib.Path,
  *,
  samples: int = 64,
  seed: int = 0,
  steps: int | None = None,
  guidance: Any = None,
  mesh: Mapping[str, int] | str | None = None,
  scorer: Sequence[str] = (),
  long: int = 0,
) -> Findings:
  """Makes sounds for clips of the small world that training never showed, and judges them.

  Args:
    workdir: of the model.
    samples: clips.
    seed: of the noise.
    steps: of sampling; the run decides by default.
    guidance: changes of it, see `SampleSettings.changed`; the run decides by default.
    mesh: devices, see `mgjax.parallel.mesh.make_mesh`; one by default.
    scorer: a command that judges the sounds as well, see `mgjax.evaluation.scorers`.
    long: instead, makes clips so many times as long as in training in every way, and compares them.
  """
  pipeline = AudioPipeline(workdir, mesh=mesh, steps=steps, guidance=guidance)
  record = {'weights': pipeline.weights, 'settings': pipeline.settings, 'seed': seed}
  if long:
    compared = compare_ways(pipeline, factor=long, clips=min(samples, LONG_CLIPS), seed=seed)
    written = compared.write(workdir / 'evaluation', pipeline.rate)
    return _finish(workdir, 'long audio', compared, record, written, None, 'evaluation/long.json')
  network = CommandScorer(tuple(scorer)) if scorer else None
  found, clips = judge_soundtracks(pipeline, samples=samples, seed=seed, scorer=network)
  shown = [clips[index] for index in evenly(len(clips), audio_alignment.SHOWN)]
  written = write_clips(workdir / 'evaluation', shown, pipeline.config.data.fps, pipeline.rate)
  record |= {'scorer': list(scorer)}
  show = soundtracks_of(clips, pipeline.config.data.fps, pipeline.rate)
  return _finish(workdir, 'audio', found, record, written, show)


def evaluate_upsampler(
  workdir: pathlib.Path,
  *,
  samples: int = 64,
  seed: int = 0,
  steps: int | None = None,
  guidance: Any = None,
  mesh: Mapping[str, int] | str | None = None,
  clips: str = '',
  baseline: str = '',
  long: int = 0,
) -> Findings:
  """Degrades clips, enlarges them and compares with what they were, beside other ways to enlarge.

  Args:
    workdir: of the upsampler.
    samples: clips.
    seed: of the noise.
    steps: of sampling; the run decides by default.
    guidance: changes of it, see `SampleSettings.changed`; the run decides by default.
    mesh: devices, see `mgjax.parallel.mesh.make_mesh`; one by default.
    clips: a folder or manifest; the run's validation data by default.
    baseline: the work directory of a regression net, to compare with.
    long: instead, makes clips so many times as long and as wide, and looks for seams.
  """
  pipeline = Upsampler(workdir, mesh=mesh, steps=steps, guidance=guidance)
  record = {'weights': pipeline.weights, 'settings': pipeline.settings, 'seed': seed}
  if long:
    seams, ways = judge_seams(pipeline, factor=long, clips=min(samples, SEAM_CLIPS), seed=seed)
    pictures = write_seams(workdir / 'evaluation', ways)
    return _finish(workdir, 'seams', seams, record, pictures, None, 'evaluation/seams.json')
  other = Upsampler(baseline, mesh=mesh) if baseline else None
  found, shown = judge_upsampler(pipeline, samples=samples, seed=seed, baseline=other, clips=clips)
  pictures = quality.write_shown(workdir / 'evaluation', shown)
  show = clips_of([each.beside for each in shown], pipeline.config.data.fps)
  return _finish(workdir, 'upsampler', found, record, pictures, show)


def evaluate_clip(workdir: pathlib.Path, *, samples: int = 4096) -> Findings:
  """Retrieves images and captions of held-out handwriting, and the same handwriting again.

  Args:
    workdir: of the CLIP.
    samples: images.
  """
  clip = Clip(workdir)
  found, retrieved = judge_retrieval(clip, samples=samples)
  sheet = write_retrieved(workdir / 'evaluation', retrieved)
  return _finish(workdir, 'clip', found, {'weights': clip.weights}, [sheet], None)


def evaluate_suite(
  videos: str | os.PathLike[str],
  prompts: str | os.PathLike[str],
  *,
  clip: str = '',
  judge: str = '',
  reference: str = '',
) -> Findings:
  """Scores videos of a suite, whoever made them, and writes the numbers into their folder.

  Args:
    videos: the folder, see `find_videos`.
    prompts: the suite, see `read_suite`.
    clip: work directory of a CLIP that compares frames with prompts.
    judge: 'digits' for the small world's.
    reference: a folder of true videos, or a .npy of their vectors, to compare all videos with.
  """
  suite = read_suite(prompts)
  files = find_videos(videos, suite)
  loaded = Clip(clip) if clip else None
  found = score_suite(files, suite, clip=loaded, judge=judge, reference=reference)
  weights = loaded.weights if loaded else None
  record = {'clip': weights, 'judge': judge, 'reference': reference}
  there = [pathlib.Path(file) for file in found.files if file]
  return _finish(pathlib.Path(videos), 'suite', found, record, [], lambda place, _: there[place])


def _weights(workdir: pathlib.Path) -> dict[str, Any]:
  step = open_checkpoints(workdir).steps()[-1]
  return {'workdir': os.fspath(workdir), 'step': step}


def _of_some(kept: Collection[int], show: Show) -> Show:
  """Shows those samples that were kept, and of the others nothing."""
  return lambda place, stem: show(place, stem) if place in kept else None


def _finish(
  folder: pathlib.Path,
  task: str,
  found: Evaluated,
  record: dict[str, Any],
  written: list[pathlib.Path],
  show: Show | None,
  name: str = 'evaluation.json',
) -> Findings:
  # Of what is looked at beside the evaluation itself, as seams, the page goes with the record.
  page = folder / PAGE
  if task in BESIDE:
    page = (folder / name).with_suffix('.html')
  return write_findings(task, found, record, folder / name, written, page=page, show=show)
