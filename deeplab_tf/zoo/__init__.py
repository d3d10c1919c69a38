"""Released checkpoints and published results: where they are and what they score."""
