"""Exported forms of a model and the certificate that they agree with it."""
