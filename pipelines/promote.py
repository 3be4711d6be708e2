"""Make a registered version champion where the rule holds, and say why; or give the alias back to the champion before.

The version's figures must keep the bounds of params.yaml (`register`), and the first figure of `register.compare` must be shown
to be no worse than the champion's, by resampling the held-out items that both were measured on. docs/tracking.md says more.
"""

from __future__ import annotations

import argparse
import sys

from components.runtime import champion
from components.runtime.registry import Version, version_of
from components.runtime.tracking_store import tracking_uri
from core.errors import BadInput, GateRefused
from export.config import RegisterConfig
from pipelines.options import add_parameters
from pipelines.params import load
from pipelines.promotion import decided
from pipelines.stage import exit_code

CHALLENGER = "challenger"
EXIT_CODES = (
    "Exit codes: 0 it is champion; 1 the rule refuses it, or something is missing; 2 bad configuration; 130 interrupted."
)
BACK = "`python -m pipelines.promote --roll-back` gives that back"


def main() -> int:
    """Promote or roll back as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.promote", description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("version", nargs="?", default="", metavar="VERSION", help="its number or alias (default: challenger)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--roll-back", action="store_true", help="undo the last promotion; twice is as once")
    parser.add_argument("--without-comparison", action="store_true", help="let the bounds alone decide")
    add_parameters(parser)
    options = parser.parse_args()
    if options.roll_back and (options.version or options.without_comparison):
        parser.error("--roll-back takes no version and compares nothing")
    return exit_code("promote: ", lambda: run(load(options.params, options.set).register, options))


def run(config: RegisterConfig, options: argparse.Namespace) -> None:
    """What the command line asks for. GateRefused where the rule does not hold, BadInput where a version is missing."""
    uri = tracking_uri()
    if options.roll_back:
        _say_rolled_back(config.name, champion.roll_back(uri, config.name, dry_run=options.dry_run), options.dry_run)
        return
    version = _named(uri, config.name, options.version or CHALLENGER)
    compare, by_number = not options.without_comparison, options.version.isdecimal()
    outcome = decided(uri, config, version, by_number=by_number, compare=compare, dry_run=options.dry_run)
    titled = f"{config.name} version {version.version}"
    print(titled, *(f"  {reason}" for reason in outcome.reasons), sep="\n", flush=True)
    if not outcome.is_champion:
        raise GateRefused(f"{titled} does not become champion, for the reasons above")
    would = "would be" if options.dry_run else "is"
    instead = (
        f"; before it, version {outcome.before} was" + ("" if options.dry_run else f", and {BACK}") if outcome.before else ""
    )
    print(f"{titled} {would} champion{instead}", flush=True)


def _named(uri: str, name: str, asked: str) -> Version:
    found = version_of(uri, name, version=asked) if asked.isdecimal() else version_of(uri, name, alias=asked)
    if found is None:
        what = f"version {asked}" if asked.isdecimal() else f"version with the alias {asked!r}"
        raise BadInput(f"{name} has no {what} in {uri}; `register` makes versions, and MLflow's pages list them")
    return found


def _say_rolled_back(name: str, done: champion.RolledBack, dry_run: bool) -> None:
    would = "would be" if dry_run else "is"
    said = f"{would} champion again, in place of version {done.given_up}"
    if done.was_done:
        said = f"is champion since version {done.given_up} was rolled back: nothing to do"
    print(f"{name} version {done.champion} {said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
