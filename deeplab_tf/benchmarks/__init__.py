"""The measurements of `deeplab-tf benchmark`, one module for each value of --what."""
