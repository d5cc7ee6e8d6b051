"""A registered model as a server that answers over HTTP: `make serve`."""

from collections.abc import Iterator

from mlflow_server import TrackingError
from mlflow_server.scoring import serve_model
from studies.settings import Settings
from studies.summary import DISCLAIMER
from studies.use.model import check_address, unknown

# base64 breaks lines, and JSON holds none; the shell's own limits do not apply to a pipe
CURL = """\
Ask it about an image file:
  (printf '{{"inputs": ["'; base64 < slice.png | tr -d '\\n'; printf '"]}}') |
    curl -s {base}/invocations -H 'Content-Type: application/json' -d @-"""


def serve(model_uri: str, settings: Settings, *, port: int) -> None:
    """Serve until Ctrl-C."""
    check_address(model_uri)
    try:
        serve_model(
            settings.tracking_uri,
            model_uri,
            note=DISCLAIMER,
            log=settings.root / "serve.log",
            links=links,
            port=port,
        )
    except TrackingError as error:
        if str(error).startswith("Loading "):
            raise unknown(error) from error
        raise


def links(base: str) -> Iterator[str]:
    """How the server is asked."""
    yield CURL.format(base=base)
    yield DISCLAIMER
