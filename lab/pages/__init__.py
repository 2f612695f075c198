"""What a reader sees: the texts, tables and figures of a notebook, and the parts that are written by code."""
