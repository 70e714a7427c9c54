"""From nothing to videos: trains an autoencoder and a text-to-video model, samples, judges.

python -m launch.quickstart --workdir=runs/quickstart
python -m launch.quickstart --clips=my_clips/ --workdir=runs/mine
Without --clips, the data are moving digits, made on the fly. With it, your own: a folder of videos
with captions (clip.mp4 and clip.txt), or a .csv or .jsonl with the columns video and caption.
The same command again goes on where it stopped.
"""

from absl import flags

from configs.clips import autoencoder as clips_autoencoder
from configs.clips import video as clips_video
from configs.digits import autoencoder as digits_autoencoder
from configs.digits import video as digits_video
from launch import command_line
from mgjax.evaluation import quickstart

_WORKDIR = flags.DEFINE_string('workdir', 'runs/quickstart', 'Directory for everything made.')
_CLIPS = flags.DEFINE_string('clips', '', 'Folder or manifest of your own clips.')
_SAMPLES = flags.DEFINE_integer('samples', 216, 'Videos that the judge reads.', lower_bound=1)


def main(_) -> None:
  workdir = _WORKDIR.value
  if _CLIPS.value:
    autoencoder = clips_autoencoder.get_config(_CLIPS.value)
    video = clips_video.get_config(_CLIPS.value)
  else:
    autoencoder, video = digits_autoencoder.get_config(), digits_video.get_config()
  trained = quickstart.train_both(autoencoder, video, workdir)
  if trained is None:
    return  # stopped by a signal, as the log says
  stages, model = trained
  if _CLIPS.value:
    text, paths = quickstart.report_clips(stages, model, workdir)
  else:
    text, paths = quickstart.report_digits(stages, model, workdir, samples=_SAMPLES.value)
  print(f'\n{text}\n', *paths, sep='\n')
  print(f"\nMake your own: python -m launch.sample --workdir={model} --prompt='...' --out=out.mp4")


if __name__ == '__main__':
  command_line.run(main)
