"""What is wrong with a Dockerfile."""

from __future__ import annotations


class DockerfileError(Exception):
    """The file, or an instruction of it, is not as it should be; the message says what."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
