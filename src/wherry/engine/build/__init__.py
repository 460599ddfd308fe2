"""Building images: the Dockerfile language, and the builder that carries it out.

``dockerfile`` is the language, without I/O; ``builder`` walks through the stages of a file and
makes an image of each, with containers of this engine where a step runs something.
"""
