"""Templates of notifications: text with $fields, checked when the configuration is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import Annotated

from pydantic import AfterValidator, Field

# Every field, with a value like those that a tick has; docs/operations.md explains them.
FIELDS: Mapping[str, str] = {
    "region": "FRA",
    "tick": "20261224T180000000Z",
    "trigger": "schedule",
    "state": "finished",
    "problem": "",
    "duration": "3m20s",
    "planned": "40",
    "settled": "40",
    "passed": "37",
    "failed": "3",
    "unscored": "0",
    "failing_count": "1",
    "recovered_count": "0",
    "still_failing_count": "2",
    "failing": 'a "name"\nof two lines',
    "recovered": "",
    "tick_url": "https://tester.example/t/20261224T180000000Z",
}
_MAX_CHARS = 4_000


def fill_template(template: str, values: Mapping[str, str], *, is_json: bool) -> str:
    """Return the template with its fields filled in; in JSON they are escaped for the inside of a text."""
    if is_json:
        values = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()}
    return Template(template).substitute(values)


def check_json_template(template: str) -> None:
    """Raise ValueError if a filled template is not JSON."""
    try:
        json.loads(fill_template(template, FIELDS, is_json=True))
    except ValueError as error:
        raise ValueError(f"template is no JSON once its fields are filled in: {error}; put texts in quotes") from error


def _check_template(template: str) -> str:
    try:
        fill_template(template, FIELDS, is_json=False)
    except KeyError as error:
        raise ValueError(f"there is no field ${error.args[0]}; there are {', '.join(FIELDS)}") from error
    except ValueError as error:
        raise ValueError("a $ is not followed by a field; write $$ for the sign itself") from error
    return template


MessageTemplate = Annotated[str, Field(max_length=_MAX_CHARS), AfterValidator(_check_template)]
