"""The tracking server with links that open on what a study's reader wants to see."""

from studies.settings import Settings


def open_ui(settings: Settings, *, port: int) -> None:
    """Serve until Ctrl-C."""
    raise NotImplementedError
