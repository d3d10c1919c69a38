"""Released checkpoints and published results: their networks, sources and scores, and the download of the former."""
