"""Data sets on disk: how each is found, built into records, and read as batches for the network."""
