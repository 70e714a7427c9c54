"""How pipelines are called: argument names of diffusers, checked values, options of `load`."""

import difflib
import functools
import inspect
import logging
import secrets
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Seed, checked
from mgjax.core.typing import Array

# Names that diffusers has for arguments -> ours.
NAMES = {
  'prompt': 'prompts',
  'num_inference_steps': 'steps',
  'guidance_scale': 'guidance',
  'negative_prompt': 'negative',
  'num_frames': 'frames',
  'frame_rate': 'fps',
  'audio_length_in_s': 'seconds',
}
_REPEAT = "repeat the prompt, as in ['a dog'] * 4, of which each has another index of the seed"
_TEXT = 'give the prompt as text'
_PLACED = 'JAX places arrays; mgjax.load(workdir, mesh=...) spreads a model over devices'
_STORED = "mgjax.load(workdir, weights='bfloat16') or 'int8' stores kernels in fewer bytes"
_LORA = "give mgjax.load(workdir, lora='style.safetensors:0.8')"
_LOAD = "call mgjax.load('digits/video'), or of a folder or 'hf://owner/name'"
_NOTHING = 'there is nothing to switch on; leave it out'
_UNREAD = 'the model was not trained to read it; see `reads`'
_FILE = "give its path, as in first_frame='picture.png' or video='clip.mp4'"
_SAVE = "call mgjax.save(clips[0], 'one.mp4'), or of another kind: .gif, .webp, .png"
# What diffusers has and mgjax does in another way -> how.
INSTEAD = {
  'generator': 'give seed=0',
  'latents': 'noise is drawn from the seed',
  'num_videos_per_prompt': _REPEAT,
  'num_images_per_prompt': _REPEAT,
  'num_waveforms_per_prompt': 'give candidates=4, of which the best is returned',
  'prompt_embeds': _TEXT,
  'negative_prompt_embeds': _TEXT,
  'return_dict': 'an array is returned; leave it out',
  'callback_on_step_end': 'give callback=f, called as f(step, total, preview)',
  'callback_steps': 'callback=f is called after every step',
  'image': "give first_frame or reference='picture.png', or video='clip.mp4'; see `reads`",
  'first_frame': _UNREAD,
  'last_frame': _UNREAD,
  'reference': _UNREAD,
  'video': _UNREAD,
  'cfg_scale': 'give guidance_scale',
  'step_size': 'give steps=4, which are as long as they must be',
  'sigmas': "give mgjax.load(workdir, schedule='linear')",
  'timesteps': "give mgjax.load(workdir, schedule='linear')",
  'scheduler': "give mgjax.load(workdir, solver='heun', schedule='linear')",
  'dtype': _STORED,
  'torch_dtype': _STORED,
  'half': _STORED,
  'quantization_config': _STORED,
  'device': _PLACED,
  'device_map': _PLACED,
  'to': _PLACED,
  'cuda': _PLACED,
  'load_lora_weights': _LORA,
  'fuse_lora': _LORA,
  'set_adapters': _LORA,
  'unload_lora_weights': _LORA,
  'delete_adapters': _LORA,
  'from_pretrained': _LOAD,
  'DiffusionPipeline': _LOAD,
  'AutoPipelineForText2Video': _LOAD,
  'pipeline': _LOAD,
  'export_to_video': _SAVE,
  'export_to_gif': _SAVE,
  'load_image': _FILE,
  'load_video': _FILE,
  'make_image_grid': 'call mgjax.show(clips)',
  'vae': "call mgjax.load('digits/autoencoder'), or what its `config.autoencoder` names",
  'save_pretrained': 'run launch.weights export --format=workdir',
  'push_to_hub': 'run launch.weights push --out=hf://owner/name',
  'set_progress_bar_config': 'callback=f is called after every step',
  'compile': _NOTHING,
  'eval': _NOTHING,
  'revision': "give it in the name, as in 'hf://owner/name@revision'",
  'cache_dir': 'set HF_HOME in the environment',
  'local_files_only': 'set HF_HUB_OFFLINE=1 in the environment',
  'token': 'set HF_TOKEN in the environment',
  'variant': _NOTHING,
  'use_safetensors': _NOTHING,
  'trust_remote_code': _NOTHING,
  'safety_checker': _NOTHING,
  'low_cpu_mem_usage': _NOTHING,
}
_SETTINGS = ('steps', 'guidance', 'solver', 'schedule')  # of `load` that a call may change
FORMS = ('np', 'pil', 'latent')
Seeds = int | Sequence[int]
_Method = TypeVar('_Method', bound=Callable[..., Any])
_log = logging.getLogger(__name__)


class Preview:
  """What a batch looks like after a step: call it for videos uint8 (b t h w 3).

  Decoding costs time, and is done when it is called.

  Attributes:
    latents: (b t h w c) that the step predicts of the end, those that fill a batch up included.
  """

  def __init__(self, latents: Array, decode: Callable[[Array], np.ndarray]):
    self.latents = latents
    self._decode = decode

  def __call__(self) -> np.ndarray:
    return self._decode(self.latents)


Callback = Callable[[int, int, Preview], None]


def watched(
  callback: Callback | None, decode: Callable[[Array], np.ndarray]
) -> Callable[[int, int, Array], None] | None:
  """Returns what watches the steps of a sampler for a callback."""
  if callback is None:
    return None
  return lambda step, total, latents: callback(step, total, Preview(latents, decode))


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
  """Returns options under our names. Raises ConfigError if one is given under two."""
  found: dict[str, Any] = {}
  for name, value in options.items():
    ours = NAMES.get(name, name)
    if ours in found or (ours != name and ours in options):
      raise ConfigError(f'{ours} is given twice, also as {name}; give it once')
    found[ours] = value
  return found


def instead_of(name: str) -> str:
  """Says how mgjax does what diffusers does by this name; '' where nothing is known."""
  if name.startswith('enable_'):
    return _NOTHING
  return INSTEAD.get(name, _LOAD if name.endswith('Pipeline') else '')


def unknown_option(name: str, known: Sequence[str], of: str) -> ConfigError:
  """Returns the error of an option that a pipeline does not have."""
  close = difflib.get_close_matches(name, known, n=1)
  hint = f'did you mean {close[0]}?' if close else f'expected one of {", ".join(sorted(known))}'
  return ConfigError(f'{name} is no option of {of}: {instead_of(name) or hint}')


def prompts_of(prompts: Any) -> list[str]:
  """Returns prompts as a list, of one text. Raises ConfigError if they are something else."""
  if isinstance(prompts, str):
    return [prompts]
  found = list(prompts) if isinstance(prompts, list | tuple | np.ndarray) else []
  if not found or not all(isinstance(each, str) for each in found):
    shown = ' '.join(repr(prompts).split())  # of an array in one line
    raise ConfigError(f'prompts = {shown:.80}; expected text, or a list of texts')
  return [str(each) for each in found]


def seeds_for(seed: Any, count: int) -> Any:
  """Returns a seed, or a list with one for each of `count`; None and -1 are drawn, and logged.
  Raises ConfigError for what is no seed, or not one for each.
  """
  if isinstance(seed, list | tuple | range | np.ndarray) and np.ndim(seed):
    if len(seed) != count:
      raise ConfigError(f'seed: {len(seed)} seeds for {count} prompts; give one, or one for each')
    return [seeds_for(each, 1) for each in seed]
  if seed is None or (isinstance(seed, int | np.integer) and seed == -1):
    seed = secrets.randbelow(2**31)
    _log.warning('seed = %d was drawn', seed)
  return int(checked(Seed, seed, 'seed'))


def _places(first: Any, count: int) -> Any:
  """Returns the index of the first of `count`, or that of each; raises ConfigError for others."""
  if not np.ndim(first):
    value = first.item() if isinstance(first, np.generic) else first
    return checked(Count, value, 'first')
  if len(first) < count:
    raise ConfigError(f'first: {len(first)} indices for {count} prompts; give one, or one for each')
  return [_places(each, 1) for each in first]


def rows_of(count: int, most: int) -> int:
  """Returns how many of `count` go through a model at once: 1, 2, 4, 8 or more, up to `most`.

  Each is a program of its own, so that a new count hardly ever compiles one. From 8 on it is the
  number that leaves the fewest rows empty.
  """
  powers = [1 << power for power in range(count.bit_length() + 1) if 1 << power <= most]
  enough = next((rows for rows in powers if rows >= count), most)
  large = [rows for rows in {*powers, enough} if 8 <= rows <= enough]
  return min(large, key=lambda rows: (-(-count // rows) * rows, -rows)) if large else enough


def _plain_hints(method: Callable[..., Any] | None) -> dict[str, Any]:
  """Returns annotations without their ranges, which are long to read."""
  return typing.get_type_hints(inspect.unwrap(method)) if method else {}


def callable_as(method: _Method, like: Callable[..., Any] | None = None) -> _Method:
  """Lets a method of a pipeline be called as users of diffusers would.

  Prompts may be one text, arguments may have the names of `NAMES`, those with a range are held to
  it, and steps, guidance, solver and schedule may differ from those of the pipeline. The signature
  that `help` shows has them all. What the method takes as `**options` are arguments of `like`.
  """
  declared = inspect.signature(method).parameters
  names = [n for n, each in declared.items() if each.kind is each.POSITIONAL_OR_KEYWORD][1:]
  parameters = dict(declared)
  if like is not None:
    del parameters['options']
    parameters = {**inspect.signature(inspect.unwrap(like)).parameters, **parameters}
  rest = next((each for each in parameters.values() if each.kind is each.VAR_KEYWORD), None)
  own = {name: each for name, each in parameters.items() if each is not rest}
  extra = [name for name in _SETTINGS if name not in own]
  extra += [name for name, ours in NAMES.items() if ours in (*own, *_SETTINGS)]
  more = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in extra]
  shown = sorted([*own.values(), *more], key=lambda each: each.kind) + ([rest] if rest else [])
  plain = {name: each for way in (like, method) for name, each in _plain_hints(way).items()}

  @functools.wraps(method)
  def called(self: Any, *args: Any, **given: Any) -> Any:
    placed = dict(zip(names, args, strict=False))
    if len(args) > len(names) or placed.keys() & given:
      raise ConfigError(
        f'{method.__name__} takes {" and ".join(names)} by place, once, and all else by name, as '
        'in seed=0'
      )
    typed = {NAMES.get(name, name): name for name in given}
    given = {n: v for n, v in given.items() if v is not None or n not in INSTEAD}
    given = renamed({**placed, **given})
    if given.get('prompts') is not None:
      given['prompts'] = prompts_of(given['prompts'])
    known = {*own, *_SETTINGS, *(self.reads if rest else ())}
    for name, value in given.items():
      if name not in known and not (rest and rest.name == 'options'):
        raise unknown_option(name, sorted(known - {'self'}), self.noun)
      count = len(given.get('prompts') or [''])
      if name == 'seed':
        value = seeds_for(value, count)
      if name == 'first':
        value = _places(value, count)
      if name == 'callback' and value is not None and not callable(value):
        raise ConfigError(f'callback = {value!r:.80}; expected a function f(step, total, preview)')
      if name in ('shape', 'size') and isinstance(value, np.ndarray):
        value = tuple(value.tolist())
      if name != 'prompts':
        value = value.item() if isinstance(value, np.generic) else value
        hint = own[name].annotation if name in own else Any
        given[name] = checked(hint, value, typed.get(name, name))
    changes = {name: given.pop(name) for name in _SETTINGS if name in given and name not in own}
    try:
      variant = self.variant(**changes)
    except ConfigError as error:
      renames = [f'{typed[n]}: ' for n in changes if typed.get(n, n) != n and n in str(error)]
      raise ConfigError(''.join(renames[:1]) + str(error)) from None
    return method(variant, **given)

  shown = [each.replace(annotation=plain.get(each.name, each.annotation)) for each in shown]
  called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
  return called  # type: ignore[return-value]
