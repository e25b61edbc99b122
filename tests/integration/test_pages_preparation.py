"""What the first visitor of the pages would wait for is done in the background after the start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp_jinja2
import pytest
from aiohttp import web

from jobtester.metrics import Metrics
from jobtester.store.database import Database
from jobtester.store.queries import Queries
from jobtester.web.context import CONTEXT
from jobtester.web.pages import PREPARE_AFTER_S, add_pages
from tests.harness.store import open_database
from tests.harness.waiting import until


def build_pages(database: Database, *, after_s: float) -> web.Application:
    """Return an application that has the pages and what their preparation needs."""
    app = web.Application()
    app[CONTEXT] = cast(Any, SimpleNamespace(metrics=Metrics(), stores=SimpleNamespace(queries=Queries(database))))
    app[PREPARE_AFTER_S] = after_s
    add_pages(app)
    return app


def list_tasks() -> list[str]:
    """Return the names of the tasks that prepare pages."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "prepare-pages"]


async def test_every_template_is_compiled_without_a_visitor(tmp_path: Path) -> None:
    """Soon after the start all of them are at hand, and the preparation is over."""
    async with open_database(tmp_path / "a.db") as database:
        app = build_pages(database, after_s=0.0)
        runner = web.AppRunner(app)
        await runner.setup()
        environment = aiohttp_jinja2.get_env(app)
        assert environment.cache is not None
        await until(lambda: not list_tasks(), "the pages are prepared")
        assert len(environment.cache) == len(environment.list_templates()) > 8
        await runner.cleanup()


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_stop_ends_the_preparation(is_closed: bool, tmp_path: Path) -> None:
    """Neither a stop before it begins nor a store that is closed meanwhile leaves a task or an error behind."""
    async with open_database(tmp_path / "a.db") as database:
        app = build_pages(database, after_s=0.0 if is_closed else 60.0)
        if is_closed:
            await database.close()
        runner = web.AppRunner(app)
        await runner.setup()
        if is_closed:
            await until(lambda: not list_tasks(), "the preparation has ended")
        await runner.cleanup()
        assert list_tasks() == []
        assert app[CONTEXT].metrics.registry.get_sample_value(
            "jobtester_internal_errors_total", {"component": "pages"}
        ) in (None, 0)
