"""The commands. The only place that knows absl flags; each file also runs as `python tools/<name>.py`."""
