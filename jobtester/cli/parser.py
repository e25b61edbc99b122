"""Describe every command and option, and bind each command to the function that runs it.

Handlers import their module when they are called: `--help` and `healthcheck` must not wait for all the others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

from jobtester import __version__
from jobtester.domain.instants import INSTANT_HELP

Handler: TypeAlias = Callable[[argparse.Namespace], int]

SHELLS = ("bash", "zsh", "fish")
_SCENARIOS = "byoc, default, faults, gateways, live-runner, live-video, overlap, query, runner-video, stock"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; it sets `handler` to the function of the chosen command."""
    parser = argparse.ArgumentParser(
        prog="jobtester",
        description="Tests every orchestrator on the Livepeer AI network and posts the results to the Leaderboard.",
    )
    parser.add_argument("--version", action="version", version=f"jobtester {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    _add_tick_commands(commands)
    _add_config_commands(commands)
    _add_store_commands(commands)
    _add_simulator_commands(commands)
    healthcheck = _add_command(commands, "healthcheck", _healthcheck, "check whether the running daemon is healthy")
    healthcheck.add_argument("--url", help="URL of the daemon (default: as configured, on this machine)")
    completion = _add_command(commands, "completion", _completion, "print a completion script", config=False)
    completion.add_argument("shell", choices=SHELLS, help="the shell that is to complete commands and options")
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_tick_commands(commands: _Commands) -> None:
    _add_command(commands, "serve", _serve, "run the daemon")
    run = _add_command(commands, "run", _run, "run one tick now and print its results")
    _add_selection(run)
    run.add_argument("--no-post", action="store_true", help="record the results without posting them")
    run.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    run.add_argument(
        "--fail-on-failed", action="store_true", help="exit 1 if any job failed, 3 if not everything could be tested"
    )
    plan = _add_command(commands, "plan", _plan, "print the jobs of a tick, and what it skips and why; send nothing")
    _add_selection(plan)
    plan.add_argument("--json", action="store_true", help="print JSON")
    check = _add_command(commands, "check", _check, "check the configuration and every peer")
    check.add_argument(
        "--probe", action="store_true", help="send up to two real jobs through each gateway, which costs their price"
    )


def _add_config_commands(commands: _Commands) -> None:
    config = commands.add_parser("config", help="write, print or convert a configuration")
    actions = config.add_subparsers(metavar="ACTION", required=True)
    init = _add_command(actions, "init", _config_init, "write a commented starter file", config=False)
    init.add_argument("path", nargs="?", default="config.toml", help="file to write (default: config.toml)")
    init.add_argument("--force", action="store_true", help="replace an existing file")
    _add_command(actions, "show", _config_show, "print the effective configuration, secrets masked")
    convert = _add_command(
        actions, "import", _config_import, "convert the earlier Go tester's config.json", config=False
    )
    convert.add_argument("file", help="the config.json")
    convert.add_argument("path", nargs="?", default="config.toml", help="file to write (default: config.toml)")
    convert.add_argument("--force", action="store_true", help="replace an existing file")


def _add_store_commands(commands: _Commands) -> None:
    results = _add_command(commands, "results", _results, "print recorded results")
    results.add_argument(
        "--orchestrator", action="append", metavar="ORCHESTRATOR", help="only this address or service URI; repeatable"
    )
    for name in ("tick", "pipeline", "model", "outcome", "reason"):
        results.add_argument(f"--{name}", help=f"only this {name}" + (", or `last`" if name == "tick" else ""))
    results.add_argument("--since", metavar="TIME", help=f"only those that started then or later: {INSTANT_HELP}")
    results.add_argument("--until", metavar="TIME", help="only those that started before, written like --since")
    results.add_argument("--received", action="store_true", help="print results of other testers instead")
    results.add_argument("--limit", type=_positive_int, default=100, help="maximum number of results (default: 100)")
    results.add_argument("--json", action="store_true", help="print JSON")

    result = _add_command(commands, "result", _result, "print one result with everything behind it")
    result.add_argument("id", help="the result's id, as pages, results --json and the log have it")
    result.add_argument("--json", action="store_true", help="print JSON")

    outbox = commands.add_parser("outbox", help="list, retry or drop stats that have not reached the Leaderboard")
    actions = outbox.add_subparsers(metavar="ACTION", required=True)
    entries = _add_command(actions, "list", _outbox_list, "print undelivered stats, and why they are undelivered")
    entries.add_argument("--state", action="append", default=[], help="only stats in this state; repeatable")
    entries.add_argument("--limit", type=_positive_int, default=200, help="maximum number of stats (default: 200)")
    entries.add_argument("--json", action="store_true", help="print JSON")
    retry = _add_command(
        actions, "retry", _outbox_retry, "post refused, expired or dropped stats again, uncertain ones only by number"
    )
    drop = _add_command(actions, "drop", _outbox_drop, "give up posting stats")
    for action in (retry, drop):
        action.add_argument("number", nargs="*", type=_positive_int, help="numbers of stats (default: all that apply)")

    tick = commands.add_parser("tick", help="decide about a tick")
    release = _add_command(
        tick.add_subparsers(metavar="ACTION", required=True), "release", _tick_release, "post a held, suspect tick"
    )
    release.add_argument("tick", nargs="?", default="last", help="id of the tick (default: the newest)")


def _add_simulator_commands(commands: _Commands) -> None:
    simulate = _add_command(commands, "simulate", _simulate, "run a simulated network on real sockets", config=False)
    _add_scenario(simulate)
    simulate.add_argument("--host", default="127.0.0.1", help="address to listen on")
    simulate.add_argument(
        "--port",
        type=int,
        default=8935,
        help="job port of the first gateway; its CLI port is 1000 below, others follow",
    )
    simulate.add_argument(
        "--webhook",
        default="http://127.0.0.1:7934/orchestrators",
        help="URL that gateways ask which orchestrators to use",
    )
    simulate.add_argument(
        "--node-host",
        default="",
        metavar="NAME",
        help="name by which a tester on another machine reaches the orchestrators (default: 127.0.0.1); "
        "their ports begin 3000 above --port",
    )
    simulate.add_argument("--leaderboard-port", type=int, help="port of the Leaderboard (default: 1000 above --port)")
    simulate.add_argument(
        "--leaderboard-secret-file", metavar="FILE", help="file with the Leaderboard's secret (default: demo-secret)"
    )
    simulate.add_argument(
        "--leaderboard-rows", metavar="FILE", help="keep the Leaderboard's rows in a file, through restarts"
    )
    demo = _add_command(
        commands, "demo", _demo, "run one tick on a simulated network in the same process, then exit", config=False
    )
    _add_scenario(demo)
    demo.add_argument("--stay", action="store_true", help="keep running, with a tick a minute")
    demo.add_argument(
        "--port", type=int, default=None, help="port of the daemon (default: 7934 with --stay, else a free one)"
    )
    demo.add_argument("--json", action="store_true", help="print the results as JSON on stdout")


def _add_command(
    commands: _Commands, name: str, handler: Handler, summary: str, *, config: bool = True
) -> argparse.ArgumentParser:
    """Add a command that `handler` runs; `config` adds the option that names the configuration file."""
    command = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(handler=handler, verbosity="normal")
    level = command.add_mutually_exclusive_group()
    level.add_argument(
        "-q", "--quiet", dest="verbosity", action="store_const", const="quiet", help="log errors only, show no progress"
    )
    level.add_argument(
        "-v", "--verbose", dest="verbosity", action="store_const", const="verbose", help="log everything"
    )
    if config:
        command.add_argument(
            "-c",
            "--config",
            metavar="PATH",
            default=os.environ.get("JOBTESTER_CONFIG", "config.toml"),
            help="configuration file (default: config.toml, or JOBTESTER_CONFIG)",
        )
    return command


def _add_selection(command: argparse.ArgumentParser) -> None:
    for name, text in (
        ("orchestrator", "only this address or service URI"),
        ("pipeline", "only this pipeline"),
        ("model", "only this model"),
    ):
        command.add_argument(f"--{name}", action="append", default=[], metavar=name.upper(), help=f"{text}; repeatable")


def _add_scenario(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scenario", default="default", help=f"a scenario file, or a built-in network: {_SCENARIOS}")
    command.add_argument("--capabilities", metavar="FILE", help="replay a recorded getNetworkCapabilities response")


def _positive_int(text: str) -> int:
    # Below 10^17, so that it fits the store's 64-bit integers.
    if not (text.isascii() and text.isdecimal() and len(text) < 18 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from jobtester.cli.serve import serve

    return serve(options)


def _run(options: argparse.Namespace) -> int:
    from jobtester.cli.run import run

    return run(options)


def _plan(options: argparse.Namespace) -> int:
    from jobtester.cli.plan import print_plan

    return print_plan(options)


def _check(options: argparse.Namespace) -> int:
    from jobtester.cli.check import check

    return check(options)


def _config_init(options: argparse.Namespace) -> int:
    from jobtester.cli.config import init_config

    return init_config(options)


def _config_show(options: argparse.Namespace) -> int:
    from jobtester.cli.config import show_config

    return show_config(options)


def _config_import(options: argparse.Namespace) -> int:
    from jobtester.cli.config_import import import_config

    return import_config(options)


def _results(options: argparse.Namespace) -> int:
    from jobtester.cli.results import print_results

    return print_results(options)


def _result(options: argparse.Namespace) -> int:
    from jobtester.cli.result import print_result

    return print_result(options)


def _outbox_list(options: argparse.Namespace) -> int:
    from jobtester.cli.outbox import list_outbox

    return list_outbox(options)


def _outbox_retry(options: argparse.Namespace) -> int:
    from jobtester.cli.outbox import retry_stats

    return retry_stats(options)


def _outbox_drop(options: argparse.Namespace) -> int:
    from jobtester.cli.outbox import drop_stats

    return drop_stats(options)


def _tick_release(options: argparse.Namespace) -> int:
    from jobtester.cli.outbox import release_tick

    return release_tick(options)


def _simulate(options: argparse.Namespace) -> int:
    from jobtester.cli.simulate import simulate

    return simulate(options)


def _demo(options: argparse.Namespace) -> int:
    from jobtester.cli.demo import demo

    return demo(options)


def _healthcheck(options: argparse.Namespace) -> int:
    from jobtester.cli.healthcheck import healthcheck

    return healthcheck(options)


def _completion(options: argparse.Namespace) -> int:
    from jobtester.cli.completion import print_completion

    return print_completion(options)
