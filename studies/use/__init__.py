"""A registered model put to use: answers to files, and a server that answers."""
