"""Every key that a sample or a batch may have: its shape and type, who makes it and who reads it.

A sample is what a source gives for an index. A batch stacks those of its arrays that a section
keeps, and what conditionings make of it (`prepare`), with `b` as the first axis. A clip that the
codec has yet to encode for a conditioning goes by 'raw_' and the name of its latents.
"""

from typing import NamedTuple


class BatchKey(NamedTuple):
  """One key.

  Attributes:
    shape: axis letters of one sample, as in `core/typing.py`, with `e` for the width of features;
      '' for one value. Alternatives stand with 'or'.
    dtype: of the array, 'float' or 'int' for any of them, 'str' or 'dict'.
    makers: modules of mgjax that make it.
    readers: modules of mgjax that read it.
    batched: whether a batch has it; other keys stay with the sample, on the host.
  """

  shape: str
  dtype: str
  makers: tuple[str, ...]
  readers: tuple[str, ...]
  batched: bool = False


KEYS = {
  # What is generated.
  'video': BatchKey(
    't h w 3', 'uint8', ('digits.render', 'data.clips'),
    ('tae.task', 'video.task', 'audio.task', 'clip.task'), batched=True,
  ),
  'audio': BatchKey(
    's c', 'float32', ('digits.clips', 'data.audio_sources'), ('audio.codec.task', 'audio.task'),
    batched=True,
  ),
  'latents': BatchKey(
    't h w c or t c', 'float',
    ('workflows.encode', 'video.task', 'audio.task'), ('flow.objective', 'audio.masking'),
    batched=True,
  ),
  # What conditionings read: of the sample on the host, or of the batch on the devices.
  'caption': BatchKey(
    '', 'str', ('digits.clips', 'digits.signs', 'data.clips'),
    ('conditioning.byte_text', 'conditioning.word_text', 'text.embeddings', 'clip.task'),
  ),
  'fps': BatchKey(
    '', 'float or int', ('data.clips', 'data.sources'), ('text.prompts', 'video.task')
  ),
  'embeddings': BatchKey(
    '', 'dict', ('text.embeddings', 'flow_models.build'), ('conditioning.encoded_text',)
  ),  # name of the encoder -> its states (m e)
  'frames': BatchKey('', 'int', ('video.pipeline',), ('conditioning.frames',)),  # to be made
  'text': BatchKey(
    'm', 'int32', ('conditioning.byte_text', 'conditioning.word_text'),
    ('conditioning.byte_text', 'conditioning.word_text'), batched=True,
  ),
  'frame_features': BatchKey(
    't e', 'float', ('audio.frame_features', 'conditioning.frame_features'),
    ('conditioning.frame_features',), batched=True,
  ),
  'context': BatchKey(
    't h w c', 'float32', ('audio.masking', 'audio.extend'), ('conditioning.known_latents',),
    batched=True,
  ),
  'low_resolution': BatchKey(  # enlarged to the size of 'video'; in a batch its latents
    't h w 3 or t h w c', 'uint8 or float', ('upsampler.degradation', 'upsampler.task'),
    ('conditioning.clip_tokens',), batched=True,
  ),
  'source_video': BatchKey(  # before an edit; black where there is none; in a batch its latents
    't h w 3 or t h w c', 'uint8 or float', ('digits.clips', 'editing.sources'),
    ('conditioning.clip_tokens',), batched=True,
  ),
  'task': BatchKey('', 'str', ('digits.clips',), ('conditioning.edit_task',)),  # of an edit
  'task_index': BatchKey(
    '', 'int32', ('conditioning.edit_task',), ('conditioning.edit_task',), batched=True
  ),
  'temporal_place': BatchKey(  # of the first frame in the table of temporal positions
    '', 'int32', ('editing.sources',), ('conditioning.temporal_place',), batched=True
  ),
  'step_size': BatchKey(  # the share of the way from noise to data that a step takes
    '', 'float32', ('flow.distillation.few_steps', 'flow_models.build'),
    ('conditioning.numbers.number',), batched=True,
  ),
  'guidance_scales': BatchKey(  # of each of so many conditions; zeros where none are told
    'k', 'float32', ('flow.distillation.guidance', 'flow_models.build'),
    ('conditioning.numbers.number',), batched=True,
  ),
  'reference': BatchKey(  # masked pictures of who is shown, black where there is none
    'r h w 3', 'uint8',
    ('digits.clips', 'curation.people.references', 'personalization.task', 'workflows.cross_pairs'),
    ('conditioning.identity',), batched=True,
  ),
  'first_frame': BatchKey('1 h w 3', 'uint8', ('video.pipeline',), ('conditioning.frames',)),
  'last_frame': BatchKey('1 h w 3', 'uint8', ('video.pipeline',), ('conditioning.frames',)),
  'known_frames': BatchKey(  # unknown ones hold the nearest known one; in a batch its latents
    't h w 3 or t h w c', 'uint8 or float', ('conditioning.frames', 'video.extend'),
    ('conditioning.frames',), batched=True,
  ),
  'known': BatchKey(  # 1 for the frames that are; in a batch filled up to whole latents
    't', 'float', ('conditioning.frames', 'video.extend'), ('conditioning.frames',), batched=True
  ),
  'small': BatchKey('t h w 3', 'uint8', ('upsampler.degradation',), ('upsampler.task',)),
  # What CLIP compares.
  'images': BatchKey('h w 3', 'float32', ('clip.task',), ('clip.objective',), batched=True),
  'tokens': BatchKey('m or v m', 'int32', ('clip.task',), ('clip.objective',), batched=True),
  'tokens_mask': BatchKey('m or v m', 'bool', ('clip.task',), ('clip.objective',), batched=True),
  # What is known of a sample beside.
  'source': BatchKey('', 'str', ('data.clips',), ('training.faults', 'workflows.encode')),
  'text_key': BatchKey('', 'str', ('workflows.encode',), ()),  # names the caption in a row
  'replaced': BatchKey('', 'int32', ('data.replacement',), ('data.loader',), batched=True),
  'digit': BatchKey('', 'int', ('digits.clips',), ('digits.judge',)),
  'identity': BatchKey(  # of the handwriting
    '', 'int', ('digits.clips',), ('evaluation.retrieval', 'clip.objective'), batched=True
  ),
  'number': BatchKey('', 'str', ('digits.signs',), ('digits.sign_judge',)),
  'colour': BatchKey('', 'str', ('digits.clips', 'digits.signs'), ('digits.judge',)),
  'motion': BatchKey('', 'str', ('digits.clips', 'digits.signs'), ('digits.judge',)),
  'texture': BatchKey('', 'str', ('digits.clips',), ('digits.judge',)),
  # What the small world tells on demand (`Digits.extras`): the opacity of the digit, what is behind
  # it, its y, x, height and width in pixels, and the same handwriting in another scene.
  'mask': BatchKey('t h w', 'float32', ('digits.render',), ()),
  'background': BatchKey('h w 3', 'uint8', ('digits.render',), ()),
  'geometry': BatchKey('t 4', 'float64', ('digits.render',), ()),
  'view': BatchKey('t h w 3', 'uint8', ('digits.render',), ('clip.task',), batched=True),
  'view_caption': BatchKey('', 'str', ('digits.clips',), ('clip.task',)),
  'events': BatchKey(
    'e', 'float64', ('digits.clips', 'data.audio_sources'), ('digits.sound_judge',)
  ),  # seconds at which something is heard
}  # fmt: skip

# What an encoder of text gives for a prompt, under 'text_<encoder>', and which of it is there.
STATES = BatchKey(
  'm e', 'bfloat16', ('conditioning.encoded_text',), ('conditioning.encoded_text',), batched=True
)
MASKS = STATES._replace(shape='m', dtype='bool')


def find_key(name: str) -> BatchKey | None:
  """Returns what is known of a key; None of one that the table does not have."""
  if name in KEYS or not name.startswith('text_'):
    return KEYS.get(name)
  return MASKS if name.endswith('_mask') else STATES
