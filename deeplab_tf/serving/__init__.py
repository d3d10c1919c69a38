"""The HTTP server of a model: TensorFlow Serving's REST interface and a page. The extra `serve` installs it."""
