"""Manifests (TF1 names and shapes) of the released checkpoints, and the small embedded demo checkpoint."""
