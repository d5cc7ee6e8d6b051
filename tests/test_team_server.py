"""The team's server under attack: who is let in, what each may do, and what is never answered.

Pure checks of the door first; then one running server for all attacks, stopped and started again
by the last test.
"""

import http.client
import json
import os
import sqlite3
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from team_server import ADMIN, PASSWORDS, READER, RESEARCHER, free_port

from mlflow_server import (
    Tracking,
    TrackingError,
    TrackingRefused,
    TrialRun,
    local_artifacts,
    local_uri,
)
from mlflow_server.registry import digest_files, load_model, log_model, register, tells
from mlflow_server.rules import refusal
from mlflow_server.server import serve_team
from mlflow_server.team import answered_names, with_login, without_login
from mlflow_server.users import check_may_register
from studies.__main__ import main

LONG = "correct-horse-battery"

# A predictor in the shape of ours, with weights that are read as ours are.
LIMIT = """
from pathlib import Path
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

class Limit:
    def __init__(self, limit):
        self.limit = limit

    def predict(self, images):
        score = np.array([image.mean() - self.limit for image in images])
        return pd.DataFrame({"label": (score >= 0).astype(np.int64), "score": score})

def load(folder):
    return Limit(load_file(Path(folder) / "weights.safetensors")["limit"].item())
"""


# The door


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "mlflow.lab.example"])
def test_others_are_not_let_in_without_a_login(host):
    with pytest.raises(TrackingError, match=f"HOST={host} lets others in.*AUTH=1"):
        without_login(host, 5000)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1", "localhost"])
def test_this_machine_needs_no_login(host):
    assert without_login(host, 5000).host == host


def test_a_login_needs_the_admin_s_password(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD", raising=False)
    with pytest.raises(TrackingError, match="AUTH=1 needs a password for admin"):
        with_login("0.0.0.0", 5000, folder=tmp_path)
    assert not (tmp_path / "users.db").exists()


def test_a_short_password_is_refused_and_not_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "hunter2hunt")
    with pytest.raises(TrackingError, match="at least 12 characters, got 11") as refused:
        with_login("0.0.0.0", 5000, folder=tmp_path)
    assert "hunter2" not in str(refused.value)


def test_a_password_of_twelve_characters_will_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "hunter2hunte")
    door = with_login("0.0.0.0", 5000, folder=tmp_path)
    assert door.environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == "hunter2hunte"


def test_what_is_secret_is_the_owner_s_alone_and_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", LONG)
    first = with_login("127.0.0.1", 5000, folder=tmp_path)
    (tmp_path / "server.secret").chmod(0o644)
    second = with_login("127.0.0.1", 5000, folder=tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"users.db": 0o600, "auth.ini": 0o600, "server.secret": 0o600}
    key = "MLFLOW_FLASK_SERVER_SECRET_KEY"
    assert first.environment[key] == second.environment[key]
    assert len(first.environment[key]) == 64
    assert not any(first.environment[key] in word for word in first.command())


def test_a_server_answers_to_its_own_names_and_those_it_is_given():
    assert answered_names("192.168.1.5", 5000, ["mlflow.lab.example"]) == (
        "192.168.1.5",
        "192.168.1.5:5000",
        "mlflow.lab.example",
        "mlflow.lab.example:5000",
    )


@pytest.mark.parametrize("name", ["*", "*.example", "http://mlflow.lab", "a/b", "a b"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(TrackingError, match="ALLOWED_HOSTS must be names"):
        answered_names("0.0.0.0", 5000, [name])


def test_an_address_of_another_server_is_no_database_to_serve(tmp_path):
    with pytest.raises(TrackingError, match="is a server already"):
        door = without_login("127.0.0.1", free_port())
        serve_team("http://127.0.0.1:9", tmp_path, links=lambda base: [], door=door)


def test_the_command_line_refuses_an_open_door(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    assert main(["server", "--host", "0.0.0.0"]) == 2
    assert "AUTH=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/version",
        "/graphql",
        "/get-artifact",
        "/model-versions/get-artifact",
        "/api/2.0/mlflow/runs/search",
        "/ajax-api/2.0/mlflow/experiments/search",
        "/ajax-api/3.0/mlflow/users/current/permissions",
        "/api/2.0/mlflow-artifacts/artifacts/12/run/artifacts/a.png",
    ],
)
def test_what_studies_and_pages_need_is_open(path):
    assert refusal(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/signup",
        "/metrics",
        "/v1/traces",
        "/gateway/a/mlflow/invocations",
        "/api/2.0/mlflow/webhooks",
        "/api/2.0/mlflow/users/create-ui",
        "/ajax-api/3.0/jobs/1",
        "/ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/mlflow/demo/generate",
        "/ajax-api/3.0/mlflow/gateway/secrets/create",
        "/ajax-api/3.0/mlflow/scorer/invoke",
        "/api/2.0/mlflow-artifacts/mpu/create/1/x",
        "/api/2.0/mlflow-artifacts/artifacts/giaem_phantom_/run/artifacts/a.png",
        "/api/2.0/mlflow-artifacts/artifacts/../server.secret",
        "/api/2.0/mlflow-artifacts/artifacts/1/%2e%2e/giaem",
        "/experimentsx",
    ],
)
def test_what_they_do_not_need_is_closed(path):
    assert refusal(path) is not None


# The running server


@pytest.fixture(scope="module")
def study(team, tmp_path_factory):
    """Ana's study over the server: an experiment, a run with a file, and a registered model."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "files").mkdir()
    (folder / "files" / "grid.txt").write_text("a picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", RESEARCHER)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS[RESEARCHER])
        tracking = Tracking(team.uri, folder / "unused")
        experiment = tracking.experiments.open("giaem", note="", tags={})
        parent = tracking.open_study(experiment, "giaem", params={}, tags={}, datasets=[])
        trial = TrialRun(
            "giaem", 1, "trial 1", "FINISHED", 1_000, 2_000, artifacts=folder / "files"
        )
        run_id = tracking.publish_trial(experiment, parent, trial)
        model_uri = log_limit(team.uri, run_id, folder)
        register(team.uri, model_uri, "tumor-detector", tags={}, description="")
    return {"experiment": experiment, "run": run_id, "model": model_uri, "folder": folder}


def log_limit(uri: str, run_id: str, folder: Path, name: str = "limit") -> str:
    from safetensors.numpy import save_file

    (folder / "limit").mkdir(exist_ok=True)
    (folder / "limit" / "__init__.py").write_text(LIMIT)
    (folder / "weights").mkdir(exist_ok=True)
    save_file({"limit": np.array([100.0])}, folder / "weights" / "weights.safetensors")
    return log_model(
        uri,
        run_id,
        folder / "weights",
        name=name,
        loader="limit:load",
        code_paths=[folder / "limit"],
        flavour=tells(),
        pip_requirements=["numpy"],
        metadata={},
    )


OPEN_TO_ANA = [
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0"),
    ("POST", "/api/2.0/mlflow/experiments/search"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search"),
    ("GET", "/api/2.0/mlflow/users/list"),
    ("GET", "/get-artifact?path=grid.txt&run_id={run}"),
    ("GET", "/api/2.0/mlflow/artifacts/list?run_id={run}"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/grid.txt"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path={experiment}"),
    ("GET", "/model-versions/get-artifact?name=tumor-detector&version=1&path=MLmodel"),
    ("GET", "/graphql"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPEN_TO_ANA)
def test_nothing_is_answered_without_the_right_password(team, study, method, path):
    path = path.format(**study)
    sent = {"json": {"max_results": 1}} if method == "POST" else {}
    assert team.ask(method, path, **sent).status_code == 401
    for who in [
        (RESEARCHER, "ana-has-a-wrong-one"),
        ("eve", LONG),
        ("", ""),
        (ADMIN, "password1234"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PASSWORDS, *who)
            assert team.ask(method, path, who[0], **sent).status_code == 401
    if "graphql" not in path:  # which wants a query
        assert team.ask(method, path, RESEARCHER, **sent).status_code == 200


@pytest.mark.slow
def test_a_stranger_cannot_sign_up(team):
    for user, refused in [(None, 401), (READER, 403), (RESEARCHER, 403), (ADMIN, 403)]:
        assert team.ask("GET", "/signup", user).status_code == refused
        form = {"username": "eve", "password": LONG}
        path = "/api/2.0/mlflow/users/create-ui"
        assert team.ask("POST", path, user, data=form).status_code == refused
    for user, refused in [(None, 401), (READER, 403), (RESEARCHER, 403)]:
        sent = {"username": "eve", "password": LONG}
        assert team.ask("POST", "/api/2.0/mlflow/users/create", user, json=sent).status_code == (
            refused
        )
    known = team.ask("GET", "/api/2.0/mlflow/users/list", ADMIN).json()["users"]
    assert "eve" not in [user["username"] for user in known]


@pytest.mark.slow
def test_a_reader_sees_a_study_and_its_files(team, study, log_in, tmp_path):
    log_in(READER)
    tracking = Tracking(team.uri, tmp_path)
    assert "giaem" in tracking.experiments.ids()
    assert tracking.download(study["run"], "grid.txt", tmp_path).read_text() == "a picture"
    model = load_model(team.uri, "models:/tumor-detector@candidate")
    assert model.predict([np.full((4, 4), 200, np.uint8)]).label.tolist() == [1]


@pytest.mark.slow
def test_a_reader_who_promotes_is_refused_in_a_sentence(team, study, log_in):
    log_in(READER)
    sentence = "was refused: ben may not do that.*`make grant NAME=ben PERMISSION=EDIT"
    with pytest.raises(TrackingRefused, match=sentence):
        register(
            team.uri, study["model"], "tumor-detector", alias="champion", tags={}, description=""
        )
    with pytest.raises(TrackingRefused, match="ben reads here, and begins nothing"):
        register(team.uri, study["model"], "my-own", tags={}, description="")
    version = MlflowClient(team.uri).get_registered_model("tumor-detector")
    assert version.aliases == {"candidate": "1"}


READERS_WRITES = [
    ("POST", "registered-models/alias", {"alias": "champion", "version": "1"}),
    ("DELETE", "registered-models/alias", {"alias": "candidate"}),
    ("POST", "registered-models/set-tag", {"key": "a", "value": "b"}),
    ("DELETE", "registered-models/delete", {}),
    ("POST", "registered-models/create", {"name": "bens"}),
    ("POST", "model-versions/create", {"source": "models:/{model}", "run_id": "{run}"}),
    ("POST", "model-versions/set-tag", {"version": "1", "key": "sha256", "value": "0"}),
    ("DELETE", "model-versions/delete", {"version": "1"}),
    ("POST", "experiments/create", {"name": "bens"}),
    ("POST", "experiments/delete", {"experiment_id": "{experiment}"}),
    ("POST", "experiments/set-experiment-tag", {"experiment_id": "{experiment}", "key": "a"}),
    ("POST", "runs/create", {"experiment_id": "{experiment}"}),
    ("POST", "runs/set-tag", {"run_id": "{run}", "key": "a", "value": "b"}),
    ("POST", "runs/log-metric", {"run_id": "{run}", "key": "f2", "value": 1, "timestamp": 1}),
    ("POST", "runs/delete", {"run_id": "{run}"}),
    ("PATCH", "users/update-admin", {"username": "ben", "is_admin": True}),
    ("PATCH", "users/update-password", {"username": "ana", "password": LONG}),
    ("DELETE", "users/delete", {"username": "ana"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "what", "sent"), READERS_WRITES)
def test_a_reader_changes_nothing(team, study, method, what, sent):
    sent = {key: v.format(**study) if isinstance(v, str) else v for key, v in sent.items()}
    sent = {"name": "tumor-detector", **sent}
    answer = team.ask(method, f"/api/2.0/mlflow/{what}", READER, json=sent)
    assert answer.status_code == 403, answer.text


@pytest.mark.slow
def test_a_reader_uploads_and_deletes_no_file(team, study):
    path = "/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/grid.txt"
    for method in ("PUT", "DELETE"):
        assert team.ask(method, path.format(**study), READER, data=b"x").status_code == 403
    assert team.ask("GET", path.format(**study), READER).text == "a picture"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:{port}", 403),
        ("192.168.1.9:{port}", 403),
        ("", 403),
        ("127.0.0.1:{port}", 200),
        ("localhost:8080", 200),
    ],
)
def test_a_foreign_host_header_is_refused(team, host, answer):
    headers = {"Host": host.format(port=team.port)}
    for path in ("/", "/api/2.0/mlflow/experiments/get?experiment_id=0"):
        assert team.ask("GET", path, ADMIN, headers=headers).status_code == answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("origin", "answer"),
    [("https://evil.example", 403), ("null", 403), ("http://127.0.0.1:{port}", 200)],
)
def test_a_post_from_another_page_is_refused(team, study, origin, answer):
    sent = {"run_id": study["run"], "key": "seen", "value": "yes"}
    headers = {"Origin": origin.format(port=team.port)}
    asked = team.ask("POST", "/api/2.0/mlflow/runs/set-tag", ADMIN, json=sent, headers=headers)
    assert asked.status_code == answer


CLIMBS = [
    "../server.secret",
    "../../server.secret",
    "..%2fserver.secret",
    "%2e%2e/server.secret",
    "%252e%252e%252fserver.secret",
    "..%5cserver.secret",
    "{experiment}/../../server.secret",
    "{experiment}/%2e%2e/%2e%2e/server.secret",
    "{experiment}/{run}/artifacts/../../../../server.secret",
    "{experiment}/{run}/artifacts/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fserver.secret",
    "%2Fetc%2Fpasswd",
    "/etc/passwd",
    "file:%2F%2F%2Fetc%2Fpasswd",
]
DOORS = [
    "/api/2.0/mlflow-artifacts/artifacts/{}",
    "/ajax-api/2.0/mlflow-artifacts/artifacts/{}",
    "/api/2.0/mlflow-artifacts/artifacts?path={}",
    "/get-artifact?run_id={run}&path={}",
    "/model-versions/get-artifact?name=tumor-detector&version=1&path={}",
    "/api/2.0/mlflow/artifacts/list?run_id={run}&path={}",
]


def asked_raw(team, method, path, user, body=None):
    """The path as it is written: clients and libraries would straighten it."""
    import base64

    token = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", team.port, timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("Authorization", f"Basic {token}")
    connection.putheader("Content-Length", str(len(body or b"")))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_no_path_climbs_out_of_the_artifacts(team, study, door):
    secret = (team.root / "mlflow" / "server.secret").read_text()
    for climb in CLIMBS:
        path = door.replace("{}", climb).format(**study)
        status, text = asked_raw(team, "GET", path, ADMIN)
        lists_nothing = status == 200 and list(json.loads(text)) == ["root_uri"]
        assert 400 <= status < 500 or lists_nothing, (path, status, text)
        assert secret not in text and "root:" not in text


@pytest.mark.slow
def test_no_file_is_written_outside_the_artifacts(team, study):
    before = sorted(path for path in team.root.rglob("*") if "artifacts" not in path.parts)
    for climb in CLIMBS:
        path = f"/api/2.0/mlflow-artifacts/artifacts/{climb}".format(**study)
        status, text = asked_raw(team, "PUT", path, ADMIN, b"overwritten")
        assert 400 <= status < 500, (path, status, text)
    after = sorted(path for path in team.root.rglob("*") if "artifacts" not in path.parts)
    assert before == after
    assert (team.root / "mlflow" / "server.secret").read_text() != "overwritten"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["artifact_location", "artifactLocation"])
@pytest.mark.parametrize("place", ["file:///etc", "/etc", "http://evil.example/", "s3://a/b"])
def test_nobody_says_where_the_server_keeps_files(team, key, place):
    sent = {"name": f"away {key} {place}", key: place}
    for body in (json.dumps(sent), json.dumps(json.dumps(sent))):  # MLflow takes the second too
        for user in (RESEARCHER, ADMIN):
            headers = {"Content-Type": "application/json"}
            path = "/api/2.0/mlflow/experiments/create"
            answer = team.ask("POST", path, user, data=body, headers=headers)
            assert answer.status_code == 403, answer.text


@pytest.mark.slow
@pytest.mark.parametrize("user", [READER, RESEARCHER, ADMIN])
def test_what_runs_programs_or_calls_other_machines_is_closed(team, user):
    for method, path in [
        ("POST", "/ajax-api/3.0/mlflow/demo/generate"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
        ("POST", "/api/2.0/mlflow/webhooks"),
        ("POST", "/api/3.0/mlflow/gateway/secrets/create"),
        ("POST", "/gateway/a/mlflow/invocations"),
        ("GET", "/ajax-api/3.0/jobs/1"),
        ("POST", "/v1/traces"),
    ]:
        assert team.ask(method, path, user, json={}).status_code in (403, 404), path


# What is loaded


class Bomb:
    """An object that runs a program when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_the_bomb_goes_off(tmp_path):
    """Else the tests below would show nothing."""
    import cloudpickle

    cloudpickle.loads(cloudpickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def files_of(team, study, model_uri) -> Path:
    """Where the server keeps a logged model."""
    model_id = model_uri.removeprefix("models:/")
    return (
        team.root / "mlflow" / "artifacts" / study["experiment"] / "models" / model_id / "artifacts"
    )


@pytest.mark.slow
@pytest.mark.parametrize("digest", ["of the weights that were logged", "of the pickle"])
def test_a_pickle_in_place_of_the_weights_is_refused(
    team, study, log_in, tmp_path, monkeypatch, digest
):
    """Who owns a model can also write its digest: then safetensors must refuse the file."""
    import cloudpickle

    monkeypatch.syspath_prepend(str(study["folder"]))
    log_in(RESEARCHER)
    name = "tampered-" + digest.split()[-1]
    model_uri = log_limit(team.uri, study["run"], study["folder"], name=name)
    register(team.uri, model_uri, name, tags={}, description="")
    load_model(team.uri, f"models:/{name}@candidate")
    mark = tmp_path / "executed"
    kept = files_of(team, study, model_uri)
    weights = next(kept.rglob("weights.safetensors"))
    weights.write_bytes(cloudpickle.dumps(Bomb(mark)))
    if digest == "of the pickle":
        tag = digest_files(kept)
        MlflowClient(team.uri).set_model_version_tag(name, "1", "sha256", tag)
        MlflowClient(team.uri).set_logged_model_tags(
            model_uri.removeprefix("models:/"), {"sha256": tag}
        )
    with pytest.raises(TrackingError, match=f"models:/{name}@candidate"):
        load_model(team.uri, f"models:/{name}@candidate")
    assert not mark.exists()


@pytest.mark.slow
def test_a_model_that_is_a_pickle_is_refused(team, study, log_in, tmp_path):
    log_in(RESEARCHER)
    mark = tmp_path / "executed"
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Plain(), pip_requirements=["numpy"])
    import cloudpickle

    (tmp_path / "model" / "python_model.pkl").write_bytes(cloudpickle.dumps(Bomb(mark)))
    client = MlflowClient(team.uri)
    made = client.create_logged_model(
        study["experiment"], name="pickled", source_run_id=study["run"]
    )
    client.log_model_artifacts(made.model_id, str(tmp_path / "model"))
    client.set_logged_model_tags(made.model_id, {"sha256": digest_files(tmp_path / "model")})
    client.finalize_logged_model(made.model_id, "READY")
    register(team.uri, f"models:/{made.model_id}", "pickled", tags={}, description="")
    with pytest.raises(TrackingError, match="pickle"):
        load_model(team.uri, "models:/pickled@candidate")
    assert not mark.exists()


class Plain(mlflow.pyfunc.PythonModel):
    """Saved as an object, not as code."""

    def predict(self, context, model_input, params=None):
        return model_input


# Studies


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of distinct noise images, enough for a study to begin."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("yes", "no"):
        (folder / name).mkdir()
        for i in range(20):
            noise = rng.integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "password", "sentence"),
    [
        ("", "", "it asks who it is. Set MLFLOW_TRACKING_USERNAME"),
        (RESEARCHER, "ana-has-a-wrong-one", "the server knows no ana with this password"),
        (READER, PASSWORDS[READER], "ben may not register versions of giaem-images"),
    ],
)
def test_a_study_without_the_right_login_ends_before_its_first_trial(
    team, images, tmp_path, monkeypatch, capsys, name, password, sentence
):
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.uri)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert main(["run", "giaem", "--data", str(images), "--trials", "1"]) == 2
    assert sentence in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "optuna.db") as trials:
        begun = "select count(*) from trials where state != 'WAITING'"
        assert trials.execute(begun).fetchone() == (0,)


@pytest.mark.slow
def test_a_reader_s_study_ends_where_the_experiment_is_another_s(team, study, log_in, tmp_path):
    log_in(READER)
    tracking = Tracking(team.uri, tmp_path)
    experiment = tracking.experiments.open("giaem", note="", tags={})
    with pytest.raises(TrackingRefused, match="EXPERIMENT=<name>"):
        tracking.open_study(experiment, "bens", params={}, tags={}, datasets=[])


@pytest.mark.slow
def test_who_may_register_is_known_before_a_study(team, study, log_in):
    for user, refused in [(READER, {"tumor-detector", "new"}), (RESEARCHER, set()), (ADMIN, set())]:
        log_in(user)
        for model in ("tumor-detector", "new"):
            if model in refused:
                with pytest.raises(TrackingRefused, match=f"ben may not register.*MODEL={model}"):
                    check_may_register(team.uri, model)
            else:
                check_may_register(team.uri, model)


@pytest.mark.slow
def test_a_study_that_was_begun_beside_the_server_is_not_continued_over_it(team, log_in, tmp_path):
    log_in(ADMIN)
    direct = Tracking(local_uri(team.root), local_artifacts(team.root))
    direct.experiments.open("beside", note="", tags={})
    with pytest.raises(TrackingRefused, match="'beside' was begun beside the server"):
        Tracking(team.uri, tmp_path).experiments.open("beside", note="", tags={})
    Tracking(team.uri, tmp_path).experiments.open("over it", note="", tags={})
    with pytest.raises(TrackingRefused, match="'over it' was begun over a server"):
        direct.experiments.open("over it", note="", tags={})


@pytest.mark.slow
def test_what_was_logged_beside_the_server_is_read_over_it(
    team, study, log_in, tmp_path, monkeypatch
):
    beside = Tracking(local_uri(team.root), local_artifacts(team.root))
    experiment = beside.experiments.open("read beside", note="", tags={})
    run_id = beside.open_study(experiment, "giaem", params={}, tags={}, datasets=[])
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "a b.txt").write_text("å")
    (tmp_path / "files" / "empty").touch()
    beside.log_artifacts(run_id, tmp_path / "files")
    model_uri = log_limit(local_uri(team.root), run_id, study["folder"], name="beside")
    register(local_uri(team.root), model_uri, "beside", tags={}, description="")
    log_in(READER)
    over_it = Tracking(team.uri, tmp_path)
    copy = over_it.download(run_id, "deep/a b.txt", tmp_path / "copies")
    assert copy == tmp_path / "copies" / "deep" / "a b.txt" and copy.read_text() == "å"
    assert over_it.download(run_id, "empty", tmp_path / "copies").read_bytes() == b""
    assert [p.name for p in over_it.download(run_id, "deep", tmp_path / "all").iterdir()] == [
        "a b.txt"
    ]
    for uri in (model_uri, "models:/beside@candidate"):
        model = load_model(team.uri, uri)
        assert model.predict([np.full((4, 4), 200, np.uint8)]).label.tolist() == [1]
    log = (team.root / "mlflow" / "server.log").read_text()
    assert f"GET /get-artifact?run_id={run_id}" in log  # and not from the folder itself
    assert f"/mlflow/logged-models/{model_uri.removeprefix('models:/')}/artifacts/files?" in log
    with pytest.raises(TrackingError, match="Downloading nope"):
        over_it.download(run_id, "nope", tmp_path / "copies")


# The process


@pytest.mark.slow
def test_no_secret_is_in_the_log_nor_in_what_programs_are_called_with(team, study):
    log = (team.root / "mlflow" / "server.log").read_text()
    words = [" ".join(process.cmdline()) for process in team.processes()]
    secret = (team.root / "mlflow" / "server.secret").read_text()
    assert len(words) >= 3 and "GET /health" in log
    for hidden in [*PASSWORDS.values(), secret]:
        assert not any(hidden in text for text in [log, *words, *team.said])
    for name in ("server.secret", "users.db", "auth.ini"):
        assert (team.root / "mlflow" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_server_that_is_started_again_keeps_its_users(team, study, monkeypatch):
    processes = team.processes()
    team.stop()
    assert team.process.returncode == 0
    assert not [process for process in processes if process.is_running()]
    folder = team.root / "mlflow"
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "another-one-altogether")
    with pytest.raises(TrackingError, match="admin has another password than"):
        with_login("127.0.0.1", team.port, folder=folder)
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_USERNAME", RESEARCHER)
    with pytest.raises(TrackingError, match="ana is a user, and no admin"):
        with_login("127.0.0.1", team.port, folder=folder)
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_USERNAME")
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD")
    with_login("127.0.0.1", team.port, folder=folder)  # the admin's password is kept
    team.start(
        MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORDS[ADMIN], MLFLOW_TRACKING_PASSWORD=PASSWORDS[RESEARCHER]
    )
    path = "/api/2.0/mlflow/users/current"
    for user in PASSWORDS:
        assert team.ask("GET", path, user).json()["user"]["username"] == user
    assert team.ask("GET", path).status_code == 401
    for process in team.processes()[1:]:
        assert not set(PASSWORDS.values()) & set(process.environ().values())
