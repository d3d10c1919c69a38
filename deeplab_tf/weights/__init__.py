"""Files of weights: TF1 checkpoints, archives, frozen graphs, model directories, and how they enter a model."""
