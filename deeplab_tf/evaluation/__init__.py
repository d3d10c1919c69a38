"""Scores and pictures of a checkpoint: evaluate, vis, verify, pack, and the report."""
