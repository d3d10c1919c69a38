"""TensorFlow's file systems, gs:// and its like, behind pathlib's methods and Python's errors; and unfinished files."""
