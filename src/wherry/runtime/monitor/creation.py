"""One container in the making: the OCI runtime's ``create``, and the ends of its streams."""

import contextlib
import os
import signal

from wherry.runtime.console import ConsoleSocket
from wherry.runtime.monitor import exits
from wherry.runtime.monitor.protocol import LONGEST_TEXT

# What we ignore, and what Python does, must not be ignored by what we start.
_DEFAULTS = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]
_DEFAULTS += [signal.SIGPIPE, signal.SIGXFSZ]


class CreateFailed(Exception):
    """No container came of it; the text is what the OCI runtime said."""


class Creation:
    """A ``create`` under way; ``pid`` is the OCI runtime's.

    ``ends`` are our ends of the container's streams, by name. The runtime's own complaints come
    where the container's would, on its standard error.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self, serial: str, id: str, bundle: str, terminal: bool, stdin: bool, argv: list[str]
    ) -> None:
        # Serials are empty once the daemon that asked has gone.
        self.serial = serial
        self.id = id
        self.ends: dict[str, int] = {}
        self.called_off_by: str | None = None  # the serial of the request that did
        self._bundle = bundle
        self._terminal = terminal
        self._console: ConsoleSocket | None = None
        self._complaint = -1
        theirs: list[int] = []
        try:
            if terminal:
                self._console = ConsoleSocket(bundle)
                argv = [*argv, f"--console-socket={self._console.path}"]
            theirs = self._streams(stdin)
            self.pid = os.posix_spawn(
                argv[0],
                [*argv, id],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(theirs)],
                setsigdef=_DEFAULTS,
            )
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)

    def _streams(self, stdin: bool) -> list[int]:
        """Their standard input, output and error; ours go to ``ends``."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if self._terminal:
            self._complaint, error = os.pipe()
            os.set_blocking(self._complaint, False)
            return [null, null, error]
        theirs = [null]
        if stdin:
            os.close(null)
            theirs[0], self.ends["stdin"] = os.pipe()
        for name in ("stdout", "stderr"):
            self.ends[name], descriptor = os.pipe()
            theirs.append(descriptor)
        for descriptor in self.ends.values():
            os.set_blocking(descriptor, False)
        self._complaint = self.ends["stderr"]
        return theirs

    def finish(self, status: int) -> int:
        """The runtime has ended with wait status ``status``: the pid of the container's process.

        Raises:
            CreateFailed: there is no container.
        """
        if status != 0:
            raise CreateFailed(self._reason(status))
        try:
            if self._console is not None:
                self.ends["terminal"] = self._console.receive()
            with open(f"{self._bundle}/pid") as file:  # noqa: PTH123
                return int(file.read())
        except (OSError, ValueError) as error:
            raise CreateFailed(f"the OCI runtime did not do its work: {error}") from error

    def _reason(self, status: int) -> str:
        text = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._complaint, 65536):
                text += more
        if not text.strip() and os.WIFSIGNALED(status):
            return f"the OCI runtime was killed by signal {os.WTERMSIG(status)}"
        if not text.strip():
            return f"the OCI runtime ended with {exits.code_of(status)} and said nothing"
        return text[-LONGEST_TEXT:].decode(errors="replace").replace("\0", "")

    def tidy(self) -> None:
        """Let go of what only the making needed."""
        if self._console is not None:
            self._console.close()
            self._console = None
        if self._complaint >= 0 and self._terminal:
            os.close(self._complaint)
        self._complaint = -1

    def close(self) -> None:
        """Let go of everything."""
        self.tidy()
        for descriptor in self.ends.values():
            os.close(descriptor)
        self.ends.clear()
