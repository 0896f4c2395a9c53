"""The command line: ``sg-guardrails check | vote | score | demo | policy | eval | attack``; begin at ``app``."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Whatever the user can mend is one line on standard error and exit 2."""
    from sg_guardrails.cli.app import main as run  # noqa: PLC0415 - the rooms here are imported without the commands

    run()
