"""Annotations (polygons, boxes, run lengths) of several formats, drawn as label masks."""
