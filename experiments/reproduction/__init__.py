"""DOC: to be written."""
