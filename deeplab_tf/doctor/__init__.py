"""The doctor: what is silently wrong with data, a training run or a checkpoint, each finding with evidence and cure."""
