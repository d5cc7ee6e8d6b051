"""Users of the team's server by the commands: who is let in, as what, and with which grants."""

import pytest
from team_server import ADMIN, READER, RESEARCHER

from mlflow_server import Tracking, TrackingError, TrackingRefused
from mlflow_server.team import check_name, check_password
from mlflow_server.users import Users
from studies.__main__ import main

LONG = "a-password-that-is-long"


@pytest.mark.parametrize("name", ["ana", "ana.b", "ana-b_2", "7"])
def test_a_name_of_letters_digits_and_marks_will_do(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", "-", "ana b", "ana:b", "ana/b", "añá", "<b>"])
def test_a_name_that_breaks_a_header_is_refused(name):
    with pytest.raises(TrackingError, match="NAME must be made of"):
        check_name(name)


@pytest.mark.parametrize("password", ["", "elevenchars", "pässword-is-long", "tab\tis-not-printed"])
def test_a_password_that_could_not_be_sent_is_refused_and_not_said(password):
    with pytest.raises(TrackingError, match="The password must") as refused:
        check_password(password, "The password")
    assert not password or password not in str(refused.value)


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that runs a command on a server and returns its status, output and error."""
    monkeypatch.delenv("MLFLOW_USER_PASSWORD", raising=False)

    def run(uri, *arguments, password=None):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        if password is None:
            monkeypatch.delenv("MLFLOW_USER_PASSWORD", raising=False)
        else:
            monkeypatch.setenv("MLFLOW_USER_PASSWORD", password)
        try:
            status = main(list(arguments))
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert not password or password not in said.out + said.err
        return status, said.out.strip(), said.err.strip()

    return run


def test_a_database_knows_no_users(call, tmp_path):
    status, _, error = call(f"sqlite:///{tmp_path}/mlflow.db", "users")
    assert status == 2 and "make server AUTH=1" in error


def test_a_user_has_a_name(call, tmp_path):
    assert call(f"sqlite:///{tmp_path}/mlflow.db", "user", "") == (
        2,
        "",
        "NAME must name a user: `make user NAME=ana`.",
    )


@pytest.mark.parametrize("named", [[], ["--experiment", "a", "--model", "b"]])
def test_a_grant_is_for_one_thing(call, tmp_path, named):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    status, _, error = call(uri, "grant", "ana", "--permission", "READ", *named)
    assert status == 2 and "one EXPERIMENT or one MODEL" in error


def test_an_unknown_permission_lists_the_known_ones(call, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    status, _, error = call(uri, "grant", "ana", "--permission", "WRITE", "--model", "a")
    assert status == 2 and "EDIT" in error and "DENY" in error


@pytest.mark.slow
def test_a_user_comes_changes_and_goes(team, log_in, call):
    log_in(ADMIN)
    assert call(team.uri, "user", "cy", password="too-short")[0] == 2
    status, _, error = call(team.uri, "user", "cy")
    assert status == 2 and "there is no terminal to ask" in error
    assert call(team.uri, "user", "cy", password=LONG)[:2] == (0, "cy may log in as a reader.")
    assert Users(team.uri).find("cy").role == "reader"
    for role in ("researcher", "admin", "researcher", "reader", "admin", "reader"):
        assert call(team.uri, "user", "cy", "--role", role)[:2] == (0, f"cy is a {role}.")
        assert Users(team.uri).find("cy").role == role
    assert "cy                   reader" in call(team.uri, "users")[1].splitlines()
    assert call(team.uri, "user", "cy", password=LONG + "er")[:2] == (0, "cy has another password.")
    log_in("cy", LONG)
    assert "the server knows no cy" in call(team.uri, "users")[2]
    log_in("cy", LONG + "er")
    roles = {user.name: user.role for user in Users(team.uri).all()}
    assert roles == {"admin": "admin", "ana": "?", "ben": "?", "cy": "reader"}
    assert call(team.uri, "user", "cy", password=LONG)[0] == 0  # one's own, without an admin
    log_in("cy", LONG)
    status, _, error = call(team.uri, "user", "cy", "--role", "admin")
    assert status == 2 and "was refused" in error
    status, _, error = call(team.uri, "user", "dan", password=LONG)
    assert status == 2 and "was refused" in error
    log_in(ADMIN)
    assert call(team.uri, "user", "cy", "--delete", "1")[:2] == (0, "cy is let in no more.")
    status, _, error = call(team.uri, "user", "cy", "--delete", "1")
    assert (status, error) == (2, "Unknown user 'cy'. Known: admin, ana, ben.")
    log_in("cy", LONG)
    assert call(team.uri, "users")[0] == 2


@pytest.mark.slow
def test_a_grant_lets_a_reader_write_until_it_is_taken_back(team, log_in, call, tmp_path):
    log_in(RESEARCHER)
    tracking = Tracking(team.uri, tmp_path)
    experiment = tracking.experiments.open("shared", note="", tags={})
    study = {"params": {}, "tags": {}, "datasets": []}
    grant = ("grant", READER, "--experiment", "shared", "--permission")
    for permission, may_write in [
        ("EDIT", True),
        ("READ", False),
        ("MANAGE", True),
        ("DEFAULT", False),
    ]:
        log_in(RESEARCHER)  # whose experiment it is
        assert call(team.uri, *grant, permission)[0] == 0
        log_in(READER)
        if may_write:
            tracking.open_study(experiment, permission, **study)
        else:
            with pytest.raises(TrackingRefused, match="ben may not do that"):
                tracking.open_study(experiment, permission, **study)
    log_in(ADMIN)
    assert call(team.uri, *grant, "DENY")[0] == 0
    assert "ben                  reader      DENY shared" in call(team.uri, "users")[1]
    log_in(READER)
    assert "shared" not in Tracking(team.uri, tmp_path).experiments.ids()
    assert (
        team.ask(
            "GET", f"/api/2.0/mlflow-artifacts/artifacts?path={experiment}", READER
        ).status_code
        == 403
    )


@pytest.mark.slow
def test_a_grant_on_what_there_is_not_lists_what_there_is(team, log_in, call):
    log_in(ADMIN)
    status, _, error = call(
        team.uri, "grant", READER, "--experiment", "nope", "--permission", "EDIT"
    )
    assert status == 2 and "Unknown EXPERIMENT 'nope'. Known: " in error
    status, _, error = call(team.uri, "grant", READER, "--model", "nope", "--permission", "EDIT")
    assert status == 2 and "nope" in error
    status, _, error = call(team.uri, "grant", "eve", "--model", "nope", "--permission", "EDIT")
    assert (status, error) == (2, "Unknown user 'eve'. Known: admin, ana, ben.")


@pytest.mark.slow
def test_who_reads_grants_nothing(team, log_in, call, tmp_path):
    log_in(RESEARCHER)
    Tracking(team.uri, tmp_path).experiments.open("hers", note="", tags={})
    log_in(READER)
    asked = ("grant", READER, "--experiment", "hers", "--permission", "MANAGE")
    status, _, error = call(team.uri, *asked)
    assert status == 2 and "was refused" in error
