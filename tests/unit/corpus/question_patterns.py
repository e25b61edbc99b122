"""The questions that one job makes a webhook gateway ask, for made-up distances near and far."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

MAX_TRIES = 20


@dataclass(slots=True)
class AskingGateway:
    """Asks as a tester gateway does: a question takes `question_s` seconds, a call `call_s`, each varied by `spread`.

    With a probability of `stall_share` the machine stalls for `stall_s` seconds at a question.
    """

    random: random.Random
    question_s: float
    call_s: float
    window_s: float = 2.0
    spread: float = 0.25
    stall_share: float = 0.0
    stall_s: float = 0.05
    now: float = 0.0
    asked: list[float] = field(default_factory=list)

    @property
    def window_is_open(self) -> bool:
        """Return True if another attempt may start."""
        return self.now < self.window_s

    def ask(self, times: int) -> None:
        """Ask a burst of questions, and call the orchestrator after it."""
        for _ in range(times):
            stall = self.stall_s if self.random.random() < self.stall_share else 0.0
            self.asked.append(self.now)
            self.now += self._about(self.question_s) + stall
        self.now += self._about(self.call_s)

    def attempt(self, job_s: float) -> None:
        """Ask as an attempt that leaves does, and wait for the orchestrator's answer."""
        self.ask(2)
        self.ask(3)
        self.now += self._about(job_s)

    def fail_at_orchestrator(self, job_s: float) -> list[float]:
        """Return the questions of a job that fails at the orchestrator, try after try."""
        tries = 0
        while tries < MAX_TRIES and (tries == 0 or self.window_is_open):
            self.attempt(job_s)
            self.ask(2)
            tries += 1
        return self.asked

    def find_busy(self, *, tail: bool = True, refusal_s: float = 0.001, before: int = 0) -> list[float]:
        """Return the questions of a job for which no slot is free; `before` attempts have taken part already."""
        tries = before
        while tries < MAX_TRIES and (tries == 0 or self.window_is_open):
            self.attempt(refusal_s)
            tries += 1
        for _ in range(tries - before if tail else 0):
            self.ask(2)
        return self.asked

    def leak_slot(self, job_s: float) -> list[float]:
        """Return the questions of a job whose first attempt fails and leaves its slot taken."""
        self.attempt(job_s)
        self.ask(2)
        return self.find_busy(before=1)

    def find_nobody(self, max_tries: int = MAX_TRIES) -> list[float]:
        """Return the questions of a job for which nobody can be selected."""
        tries = 0
        while tries < max_tries and (tries == 0 or self.window_is_open):
            self.ask(2)
            tries += 1
        return self.asked

    def find_down(self) -> list[float]:
        """Return the questions of a job whose orchestrator does not answer the gateway's call."""
        self.ask(2)
        return self.asked

    def _about(self, seconds: float) -> float:
        return seconds * self.random.uniform(1 - self.spread, 1 + self.spread)
