"""From images to classes, in TensorFlow or LiteRT."""
