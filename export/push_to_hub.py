"""A bundle or a registered model, with its card, sent to a repository of the Hugging Face Hub as one commit.

    python -m export.push_to_hub --repo me/digits --dry-run
    python -m export.push_to_hub --repo me/digits --private
    python -m export.push_to_hub --repo me/digits --model models:/transfusion@champion

What goes up is what the manifest lists, and the manifest: byte for byte a bundle, wherever it is taken from there. Files that
only the bundle before it had are deleted in the same commit; what else lies there stays. The token is that of `hf auth login`,
or HF_TOKEN; HF_ENDPOINT names another Hub.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import BadInput
from core.manifest import MANIFEST
from core.text import counted
from export.ask import BUNDLE, exit_code
from export.bundle import CARD, bundle_digest, open_bundle
from export.run.registered import bundle_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

# What the Hub reads from a card: its licence, how it is found, and what its page offers.
METADATA = ("license", "library_name", "pipeline_tag", "tags")
TOKEN = "make one that may write at https://huggingface.co/settings/tokens, then `hf auth login` or `export HF_TOKEN=...`"


class Upload(NamedTuple):
    """A checked bundle, ready to go up. files: their names in it. digest: of the whole bundle."""

    folder: Path
    files: list[str]
    digest: str

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.folder / name).stat().st_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Send what the command line names, or list it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export.push_to_hub", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the model repository; made where there is none")
    parser.add_argument(
        "--model",
        default=str(BUNDLE),
        help="a bundle's folder, or an MLflow URI such as models:/transfusion@champion (default: %(default)s)",
    )
    parser.add_argument("--private", action="store_true", help="for you alone; a public repository of that name is refused")
    parser.add_argument("--message", default="", help="of the commit (default: the bundle's digest)")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything here and list what would go up; nothing is sent"
    )
    asked = parser.parse_args(arguments)
    return exit_code("push_to_hub", lambda: _push(asked))


def prepare(model: str | Path) -> Upload:
    """Check every byte of the bundle and the card's metadata. BadInput where the Hub, or a reader there, could not use it."""
    bundle = open_bundle(bundle_folder(model))
    check_card(bundle.folder / CARD)
    return Upload(bundle.folder, [*sorted(bundle.manifest["files"]), MANIFEST], bundle_digest(bundle.manifest))


def check_card(path: Path) -> None:
    """BadInput where a card lacks what the Hub reads from it; the Hub itself checks the values when they arrive."""
    with _explained():
        from huggingface_hub import ModelCard

        try:
            found = ModelCard.load(path).data.to_dict()
        except ValueError as error:
            raise BadInput(f"{path}: its front matter cannot be read ({_first_line(error)}); export the bundle again") from None
    if missing := [name for name in METADATA if not found.get(name)]:
        raise BadInput(f"{path}: its front matter lacks {', '.join(missing)}; export the bundle again")


def push(upload: Upload, repo: str, *, private: bool = False, message: str = "") -> str:
    """Send it as one commit: all of it is there afterwards, or nothing. Returns the commit's address.

    private: the repository must be, or is made so. BadInput, in one sentence, where the Hub does not take it.
    """
    with _explained(repo):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
        from huggingface_hub.utils import disable_progress_bars, logging

        logging.set_verbosity_error()
        if not sys.stderr.isatty():
            disable_progress_bars()
        # The Hub would say 401, which is also what it says of a wrong token.
        if not get_token():
            raise BadInput(f"there is no token for the Hub; {TOKEN}")
        api = HfApi()
        head = _head_of(api, repo, private=private)
        files = [CommitOperationAdd(name, upload.folder / name) for name in upload.files]
        gone = [CommitOperationDelete(name) for name in _of_the_last_bundle(api, repo, head) if name not in upload.files]
        message = message or f"Transfusion bundle {upload.digest[:16]}"
        # On top of what was looked at: who pushed meanwhile is not undone.
        made = api.create_commit(repo, [*files, *gone], commit_message=message, parent_commit=head)
        return str(made.commit_url)


def _push(asked: argparse.Namespace) -> None:
    # Before every byte of the bundle is read, which takes long for a large one.
    with _explained():
        from huggingface_hub.utils import validate_repo_id

        validate_repo_id(asked.repo)
    if asked.repo.count("/") != 1:
        raise BadInput(f"--repo {asked.repo}: name the owner too, as in me/{asked.repo}")
    upload = prepare(asked.model)
    for name in upload.files:
        print(f"{upload.size(name):>14,}  {name}", flush=True)
    total = sum(map(upload.size, upload.files))
    what = f"{counted(len(upload.files), 'file')}, {total / 2**20:.1f} MiB, bundle {upload.digest[:16]}"
    if asked.dry_run:
        print(f"{what}: whole, with a card that the Hub can read; nothing was sent to {asked.repo}", flush=True)
        return
    where = push(upload, asked.repo, private=asked.private, message=asked.message)
    print(f"{what}: {where}", flush=True)


def _head_of(api: HfApi, repo: str, *, private: bool) -> str | None:
    """The newest commit of the repository, which is made where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    found = None
    with _explained(repo, "Nothing was changed there"), suppress(RepositoryNotFoundError):
        found = api.model_info(repo)
    if found is None:
        _create(api, repo, private=private)
        # A new repository has a first commit already.
        return api.model_info(repo).sha
    if private and not found.private:
        raise BadInput(f"{repo} is public, and --private was asked for; make it private in its settings, or name another")
    return found.sha


def _of_the_last_bundle(api: HfApi, repo: str, head: str | None) -> list[str]:
    """The files in the repository that the manifest there lists; none where it has no bundle's manifest."""
    there = {file.rfilename for file in api.model_info(repo, revision=head).siblings or ()}
    if MANIFEST not in there:
        return []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(api.hf_hub_download(repo, MANIFEST, revision=head, local_dir=folder)).read_bytes()
    try:
        manifest = json.loads(text)
    except ValueError:
        return []
    listed = manifest.get("files") if isinstance(manifest, dict) and manifest.get("kind") == "bundle" else None
    # Somebody may have deleted some of them by hand, and what is not there cannot be deleted again.
    return sorted(there.intersection(listed)) if isinstance(listed, dict) else []


def _create(api: HfApi, repo: str, *, private: bool) -> None:
    """Make it. BadInput where it is there after all: the Hub hides a private repository from those that may not read it."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repo, private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        raise BadInput(f"{repo} is there already, and this token may not see it; name another, or {TOKEN}") from None


@contextmanager
def _explained(repo: str = "", state: str = "Look at what is there, and push again") -> Iterator[None]:
    """One sentence for what the Hub's library raises. state: what is to be said of the repository where the line breaks."""
    try:
        yield
    except BadInput:
        raise
    except ModuleNotFoundError as error:
        raise BadInput(f"the package {error.name} is not installed here; pip install huggingface_hub") from None
    except Exception as error:
        if sentence := _sentence(error, repo, state):
            raise BadInput(sentence) from None
        raise


def _sentence(error: BaseException, repo: str, state: str) -> str:
    """What went wrong, and what to do; "" for what is no matter of the Hub's."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, HFValidationError):
        return f"--repo: {_first_line(error)}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and nothing can be sent; unset it"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no {repo} that this token may write to; check the owner and the name, or {TOKEN}"
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repo, constants.ENDPOINT)
    # By name, because neither is a dependency of ours: the library chose them, and has changed its choice before.
    if type(error).__module__.startswith(("httpx", "httpcore")):
        why = f"{constants.ENDPOINT} cannot be reached ({_first_line(error)})"
        return f"{why}; check the network and HF_ENDPOINT. {state}"
    if isinstance(error, ValueError) and "metadata" in str(error).lower():
        return f"the Hub refuses the card's front matter ({' '.join(str(error).split())})"
    # The library wraps what went wrong with one file in an exception that only names the file.
    if error.__cause__ and (sentence := _sentence(error.__cause__, repo, state)):
        return sentence
    if repo and type(error) is RuntimeError:  # all that hf-xet raises, which sends the large files
        return f"the files could not be sent to {constants.ENDPOINT} ({_first_line(error)}); check the network. {state}"
    return ""


def _refusal(error: HfHubHTTPError, repo: str, endpoint: str) -> str:
    status, said = error.response.status_code, error.server_message or _first_line(error)
    if status == 401:
        return f"{endpoint} does not know this token; {TOKEN}"
    if status == 403:
        return f"this token may not write to {repo} ({said}); {TOKEN}"
    if status in (409, 412):
        return f"somebody else changed {repo} meanwhile ({said}); look at it, and push again"
    return f"{endpoint} refuses {repo} with status {status} ({said})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
