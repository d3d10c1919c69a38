"""Keras layers, backbones, heads and the model that `build_model` assembles from them."""
