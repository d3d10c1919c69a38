"""The one place that writes: files that appear complete or not at all, on any file system TensorFlow knows."""
