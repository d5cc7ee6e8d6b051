"""A study's trials run by several workers, wherever these are."""
