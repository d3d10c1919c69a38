"""The tables of the DeepLab papers, a module for each paper; `deeplab_tf.zoo.published` puts them together."""
