r"""Makes the sound of a video of any length, or of a text alone, with a trained audio model.

python -m launch.soundtrack --workdir=runs/audio --video=clip.mp4 --out=out.mp4 \
  --prompt='rain on a tin roof' --music='slow piano, melancholic'
python -m launch.soundtrack --workdir=runs/audio --prompt='waves' --seconds=60 --out=waves.wav
python -m launch.soundtrack --workdir=runs/audio --prompt='waves' --seconds=60 --out=more.wav \
  --continue=waves_10s.wav
--continue keeps all of a sound and goes on after it; with --known=0-4,6-8 only these seconds of it
are kept, and what is between and after them is generated. The sound is brought to --loudness, but
amplified by no more than --gain_limit; silence stays as it is. Writes out.mp4 (the pictures
untouched, the sound as AAC), out.wav, out.png with waveform and spectrogram, and out.json with
everything needed to make it again.
"""

import shlex

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line

_WORKDIR = flags.DEFINE_string('workdir', '', 'Work directory of the trained audio model.')
_PROMPT = flags.DEFINE_string('prompt', '', 'What is to be heard; or a whole structured caption.')
_VIDEO = flags.DEFINE_string('video', None, 'What the sound is for; its own sound is left out.')
_SECONDS = flags.DEFINE_float('seconds', None, 'Length without a video.')
_OUT = flags.DEFINE_string(
  'out', None, 'An .mp4, or a .wav for sound alone; soundtrack.mp4 or soundtrack.wav.'
)
_MUSIC = flags.DEFINE_string('music', '', 'Mood and genre of music that is wanted too.')
_QUALITY = flags.DEFINE_float('quality', None, 'Of the sound, 0 to 10; 7, or 8 with music.')
_CONTINUE = flags.DEFINE_string('continue', None, 'A sound to go on with or to fill up.')
_KNOWN = flags.DEFINE_list('known', None, 'Seconds of it that stay, as in 0-4,6-8; all of it.')
_EXTEND = flags.DEFINE_string(
  'extend',
  'multi_diffusion',
  'How to go beyond the length of training: multi_diffusion, autoregressive, concatenate or whole.',
)
_WINDOW = flags.DEFINE_float('window', None, 'Seconds made at a time; the length of training.')
_OVERLAP = flags.DEFINE_float('overlap', None, 'Seconds that windows share.')
_CANDIDATES = flags.DEFINE_integer(
  'candidates', None, 'Of which the best is taken; 8 with a video or a scorer, else 1.',
  lower_bound=1,
)  # fmt: skip
_BEAMS = flags.DEFINE_integer('beams', 1, 'Histories that are carried on.', lower_bound=1)
_SCORER = flags.DEFINE_string(
  'scorer', '', 'A command that judges candidates; by default their alignment with the pictures.'
)
_CONDITION = flags.DEFINE_multi_string(
  'condition', [], 'What else the model reads, by name, as in name=value.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_STEPS = flags.DEFINE_integer('steps', None, 'Sampling steps; the run decides if not given.')
_GUIDANCE = flags.DEFINE_string(
  'guidance', None, 'Scale of every condition, or by name in order: video=2,text=3@0.2-0.8.'
)
_SOLVER = flags.DEFINE_string('solver', None, 'euler, midpoint, heun or dormand_prince.')
_MESH = flags.DEFINE_string('mesh', None, 'Over devices, as context=8; one device if not given.')
_ROWS = flags.DEFINE_integer('rows', 8, 'Windows in a call of the model.', lower_bound=1)
_LOUDNESS = flags.DEFINE_float('loudness', -16.0, 'LUFS to bring the sound to; 0 leaves it.')
_GAIN_LIMIT = flags.DEFINE_float(
  'gain_limit', 24.0, 'dB that a soft sound is amplified by at most.'
)


def main(_) -> None:
  from mgjax.audio.extend import Extension
  from mgjax.audio.files import Request, request_caption, write_files
  from mgjax.audio.pipeline import AudioPipeline
  from mgjax.evaluation.scorers import CommandScorer

  workdir = command_line.required(_WORKDIR, 'runs/audio')
  prompt = command_line.required(_PROMPT, "'rain on a tin roof'")
  spans = None if _KNOWN.value is None else [_span(text) for text in _KNOWN.value]
  tracker = AudioPipeline(
    workdir,
    mesh=_MESH.value,
    steps=_STEPS.value,
    guidance=command_line.guidance(_GUIDANCE.value),
    solver=_SOLVER.value,
  )
  request = Request(
    request_caption(tracker, prompt, music=_MUSIC.value, quality=_QUALITY.value),
    video=_VIDEO.value,
    seconds=_SECONDS.value,
    given=_CONTINUE.value,
    spans=spans,
    extension=Extension(_EXTEND.value, window=_WINDOW.value, overlap=_OVERLAP.value),
    seed=_SEED.value,
    candidates=_CANDIDATES.value,
    beams=_BEAMS.value,
    rows=_ROWS.value,
    loudness=_LOUDNESS.value or None,
    gain_limit=_GAIN_LIMIT.value,
    conditions=command_line.conditions(_CONDITION.value),
  )
  scorer = CommandScorer(shlex.split(_SCORER.value)) if _SCORER.value else None
  out = _OUT.value or f'soundtrack.{"wav" if _VIDEO.value is None else "mp4"}'
  for path in write_files(tracker, request, out, scorer):
    print(path)


def _span(text: str) -> tuple[float, float]:
  try:
    begin, end = (float(value) for value in text.split('-'))
  except ValueError:
    raise ConfigError(f'--known={text}: expected seconds, as in 0-4,6-8') from None
  return begin, end


if __name__ == '__main__':
  command_line.run(main)
