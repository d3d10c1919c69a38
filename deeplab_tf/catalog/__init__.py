"""Facts about data: the data sets with their classes, splits and palettes."""
