"""Names of diffusers for what pipelines take, and how mgjax does what they do."""

import difflib
from collections.abc import Sequence

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError

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


def renamed(options: Fields) -> JSON:
  """Returns options under our names. Raises ConfigError if one is given under two."""
  found: JSON = {}
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
