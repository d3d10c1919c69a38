"""The doctor: finds what is silently wrong with data, a training run, a checkpoint or an export, and names a cure."""
