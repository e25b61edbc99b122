"""What a person at a terminal sees of a tick: it moves, it can be stopped, and where nobody looks it is plain lines."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "jobtester"]
WIDTH = 100
LIVE = """
description = "live video, and nothing else"

[[gateways]]
name = "gateway"

[[orchestrators]]
address = "0x1000000000000000000000000000000000000001"
service_uri = "https://127.0.0.1:0"
models = [{ pipeline = "live-video-to-video", model = "streamdiffusion" }]
"""
_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
SLOW = """
description = "a quick orchestrator, and one whose job takes longer than anybody waits"

[[gateways]]
name = "gateway"
mode = "query"

[[orchestrators]]
address = "0x1000000000000000000000000000000000000001"
local_address = "0x1000000000000000000000000000000000000011"
service_uri = "https://quick.sim.example:8935"
models = [{ pipeline = "llm", model = "quick/model", latency_s = [0.05, 0.05] }]

[[orchestrators]]
address = "0x2000000000000000000000000000000000000002"
local_address = "0x2000000000000000000000000000000000000022"
service_uri = "https://slow.sim.example:8935"
models = [{ pipeline = "llm", model = "slow/model", latency_s = [60.0, 60.0] }]
"""


class Terminal:
    """A process on a terminal of its own, and everything that it has written there."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        """Attach to a process by our end of its terminal."""
        self._process, self._end = process, end
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.written = ""

    @property
    def text(self) -> str:
        """Return what was written without the sequences that move the cursor or color."""
        return _CONTROL.sub("", self.written).replace("\r", "\n")

    def until(self, pattern: str, seconds: float = 100.0) -> None:
        """Read until something stands there."""
        ends = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert self._read(ends), f"{pattern!r} was not shown: {self.text[-2000:]}"

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._end, keys)

    def close(self, seconds: float = 200.0) -> int:
        """Read to the end and return the exit code; below 0 for a signal."""
        ends = time.monotonic() + seconds
        while self._read(ends):
            pass
        return self._process.wait(seconds)

    def _read(self, ends: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], max(0.0, ends - time.monotonic()))
        assert ready, f"nothing more was written: {self.text[-2000:]}"
        try:
            piece = os.read(self._end, 65536)
        except OSError:  # how Linux says that nobody has the other end open
            return False
        self.written += self._decoder.decode(piece)
        return bool(piece)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """Run a command on a terminal of its own, as somebody would who types it."""
    end, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        ["setsid", "--ctty", *COMMAND, *arguments],
        cwd=ROOT, env={**environment, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Terminal(process, end)
        finally:
            process.kill()
            os.close(end)


@pytest.fixture
def slow(tmp_path: Path) -> str:
    """Return the scenario whose tick has no end of its own."""
    path = tmp_path / "slow.toml"
    path.write_text(SLOW)
    return str(path)


@pytest.mark.slow
def test_progress_moves_on_a_terminal() -> None:
    """A bar with counts, what each gateway works on, time left; then the table, no line wider than the terminal."""
    with terminal("demo") as shown:
        assert shown.close() == 0
    counts = [int(number) for number in re.findall(r"tick [━╸╺ ]+ (\d+)/\d+", shown.text)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 5
    assert re.search(r"\d+ passed  \d+ failed  \d+ unscored \d:\d\d:\d\d left \d:\d\d:\d\d", shown.text)
    assert len(set(re.findall(r"\n  gateway: (0x\w{6}…\w{4} [a-z0-9-]+ \w+)/", shown.text))) > 5
    closing = shown.text[shown.text.rindex("Results on a simulated network") :]
    assert all(len(line) <= WIDTH for line in closing.splitlines())
    counted = re.search(r"30 of 30 jobs, (\d+) passed, 3 failed, (\d+) unscored", " ".join(closing.split()))
    assert counted is not None
    passed, unscored = int(counted[1]), int(counted[2])
    assert passed + 3 + unscored == 30
    assert unscored in (1, 2)  # one orchestrator is busy at first, and perhaps at its last try
    assert f"{passed + 3} stats stored at the simulated Leaderboard" in closing


def test_a_first_interrupt_stops_in_order_and_shows_what_there_is(slow: str) -> None:
    """Ctrl-C: it is said what happens, the job under way gets its grace, and the table still comes; exit code 1."""
    with terminal("demo", "--scenario", slow) as shown:
        shown.until(r"1 passed")
        shown.until(r"gateway: 0x200000…0002 llm slow/model")
        shown.type(b"\x03")
        shown.until("stopping: waiting for jobs in flight; Ctrl-C again aborts")
        assert shown.close() == 1
    closing = shown.text[shown.text.rindex("Results on a simulated network") :]
    assert re.search(r"0x100000…0001 +llm +passed", closing)
    assert re.search(r"unscored[\s\S]*shutdown", closing)
    assert "aborted in" in closing
    assert "Traceback" not in shown.text


def test_a_second_interrupt_aborts(slow: str) -> None:
    """Ctrl-C twice: the process ends by the signal at once, and the cursor is where it can be seen."""
    with terminal("demo", "--scenario", slow) as shown:
        shown.until(r"gateway: 0x200000…0002 llm slow/model")
        shown.type(b"\x03")
        shown.until("stopping")
        shown.type(b"\x03")
        assert shown.close() == -signal.SIGINT
    assert "Results on" not in shown.text
    assert "Traceback" not in shown.text
    assert [letter for key, letter in _CONTROL.findall(shown.written) if key == "?25"][-1] == "h"


@pytest.mark.slow
def test_without_a_terminal_there_are_plain_lines() -> None:
    """One line a job as it ends, then the table with everything in full; nothing that moves, nothing that colors."""
    command = [*COMMAND, "demo", "--scenario", "query"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # a test runner may set it
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    numbered = re.findall(
        r"(?m)^\[(\d+)\] 0x.+: (?:passed|(?:failed|unscored) \(\S+\)) in [\d.]+(?:ms|s), \w+$", done.stdout
    )
    assert [int(number) for number in numbered] == list(range(1, 12))
    closing = done.stdout[done.stdout.index("Results on a simulated network") :]
    assert "…" not in re.sub(r"0x\w+…\w+", "", closing)
    for name in ("https://127.0.0.1:", "Salesforce/blip-image-captioning-large", "unclear"):
        assert name in closing


def test_json_is_alone_on_standard_output(slow: str) -> None:
    """With --json a program gets one document, also of a tick that was interrupted; people get theirs beside it."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--json", "--scenario", slow],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[1] 0x1"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    document = json.loads(out)
    assert document["simulated"] is True
    assert document["tick"]["state"] == "aborted"
    assert document["tick"]["report"]["outcomes"] == {"passed": 1, "failed": 0, "unscored": 1}
    assert len(document["results"]) == 2
    assert "SIMULATED" not in out
    assert "stored at the simulated Leaderboard" in err


def test_a_demo_does_not_need_the_usual_port_of_live_video(tmp_path: Path) -> None:
    """Two demos run side by side, and a demo beside a daemon: each has a port that gateways call back."""
    scenario = tmp_path / "live.toml"
    scenario.write_text(LIVE, encoding="utf-8")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # where another program has it, that does as well
            taken.bind(("127.0.0.1", 9997))
            taken.listen()
        command = [*COMMAND, "demo", "--json", "--scenario", str(scenario)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    (result,) = json.loads(done.stdout)["results"]
    assert result["pipeline"] == "live-video-to-video"
    assert "cannot listen" not in result["message"]
    assert result["measures"]["frames"] > 0
