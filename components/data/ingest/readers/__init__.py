"""How a corpus of any format is read: one file a format, each handing on raw records."""
