"""Our own JSON files: one reader, with limits and the types of the fields."""
