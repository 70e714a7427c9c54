"""The labels that people set: 16 of the camera, 6 of the shot (Movie Gen §3.2.1, §3.3)."""

from mgjax.lab.curation.scores.camera_motion import ANSWERS

CAMERA = tuple(label for labels in ANSWERS.values() for label in labels)
SHOTS = (
  'wide shot',
  'close-up shot',
  'aerial shot',
  'low angle shot',
  'over-the-shoulder shot',
  'first person shot',
)
LABELS = (*CAMERA, *SHOTS)
