"""Pure functions on arrays and tensors: resizing, upsampling, metrics, the dense CRF, pictures."""
