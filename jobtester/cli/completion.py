"""`jobtester completion`: print a script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
import sys

import shtab

from jobtester.cli.parser import make_parser

_FILE_OPTIONS = frozenset({"config", "file", "path", "capabilities", "leaderboard_secret_file", "leaderboard_rows"})


def print_completion(options: argparse.Namespace) -> int:
    """Print the script of a shell; docs/routes.md says where it goes."""
    parser = make_parser()
    _complete_files(parser)
    sys.stdout.write(shtab.complete(parser, shell=options.shell) + "\n")
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Mark what names a file, in all commands below a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.dest in _FILE_OPTIONS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
