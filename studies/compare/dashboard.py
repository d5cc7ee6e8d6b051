"""`make dashboard`: Optuna's own dashboard over the trials of all studies, for this machine alone.

Owns the server and whom it answers. What is shown, and that studies can be deleted there, is
Optuna Dashboard's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import WSGIApplication

from mlflow_server.process import signals_as_ctrl_c
from studies.storage import DashboardStorage, open_storage, specifications
from studies.study import StudyError

HOST = "127.0.0.1"
HERE = (HOST, "localhost")


def open_dashboard(storage_url: str, *, port: int, say: Callable[[str], None] = print) -> None:
    """Serve the dashboard until Ctrl-C."""
    app = answer_only_here(dashboard_app(storage_url))
    with serving(app, port) as server, signals_as_ctrl_c(), suppress(KeyboardInterrupt):
        say(f"Optuna Dashboard: http://{HOST}:{port} (Ctrl-C stops it)")
        if not specifications(storage_url):
            say("There is no study yet: make study STUDY=global_kmeans")
        server.serve_forever()


def dashboard_app(storage_url: str) -> WSGIApplication:
    """Optuna Dashboard over the storage."""
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise StudyError(
            "Optuna Dashboard is not installed: `make dashboard` installs it, as does "
            "`.venv/bin/pip install -c constraints.txt optuna-dashboard`."
        ) from error
    return wsgi(open_storage(storage_url, DashboardStorage))


def answer_only_here(app: WSGIApplication) -> WSGIApplication:
    """The application for those who ask for this machine by its own name.

    Another site's page in the same browser could point its own name here, and delete studies.
    """

    def guarded(environ, start_response):
        if urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname in HERE:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"This dashboard answers at 127.0.0.1 and localhost alone.\n"]

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # an open page does not keep it alive


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments) -> None:
        """No line a request."""


@contextmanager
def serving(app: WSGIApplication, port: int) -> Iterator[WSGIServer]:
    """A server that is bound to the port, and lets go of it in the end."""
    try:
        server = make_server(HOST, port, app, server_class=_Server, handler_class=_Quiet)
    except OverflowError as error:
        raise StudyError(f"PORT must be at most 65535, got {port}.") from error
    except PermissionError as error:
        raise StudyError(f"Port {port} is the system's: try `PORT=8080`.") from error
    except OSError as error:
        raise StudyError(
            f"Port {port} is in use by another program: try `PORT={port + 1}`."
        ) from error
    with server:
        yield server
