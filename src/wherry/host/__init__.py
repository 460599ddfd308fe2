"""What every daemon needs from the operating system: files, processes, readiness, raw streams.

The lowest room: it imports nothing of Wherry, and every other room may import it.
"""
