"""Resampling: clips of common concepts are kept seldom (Movie Gen §3.2.1, Table 44, row 11).

Vectors of clips fall into clusters, those of which the centres are close become one, and a clip is
kept with a probability proportional to 1 / sqrt(size of its cluster). Vectors come from a plug-in
(the paper's are joint embeddings of video and text); without one they are those of captions' words.
"""

import numpy as np

from mgjax.lab.curation.filters.duplicates import faiss_library
from mgjax.lab.curation.filters.table import Columns, draws, known
from mgjax.lab.curation.settings import KeepSettings

_WORDS = 4096  # most frequent ones that count
_TOPICS = 64  # directions to which their frequencies are brought
_ROUNDS = 25  # of k-means
_LEARNT = 256  # clips a cluster that k-means looks at, at most


def resampled(columns: Columns, settings: KeepSettings) -> np.ndarray:
  """Says which clips fall to resampling, as 'concept of 120 clips, kept with 0.31', or ''.

  Where a share of people is asked for, clips that show some stay (§3.2.1). Reads 'concepts_vector'
  or 'caption'; 'clip'; 'people_score' if there is one.
  """
  clusters = concept_clusters(columns, settings)
  _, cluster, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
  size = sizes[cluster]
  chance = chances(size, settings.resample)
  if settings.people and 'people_score' in columns:
    chance = np.where(columns['people_score'] >= settings.person, 1.0, chance)
  dropped = draws(columns['clip'], settings.seed, 'concepts') >= chance
  reasons = np.full(len(size), '', object)
  reasons[dropped] = [
    f'concept of {n} clips, kept with {p:.2f}'
    for n, p in zip(size[dropped], chance[dropped], strict=True)
  ]
  return reasons


def concept_clusters(columns: Columns, settings: KeepSettings) -> np.ndarray:
  """Returns the number of each clip's concept, int64 (n); -1 for a clip without a vector."""
  vectors = columns.get('concepts_vector')
  if vectors is None or not known(vectors).any():
    vectors = word_vectors([caption or '' for caption in columns['caption']])
  have = known(vectors)
  vectors = np.ascontiguousarray(vectors[have], np.float32)
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  clusters = settings.clusters or round(np.sqrt(len(vectors)))
  # A cluster holds one vector at least.
  count = min(max(1, clusters), len(np.unique(vectors, axis=0)))
  kmeans = faiss_library().Kmeans(
    vectors.shape[1],
    count,
    niter=_ROUNDS,
    seed=settings.seed,
    spherical=True,
    min_points_per_centroid=1,
    max_points_per_centroid=_LEARNT,
  )
  kmeans.train(vectors)
  _, nearest = kmeans.index.search(vectors, 1)
  concepts = np.full(len(have), -1, np.int64)
  concepts[have] = merged(kmeans.centroids, settings.merge)[nearest[:, 0]]
  return concepts


def merged(centres: np.ndarray, cosine: float) -> np.ndarray:
  """Numbers unit vectors (n d): those with at least that cosine, or a chain of them, share one."""
  from scipy.sparse.csgraph import connected_components

  return connected_components(centres @ centres.T >= cosine, directed=False)[1]


def chances(sizes: np.ndarray, share: float) -> np.ndarray:
  """min(1, c / sqrt(size)) of the cluster of each clip, with the c by which the mean is `share`."""
  weight = 1 / np.sqrt(sizes)
  low = 0.0
  high = float(np.sqrt(sizes.max()))
  for _ in range(60):  # halvings, down to the precision of a float64
    middle = (low + high) / 2
    if np.minimum(1, middle * weight).mean() < share:
      low = middle
    else:
      high = middle
  return np.minimum(1, high * weight)


def word_vectors(captions: list[str]) -> np.ndarray:
  """Frequencies of words, weighted by how seldom they are, in few directions: float32 (n d)."""
  from sklearn.decomposition import TruncatedSVD
  from sklearn.feature_extraction.text import TfidfVectorizer

  counter = TfidfVectorizer(max_features=_WORDS, sublinear_tf=True, token_pattern=r'\w+')
  if not any(word.strip() for word in captions):
    return np.zeros((len(captions), 1), np.float32)
  counts = counter.fit_transform(captions)
  if counts.shape[1] <= _TOPICS:
    return counts.toarray().astype(np.float32)
  return TruncatedSVD(_TOPICS, random_state=0).fit_transform(counts).astype(np.float32)
