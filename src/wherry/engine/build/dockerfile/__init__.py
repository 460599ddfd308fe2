"""The Dockerfile language (https://docs.docker.com/reference/dockerfile/), as plain functions.

The words to know:

- the text is cut into *nodes*, one an instruction, continuations joined, here-documents beside
  (``parser``);
- a node becomes a typed *instruction*, judged as far as that goes without knowing a variable
  (``instructions``);
- instructions belong to *stages*, which depend on one another (``stages``);
- *words* are expanded from variables when an instruction is carried out (``words``);
- *patterns* choose files, for ``COPY`` and in ``.dockerignore`` (``patterns``).

Errors are ``DockerfileError``, with the classic builder's texts.
"""

from wherry.engine.build.dockerfile.errors import DockerfileError

__all__ = ["DockerfileError"]
