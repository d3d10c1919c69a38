"""TensorFlow's file systems, gs:// and its like, behind the methods of pathlib; and what is left by processes that end."""
