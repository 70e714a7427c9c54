"""CLIP: image and text towers, their loss and their published weights."""
