"""Reports for people: gallery, contact sheet, curves, tables, glyphs, contrast."""
