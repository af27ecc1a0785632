"""The filter of a search: its tree, its parser, and what it means for a table and in SQL."""
