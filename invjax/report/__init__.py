"""What a person looks at: gallery, contact sheet, curves, tables, glyphs."""
