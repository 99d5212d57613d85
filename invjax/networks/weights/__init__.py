"""From weight files to parameters: formats, checkpoints, pinned sources."""
