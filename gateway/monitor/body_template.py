"""The body of a webhook, made of a template and an episode.

A template is JSON with ``${fields}`` in it. A field of text stands inside a pair of quotation
marks and is escaped for that place; a field of JSON stands where a value does::

    {"model": "${model}", "findings": ${evidence}}
"""

import json
from datetime import UTC, datetime
from string import Template
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.monitor.episode import Episode

#: What a webhook gets that has no template: everything.
DEFAULT: Final = (
    '{"type": "drift", "action": "${action}", "attempt": ${attempt}, "episode": ${all}}'
)


class BodyTemplate:
    """A template, checked once."""

    def __init__(self, text: str, where: str) -> None:
        """Raises ``ConfigError``, beginning with ``where``, for what makes no JSON."""
        self._template: Final = Template(text)
        names = ", ".join(_fields(_SAMPLE, "", 1))
        try:
            # What has quotation marks, a line break and a backslash in it shows a field of text
            # that stands outside of a string.
            json.loads(self.body(_SAMPLE, "retrain", 1))
        except KeyError as error:
            raise ConfigError(f"{where}: there is no field {error}; there are {names}") from None
        except ValueError as error:
            raise ConfigError(
                f"{where} makes no JSON ({error}): a field of text stands inside quotation marks, "
                f"a field of JSON ({', '.join(JSON_FIELDS)}) outside of them; $$ is a $"
            ) from None

    def body(self, episode: Episode, action: str, attempt: int) -> bytes:
        """The body for an attempt of ``action``."""
        return self._template.substitute(_fields(episode, action, attempt)).encode()


def _fields(episode: Episode, action: str, attempt: int) -> dict[str, str]:
    began = datetime.fromtimestamp(episode.began, UTC).isoformat(timespec="milliseconds")
    return {
        "episode": _escaped(episode.id),
        "model": _escaped(episode.model),
        "version": _escaped(episode.version),
        "began": began,
        "action": _escaped(action),
        "attempt": str(attempt),
        "alerts": _json([key.text for key in episode.alerts]),
        "evidence": _json(episode.evidence),
        "all": _json(episode.as_table()),
    }


#: The fields that are JSON; the others are text.
JSON_FIELDS: Final = ("attempt", "alerts", "evidence", "all")


def _json(value: Any) -> str:
    # Escapes keep what UTF-8 has no bytes for, such as half a surrogate pair in a model's name.
    return json.dumps(value, allow_nan=False)


def _escaped(text: str) -> str:
    return _json(text)[1:-1]


_SAMPLE: Final = Episode(
    id='"\\\n', model='"\\\n', version='"\\\n', began=0.0, alerts=(), evidence={"window": 0}
)
