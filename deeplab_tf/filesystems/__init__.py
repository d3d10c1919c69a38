"""TensorFlow's file systems, gs:// and its like, behind the methods of pathlib and Python's own errors."""
