"""The checker never holds up the event loop, survives every monster, and leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from jobtester.checks import json_field
from jobtester.checks.base import Check, Expectation, FetchedFile
from jobtester.checks.checker import AnswerChecker, CheckedAnswer
from jobtester.checks.evaluation import CheckTask
from jobtester.checks.worker import Worker, WorkerLostError
from jobtester.domain.reasons import Fault, Finding
from tests.unit.corpus import media_factory as make
from tests.unit.corpus.answers import BAD, GOOD, Case, completion, expected_word, images, request

SLOW = Expectation((Check("json", json_field.Params(path="text", pattern="^(a+)+$")),))
SLOW_BODY = b'{"text": "' + b"a" * 60 + b'!"}'
READ = Expectation((Check("json", json_field.Params(path="0")),))


@pytest_asyncio.fixture
async def checker() -> AsyncIterator[AnswerChecker]:
    """Yield a checker with the usual bounds, but with time enough on a slow machine."""
    answer_checker = AnswerChecker(cpu_s=20, wall_s=200)
    yield answer_checker
    await answer_checker.close()


async def refuse_fetch(url: str) -> FetchedFile:
    """Refuse to fetch: the answer under test names no file."""
    raise AssertionError(f"nothing was to be fetched, but {url} was")


async def fetch_picture(url: str) -> FetchedFile:
    """Return the right picture for every address."""
    return FetchedFile(url, 200, make.picture(512, 512))


async def check_answer(checker: AnswerChecker, expectation: Expectation, body: bytes) -> Finding:
    """Check an answer that names no file, and return the one finding."""
    answer = await checker.check(expectation, body, fetch=refuse_fetch)
    (finding,) = answer.findings
    return finding


SAMPLED = [case for index, case in enumerate([*GOOD, *BAD]) if index % 9 == 0]


async def test_reports_what_the_checks_themselves_find(checker: AnswerChecker) -> None:
    """What comes back from a worker is what the pure function returns, across the corpus."""

    async def check_case(case: Case) -> str:
        async def fetch(url: str) -> FetchedFile:
            return case.files[url]

        answer = await checker.check(request(case.pipeline, case.model).expectation, case.body, fetch=fetch)
        return next((finding.problem for finding in answer.findings if not finding.passed), "")

    problems = await asyncio.gather(*map(check_case, SAMPLED))
    assert dict(zip(map(str, SAMPLED), problems, strict=True)) == {str(case): case.problem for case in SAMPLED}


async def test_fetches_the_files_that_the_answer_names_and_times_it(checker: AnswerChecker) -> None:
    """Files are fetched all at once, each once, and the time of fetching is measured on its own."""
    asked: list[str] = []
    both = asyncio.Barrier(2)

    async def fetch(url: str) -> FetchedFile:
        asked.append(url)
        await both.wait()
        return FetchedFile(url, 200, make.picture(512, 512))

    two = {"images": [{"url": "/a.png"}, {"url": "/b.png"}, {"url": "/a.png"}]}
    expectation = replace(request("text-to-image").expectation, parameters={"width": 512, "height": 512, "n": 3})
    expectation = replace(expectation, checks=(Check("image", replace(expectation.checks[0].params, seed=False)),))
    answer = await checker.check(expectation, _json(two), fetch=fetch)
    assert sorted(asked) == ["/a.png", "/b.png"]
    assert answer.findings == (Finding("image"),)
    assert answer.artifact_s is not None
    assert 0 <= answer.artifact_s < 60


async def test_measures_only_right_answers(checker: AnswerChecker) -> None:
    """Tokens per second are measured on a completion that passed, and on no other."""
    expectation = request("llm").expectation
    right = await checker.check(expectation, _json(completion(f"It is {expected_word('llm')}.")), fetch=refuse_fetch)
    wrong = await checker.check(expectation, _json(completion("no")), fetch=refuse_fetch)
    assert right.measures(1.5) == {"tokens_per_s": 2.667}
    assert right.measures(2.0, 0.5) == {"first_token_s": 0.5, "tokens_per_s": 2.667}
    assert wrong.measures(1.5) == {}
    assert CheckedAnswer().measures(1.0) == {}


async def test_a_check_that_hangs_is_killed() -> None:
    """A pattern that takes for ever on a stranger's text ends the worker, not the tick."""
    checker = AnswerChecker(workers=1, cpu_s=0.3)
    slow = await check_answer(checker, SLOW, SLOW_BODY)
    fine = await check_answer(checker, SLOW, b'{"text": "aaa"}')
    await checker.close()
    assert (slow.problem, slow.fault) == ("too_slow", Fault.TESTER)
    assert fine.passed


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[" + b"[]," * 7_000_000 + b"[]]", "too_heavy"),
        (b"[" + b'{"a":1},' * 2_500_000 + b"1]", "too_heavy"),
        (b"[" * 20_000_000, "bad_json"),
        (b'["' + b"x" * 33_600_000 + b'"]', "too_large"),
        (b"\0" * 1_000_000, "bad_json"),
        (b'["' + b"x" * 20_000_000 + b'"]', ""),
    ],
    ids=["lists", "tables", "depth", "a text over the limit", "zeros", "a long text"],
)
async def test_monsters_of_json_are_contained(checker: AnswerChecker, body: bytes, problem: str) -> None:
    """Bodies made to eat memory or the stack end in a clean finding, and the loop goes on all the while."""
    finding = await check_answer(checker, READ, body)
    assert finding.problem == problem
    assert finding.fault is (Fault.TESTER if problem == "too_heavy" else Fault.ORCHESTRATOR)


@pytest.mark.parametrize(
    "content",
    [make.png_bomb(10_000), make.huge_png(100_000, 10_000), make.video(frames=200), make.sound(60.0)],
    ids=["a bomb", "10⁹ pixels", "a long video", "a long sound"],
)
async def test_monsters_of_media_are_contained(checker: AnswerChecker, content: bytes) -> None:
    """A file for a pipeline that expects no size is refused by its header, or checked within bounds."""
    for kind in ("image", "video", "audio"):
        expectation = Expectation((Check("json", json_field.Params(path="url", is_=kind)),))

        async def fetch(url: str) -> FetchedFile:
            return FetchedFile(url, 200, content)

        answer = await checker.check(expectation, b'{"url": "/x"}', fetch=fetch)
        assert answer.findings[0].fault is Fault.ORCHESTRATOR


async def test_the_loop_goes_on(checker: AnswerChecker) -> None:
    """While megabytes are sent to workers and checked, nothing else on the loop waits for long.

    What holds the loop up does so each time; a busy machine, now and then.
    """
    await check_answer(checker, READ, b'["' + b"x" * 20_000 + b'"]')
    longest = [await _longest_wait(checker)]
    while longest[-1] >= 0.1 and len(longest) < 20:
        longest.append(await _longest_wait(checker))
    assert longest[-1] < 0.1, longest  # 20 ms when nothing else runs on the machine


async def _longest_wait(checker: AnswerChecker) -> float:
    gaps: list[float] = []
    done = asyncio.Event()

    async def beat() -> None:
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(check_answer(checker, READ, b'["' + b"x" * 8_000_000 + b'"]'))
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        group.create_task(work())
    return max(gaps)


async def test_small_answers_need_no_process(checker: AnswerChecker) -> None:
    """An answer of plain JSON is checked at once: no worker starts while only such answers come."""
    await checker.check(request("llm").expectation, _json(completion(expected_word("llm"))), fetch=refuse_fetch)
    assert _children() == set()


async def test_workers_end_when_there_is_nothing_to_do() -> None:
    """A worker is kept for the next answer, and ends when none comes."""
    checker = AnswerChecker(idle_s=1.5)
    await checker.check(request("text-to-image").expectation, _json(images()), fetch=fetch_picture)
    (first,) = _children()
    await checker.check(request("text-to-image").expectation, _json(images()), fetch=fetch_picture)
    assert _children() == {first}
    await asyncio.to_thread(_wait_for_end, first)
    again = await checker.check(request("text-to-image").expectation, _json(images()), fetch=fetch_picture)
    assert again.findings == (Finding("image"),)
    await checker.close()
    assert _children() == set()


async def test_a_killed_worker_is_replaced(checker: AnswerChecker) -> None:
    """A worker that somebody ends between two answers is noticed and replaced; nobody is blamed."""
    expectation = request("text-to-image").expectation
    await checker.check(expectation, _json(images()), fetch=fetch_picture)
    (worker,) = _children()
    os.kill(worker, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    again = await checker.check(expectation, _json(images()), fetch=fetch_picture)
    assert again.findings == (Finding("image"),)


async def test_a_worker_killed_at_work_is_the_testers_fault() -> None:
    """If a worker is ended from outside while it works, nothing is known of the answer, so nobody failed."""
    checker = AnswerChecker(cpu_s=600, wall_s=600)
    checking = asyncio.create_task(check_answer(checker, SLOW, SLOW_BODY))
    os.kill(await asyncio.to_thread(_wait_for_work), signal.SIGKILL)
    finding = await checking
    await checker.close()
    assert (finding.problem, finding.fault) == ("unchecked", Fault.TESTER)
    assert "SIGKILL" in finding.message


async def test_that_no_process_can_be_started_is_the_testers_fault() -> None:
    """If descriptors run out nobody is judged, and the next answer is checked as usual."""
    checker = AnswerChecker(cpu_s=60, wall_s=60)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        finding = await check_answer(checker, SLOW, b'{"text": "aaa"}')
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    after = await check_answer(checker, SLOW, b'{"text": "aaa"}')
    await checker.close()
    assert (finding.problem, finding.fault) == ("unchecked", Fault.TESTER)
    assert after.passed


@pytest.mark.parametrize("body", [SLOW_BODY, b" " * 4_000_000], ids=["no answer", "more than the socket holds"])
async def test_a_stopped_worker_is_killed(body: bytes) -> None:
    """A worker that gets no time at all is the tester's problem, and is given up while sending as while waiting."""
    worker = await asyncio.to_thread(Worker.start, wall_s=0.5)
    os.kill(worker.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLostError, match="in time"):
        await asyncio.to_thread(worker.evaluate, CheckTask(SLOW, body), cpu_s=1)
    assert not worker.is_alive


async def test_closing_ends_workers_at_work() -> None:
    """A daemon that stops does not wait for a check."""
    checker = AnswerChecker(cpu_s=600, wall_s=600)
    checking = asyncio.create_task(check_answer(checker, SLOW, SLOW_BODY))
    await asyncio.to_thread(_wait_for_work)
    async with asyncio.timeout(60):
        await checker.close()
    assert (await checking).fault is Fault.TESTER
    assert _children() == set()


def test_workers_end_with_the_daemon() -> None:
    """After SIGKILL of the daemon no worker is left, neither an idle nor a working one."""
    script = """
        import sys, threading, time
        from jobtester.checks import json_field
        from jobtester.checks.base import Check, Expectation
        from jobtester.checks.evaluation import CheckTask
        from jobtester.checks.worker import Worker

        slow = Expectation((Check("json", json_field.Params(path="text", pattern="^(a+)+$")),))
        quick, endless = (CheckTask(slow, b'{"text": "' + b"a" * 60 + end) for end in (b'"}', b'!"}'))
        idle, busy = Worker.start(), Worker.start()
        idle.evaluate(quick, cpu_s=1)
        busy.evaluate(quick, cpu_s=1)
        threading.Thread(target=lambda: busy.evaluate(endless, cpu_s=0.5)).start()
        print(idle.process.pid, busy.process.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        workers = [int(pid) for pid in daemon.stdout.readline().split()]
        pidfds = [os.pidfd_open(pid) for pid in workers]
        daemon.kill()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 60)[0], "a worker outlived the daemon"
        os.close(pidfd)


def test_the_daemon_loads_no_decoders() -> None:
    """Neither the daemon's modules nor checking a picture load Pillow or PyAV into its own process."""
    script = """
        import asyncio, sys
        import jobtester.daemon.bootstrap
        from jobtester.pipelines.catalogue import load_catalogue
        from jobtester.pipelines.assets import Assets
        from jobtester.checks.base import FetchedFile
        from jobtester.checks.checker import AnswerChecker
        from jobtester.pipelines.request import Requests

        async def fetch(url):
            return FetchedFile(url, 200, assets.get("image.png").content)

        async def main():
            checker = AnswerChecker()
            definition = catalogue["text-to-image"]
            expectation = Requests(catalogue, assets, 1).build(definition, "m").expectation
            body = b'{"images": [{"url": "/x", "seed": 42}]}'
            print((await checker.check(expectation, body, fetch=fetch)).findings[0].passed)
            await checker.close()

        assets = Assets()
        catalogue = load_catalogue({}, assets)
        asyncio.run(main())
        print({"PIL", "av"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["True", "set()"]


def test_workers_know_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decodes strangers' bytes does not have the Leaderboard's key in its environment."""
    monkeypatch.setenv("JOBTESTER_LEADERBOARD__SECRET", "very-secret")
    worker = Worker.start()
    worker.evaluate(CheckTask(SLOW, b'{"text": "aaa"}'), cpu_s=1)
    environment = Path(f"/proc/{worker.process.pid}/environ").read_bytes()
    worker.stop()
    assert b"PYTHONPATH" in environment
    assert b"JOBTESTER" not in environment


def _json(answer: object) -> bytes:
    import orjson

    return orjson.dumps(answer)


def _children() -> set[int]:
    """Return the processes that this one has started and that still run."""
    me = os.getpid()
    pids: set[int] = set()
    for task in Path(f"/proc/{me}/task").iterdir():
        pids |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().find(b"jobtester.checks") > 0}


def _wait_for_work() -> int:
    """Wait until there is a worker that computes, which shows in its processor time, and return its id."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid in _children():
            used = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
            if used > 0.5 * os.sysconf("SC_CLK_TCK"):
                return pid
        time.sleep(0.02)
    raise AssertionError("no worker came to work")


def _wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], 60)[0], "the worker did not end"
    os.close(pidfd)
