"""Training: the step, its losses, schedules and optimisers, and the loop around it."""
