"""Second-order degradation: as its twin in float64, by chance as stated, the same on every machine.

`tests/oracles/degradation.py` computes kernels and the whole chain once more, with loops.
"""

import dataclasses
import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import unpack
from mgjax.data.media.compression import CODECS, jpeg, video_codec
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.upsampler.blur import BLUR_KINDS, SINC, Blur
from mgjax.sections.upsampler.degradation import Compressors, Degraded, degrade
from mgjax.sections.upsampler.recipe import (
  Degradation,
  Noise,
  Order,
  Recipe,
  Round,
  SecondOrder,
  describe_degradation,
  draw_recipe,
)
from tests.oracles import degradation as oracle

NOTHING = Round(None, 1.0, 'bicubic', None, None, None)
CLEAN = Recipe(NOTHING, NOTHING, None, 'bicubic', False, 0)
NEVER = dict.fromkeys(('blur', 'enlarge', 'shrink', 'noise', 'jpeg', 'video'), 0.0)
CODEC = Compressors(jpeg, video_codec)
SMALL = Degradation(blur_scale=0.25)


def recipes(settings, count):
  return [draw_recipe(settings, np.random.default_rng((0, i))) for i in range(count)]


def clip(frames=3, height=24, width=32):
  return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


def dimmed(frames, quality):
  return (frames.astype(int) * quality // 100).astype(np.uint8)


def negative(frames, codec, crf, fps):
  assert codec in CODECS and 18 <= crf <= 35 and fps == 12
  return 255 - frames


def test_kernels_are_those_of_the_twin_and_sum_to_one():
  blurs = [each for drawn in recipes(Degradation(), 60) for each in (drawn.first.blur, drawn.sinc)]
  assert {blur.kind for blur in blurs if blur} == {*BLUR_KINDS, SINC}
  for blur in filter(None, blurs):
    kernel = blur.kernel()
    assert kernel.shape == (blur.size, blur.size) and blur.size in range(7, 22, 2)
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(kernel, oracle.kernel(blur), atol=1e-12)
    if blur.kind == SINC or not blur.kind.endswith('anisotropic'):
      for turned in (np.rot90(kernel), kernel.T, kernel[::-1]):
        np.testing.assert_allclose(kernel, turned, atol=1e-12)


def test_an_ellipse_lies_along_its_angle():
  kernel = Blur('anisotropic', 21, (3.0, 1.0), angle=np.pi / 6).kernel()
  y, x = np.mgrid[-10:11, -10:11]
  covariance = [[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)]
  turn = np.array([[3**0.5, -1], [1, 3**0.5]]) / 2
  # The tails beyond 10 pixels, 3.3 sigmas, hold some 2 % of the variance.
  np.testing.assert_allclose(covariance, turn @ np.diag([9, 1]) @ turn.T, rtol=0.03)


@pytest.mark.parametrize('cutoff', [0.35, 0.5, 0.7])
def test_a_sinc_filter_cuts_at_its_cutoff(cutoff):
  line = Blur(SINC, 21, cutoff=cutoff).kernel().sum(0)  # its response along x is that of the sums
  frequencies = np.linspace(0, 1, 201)  # of Nyquist
  gain = np.abs(np.exp(-1j * np.pi * np.outer(frequencies, np.arange(21))) @ line)
  resolution = 2 / 21  # of 21 pixels
  half = frequencies[np.argmax(gain < 0.5)]
  assert abs(half - cutoff) < resolution / 2
  assert gain[frequencies < cutoff - resolution].min() > 0.8
  assert gain[frequencies > cutoff + resolution].max() < 0.2


@pytest.mark.parametrize('first', range(0, 12, 4))
def test_the_whole_chain_is_the_twins(first):
  """Functions that do not commute stand for the codecs, so that the order of all steps shows."""
  always = {'gaussian': 1.0, 'kernels': ('area', 'bilinear', 'bicubic')}
  settings = Degradation(first=Order(**always), second=SecondOrder(**always), blur_scale=0.5)
  for recipe in recipes(settings, first + 4)[first:]:
    arguments = clip(2), (12, 16), recipe
    ours = degrade(*arguments, Compressors(dimmed, negative), fps=12)
    wanted = oracle.degrade(*arguments, dimmed, negative, 12)
    assert ours.shape == (2, 12, 16, 3) and ours.dtype == np.uint8
    # Before each of up to four roundings float32 is 1e-3 levels off at most, so 2e-3 of the pixels
    # round the other way, by one level; a filter spreads that, and at most doubles its sum.
    difference = np.abs(ours.astype(int) - wanted)
    assert difference.max() <= 2 and difference.mean() < 4 * 2e-3 * 2


def test_the_chain_is_compared_where_compression_comes_last_and_where_it_does_not():
  assert {drawn.compressed_last for drawn in recipes(Degradation(), 12)} == {True, False}


@pytest.mark.parametrize('kernel', ['area', 'bilinear', 'bicubic'])
def test_without_any_chance_it_is_the_resize(kernel):
  never = NEVER | {'kernels': (kernel,)}
  settings = Degradation(Order(**never), SecondOrder(**never), final_sinc=0)
  recipe = draw_recipe(settings, np.random.default_rng(0))
  assert describe_degradation(recipe) in ('clean', 'compressed last')
  assert np.array_equal(degrade(clip(), (12, 16), recipe), resize(clip(), (12, 16), kernel))


def noise_of(noise, light, frames=14, side=64):
  """The noise that a clip of one level gets."""
  video = np.full((frames, side, side, 3), light, np.uint8)
  recipe = dataclasses.replace(CLEAN, second=dataclasses.replace(NOTHING, noise=noise))
  return degrade(video, (side, side), recipe).astype(float) - light


@pytest.mark.parametrize('grey', [False, True])
def test_gaussian_noise_deviates_as_much_as_it_says_anew_in_every_frame(grey):
  noise = noise_of(Noise('gaussian', 12.0, grey), 128)
  count = noise.size // (3 if grey else 1)
  wanted = 12.0**2 + 1 / 12  # and what rounding adds
  assert abs(noise.var() / wanted - 1) < 5 * (2 / count) ** 0.5
  assert abs(noise.mean()) < 5 * 12 / count**0.5
  one, other = noise[:-1, ..., 0].ravel(), noise[1:, ..., 0].ravel()
  assert abs(np.corrcoef(one, other)[0, 1]) < 5 / len(one) ** 0.5
  channels = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
  assert channels > 0.999 if grey else abs(channels) < 5 / noise[..., 0].size ** 0.5


@pytest.mark.parametrize(('level', 'lights'), [(1.0, (40, 80, 120, 160)), (2.0, (80, 100))])
def test_the_variance_of_poisson_noise_grows_with_the_light(level, lights):
  for light in lights:  # 0 and 255 are more than 4.4 deviations away
    noise = noise_of(Noise('poisson', level, False), light)
    # The fourth moment of counts of `light` photons is 3 light^2 + light.
    spread = 5 * ((2 + 1 / light) / noise.size) ** 0.5
    assert abs(noise.var() / (level**2 * light) - 1) < spread
  assert not noise_of(Noise('poisson', 3.0, False), 0).any()
  grey = noise_of(Noise('poisson', 1.0, True), 100)
  assert np.array_equal(grey[..., 0], grey[..., 2])


def shares(values, probabilities):
  """The chi-square p-value of values that should come with these probabilities."""
  keys = list(probabilities)
  assert set(values) <= set(keys)
  counts = [values.count(key) for key in keys]
  expected = np.array([probabilities[key] for key in keys]) * len(values)
  return stats.chisquare(counts, expected).pvalue


def uniform(values, low, high):
  assert low <= min(values) and max(values) <= high
  return stats.chisquare(np.histogram(values, 10, (low, high))[0]).pvalue


def test_recipes_have_the_probabilities_that_the_settings_state():
  settings = Degradation()
  drawn = recipes(settings, 2100)
  p = {}
  for name in ('first', 'second'):
    order, rounds = getattr(settings, name), [getattr(each, name) for each in drawn]
    blurs = [each.blur for each in rounds]
    kinds = {kind: order.blur * (1 - order.sinc) * share for kind, share in order.kinds.items()}
    kinds |= {SINC: order.blur * order.sinc} | ({'': 1 - order.blur} if order.blur < 1 else {})
    p[name, 'kind'] = shares([blur.kind if blur else '' for blur in blurs], kinds)
    blurs = list(filter(None, blurs))
    p[name, 'size'] = shares([blur.size for blur in blurs], dict.fromkeys(range(7, 22, 2), 1 / 8))
    ellipses = [blur for blur in blurs if blur.kind != SINC]
    p[name, 'sigma'] = uniform([blur.sigmas[0] for blur in ellipses], *order.sigmas)
    turned = [blur.angle for blur in ellipses if blur.kind.endswith('anisotropic')]
    p[name, 'angle'] = uniform(turned, -np.pi, np.pi)
    flat = [blur.beta < 1 for blur in ellipses if blur.kind.startswith('generalized')]
    p[name, 'beta'] = shares(flat, {True: 0.5, False: 0.5})
    cutoffs = [blur.cutoff for blur in blurs if blur.kind == SINC and blur.size >= 13]
    p[name, 'cutoff'] = uniform(cutoffs, 0.2, 1)
    keep = 1 - order.enlarge - order.shrink
    ways = [float(np.sign(each.scale - 1)) for each in rounds]
    p[name, 'way'] = shares(ways, {1.0: order.enlarge, -1.0: order.shrink, 0.0: keep})
    low, high = order.scales
    p[name, 'down'] = uniform([each.scale for each in rounds if each.scale < 1], low, 1)
    p[name, 'up'] = uniform([each.scale for each in rounds if each.scale > 1], 1, high)
    p[name, 'kernel'] = shares(
      [each.kernel for each in rounds], dict.fromkeys(('area', 'bilinear', 'bicubic'), 1 / 3)
    )
    noises = [each.noise for each in rounds]
    kinds = {'gaussian': order.gaussian, 'poisson': 1 - order.gaussian}
    grey = {True: order.grey, False: 1 - order.grey}
    mixed = {(kind, same): kinds[kind] * grey[same] for kind in kinds for same in grey}
    p[name, 'noise'] = shares([(noise.kind, noise.grey) for noise in noises], mixed)
    for kind, limits in (('gaussian', order.deviations), ('poisson', order.photons)):
      p[name, kind] = uniform([noise.level for noise in noises if noise.kind == kind], *limits)
    qualities = dict.fromkeys(range(30, 96), 1 / 66)
    p[name, 'jpeg'] = shares([each.quality for each in rounds], qualities)
    codecs = {None: 1 - order.video} | dict.fromkeys(order.codecs, order.video / 2)
    p[name, 'codec'] = shares([each.codec and each.codec[0] for each in rounds], codecs)
    p[name, 'crf'] = uniform([each.codec[1] for each in rounds if each.codec], *order.rate_factors)
  p['sinc'] = shares([each.sinc is not None for each in drawn], {True: 0.8, False: 0.2})
  p['final cutoff'] = uniform([each.sinc.cutoff for each in drawn if each.sinc], 1 / 3, 1)
  p['last'] = shares([each.compressed_last for each in drawn], {True: 0.5, False: 0.5})
  assert {name: value for name, value in p.items() if value < 1e-4} == {}
  assert len({each.seed for each in drawn}) == len(drawn)
  # The measure sees a probability that is off by a tenth.
  assert shares([each.sinc is not None for each in drawn], {True: 0.7, False: 0.3}) < 1e-4


def test_kernels_and_sigmas_scale_with_small_frames():
  for large, small in zip(recipes(Degradation(), 50), recipes(SMALL, 50), strict=True):
    if large.first.blur and large.first.blur.kind != SINC:
      assert small.first.blur.size == 2 * max(1, round(large.first.blur.size // 2 / 4)) + 1
      np.testing.assert_allclose(np.array(small.first.blur.sigmas) * 4, large.first.blur.sigmas)


WORLD = Digits(frames=4, size=(32, 48), length=5)
MIXED = Degradation(first=Order(codecs=CODECS), second=SecondOrder(codecs=CODECS), blur_scale=0.25)


def degraded(source=WORLD, settings=MIXED, **fields):
  return Degraded(source, settings, **({'variants': 3} | fields), compressors=CODEC)


SAME = """
import hashlib, pickle, sys
source = pickle.load(sys.stdin.buffer)
samples = [source[index]['low_resolution'].tobytes() for index in range(len(source))]
print(hashlib.sha256(b''.join(samples)).hexdigest())
"""


def test_a_sample_has_the_same_bytes_in_another_process_whatever_was_read_before():
  source = degraded()
  samples = [source[index] for index in reversed(range(len(source)))]
  rounds = [part for i in range(15) for part in (source.recipe(i).first, source.recipe(i).second)]
  assert {part.codec and part.codec[0] for part in rounds} == {None, *CODECS}
  other = subprocess.run(
    [sys.executable, '-c', SAME], input=pickle.dumps(source), check=True, capture_output=True
  )
  data = b''.join(each['low_resolution'].tobytes() for each in reversed(samples))
  assert other.stdout.decode().strip() == hashlib.sha256(data).hexdigest()


def test_samples_are_those_of_the_source_each_variant_degraded_otherwise():
  source = degraded(scale=1.5)
  assert len(source) == 15
  for index in (0, 5, 10):
    sample = source[index]
    assert sample['caption'] == WORLD[0]['caption']
    assert np.array_equal(sample['video'], WORLD[0]['video'])
    assert sample['low_resolution'].shape == sample['video'].shape
  variants = [source[index]['low_resolution'] for index in (0, 5, 10)]
  assert not any(np.array_equal(one, variants[i - 1]) for i, one in enumerate(variants))
  assert not np.array_equal(variants[0], degraded(scale=1.5, seed=1)[0]['low_resolution'])
  for index in (-1, 15):
    with pytest.raises(IndexError, match='of a source of 15'):
      source[index]


def test_what_is_low_resolution_is_enlarged_bilinearly():
  never = Degradation(Order(**NEVER), SecondOrder(**NEVER, kernels=('area',)), final_sinc=0)
  sample = degraded(settings=never)[0]
  small = resize(sample['video'], (16, 24), 'area')
  assert np.array_equal(sample['low_resolution'], resize(small, (32, 48), 'bilinear'))


def test_all_that_decides_about_samples_is_in_the_fingerprint():
  sources = [degraded(), degraded(scale=3), degraded(variants=1), degraded(seed=1)]
  sources += [degraded(settings=SMALL), degraded(dataclasses.replace(WORLD, seed=1))]
  assert len({each.fingerprint for each in sources}) == len(sources)
  assert degraded().fingerprint == degraded().fingerprint


def test_captions_are_listed_where_the_source_lists_its_own():
  class Plain:
    fingerprint = 'plain'

  assert list(degraded().every_caption()) == list(WORLD.every_caption())
  assert not hasattr(degraded(Plain()), 'every_caption')


def test_frames_of_a_clip_are_degraded_alike_but_for_the_noise():
  still = np.repeat(clip(1, 32, 32), 5, 0)
  quiet = Order(noise=0, video=0)
  settings = Degradation(quiet, SecondOrder(noise=0, video=0), blur_scale=0.25)
  for recipe in recipes(settings, 6):
    result = degrade(still, (16, 16), recipe, CODEC)
    assert (result == result[:1]).all()
  noisy = degrade(still, (16, 16), recipes(SMALL, 1)[0], CODEC)
  assert not (noisy == noisy[:1]).all()


@pytest.mark.parametrize('shape', [(1, 5, 7), (2, 9, 3), (15, 1, 1), (1, 64, 18)])
def test_clips_of_any_size_and_length_come_out(shape):
  for recipe in recipes(Degradation(), 3):
    size = max(1, shape[1] // 2), max(1, shape[2] // 2)
    assert degrade(clip(*shape), size, recipe, CODEC).shape == (shape[0], *size, 3)


def test_a_recipe_is_described_in_one_line():
  assert describe_degradation(CLEAN) == 'clean'
  first = Round(
    Blur('anisotropic', 7, (1.23, 0.4), 1.0), 0.6, 'area', Noise('gaussian', 12.0, True), 43, None
  )
  second = dataclasses.replace(NOTHING, noise=Noise('poisson', 0.5, False), codec=('h264', 31.2))
  recipe = Recipe(first, second, Blur(SINC, 21, cutoff=0.4), 'area', False, 0)
  assert describe_degradation(recipe) == (
    'blur anisotropic 0.4 x 1.2, down 0.60 area, grey gaussian 12.0, jpeg 43 | '
    'poisson 0.5, h264 crf 31 | sinc 0.40'
  )


def test_what_a_configuration_leaves_out_of_a_round_is_as_that_round_has_it_by_default():
  made = unpack(Degradation, {'second': {'jpeg': 0.5}}, 'degradation')
  assert made == Degradation(second=dataclasses.replace(SecondOrder(), jpeg=0.5))
  assert made.second.blur == 0.8


def test_compression_that_was_not_given_is_said():
  for name in Compressors._fields:
    given = CODEC._replace(**{name: None})
    settings = Degradation(first=Order(video=1.0))
    with pytest.raises(ConfigError, match=f'expected `{name}`, a function'):
      degrade(clip(), (12, 16), recipes(settings, 1)[0], given)
  with pytest.raises(ConfigError, match='variants = 0; expected numbers from 1'):
    degraded(variants=0)
