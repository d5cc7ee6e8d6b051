"""The commands of `python -m studies`: one module each, with `add_arguments` and `main`.

A command is called as its module; the first line of the module's docstring is its help.
"""

INTERRUPTED = 130  # exit status after Ctrl-C
