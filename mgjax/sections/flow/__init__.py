"""What the sections with a flow model share: training task, pipeline, requests, LoRA files."""
