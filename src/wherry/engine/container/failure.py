"""A start that failed, in the words that clients of dockerd look for.

The ``docker`` client tells exit codes 126 and 127 from the text alone; the runtime has already put
its complaint into runc's words, and this adds what containerd and dockerd put around them.
"""

from __future__ import annotations

from wherry.engine.errors import BadParameter, EngineError
from wherry.runtime.types import RuntimeFailure

_CREATE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: "
)
_START = _CREATE + "unable to start container process: "
_EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "
_MOUNT_HINT = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified "
    "host path exists and is the expected type"
)


def start_error(failure: RuntimeFailure) -> EngineError:
    """The answer to ``start``; the request was at fault where the command cannot run."""
    text = f"{_START}{failure.message.strip()}: unknown"
    if failure.message.endswith("is a directory"):
        text += ": permission denied"
    if "not a directory" in failure.message.lower():
        return BadParameter(text + _MOUNT_HINT)
    return BadParameter(text) if failure.exit_code in (126, 127) else EngineError(text)


def refusal(reason: str) -> EngineError:
    """The answer to ``start`` where the OCI runtime would not even begin."""
    return EngineError(f"{_CREATE}{reason}: unknown")


def exec_error(failure: RuntimeFailure) -> EngineError:
    """The answer to the start of an exec."""
    text = f"{_EXEC}{failure.message.strip()}: unknown"
    return BadParameter(text) if failure.exit_code in (126, 127) else EngineError(text)
