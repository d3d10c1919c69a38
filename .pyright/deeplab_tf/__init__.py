"""For pyright alone: it does not follow the __path__ of deeplab_tf, and finds the folders beside it here."""
