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

from . import command_line, flag_values


def _spans(text: str) -> list[tuple[float, float]]:
  try:
    spans = [tuple(float(value) for value in span.split('-')) for span in text.split(',')]
    return [(begin, end) for begin, end in spans]
  except ValueError:
    raise ConfigError(f'--known={text}: expected seconds, as in 0-4,6-8') from None


_WORKDIR = command_line.define_required(
  'workdir', 'runs/audio', 'Work directory of the trained audio model.'
)
_PROMPT = command_line.define_required(
  'prompt', 'rain on a tin roof', 'What is to be heard; or a whole structured caption.'
)
_VIDEO = flag_values.define(
  'video', flag_values.file('video'), 'What the sound is for; its own sound is left out.'
)
_SECONDS = flags.DEFINE_float('seconds', None, 'Length without a video.', lower_bound=0)
_OUT = flag_values.define(
  'out',
  flag_values.output('.mp4', '.wav'),
  'An .mp4, or a .wav for sound alone; soundtrack.mp4 or soundtrack.wav.',
)
_MUSIC = flags.DEFINE_string('music', '', 'Mood and genre of music that is wanted too.')
_QUALITY = flags.DEFINE_float(
  'quality', None, 'Of the sound, 0 to 10; 7, or 8 with music.', lower_bound=0, upper_bound=10
)
_CONTINUE = flag_values.define(
  'continue', flag_values.file('continue'), 'A sound to go on with or to fill up.'
)
_KNOWN = flag_values.define('known', _spans, 'Seconds of it that stay, as in 0-4,6-8; all of it.')
_EXTEND = flags.DEFINE_enum(
  'extend',
  'multi_diffusion',
  ('multi_diffusion', 'autoregressive', 'concatenate', 'whole'),
  'How to go beyond the length of training.',
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
_CONDITION = flag_values.define(
  'condition',
  flag_values.condition,
  'What else the model reads, by name, as in name=value.',
  many=True,
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the noise.', lower_bound=0)
_STEPS = flag_values.define_steps()
_GUIDANCE = flag_values.define_guidance()
_SOLVER = flag_values.define_solver()
_MESH = flag_values.define_mesh()
_ROWS = flags.DEFINE_integer('rows', 8, 'Windows in a call of the model.', lower_bound=1)
_LOUDNESS = flags.DEFINE_float(
  'loudness', -16.0, 'LUFS to bring the sound to; 0 leaves it.', lower_bound=-60, upper_bound=0
)
_GAIN_LIMIT = flags.DEFINE_float(
  'gain_limit', 24.0, 'dB that a soft sound is amplified by at most.', lower_bound=0, upper_bound=60
)


def main(_) -> None:
  if _VIDEO.value is None and _SECONDS.value is None:
    raise ConfigError('how long? without a video the length is given: --seconds=10')
  if _KNOWN.value is not None and _CONTINUE.value is None:
    raise ConfigError('--known says which seconds of a sound stay; give it with --continue')
  out = _OUT.value or f'soundtrack.{"wav" if _VIDEO.value is None else "mp4"}'
  if _VIDEO.value is None and out.endswith('.mp4'):
    raise ConfigError(f'--out={out}: there is no video to go into an .mp4; name it .wav')

  from mgjax.audio.extend import Extension
  from mgjax.audio.files import Request, request_caption, write_files
  from mgjax.audio.pipeline import AudioPipeline
  from mgjax.evaluation.scorers import CommandScorer
  from mgjax.media.provenance import release

  release.admit([_PROMPT.value, _MUSIC.value])  # before the weights are read
  tracker = AudioPipeline(
    _WORKDIR.value,
    mesh=_MESH.value,
    steps=_STEPS.value,
    guidance=_GUIDANCE.value,
    solver=_SOLVER.value,
  )
  request = Request(
    request_caption(tracker, _PROMPT.value, music=_MUSIC.value, quality=_QUALITY.value),
    video=_VIDEO.value,
    seconds=_SECONDS.value,
    given=_CONTINUE.value,
    spans=_KNOWN.value,
    extension=Extension(_EXTEND.value, window=_WINDOW.value, overlap=_OVERLAP.value),
    seed=_SEED.value,
    candidates=_CANDIDATES.value,
    beams=_BEAMS.value,
    rows=_ROWS.value,
    loudness=_LOUDNESS.value or None,
    gain_limit=_GAIN_LIMIT.value,
    conditions=dict(_CONDITION.value),
  )
  scorer = CommandScorer(shlex.split(_SCORER.value)) if _SCORER.value else None
  for path in write_files(tracker, request, out, scorer):
    print(path)


if __name__ == '__main__':
  command_line.run(main)
