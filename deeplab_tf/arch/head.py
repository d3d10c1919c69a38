"""The scopes of the head, which all architectures share (release: model.py)."""

LOGITS = "logits"
# What the release calls the last layers: their gradients have a multiplier, and they may be left out of a restore.
LAST_LAYERS = (LOGITS, "image_pooling", "aspp", "concat_projection", "decoder", "meta_architecture")
# What the names of a head's variables begin with; multi_scale is DeepLab-v1's.
BEGINNINGS = (*LAST_LAYERS, "multi_scale")
# Scopes whose convolutions have a bias instead of a batch norm.
BIASED = frozenset({LOGITS, "squeeze_excite"})
# And these, in a head whose decoder gives the logits.
BIASED_WITHOUT_LOGITS = frozenset({"image_pooling", "decoder"})
