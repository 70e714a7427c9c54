"""Names of tensors in files of adapters: which parameter they change, and what they are of it.

  A          <map>.lora_A, .lora_down, .lora.down, .lora_linear_layer.down
  B          the same with B or up
  alpha      <map>.alpha
  magnitude  <map>.lora_magnitude_vector of peft's DoRA, .dora_scale of others'
  diff       <map>.diff, a difference of the weight of a map or norm, or <table>.diff
  diff_b     <map>.diff_b, a difference of its bias
  diff_m     <layer>.diff_m, a difference of the table <layer>.modulation (Wan)

A name of adapters, as `default`, and `weight` may follow the first two. In front of a map are the
words of what holds the model: peft's wrapper, ComfyUI's and diffusers' attribute, PyTorch's own
wrappers, kohya's prefix with _ in place of every dot.
"""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

from mgjax.models.foreign_weights.names import LAYER, TensorName
from mgjax.nn.lora import LAYERS

_MAY_FOLLOW = r'(?:\.(?!weight|bias$)(?P<name>[^.]+))?(?:\.weight)?'
_ROLES = {
  role: re.compile(f'(.+)(?:{suffix})', re.DOTALL)
  for role, suffix in {
    'A': rf'(?:\.lora_A|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down){_MAY_FOLLOW}',
    'B': rf'(?:\.lora_B|\.lora_up|[._]lora\.up|\.lora_linear_layer\.up){_MAY_FOLLOW}',
    'magnitude': rf'(?:\.lora_magnitude_vector|\.dora_scale){_MAY_FOLLOW}',
    'alpha': r'\.alpha',
    'diff': r'\.diff',
    'diff_b': r'\.diff_b',
    'diff_m': r'\.diff_m',
  }.items()
}
# The part of a map or layer that a tensor of adapters changes, by its role; 'weight' if not here.
_PARTS = {'diff_b': 'bias', 'diff_m': 'modulation'}
_OURS = {'kernel': 'weight', 'scale': 'weight'}  # the last part of our names -> of PyTorch's
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
  (r'\.diff_\w+$|\.set_weight$|\.[wb]_norm$', 'differences of parameters'),
  (
    r'(?:^|\.)(adamss|beft|bone|c3a|deft|delora|fourierft|frod|gralora|hira|hra|lily|ln_tuning|miss|'
    r'peanut|prompt|psoft|randlora|road|shadow|shira|tinylora|trainable_tokens|unilora|vblora|'
    r'waveft|xlora)_',
    '',
  ),
  (r'\.(?:weight|bias)$', WHOLE_PARAMETERS),
)


class Place(NamedTuple):
  """Where the tensor of another project belongs.

  Attributes:
    row: the parameter of ours, the names of the tensor and its axes.
    layer: of the parameter, if that is a stack.
    shape: of the parameter.
  """

  row: TensorName
  layer: int | None
  shape: tuple[int, ...]

  @property
  def parameter(self) -> str:
    """Our name of the parameter."""
    return self.row.ours or ''

  @property
  def own_shape(self) -> tuple[int, ...]:
    """The shape of the parameter, or of one layer of it."""
    return self.shape if self.layer is None else self.shape[1:]


def own_row(name: str, shape: tuple[int, ...]) -> TensorName:
  """Makes the row by which adapters of our own models name a parameter of this shape.

  'layers/up/kernel' is there 'layers.{layer}.up.weight', with the axes that PyTorch has.
  """
  *path, last = name.split('/')
  is_stack = LAYERS in path
  if is_stack:
    path.insert(path.index(LAYERS) + 1, LAYER)
  axes = (*range(2, len(shape) - is_stack), 1, 0) if last == 'kernel' else ()
  return TensorName(name, '.'.join([*path, _OURS.get(last, last)]), axes)


def find_places(
  shapes: Mapping[str, tuple[int, ...]], rows: Sequence[TensorName]
) -> tuple[dict[str, Place], set[str]]:
  """Finds what adapters may change in a model with parameters of these shapes, by name.

  A name ends with the part of a map or layer: 'blocks.0.ffn.2.weight', '.bias' or '.modulation'. It
  is there with dots and with kohya's underscores, by the tables `rows` and by our own names.

  Returns:
    The places, and names in the tables of what this model does not have.
  """
  depth = max((shape[0] for name, shape in shapes.items() if LAYERS in name.split('/')), default=0)
  places, absent = {}, set[str]()
  for row in (*rows, *(own_row(name, shape) for name, shape in shapes.items())):
    if row.ours is None:
      continue
    shape = shapes.get(row.ours)
    is_stack = LAYER in row.names[0]
    for layer in range(shape[0] if is_stack and shape else depth) if is_stack else (None,):
      for tensor in row.names:
        names = list(_spellings(tensor.replace(LAYER, str(layer))))
        if shape is None:
          absent.update(names)
        else:
          places |= dict.fromkeys(names, Place(row, layer, shape))
  return places, absent


def _spellings(tensor: str) -> Iterator[str]:
  """Yields the names by which adapters may change a tensor."""
  stem, _, part = tensor.rpartition('.')
  names = [(stem, part)] if part in ('weight', 'bias', 'modulation') else []
  if part not in ('weight', 'bias'):  # a table, which has no part
    names.append((tensor, 'weight'))
  for name, of_it in names:
    yield f'{name}.{of_it}'
    yield f'{name.replace(".", "_")}.{of_it}'


def split_key(key: str) -> tuple[str, str, str]:
  """Splits a key into the part before a tensor's suffix, its role, and the name of its adapters.

  A role is one of those above, or ''; a name, as 'default', may be '' as well.
  """
  for role, pattern in _ROLES.items():
    if match := pattern.fullmatch(key):
      return match[1], role, match.groupdict().get('name') or ''
  return key, '', ''


def part_of(role: str) -> str:
  """Returns the part of a map or layer that tensors of a role change."""
  return _PARTS.get(role, 'weight')


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
