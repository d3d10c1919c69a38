"""What `deeplab-tf benchmark` measures, a module for each value of --what."""
