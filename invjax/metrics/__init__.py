"""How good, how different, how natural: numbers about images and codes."""
