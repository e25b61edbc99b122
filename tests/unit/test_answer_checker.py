"""The examiner holds up nobody, survives every monster, and leaves no process behind."""

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
from tests.unit.corpus.answers import BAD, GOOD, Case, completion, images, request, said

SLOW = Expectation((Check("json", json_field.Params(path="text", pattern="^(a+)+$")),))
SLOW_BODY = b'{"text": "' + b"a" * 60 + b'!"}'
READ = Expectation((Check("json", json_field.Params(path="0")),))


@pytest_asyncio.fixture
async def examiner() -> AsyncIterator[AnswerChecker]:
    """Return an examiner with the usual bounds, but with time enough on a slow machine."""
    made = AnswerChecker(cpu_s=20, wall_s=200)
    yield made
    await made.close()


async def nothing(url: str) -> FetchedFile:
    """Refuse to fetch: the answer under test names no file."""
    raise AssertionError(f"nothing was to be fetched, but {url} was")


async def picture(url: str) -> FetchedFile:
    """Return the right picture for every address."""
    return FetchedFile(url, 200, make.picture(512, 512))


async def look(examiner: AnswerChecker, expectation: Expectation, body: bytes) -> Finding:
    """Examine an answer that names no file, and give the one finding."""
    examined = await examiner.check(expectation, body, fetch=nothing)
    (finding,) = examined.findings
    return finding


SAMPLED = [case for index, case in enumerate([*GOOD, *BAD]) if index % 9 == 0]


async def test_says_the_same_as_the_checks_themselves(examiner: AnswerChecker) -> None:
    """What travels to a worker and back is what the pure function says, across the corpus."""

    async def examined(case: Case) -> str:
        async def fetch(url: str) -> FetchedFile:
            return case.files[url]

        found = await examiner.check(request(case.pipeline, case.model).expectation, case.body, fetch=fetch)
        return next((finding.problem for finding in found.findings if not finding.passed), "")

    said_of = await asyncio.gather(*map(examined, SAMPLED))
    assert dict(zip(map(str, SAMPLED), said_of, strict=True)) == {str(case): case.problem for case in SAMPLED}


async def test_fetches_what_the_answer_names_and_times_it(examiner: AnswerChecker) -> None:
    """Files are fetched all at once, each once, and the time is told apart from everything else."""
    asked: list[str] = []
    both = asyncio.Barrier(2)

    async def fetch(url: str) -> FetchedFile:
        asked.append(url)
        await both.wait()
        return FetchedFile(url, 200, make.picture(512, 512))

    two = {"images": [{"url": "/a.png"}, {"url": "/b.png"}, {"url": "/a.png"}]}
    expectation = replace(request("text-to-image").expectation, parameters={"width": 512, "height": 512, "n": 3})
    expectation = replace(expectation, checks=(Check("image", replace(expectation.checks[0].params, seed=False)),))
    examined = await examiner.check(expectation, _json(two), fetch=fetch)
    assert sorted(asked) == ["/a.png", "/b.png"]
    assert examined.findings == (Finding("image"),)
    assert examined.artifact_s is not None
    assert 0 <= examined.artifact_s < 60


async def test_measures_only_right_answers(examiner: AnswerChecker) -> None:
    """Tokens per second are given for a completion that passed, and for no other."""
    expectation = request("llm").expectation
    right = await examiner.check(expectation, _json(completion(f"It is {said('llm')}.")), fetch=nothing)
    wrong = await examiner.check(expectation, _json(completion("no")), fetch=nothing)
    assert right.measures(1.5) == {"tokens_per_s": 2.667}
    assert right.measures(2.0, 0.5) == {"first_token_s": 0.5, "tokens_per_s": 2.667}
    assert wrong.measures(1.5) == {}
    assert CheckedAnswer().measures(1.0) == {}


async def test_a_check_that_hangs_is_killed() -> None:
    """A pattern that takes for ever on a stranger's text ends the worker, not the tick."""
    examiner = AnswerChecker(workers=1, cpu_s=0.3)
    slow = await look(examiner, SLOW, SLOW_BODY)
    fine = await look(examiner, SLOW, b'{"text": "aaa"}')
    await examiner.close()
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
async def test_monsters_of_json_are_contained(examiner: AnswerChecker, body: bytes, problem: str) -> None:
    """Bodies made to eat memory or the stack give a clean finding, and the loop goes on all the while."""
    finding = await look(examiner, READ, body)
    assert finding.problem == problem
    assert finding.fault is (Fault.TESTER if problem == "too_heavy" else Fault.ORCHESTRATOR)


@pytest.mark.parametrize(
    "content",
    [make.png_bomb(10_000), make.huge_png(100_000, 10_000), make.video(frames=200), make.sound(60.0)],
    ids=["a bomb", "10⁹ pixels", "a long video", "a long sound"],
)
async def test_monsters_of_media_are_contained(examiner: AnswerChecker, content: bytes) -> None:
    """A file for a pipeline that expects no size is refused by its header, or looked at within bounds."""
    for kind in ("image", "video", "audio"):
        expectation = Expectation((Check("json", json_field.Params(path="url", is_=kind)),))

        async def fetch(url: str) -> FetchedFile:
            return FetchedFile(url, 200, content)

        examined = await examiner.check(expectation, b'{"url": "/x"}', fetch=fetch)
        assert examined.findings[0].fault is Fault.ORCHESTRATOR


async def test_the_loop_goes_on(examiner: AnswerChecker) -> None:
    """While megabytes are handed over and looked at, nothing else on the loop waits for long.

    What holds the loop up does so each time; a busy machine, now and then.
    """
    await look(examiner, READ, b'["' + b"x" * 20_000 + b'"]')
    longest = [await _longest_wait(examiner)]
    while longest[-1] >= 0.1 and len(longest) < 20:
        longest.append(await _longest_wait(examiner))
    assert longest[-1] < 0.1, longest  # 20 ms when nothing else runs on the machine


async def _longest_wait(examiner: AnswerChecker) -> float:
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
                group.create_task(look(examiner, READ, b'["' + b"x" * 8_000_000 + b'"]'))
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        group.create_task(work())
    return max(gaps)


async def test_small_answers_need_no_process(examiner: AnswerChecker) -> None:
    """An answer of plain JSON is looked at at once: the daemon stays small while only such come."""
    await examiner.check(request("llm").expectation, _json(completion(said("llm"))), fetch=nothing)
    assert _children() == set()


async def test_workers_end_when_there_is_nothing_to_do() -> None:
    """A worker is kept for the next answer, and ends when none comes."""
    examiner = AnswerChecker(idle_s=1.5)
    await examiner.check(request("text-to-image").expectation, _json(images()), fetch=picture)
    (first,) = _children()
    await examiner.check(request("text-to-image").expectation, _json(images()), fetch=picture)
    assert _children() == {first}
    await asyncio.to_thread(_gone, first)
    again = await examiner.check(request("text-to-image").expectation, _json(images()), fetch=picture)
    assert again.findings == (Finding("image"),)
    await examiner.close()
    assert _children() == set()


async def test_a_killed_worker_is_replaced(examiner: AnswerChecker) -> None:
    """A worker that somebody ends between two answers is noticed and replaced; nobody is blamed."""
    expectation = request("text-to-image").expectation
    await examiner.check(expectation, _json(images()), fetch=picture)
    (worker,) = _children()
    os.kill(worker, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    again = await examiner.check(expectation, _json(images()), fetch=picture)
    assert again.findings == (Finding("image"),)


async def test_a_worker_killed_at_work_is_the_testers_fault() -> None:
    """If a worker is ended from outside while it looks, nothing is known of the answer, so nobody failed."""
    examiner = AnswerChecker(cpu_s=600, wall_s=600)
    looking = asyncio.create_task(look(examiner, SLOW, SLOW_BODY))
    os.kill(await asyncio.to_thread(_at_work), signal.SIGKILL)
    finding = await looking
    await examiner.close()
    assert (finding.problem, finding.fault) == ("unchecked", Fault.TESTER)
    assert "SIGKILL" in finding.message


async def test_that_no_process_can_be_started_is_the_testers_fault() -> None:
    """Where descriptors run out nobody is judged, and the next answer is looked at as usual."""
    examiner = AnswerChecker(cpu_s=60, wall_s=60)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        finding = await look(examiner, SLOW, b'{"text": "aaa"}')
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    after = await look(examiner, SLOW, b'{"text": "aaa"}')
    await examiner.close()
    assert (finding.problem, finding.fault) == ("unchecked", Fault.TESTER)
    assert after.passed


async def test_a_stopped_worker_is_given_up() -> None:
    """A machine so busy that a worker gets no time at all is the tester's problem, and is bounded too."""
    worker = await asyncio.to_thread(Worker.start, wall_s=0.5)
    os.kill(worker.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLostError, match="in time"):
        await asyncio.to_thread(worker.evaluate, CheckTask(SLOW, SLOW_BODY), cpu_s=1)
    assert not worker.is_alive


async def test_closing_ends_workers_at_work() -> None:
    """A daemon that stops does not wait for a check."""
    examiner = AnswerChecker(cpu_s=600, wall_s=600)
    looking = asyncio.create_task(look(examiner, SLOW, SLOW_BODY))
    await asyncio.to_thread(_at_work)
    async with asyncio.timeout(60):
        await examiner.close()
    assert (await looking).fault is Fault.TESTER
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
        watched = [os.pidfd_open(pid) for pid in workers]
        daemon.kill()
    for each in watched:
        assert select.select([each], [], [], 60)[0], "a worker outlived the daemon"
        os.close(each)


def test_the_daemon_loads_no_decoders() -> None:
    """Looking at a picture costs the daemon's own process neither Pillow nor PyAV."""
    script = """
        import asyncio, sys
        from jobtester.pipelines.catalogue import load_catalogue
        from jobtester.pipelines.assets import Assets
        from jobtester.checks.base import FetchedFile
        from jobtester.checks.checker import AnswerChecker
        from jobtester.pipelines.request import Requests

        async def fetch(url):
            return FetchedFile(url, 200, assets.get("image.png").content)

        async def main():
            examiner = AnswerChecker()
            definition = known["text-to-image"]
            expectation = Requests(known, assets, 1).build(definition, "m").expectation
            body = b'{"images": [{"url": "/x", "seed": 42}]}'
            print((await examiner.check(expectation, body, fetch=fetch)).findings[0].passed)
            await examiner.close()

        assets = Assets()
        known = load_catalogue({}, assets)
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
    found = set()
    for task in Path(f"/proc/{me}/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in found if Path(f"/proc/{pid}/cmdline").read_bytes().find(b"jobtester.checks") > 0}


def _at_work() -> int:
    """Wait until there is a worker that computes, which shows in its processor time, and give its id."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid in _children():
            used = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
            if used > 0.5 * os.sysconf("SC_CLK_TCK"):
                return pid
        time.sleep(0.02)
    raise AssertionError("no worker came to work")


def _gone(pid: int) -> None:
    """Wait until a process has ended."""
    watched = os.pidfd_open(pid)
    assert select.select([watched], [], [], 60)[0], "the worker did not end"
    os.close(watched)
