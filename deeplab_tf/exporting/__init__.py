"""Exported formats of a model, and the certificate that an exported file agrees with the model."""
