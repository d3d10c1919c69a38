"""The package version: setup.cfg, deeplab.json and `deeplab-tf --version` read it here."""

__version__ = "0.1.0"
