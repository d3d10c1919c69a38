"""Data sets: the catalog of what exists, and how each is read, made and fed to the network."""
