"""Names of tensors in files of adapters: which map they are of, and what they are of its adapters.

  A          <map>.lora_A, .lora_down, .lora.down, .lora_linear_layer.down
  B          the same with B or up
  alpha      <map>.alpha
  magnitude  <map>.lora_magnitude_vector of peft's DoRA, .dora_scale of others'

A name of adapters, as `default`, and `weight` may follow. In front of a map are the words of what
holds the model: peft's wrapper, ComfyUI's and diffusers' attribute, PyTorch's own wrappers, kohya's
prefix with _ in place of every dot.
"""

import re
from collections.abc import Container

_MAY_FOLLOW = r'(?:\.(?!weight|bias$)(?P<name>[^.]+))?(?:\.weight)?'
_ROLES = {
  role: re.compile(f'(.+)(?:{suffix})', re.DOTALL)
  for role, suffix in {
    'A': rf'(?:\.lora_A|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down){_MAY_FOLLOW}',
    'B': rf'(?:\.lora_B|\.lora_up|[._]lora\.up|\.lora_linear_layer\.up){_MAY_FOLLOW}',
    'magnitude': rf'(?:\.lora_magnitude_vector|\.dora_scale){_MAY_FOLLOW}',
    'alpha': r'\.alpha',
  }.items()
}
_HOLDER = re.compile(
  r'(?:base_model|model|diffusion_model|transformer|unet|dit|pipe|net|text_encoder(?:_\d)?)\.'
  r'|(?:lora|lycoris)_(?:(?:prior_)?(?:unet|transformer|dit|te\d?)_)?'
)
_WRAPPER = re.compile(r'(?<![^.])(?:_orig_mod|_(?:fsdp|checkpoint)_wrapped_module|module)\.')
_MOST_HOLDERS, _TAIL = 8, 200  # or names of megabytes would take hours
WHOLE_PARAMETERS = 'parameters themselves'  # of peft's bias or modules_to_save, or a model
_KINDS = (  # of other adapters, by their tensors; the word of the tensor where a kind has no name
  (r'\.hada_', 'LoHa'),
  (r'\.lokr_', 'LoKr'),
  (r'\.ia3_l|\.on_input$', '(IA)3'),
  (r'\.oft_', 'OFT'),
  (r'\.boft_', 'BOFT'),
  (r'(?:^|\.)p?vera_', 'VeRA'),
  (r'\.[ab][12]\.weight$', 'GLoRA'),
  (r'\.lora_E\b|\.ranknum\b', 'AdaLoRA'),
  (r'\.lora_mid\b', 'LoRA with a middle matrix'),
  (r'\.lora_embedding_', 'LoRA of embeddings'),
  (r'\.lora_.*\bbias$', 'LoRA with biases'),
  (r'\.lora_(?:[AB]|down|up)\b', 'LoRA with more tensors than A and B'),
  (r'\.lora_(\w+)', ''),
  (r'\.diff(?:_\w+)?$|\.set_weight$|\.[wb]_norm$', 'differences of parameters'),
  (
    r'(?:^|\.)(adamss|beft|bone|c3a|deft|delora|fourierft|frod|gralora|hira|hra|lily|ln_tuning|miss|'
    r'peanut|prompt|psoft|randlora|road|shadow|shira|tinylora|trainable_tokens|unilora|vblora|'
    r'waveft|xlora)_',
    '',
  ),
  (r'\.(?:weight|bias)$', WHOLE_PARAMETERS),
)


def split_key(key: str) -> tuple[str, str, str]:
  """Splits a key into the part before a tensor's suffix, its role, and the name of its adapters.

  A role is 'A', 'B', 'magnitude', 'alpha' or ''; a name, as 'default', may be '' as well.
  """
  for role, pattern in _ROLES.items():
    if match := pattern.fullmatch(key):
      return match[1], role, match.groupdict().get('name') or ''
  return key, '', ''


def map_in(text: str, known: Container[str]) -> str:
  """Returns the name among `known` at the end of a text, without wrappers' prefixes; '' if none.

  The longest name is returned, since a wrapper may have the name of a part of the model.
  """
  text = _WRAPPER.sub('', text)
  for _ in range(_MOST_HOLDERS):
    if text in known or not (match := _HOLDER.match(text)):
      break
    text = text[match.end() :]
  return text if text in known else ''


def kind_of(key: str) -> str:
  """Returns the kind of adapters, other than LoRA and DoRA, that have such a tensor; '' if none."""
  if not split_key(key)[1]:
    for pattern, kind in _KINDS:
      if match := re.search(pattern, key[-_TAIL:]):
        return kind or match[1]
  return ''
