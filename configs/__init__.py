"""Recipes: one file per experiment, each a `dataclasses.replace` over a default configuration."""
