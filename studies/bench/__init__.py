"""How fast things are here, each beside what a user would otherwise write."""
