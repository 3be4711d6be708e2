"""Which version is champion: the alias moved and moved back, with what happened to each version in a tag of it.

An alias means one version, and one call moves it. What has to be known afterwards is written before that call; so whoever is
killed between two calls leaves the champion that was, or the new one, and the same command once more completes it.
"""

from __future__ import annotations

from typing import NamedTuple

from components.runtime.registry import Version, version_of
from components.runtime.store_failures import failures_explained
from components.runtime.tracking_store import client_of
from core.errors import BadInput

CHAMPION = "champion"
# The tag of a version that was ever champion: one of the words below, and the number of the other version.
HISTORY_TAG = "champion"
FIRST, PROMOTED, ROLLED_BACK, RESTORED = "the first", "promoted over", "rolled back to", "restored from"


class RolledBack(NamedTuple):
    """champion: the version that has the alias. given_up: the one that had it. was_done: whether that was so before."""

    champion: str
    given_up: str
    was_done: bool


def was_rolled_back(version: Version) -> bool:
    """Whether it was champion until somebody took that back."""
    return _history(version)[0] == ROLLED_BACK


def promote(uri: str, name: str, version: str, *, over: str) -> None:
    """Make a version champion. over: the present one, "" without any; BadInput where that is another by now."""
    client, known = client_of(uri), version_of(uri, name, version=version)
    before = known.tags.get(HISTORY_TAG) if known else None
    _check_champion(uri, name, over)
    with failures_explained(uri):
        client.set_model_version_tag(name, version, HISTORY_TAG, f"{PROMOTED} {over}" if over else FIRST)
    try:
        # Again, since the store knows no condition on the call that moves the alias: what is left is the time between the two.
        _check_champion(uri, name, over)
    except BadInput:
        with failures_explained(uri):
            if before is None:
                client.delete_model_version_tag(name, version, HISTORY_TAG)
            else:
                client.set_model_version_tag(name, version, HISTORY_TAG, before)
        raise
    with failures_explained(uri):
        client.set_registered_model_alias(name, CHAMPION, version)


def roll_back(uri: str, name: str, *, dry_run: bool = False) -> RolledBack:
    """Give the alias back to the version that had it before the last promotion; done once, it stays so.

    dry_run: change nothing. BadInput where there is no such version.
    """
    champion = version_of(uri, name, alias=CHAMPION)
    if champion is None:
        raise BadInput(f"no version of {name} in {uri} is champion, so there is nothing to roll back")
    how, other = _history(champion)
    if how == RESTORED:
        # What a kill after the alias was moved left undone.
        _note(uri, name, other, f"{ROLLED_BACK} {champion.version}", dry_run)
        return RolledBack(champion.version, other, was_done=True)
    if how != PROMOTED:
        why = "is the first champion" if how == FIRST else "was made champion by hand"
        raise BadInput(f"version {champion.version} of {name} {why}: no earlier one is known; promote another by its number")
    if version_of(uri, name, version=other) is None:
        raise BadInput(f"version {other} of {name}, champion before version {champion.version}, was deleted from {uri}")
    _note(uri, name, other, f"{RESTORED} {champion.version}", dry_run)
    if not dry_run:
        client = client_of(uri)
        with failures_explained(uri):
            client.set_registered_model_alias(name, CHAMPION, other)
    _note(uri, name, champion.version, f"{ROLLED_BACK} {other}", dry_run)
    return RolledBack(other, champion.version, was_done=False)


def _check_champion(uri: str, name: str, expected: str) -> None:
    present = version_of(uri, name, alias=CHAMPION)
    if (present.version if present else "") != expected:
        raise BadInput(f"another version of {name} became champion in {uri} meanwhile; run this again")


def _history(version: Version) -> tuple[str, str]:
    """What happened to it last, and the number of the other version."""
    text = version.tags.get(HISTORY_TAG, "")
    how = next((how for how in (FIRST, PROMOTED, ROLLED_BACK, RESTORED) if text.startswith(how)), "")
    return how, text.removeprefix(how).strip()


def _note(uri: str, name: str, version: str, text: str, dry_run: bool) -> None:
    """On a version that is still there, unless it says so already."""
    known = version_of(uri, name, version=version)
    if known is not None and known.tags.get(HISTORY_TAG) != text and not dry_run:
        client = client_of(uri)
        with failures_explained(uri):
            client.set_model_version_tag(name, version, HISTORY_TAG, text)
