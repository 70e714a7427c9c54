"""The contrastive objective of images, their captions and their identities."""

import jax
import jax.numpy as jnp

from mgjax.core.settings import Magnitude
from mgjax.core.typing import Array, Batch, Bool, Float, Int, Key, Metrics, Predict
from mgjax.nn.kernels.kernel import MASKED


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
  Space). In synthetic data a caption comes several times a batch, and an image must not be pushed
  away from its own words. Batches of distinct captions would be no larger than there are captions,
  and every source of data would have to make them. The least there can be is not 0 but the mean of
  log #{k: c_i = c_k}: equal texts have equal logits.

  Every row is compared with all others, over all devices too: negatives are those of the whole
  batch. Micro-batches (`train.accumulate`) have those of their own rows alone.

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


def identity_loss(
  vectors: Float[Array, 'b q'], scale: Float[Array, ''], identities: Int[Array, ' b']
) -> tuple[Float[Array, ''], Metrics]:
  """Returns the InfoNCE of images of the same identity in a batch, without texts.

  L_ij = s J_i . J_j,   P_i = {j: j != i, e_j = e_i}

  loss = -1/b sum_i 1/#P_i sum_{j in P_i} log softmax_{j != i} L_ij

  With two images of every identity it is SimCLR's (Chen et al. 2020), which SLIP adds to CLIP's (Mu
  et al. 2022). More images of an identity share their target, as in supervised contrastive learning
  (Khosla et al. 2020). An image without another of its identity counts 0.

  Beside the loss there are `identity_excess`, the loss above the least there can be;
  `identity_nearest`, the share of images whose nearest other image has the same identity; and
  `identity_scale`.
  """
  rows = jnp.arange(len(vectors))
  others = rows[:, None] != rows[None]
  same = (identities[:, None] == identities[None]) & others
  count = jnp.maximum(same.sum(axis=1), 1).astype(jnp.float32)
  logits = jnp.where(others, scale * jnp.einsum('ip,jp->ij', vectors, vectors), MASKED)
  chosen = jnp.where(same, jax.nn.log_softmax(logits, axis=1), 0)
  loss = -(chosen.sum(axis=1) / count).mean()
  return loss, {
    'identity_excess': loss - jnp.where(same.any(axis=1), jnp.log(count), 0).mean(),
    'identity_nearest': same[rows, logits.argmax(axis=1)].mean(),
    'identity_scale': scale,
  }


def clip_objective(
  predict: Predict, batch: Batch, key: Key, *, identity_weight: Magnitude = 1.0
) -> tuple[Array, Metrics]:
  """Returns `contrastive_loss` of a batch of `images` with the `tokens` and `mask` of captions.

  If the batch says the `identity` of every image, identity_weight * `identity_loss` is added, of
  the vectors that the model's head makes. Metrics are those of both; `excess` is of the captions
  alone.
  """
  del key
  images, texts, scale, *identity = predict(batch['images'], batch['tokens'], batch['tokens_mask'])
  tokens: Array = jnp.where(batch['tokens_mask'], batch['tokens'], -1)
  same = (tokens[:, None] == tokens[None]).all(axis=2)
  loss, metrics = contrastive_loss(images, texts, scale, same)
  if 'identity' not in batch:
    return loss, metrics
  alike, identity_metrics = identity_loss(*identity, batch['identity'])
  loss = loss + identity_weight * alike
  return loss, metrics | identity_metrics | {'loss': loss}
