"""A store whose project was copied or moved: the absolute places of artefacts in its database made those of its own folder.

MLflow keeps an absolute path with every experiment, run and model. A copy of a project would write its pictures into the
original's folder, and a moved project would look for them where they no longer are.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.runtime.store_failures import explained
from core.errors import BadInput

ARTIFACTS = ("mlartifacts", "mlruns")
# Table -> the columns that hold places of artefacts.
COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
WAIT_S = 20.0


def relocate(database: Path) -> str:
    """Put the places right where they are of another folder; returns a sentence that says so, or "".

    A location that is nobody's old place (a bucket, a folder that was chosen) stays. BadInput where the database cannot be
    read or written.
    """
    if not database.is_file():
        return ""
    try:
        with closing(sqlite3.connect(database, timeout=WAIT_S)) as connection:
            old = _old_folder(connection, database)
            if old is None:
                return ""
            with connection:
                for table, columns in COLUMNS.items():
                    _replace(connection, table, columns, old, database.parent)
    except sqlite3.Error as error:
        raise BadInput(explained(error, f"sqlite:///{database}")) from None
    return f"{database} came from {old}; its pictures and models are now read from and written to {database.parent}"


def _old_folder(connection: sqlite3.Connection, database: Path) -> Path | None:
    """The folder that the database was copied or moved from, None where it stands where it was made."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "experiments" not in tables:
        return None
    for (location,) in connection.execute("SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%'"):
        place = Path(unquote(urlsplit(location).path))
        if place.name != ARTIFACTS[0] or place.parent.resolve() == database.parent.resolve():
            continue
        was_copied, was_moved = (place.parent / database.name).exists(), not place.exists()
        if was_copied or was_moved:
            return place.parent
    return None


def _replace(connection: sqlite3.Connection, table: str, columns: tuple[str, ...], old: Path, new: Path) -> None:
    """Exchange the beginning of every place under `old`, written as a path or as an address."""
    present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    for column in present & set(columns):
        for name in ARTIFACTS:
            for before, after in ((old / name, new / name), ((old / name).as_uri(), (new / name).as_uri())):
                # Compared by length, not with LIKE: % and _ are letters in a path.
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (str(after), len(str(before)) + 1, str(before), len(str(before)) + 1, f"{before}/"),
                )
