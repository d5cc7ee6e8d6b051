"""The tracking server, with links that open straight on each study's runs and its best trials."""

from collections.abc import Iterator
from functools import partial

from mlflow_server import Tracking
from mlflow_server.experiments import view_key
from mlflow_server.server import compare_url, run_url, runs_url, serve, serve_team
from mlflow_server.team import Door, is_loopback
from studies.settings import Settings
from studies.storage import best_trials

COMPARED = 20  # the UI's parallel coordinates stay readable and quick


def open_ui(settings: Settings, *, port: int) -> None:
    """Serve until Ctrl-C."""
    serve(settings.tracking_uri, settings.artifact_root, port=port, links=partial(links, settings))


def open_server(settings: Settings, door: Door) -> None:
    """Serve until Ctrl-C, for whoever the door lets in."""
    if not is_loopback(door.host):
        print(
            "Passwords travel as they are over http://: outside a network that you trust, put a "
            "proxy with a certificate before the server (docs/team-server.md)."
        )
    serve_team(
        settings.tracking_uri, settings.artifact_root, door=door, links=partial(links, settings)
    )


def links(settings: Settings, base: str) -> Iterator[str]:
    """Lines with what is worth opening, a block a study."""
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiments = tracking.experiments.ids()
    studies = best_trials(settings.storage_url, COMPARED)
    recorded = {name: best for name, best in studies.items() if name in experiments}
    if not recorded:
        yield "There is no study yet: make study STUDY=global_kmeans"
    for name, best in recorded.items():
        experiment = experiments[name]
        runs = tracking.published_trials(experiment, name)
        compared = [runs[trial][0] for trial in best if trial in runs]
        yield f"\n{name}"
        yield f"  trials, best first {runs_url(base, experiment, view_key(name))}"
        if parent := tracking.find_study(experiment, name):
            yield f"  summary, report    {run_url(base, experiment, parent)}"
        if compared:
            url = compare_url(base, compared, [experiment])
            yield f"  best {len(compared):>2} compared   {url}"
