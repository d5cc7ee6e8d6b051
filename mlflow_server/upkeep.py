"""What an MLflow record holds, deleted things too, and how parts of it are removed for good.

Owns the order of each removal, so that an interrupted one is finished by the next and a model or
weights without their files are never found. Knows nothing of what is needed by whom.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mlflow.entities import LifecycleStage, LoggedModel, LoggedModelStatus, Run, ViewType
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels.models import SqlInput

from mlflow_server.connection import TrackingError, connect, in_pages, is_server, tracking_errors
from mlflow_server.files import local_folder
from mlflow_server.tracking import CLEANED_TAG, RUNS_A_PAGE

MODELS_A_PAGE = 50  # more at once are refused
DELETED = "DELETED"  # the status of a logged model that was deleted and whose record is left


class HeldExperiment(NamedTuple):
    """An experiment, deleted ones too."""

    id: str
    name: str
    is_deleted: bool
    tags: dict[str, str]
    folder: str  # address of its files


class HeldRun(NamedTuple):
    """A run, deleted ones too."""

    id: str
    experiment: str
    status: str
    is_deleted: bool
    tags: dict[str, str]
    folder: str


class HeldModel(NamedTuple):
    """A logged model; `status` is READY, FAILED, PENDING or DELETED."""

    id: str
    experiment: str
    run: str | None
    status: str
    made: int  # ms
    folder: str


class HeldVersion(NamedTuple):
    """A version of a registered model; `source` is the address of its files."""

    name: str
    number: str
    run: str | None
    source: str
    aliases: tuple[str, ...]


class Holdings(NamedTuple):
    """Everything that a record knows, by id."""

    experiments: dict[str, HeldExperiment]
    runs: dict[str, HeldRun]
    models: dict[str, HeldModel]
    versions: list[HeldVersion]

    def model_of(self, version: HeldVersion) -> HeldModel | None:
        """The logged model whose files a version names; None where they are another's."""
        if version.source.startswith("models:/"):
            return self.models.get(version.source.removeprefix("models:/"))
        wanted = version.source.rstrip("/")
        return next((one for one in self.models.values() if one.folder.rstrip("/") == wanted), None)


class Upkeep:
    """The record at one address, as the one who clears it up sees it."""

    def __init__(self, uri: str):
        """Connect, or raise TrackingError."""
        self.uri = uri
        self._client = connect(uri)
        self._store = self._client._tracking_client.store  # only it removes records for good

    def holdings(self) -> Holdings:
        """All experiments, runs, logged models and versions."""
        with tracking_errors("Listing what the record holds"):
            experiments = {one.id: one for one in self._experiments()}
            runs = {one.id: one for one in self._runs(list(experiments))}
            models = {one.id: one for one in self._models(list(experiments))}
            return Holdings(experiments, runs, models, list(self._versions()))

    def remembered(self) -> set[str]:
        """Ids of runs and models that a database has a trace of, removed ones too; {} of a server.

        MLflow leaves the lines between a run and its models where it removes either.
        """
        if not hasattr(self._store, "ManagedSessionMaker"):
            return set()
        with tracking_errors("Listing what was removed"), self._store.ManagedSessionMaker() as now:
            lines = now.query(SqlInput.source_id, SqlInput.destination_id).all()
            return {identity for line in lines for identity in line}

    def size(self, folder: str) -> int:
        """Bytes below an address of files."""
        local = local_folder(folder)
        if local is not None:
            return folder_size(local)
        with tracking_errors(f"Measuring {folder}"):
            return _remote_size(self._files(folder), None)

    def refuse_files_elsewhere(self, holdings: Holdings) -> None:
        """A server may keep files on its own disk, which nobody else can clear up."""
        if not is_server(self.uri):
            return
        for run in holdings.runs.values():
            folder = local_folder(run.folder)
            if folder is not None and not folder.parents[2].exists():
                raise TrackingError(
                    f"{self.uri} keeps files on its own disk ({run.folder}): clear up there, with "
                    "MLFLOW_TRACKING_URI unset or naming its database."
                )

    # Removals

    def remove_version(self, version: HeldVersion) -> bool:
        """Remove a version, unless it has been given an alias meanwhile."""
        with tracking_errors(f"Removing version {version.number} of {version.name}"):
            now = self._client.get_model_version(version.name, version.number)
            if now.aliases:
                return False
            self._client.delete_model_version(version.name, version.number)
            return True

    def remove_model(self, model: HeldModel) -> bool:
        """Remove a logged model: first it cannot be found, then its files go, then its record.

        False, and nothing is removed, where it has a registered version: the last may be new.
        """
        with tracking_errors(f"Removing the model {model.id}"):
            its = (f"models:/{model.id}", model.folder.rstrip("/"))
            if any(version.source.rstrip("/") in its for version in self._versions()):
                return False
            if model.status != DELETED:
                self._client.finalize_logged_model(model.id, LoggedModelStatus.FAILED)
            self._remove_files(model.folder, model.id)
            if model.status != DELETED:
                self._client.delete_logged_model(model.id)
            if hasattr(self._store, "_hard_delete_logged_model"):
                self._store._hard_delete_logged_model(model.id)
            return True

    def clean_run(
        self, run: HeldRun, date: str, *, links: Collection[str], others: Collection[str]
    ) -> bool:
        """Remove a run's files, not its parameters and metrics; the tag `cleaned` says when.

        False, and nothing is removed, where a run that is not among the `others` to be cleaned has
        come to link to it meanwhile, by one of the tags `links`.
        """
        with tracking_errors(f"Cleaning run {run.id}"):
            if CLEANED_TAG not in run.tags:
                with self._active(run):
                    self._client.set_tag(run.id, CLEANED_TAG, date)
                    if self._linked_by(run, links) - {run.id, *others}:
                        self._client.delete_tag(run.id, CLEANED_TAG)
                        return False
            self._remove_files(run.folder, run.id)
            return True

    def link(self, run: HeldRun, tag: str, to: str) -> None:
        """Have a run's tag name another run."""
        with tracking_errors(f"Linking run {run.id}"), self._active(run):
            self._client.set_tag(run.id, tag, to)

    def drop(self, run: HeldRun, tag: str, path: str) -> None:
        """Remove a tag of a run, and then the folder of its files that the tag told of."""
        with tracking_errors(f"Removing {path} of run {run.id}"):
            with self._active(run):
                self._client.delete_tag(run.id, tag)
            self._files(run.folder).delete_artifacts(path)

    @contextmanager
    def _active(self, run: HeldRun) -> Iterator[None]:
        """MLflow takes no tag of a deleted run: it is restored for a moment."""
        if run.is_deleted:
            self._client.restore_run(run.id)
        try:
            yield
        finally:
            if run.is_deleted:
                self._client.delete_run(run.id)

    def _linked_by(self, run: HeldRun, links: Collection[str]) -> set[str]:
        experiments = [one.id for one in self._experiments()]
        return {
            found.info.run_id
            for tag in links
            for found in self._search(
                experiments, f"tags.`{tag}` = '{run.id}' AND tags.{CLEANED_TAG} IS NULL"
            )
        }

    def _remove_files(self, folder: str, identity: str) -> None:
        """All below `<identity>/artifacts`; what lies elsewhere is nobody's to remove."""
        if Path(urlsplit(folder).path).parts[-2:] != (identity, "artifacts"):
            raise TrackingError(f"{folder} is not where MLflow keeps the files of {identity}.")
        local = local_folder(folder)
        if local is None:
            self._files(folder).delete_artifacts()
        elif local.parent.exists():
            shutil.rmtree(local.parent)

    def _files(self, folder: str) -> ArtifactRepository:
        return get_artifact_repository(folder, tracking_uri=self.uri)

    # Lists

    def _experiments(self) -> Iterator[HeldExperiment]:
        for one in in_pages(self._client.search_experiments, ViewType.ALL):
            yield HeldExperiment(
                one.experiment_id,
                one.name,
                one.lifecycle_stage == LifecycleStage.DELETED,
                dict(one.tags),
                one.artifact_location,
            )

    def _runs(self, experiments: list[str]) -> Iterator[HeldRun]:
        for run in self._search(experiments, ""):
            yield HeldRun(
                run.info.run_id,
                run.info.experiment_id,
                run.info.status,
                run.info.lifecycle_stage == LifecycleStage.DELETED,
                dict(run.data.tags),
                run.info.artifact_uri,
            )

    def _search(self, experiments: list[str], query: str) -> Iterator[Run]:
        return in_pages(
            self._client.search_runs, experiments, query, ViewType.ALL, max_results=RUNS_A_PAGE
        )

    def _models(self, experiments: list[str]) -> Iterator[HeldModel]:
        search = self._client.search_logged_models
        for model in in_pages(search, experiments, max_results=MODELS_A_PAGE):
            yield _held(model, str(model.status))
        if hasattr(self._store, "_get_deleted_logged_models"):
            for identity in self._store._get_deleted_logged_models():
                yield _held(self._store.get_logged_model(identity, allow_deleted=True), DELETED)

    def _versions(self) -> Iterator[HeldVersion]:
        aliases = {one.name: one.aliases for one in in_pages(self._client.search_registered_models)}
        for one in in_pages(self._client.search_model_versions):
            number = str(one.version)  # a server says it as a word, a database as a number
            own = [alias for alias, at in aliases.get(one.name, {}).items() if str(at) == number]
            yield HeldVersion(one.name, number, one.run_id, one.source, tuple(sorted(own)))


def _held(model: LoggedModel, status: str) -> HeldModel:
    return HeldModel(
        model.model_id,
        str(model.experiment_id),
        model.source_run_id,
        status,
        model.creation_timestamp,
        model.artifact_location,
    )


def folder_size(folder: Path) -> int:
    """Bytes of the files below a folder, 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if not path.is_dir() or path.is_symlink() else 0
        except FileNotFoundError:  # another process has removed it
            continue
    return total


def _remote_size(files: ArtifactRepository, path: str | None) -> int:
    return sum(
        _remote_size(files, one.path) if one.is_dir else one.file_size or 0
        for one in files.list_artifacts(path)
    )
