"""The commands: what can be typed, and which module does it. Those modules are imported only when they are needed."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from jobtester import __version__
from jobtester.errors import JobTesterError

USAGE_ERROR = 2


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what goes wrong is one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack what a name from outside contains
    try:
        return _run(arguments)
    except BrokenPipeError:
        return _pipe_closed()


def _pipe_closed() -> int:
    """Let go of streams whose reader is gone, so that nothing is said of them at exit; return the exit code."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nothing, stream.fileno())
    return 1


def _run(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if not hasattr(options, "module"):
        parser().print_help()
        return USAGE_ERROR
    module = importlib.import_module(f"jobtester.cli.{options.module}")
    try:
        with _interruptible():
            code = int(getattr(module, options.function)(options))
        sys.stdout.flush()
        return code
    except JobTesterError as error:
        print(f"jobtester: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C inside the block, whatever it does outside; one that is ignored stays so."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def parser() -> argparse.ArgumentParser:
    """Describe every command and option."""
    top = argparse.ArgumentParser(
        prog="jobtester", description="Tests every orchestrator on the Livepeer AI network and posts what comes of it."
    )
    top.add_argument("--version", action="version", version=f"jobtester {__version__}")
    commands = top.add_subparsers(metavar="COMMAND")

    def command(name: str, module: str, function: str, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        return _means(added, module, function, config=config)

    command("serve", "serve", "serve", "run the daemon")
    run = command("run", "run", "run", "run one tick now and print what came of it")
    _filters(run)
    run.add_argument("--no-post", action="store_true", help="record results, but post nothing")
    run.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    run.add_argument(
        "--fail-on-failed", action="store_true", help="exit 1 if any job failed, 3 if not everything could be tested"
    )
    plan = command("plan", "plan", "plan", "print the jobs of a tick, what is skipped and why; send nothing")
    _filters(plan)
    plan.add_argument("--json", action="store_true", help="print JSON")
    check = command("check", "check", "check", "try the configuration and every peer")
    check.add_argument(
        "--probe", action="store_true", help="send up to two real jobs through each gateway, which costs their price"
    )

    config = commands.add_parser("config", help="write, print or convert a configuration").add_subparsers(
        metavar="ACTION", required=True
    )
    init = config.add_parser("init", help="write a commented starter file")
    init.add_argument("path", nargs="?", default="config.toml")
    init.add_argument("--force", action="store_true", help="replace a file that exists")
    _means(init, "config", "init", config=False)
    show = config.add_parser("show", help="print the effective configuration, secrets masked")
    _means(show, "config", "show")
    convert = config.add_parser("import", help="convert the earlier Go tester's config.json")
    convert.add_argument("file", help="the config.json")
    convert.add_argument("path", nargs="?", default="config.toml", help="what to write (default: config.toml)")
    convert.add_argument("--force", action="store_true", help="replace a file that exists")
    _means(convert, "config_import", "import_config", config=False)

    found = command("results", "kept", "results", "print recorded results")
    found.add_argument(
        "--orchestrator", action="append", metavar="ORCHESTRATOR", help="only this address or service URI; repeatable"
    )
    for name in ("tick", "pipeline", "model", "outcome", "reason"):
        found.add_argument(f"--{name}", help=f"only this {name}" + (", or `last`" if name == "tick" else ""))
    found.add_argument("--received", action="store_true", help="results of other testers instead")
    found.add_argument("--limit", type=_number, default=100, help="how many at the most (default: 100)")
    found.add_argument("--json", action="store_true", help="print JSON")

    outbox = commands.add_parser("outbox", help="what has not reached the Leaderboard").add_subparsers(
        metavar="ACTION", required=True
    )
    listed = _means(outbox.add_parser("list", help="print what waits, and why"), "kept", "outbox_list")
    listed.add_argument("--state", action="append", default=[], help="only entries in this state; repeatable")
    listed.add_argument("--limit", type=_number, default=200, help="how many at the most (default: 200)")
    listed.add_argument("--json", action="store_true", help="print JSON")
    for action, text in (
        ("retry", "post refused, expired or dropped stats again, uncertain ones only by their numbers"),
        ("drop", "give up posting stats"),
    ):
        added = _means(outbox.add_parser(action, help=text), "kept", f"outbox_{action}")
        added.add_argument("number", nargs="*", type=_number, help="which entries; none means all that it applies to")
    tick = commands.add_parser("tick", help="what people may do about a tick").add_subparsers(
        metavar="ACTION", required=True
    )
    released = _means(tick.add_parser("release", help="post a held, suspect tick"), "kept", "release")
    released.add_argument("tick", nargs="?", default="last", help="the tick's id (default: the newest)")

    simulate = command("simulate", "simulate", "simulate", "run a simulated network on real sockets", config=False)
    _network(simulate)
    simulate.add_argument("--host", default="127.0.0.1", help="address to listen on")
    simulate.add_argument(
        "--port", type=int, default=8935, help="the first gateway's job port; its CLI port is 1000 below, others follow"
    )
    simulate.add_argument(
        "--webhook", default="http://127.0.0.1:7934/orchestrators", help="where gateways ask whom to use"
    )
    simulate.add_argument(
        "--node-host",
        default="",
        metavar="NAME",
        help="name by which a tester on another machine reaches the orchestrators (default: 127.0.0.1); "
        "their ports begin 3000 above --port",
    )
    simulate.add_argument("--leaderboard-port", type=int, help="the Leaderboard's port (default: 1000 above --port)")
    simulate.add_argument(
        "--leaderboard-secret-file", metavar="FILE", help="file with the Leaderboard's secret (default: demo-secret)"
    )
    simulate.add_argument(
        "--leaderboard-rows", metavar="FILE", help="keep the Leaderboard's rows in a file, through restarts"
    )
    demo = command(
        "demo", "demo", "demo", "simulated network and daemon in one process: one tick, then exit", config=False
    )
    _network(demo)
    demo.add_argument("--stay", action="store_true", help="keep serving, a tick a minute")
    demo.add_argument(
        "--port", type=int, default=None, help="port of the daemon (default: 7934 with --stay, else a free one)"
    )
    demo.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    health = command("healthcheck", "healthcheck", "healthcheck", "ask the running daemon whether it is healthy")
    health.add_argument("--url", help="where it runs; default: as configured, on this machine")
    return top


def _number(text: str) -> int:
    """Read a whole number from 1 on, which the store can hold."""
    if not (text.isascii() and text.isdecimal() and len(text) < 18 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def _means(
    added: argparse.ArgumentParser, module: str, function: str, *, config: bool = True
) -> argparse.ArgumentParser:
    """Bind a command to the function that does it."""
    added.set_defaults(module=module, function=function)
    if config:
        added.add_argument(
            "-c",
            "--config",
            metavar="PATH",
            default=os.environ.get("JOBTESTER_CONFIG", "config.toml"),
            help="configuration file (default: config.toml, or JOBTESTER_CONFIG)",
        )
    return added


def _filters(added: argparse.ArgumentParser) -> None:
    for name, text in (
        ("orchestrator", "only this address or service URI"),
        ("pipeline", "only this pipeline"),
        ("model", "only this model"),
    ):
        added.add_argument(f"--{name}", action="append", default=[], metavar=name.upper(), help=f"{text}; repeatable")


def _network(added: argparse.ArgumentParser) -> None:
    names = "byoc, default, faults, gateways, overlap, query, stock"
    added.add_argument("--scenario", default="default", help=f"a scenario file, or a network that comes along: {names}")
    added.add_argument("--capabilities", metavar="FILE", help="replay a recorded getNetworkCapabilities answer")
