"""An action that runs a program, without a shell.

The episode is in its environment, and whole, as JSON, on its standard input:

``EPISODE_ID``, ``EPISODE_MODEL``, ``EPISODE_VERSION``, ``EPISODE_BEGAN`` (Unix seconds),
``EPISODE_ALERTS`` (a line each), ``EPISODE_ACTION``, ``EPISODE_ATTEMPT``.

Exit status 0 is success. Any other may pass, but ``EX_CONFIG`` (78), by which a program says that
there is no use in trying again.
"""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from gateway.config import process_environment
from gateway.errors import ConfigError
from gateway.monitor.episode import Episode
from gateway.monitor.outcome import Outcome
from gateway.monitoring_file import Part
from gateway.tables import Check, list_of, number, table, text, wrong

#: Bytes of the output that are kept: of its beginning, and of its end.
HEAD_BYTES: Final = 2048
TAIL_BYTES: Final = 6144
#: Seconds between asking a program to end and making it.
GRACE_S: Final = 5.0
DEFAULT_TIMEOUT_S: Final = 3600.0
#: Seconds that are waited for the end of the output once the program has ended.
LAST_OUTPUT_S: Final = 1.0


class CommandRun:
    """Runs a program in a process group of its own."""

    def __init__(
        self,
        *,
        action: str,
        argv: tuple[str, ...],
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        scrub: Callable[[str], str] = str,
    ) -> None:
        """Run ``argv``.

        Args:
            action: its name, for the program.
            directory: to run it in; the server's own where there is none.
            environment: beside the server's own.
            timeout_s: after which it is ended.
            scrub: takes secrets out of what it prints.
        """
        self._action: Final = action
        self._argv: Final = argv
        self._directory: Final = directory
        self._environment: Final = dict(environment or {})
        self._timeout_s: Final = timeout_s
        self._scrub: Final = scrub

    @classmethod
    def read(cls, part: Part, common: dict[str, Check]) -> tuple[Self, dict[str, object]]:
        """What the table asks for, and the values of the keys that are ``common`` to all actions.

        Raises:
            ConfigError: a key or value is wrong, or there is no such program.
        """
        fields = {
            **common,
            "argv": list_of(text),
            "directory": part.path,
            "environment": lambda where, value: _environment(part, where, value),
            "timeout_s": _timeout,
        }
        values = part.read(fields, ("argv",))
        argv, where = values["argv"], part.where
        if not argv:
            raise ConfigError(f'{where}argv is empty: expected a program, as in ["python", "x.py"]')
        directory = values.get("directory", part.path(where, "."))
        if not directory.is_dir():
            raise ConfigError(f"{where}directory: there is no directory {directory}")
        # A path is relative to the directory that the program runs in.
        program = str(directory / argv[0]) if "/" in argv[0] else argv[0]
        if shutil.which(program) is None:
            raise ConfigError(f"{where}argv: there is no program '{argv[0]}' that could be run")
        made = cls(
            action=part.name,
            argv=(program, *argv[1:]),
            directory=directory,
            environment=values.get("environment"),
            timeout_s=values.get("timeout_s", DEFAULT_TIMEOUT_S),
            scrub=part.scrub,
        )
        return made, {name: values[name] for name in common if name in values}

    async def attempt(self, episode: Episode, attempt: int) -> Outcome:
        """See ``Run.attempt``."""
        # A pipe of our own: asyncio takes a program for running as long as anybody holds its.
        receive, send = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=send,
                stderr=send,
                cwd=self._directory,
                env=self._variables(episode, attempt),
                # So that what it starts can be ended with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(receive)
            return Outcome(ok=False, text=f"it could not be started: {error}")
        finally:
            os.close(send)
        output = _Output()
        beside = (
            asyncio.create_task(_feed(process, episode)),
            asyncio.create_task(output.read(receive)),
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                code = await process.wait()
            # What it has started and left behind may hold its output open for ever.
            await asyncio.wait(beside, timeout=LAST_OUTPUT_S)
        except TimeoutError:
            await _end(process)
            return Outcome(
                ok=False,
                text=f"it was ended after {self._timeout_s:g} s, its timeout_s",
                details={"output": self._scrub(output.text())},
            )
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        told = f"exit status {code}" if code >= 0 else f"ended by signal {-code}"
        return Outcome(
            ok=code == 0,
            again=code != os.EX_CONFIG,
            text=told,
            details={"exit_status": code, "output": self._scrub(output.text())},
        )

    async def close(self) -> None:
        """See ``Run.close``."""

    def _variables(self, episode: Episode, attempt: int) -> dict[str, str]:
        return {
            **process_environment(),
            **self._environment,
            "EPISODE_ID": episode.id,
            "EPISODE_MODEL": episode.model,
            "EPISODE_VERSION": episode.version,
            "EPISODE_BEGAN": f"{episode.began:.3f}",
            "EPISODE_ALERTS": "\n".join(key.text for key in episode.alerts),
            "EPISODE_ACTION": self._action,
            "EPISODE_ATTEMPT": str(attempt),
        }


class _Output:
    """The beginning and the end of what a program prints, in bounded memory."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    async def read(self, pipe: int) -> None:
        """Read from ``pipe`` until nobody writes to it any more, and close it."""
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
        )
        try:
            while chunk := await reader.read(65536):
                room = HEAD_BYTES - len(self._head)
                self._head += chunk[:room]
                self._tail += chunk[room:]
                if (over := len(self._tail) - TAIL_BYTES) > 0:
                    del self._tail[:over]
                    self._left_out += over
        finally:
            transport.close()

    def text(self) -> str:
        """As text; says how much was left out between the two."""
        gap = f"\n... {self._left_out} bytes left out ...\n".encode() if self._left_out else b""
        return bytes(self._head + gap + self._tail).decode("utf-8", "replace")


async def _feed(process: asyncio.subprocess.Process, episode: Episode) -> None:
    """Write the episode to the program's standard input, which it need not read."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(json.dumps(episode.as_table()).encode())
        await process.stdin.drain()
        process.stdin.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program and what it has started: asked first, then made to."""
    for each in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, each)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await process.wait()


def _timeout(where: str, value: Any) -> float:
    if not 0 < number(where, value) <= 7 * 86_400:
        raise wrong(where, "seconds above 0 and at most a week", value)
    return float(value)


def _environment(part: Part, where: str, value: Any) -> dict[str, str]:
    # What stands in the file as it is is no secret: blanking every "1" would spoil an output.
    return {
        name: item if isinstance(item, str) else part.secret(f"{where}.{name}", item).reveal()
        for name, item in table(where, value).items()
    }
