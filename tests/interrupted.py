"""What a program that Ctrl-C has stopped ends with."""

import signal

# Python ends by the signal itself, though it was caught, where it came while a text was executed:
# so are dataclasses made, in whatever is imported just then. A shell says 130 of both.
INTERRUPTED = (130, -signal.SIGINT)
