"""The report of an evaluation: metrics.json, per_image.csv and report.html."""
