"""A video and a prompt in, a soundtrack out: of any length, the same again, or a sentence."""

import json
import tracemalloc

import jax
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, NonFiniteError
from mgjax.data.media.audio import read_audio, write_wav
from mgjax.data.media.video import probe, read_clip, write_video
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.audio.extend import Extension
from mgjax.sections.audio.files import Soundtrack
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.sections.audio.rerank import OnsetAlignment
from tests import binaries

PROMPT = 'the green digit 3 bounces'
RATE, STEP = 48_000, 1920
WINDOW = 10  # latents of training


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """A digit that bounces for 1.6 s."""
  path = tmp_path_factory.mktemp('clips') / 'clip.mp4'
  digits = Digits(captions='all', frames=40, size=(32, 32), motions=('bounce',), fps=25)
  write_video(path, digits[0]['video'], 25)
  return path


def noise(seconds, seed=0, channels=1):
  size = (round(seconds * RATE), channels)
  return np.random.default_rng(seed).uniform(-0.4, 0.4, size).astype(np.float32)


def whole(tracker, seconds, how='multi_diffusion', prompt=PROMPT, extension=None, **options):
  extension = extension or Extension(how)
  options = {'candidates': 1, **options}
  return np.concatenate(
    list(tracker.stream(prompt, seconds=seconds, extension=extension, **options))
  )


def make(tracker, out, **fields):
  paths = tracker.save(PROMPT, out, **fields)
  return paths, json.loads(paths[-1].read_text())


def test_the_binary_writes_what_a_second_call_repeats_bit_by_bit(
  tiny_sound_runs, tracker, clip, tmp_path
):
  out = tmp_path / 'new' / 'three.mp4'
  flags = [f'--video={clip}', f'--prompt={PROMPT}', '--seed=5', f'--out={out}', '--candidates=2']
  flags += ['--gain_limit=3']
  done = binaries.finish('sample', 'audio', f'--workdir={tiny_sound_runs}/audio', *flags)
  written = [out.with_suffix(kind) for kind in ('.mp4', '.wav', '.png', '.json')]
  assert done.stdout.split() == [str(path) for path in written]
  record = json.loads(written[3].read_text())
  assert record['request']['prompt'] == PROMPT and record['request']['seed'] == 5
  assert record['settings']['solver'] == 'midpoint' and record['weights']['step'] == 6
  assert record['sound']['gain'] == pytest.approx(10 ** (3 / 20))
  assert 'the sound is soft' in done.stderr and 'amplified by 3 dB' in done.stderr
  # The pictures are those of the clip, untouched, and there is a sound as long as they.
  info = probe(out)
  assert info.has_audio and info.seconds == pytest.approx(1.6, abs=0.02)
  frames = [read_clip(path, frames=40, size=(32, 32), fps=25) for path in (clip, out)]
  np.testing.assert_array_equal(*frames)
  sound = read_audio(written[1], rate=RATE)
  assert len(sound) == 1.6 * RATE and np.abs(sound).max() <= 10 ** (-1 / 20) + 1 / 32767
  # Another process, the same seed: the same samples.
  again = {'video': str(clip), 'seed': 5, 'candidates': 2, 'gain_limit': 3.0}
  _, again = make(tracker, tmp_path / 'again.mp4', **again)
  assert again['sound'] == record['sound']
  _, other = make(tracker, tmp_path / 'other.wav', video=str(clip), seed=6, candidates=2)
  assert other['sound']['samples'] != record['sound']['samples']
  assert not (tmp_path / 'other.mp4').exists()


@pytest.mark.parametrize('how', ['multi_diffusion', 'autoregressive', 'concatenate'])
def test_sound_of_any_length_is_made(tracker, how):
  for seconds in (0.03, 0.41, 4.0):
    sound = whole(tracker, seconds, how)
    assert sound.shape == (round(seconds * RATE), 1) and np.isfinite(sound).all()
  # What fits into a window is the same, whatever would make more of it.
  np.testing.assert_array_equal(whole(tracker, 0.4, how), whole(tracker, 0.4, 'whole'))


def test_devices_that_share_the_weights_and_tokens_make_the_sound_of_one(tiny_sound_runs, tracker):
  shared = AudioPipeline(tiny_sound_runs / 'audio', mesh='fsdp=2,context=4')
  kernel = shared._params['backbone']['layers']['feed_forward']['up']['kernel']
  assert not kernel.is_fully_replicated
  for seconds in (0.4, 1.0):  # a window, and several of multi-diffusion
    alone, together = (whole(each, seconds, seed=3) for each in (tracker, shared))
    # Sums in another order: some hundred roundings, through the steps and the codec's layers.
    np.testing.assert_allclose(together, alone, atol=1e-4 * np.abs(alone).max())


def test_as_a_whole_is_what_the_model_has_positions_for(tracker):
  assert whole(tracker, 0.8, 'whole').shape == (0.8 * RATE, 1)
  with pytest.raises(ConfigError, match=r'has positions for 0\.8 s; choose one of multi_diffusion'):
    tracker.stream(PROMPT, seconds=0.9, extension=Extension('whole'))


def test_a_pipeline_that_is_changed_makes_soundtracks_by_the_change(tracker):
  before = whole(tracker, 0.4, 'whole')
  assert np.any(before != whole(tracker.changed(steps=3, solver='euler'), 0.4, 'whole'))
  np.testing.assert_array_equal(before, whole(tracker, 0.4, 'whole'))


def test_a_long_soundtrack_holds_no_more_memory_than_a_short_one(tiny_sound_runs):
  tracker = AudioPipeline(tiny_sound_runs / 'audio', solver='euler', steps=1, guidance=1.0)

  def peak(seconds):
    tracemalloc.start()
    try:
      samples = 0
      for chunk in tracker.stream(PROMPT, seconds=seconds, extension=Extension('autoregressive')):
        samples += len(chunk)
      assert samples == seconds * RATE
      return tracemalloc.get_traced_memory()[1]
    finally:
      tracemalloc.stop()

  for seconds in (4.0, 16.0):  # what is compiled stays
    peak(seconds)
  short, long = peak(4.0), peak(16.0)
  # The sound alone is 2.3 MB more. What may grow is the list of where windows begin.
  assert long < short + 1e6


def test_the_prompt_and_the_pictures_matter_and_the_seed(tracker, clip):
  def sound(prompt=PROMPT, seed=0, video_track=True):
    return whole(
      tracker,
      1.0,
      prompt=prompt,
      seed=seed,
      video=tracker.video_track(clip) if video_track else None,
    )

  usual = sound()
  np.testing.assert_array_equal(sound(), usual)
  for other in (sound(prompt='the red digit 7 falls'), sound(seed=1), sound(video_track=False)):
    assert (other != usual).any()


def test_the_best_candidate_is_the_best_in_the_scorers_eyes(tracker, clip):
  heard = []

  def scorer(sounds, rate, *, caption='', motion=None):
    assert rate == RATE and caption == PROMPT and motion.shape == (sounds.shape[1] // STEP,)
    heard.append(sounds)
    return np.arange(len(sounds), dtype=float)  # the last one, always

  options = {'video': tracker.video_track(clip), 'scorer': scorer, 'candidates': 3, 'rows': 2}
  sound = whole(tracker, 0.4, 'autoregressive', **options)
  (candidates,) = heard
  assert candidates.shape == (3, 0.4 * RATE, 1)
  np.testing.assert_allclose(sound, candidates[2], atol=1e-6)
  assert (candidates[0] != candidates[1]).any()
  for how in ('multi_diffusion', 'autoregressive'):
    chosen = whole(tracker, 1.6, how, video=tracker.video_track(clip), candidates=2)  # by alignment
    assert chosen.shape == (1.6 * RATE, 1)


def test_with_pictures_or_a_scorer_it_is_the_best_of_eight(tracker, clip, tmp_path):
  counts = []

  def scorer(sounds, rate, **_):
    counts.append(len(sounds))
    return np.zeros(len(sounds))

  tracker.generate([PROMPT], scorer=scorer)
  tracker.generate([PROMPT], motions=np.zeros((1, WINDOW)), scorer=scorer, candidates=2)
  whole(tracker, 0.4, scorer=scorer, candidates=None)
  assert counts == [8, 2, 8]
  for fields, count in (({'video': str(clip)}, 8), ({'seconds': 0.4}, 1)):
    _, record = make(tracker, tmp_path / 'a.wav', **fields)
    assert record['request']['candidates'] == count


def test_given_sound_stays_and_the_rest_is_made(tracker, tmp_path):
  path = tmp_path / 'given.wav'
  write_wav(path, noise(1.0), RATE)
  kept = read_audio(path, rate=RATE)
  paths, record = make(tracker, tmp_path / 'more.wav', seconds=2.0, given=str(path), loudness=None)
  more = read_audio(paths[0], rate=RATE)
  gain = record['sound']['gain']
  assert len(more) == 2 * RATE and gain == 1
  # A sixteen bit file of a sixteen bit file, but for the latent of 40 ms where it is blended.
  np.testing.assert_allclose(more[: RATE - STEP], kept[: RATE - STEP], atol=1 / 32767)
  assert (more[RATE:] != 0).any()
  spans = [(0.0, 0.2), (0.6, 1.0)]
  paths, _ = make(
    tracker, tmp_path / 'gap.wav', seconds=1.0, given=str(path), spans=spans, loudness=None
  )
  filled = read_audio(paths[0], rate=RATE)
  end, begin = round(0.2 * RATE), round(0.6 * RATE)
  np.testing.assert_allclose(filled[: end - STEP], kept[: end - STEP], atol=1 / 32767)
  np.testing.assert_allclose(filled[begin + STEP :], kept[begin + STEP :], atol=1 / 32767)
  assert np.abs(filled[end:begin] - kept[end:begin]).mean() > 0.05


@pytest.mark.parametrize(
  ('size', 'gain', 'said'),
  [
    (0.0, 1.0, 'is silent'),
    (2e-4, 1.0, 'is silent'),
    (5e-3, 10**1.2, 'amplified by 24 dB and not by 32'),  # which makes full noise of it
  ],
)
def test_near_silence_does_not_become_noise(tracker, tmp_path, caplog, size, gain, said):
  write_wav(tmp_path / 'soft.wav', noise(1.0) * np.float32(size / 0.4), RATE)
  fields = {'seconds': 1.0, 'given': str(tmp_path / 'soft.wav')}
  paths, record = make(tracker, tmp_path / 'out.wav', **fields)
  assert record['sound']['gain'] == pytest.approx(gain) and said in caplog.text
  assert np.abs(read_audio(paths[0], rate=RATE)).max() <= max(gain * size, 1e-3) * 1.01
  caplog.clear()
  _, record = make(tracker, tmp_path / 'loud.wav', **fields, gain_limit=60.0)
  assert (record['sound']['gain'] > 30) == (gain > 1) and ('not by' not in caplog.text)


def test_a_soundtrack_is_gone_on_with_as_loud_as_it_was_made(tracker, tmp_path):
  write_wav(tmp_path / 'given.wav', noise(1.0) * np.float32(0.1), RATE)
  first = {'seconds': 1.0, 'given': str(tmp_path / 'given.wav')}
  paths, record = make(tracker, tmp_path / 'first.wav', **first, loudness=-20.0)
  gain = record['sound']['gain']
  assert gain > 2 and record['request']['given']['gain'] == 1
  second = {'seconds': 1.5, 'given': str(paths[0]), 'loudness': None}
  more, record = make(tracker, tmp_path / 'second.wav', **second)
  assert record['request']['given']['gain'] == gain and record['sound']['gain'] == 1
  as_made = read_audio(tmp_path / 'given.wav', rate=RATE)[: RATE - STEP]
  kept = read_audio(more[0], rate=RATE)[: RATE - STEP]
  np.testing.assert_allclose(kept, as_made, atol=2 / 32767)
  # A sound that was changed since is taken as it is, and so is one with another json beside it.
  for change in (
    lambda: write_wav(paths[0], 0.5 * read_audio(paths[0], rate=RATE), RATE),
    lambda: paths[-1].write_text('{"digests": []}'),
    lambda: paths[-1].write_bytes(b'{"sou'),
    paths[-1].unlink,
  ):
    change()
    _, record = make(tracker, tmp_path / 'third.wav', **second)
    assert record['request']['given']['gain'] == 1


def test_several_sounds_are_made_at_once_whatever_the_batch(tracker):
  prompts = ['a', 'b', 'c']
  features = np.random.default_rng(0).normal(size=(3, WINDOW, 768)).astype(np.float32)
  together = tracker.generate(prompts, frame_features=features, seed=3)
  assert together.shape == (3, 0.4 * RATE, 1)
  alone = tracker.generate(prompts[1:2], frame_features=features[1:2], seed=3, first=1)
  small = tracker.generate(prompts, frame_features=features, seed=3, batch_size=2)
  scale = np.abs(together).max()
  # Programs of other batch sizes add up in other orders.
  np.testing.assert_allclose(alone[0], together[1], atol=1e-4 * scale)
  np.testing.assert_allclose(small, together, atol=1e-4 * scale)
  assert (together[0] != together[1]).any()
  motions = np.zeros((3, WINDOW))
  chosen = tracker.generate(
    prompts, frame_features=features, motions=motions, candidates=2, scorer=OnsetAlignment()
  )
  assert chosen.shape == together.shape


def test_bare_and_structured_captions(tracker):
  assert Soundtrack(PROMPT).caption(tracker) == PROMPT  # as moving digits have them
  assert 'quality: 8.0' in Soundtrack(PROMPT, music='slow piano').caption(tracker)
  assert 'quality: 6.5' in Soundtrack(PROMPT, quality=6.5).caption(tracker)


def test_a_model_that_answers_with_no_numbers_is_told(tiny_sound_runs):
  tracker = AudioPipeline(tiny_sound_runs / 'audio')
  tracker._params = jax.tree.map(lambda x: x * np.nan, tracker._params)
  with pytest.raises(NonFiniteError, match='no number; look at the weights'):
    whole(tracker, 0.4)
