"""Sets of images of one code: how they are drawn, measured and shown."""
