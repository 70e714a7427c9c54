"""The contrastive objective of images and their captions, in which equal captions agree."""

from typing import Any

import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Batch, Bool, Float, Key, Metrics, Predict


def contrastive_loss(
  images: Float[Array, 'b p'],
  texts: Float[Array, 'b p'],
  scale: Float[Array, ''],
  same: Bool[Array, 'b b'],
) -> tuple[Float[Array, ''], Metrics]:
  """Returns the symmetric InfoNCE of a batch, with targets shared over equal captions.

  L_ij = s I_i . T_j,   P_ij = [c_i = c_j] / #{k: c_i = c_k}

  loss = -1/(2 b) sum_ij P_ij (log softmax_j L_ij + log softmax_i L_ij)

  Without equal captions P is the identity, and this is CLIP's loss (Radford et al. 2021, figure 3);
  with them it is UniCL's (Yang et al. 2022, Unified Contrastive Learning in Image-Text-Label
  Space). In small worlds a caption comes several times in a batch, and an image must not be pushed
  away from its own words. Batches of distinct captions would be no larger than there are captions,
  and every source of data would have to make them. The least there can be is not 0 but the mean of
  log #{k: c_i = c_k}: equal texts have equal logits.

  Every row is compared with all others, over all devices too: negatives are those of the whole
  batch. Micro-batches (`train.accumulate`) have those of their own rows alone.

  Args:
    images: unit vectors I.
    texts: unit vectors T.
    scale: s.
    same: whether two rows have equal captions.

  Returns:
    The loss, and beside it `excess`, the loss above the least there can be; `image_to_text` and
    `text_to_image`, the shares of rows whose nearest row has an equal caption; and `scale`.
  """
  logits = scale * jnp.einsum('ip,jp->ij', images, texts)
  count = same.sum(axis=1).astype(jnp.float32)
  target = same / count[:, None]
  of_images = jax.nn.log_softmax(logits, axis=1)
  of_texts = jax.nn.log_softmax(logits, axis=0)
  loss = -(target * (of_images + of_texts)).sum() / (2 * len(count))
  rows = jnp.arange(len(count))
  return loss, {
    'loss': loss,
    'excess': loss - jnp.log(count).mean(),
    'image_to_text': same[rows, logits.argmax(axis=1)].mean(),
    'text_to_image': same[logits.argmax(axis=0), rows].mean(),
    'scale': scale,
  }


def clip_objective(predict: Predict, batch: Batch, key: Key) -> tuple[Array, Metrics]:
  """Returns `contrastive_loss` of a batch of `images` with the `tokens` and `mask` of captions."""
  del key  # nothing is drawn
  images, texts, scale = predict(batch['images'], batch['tokens'], batch['tokens_mask'])
  tokens: Any = jnp.where(batch['tokens_mask'], batch['tokens'], -1)
  same = (tokens[:, None] == tokens[None]).all(axis=2)
  return contrastive_loss(images, texts, scale, same)
