"""Errors that a person can cause or mend. Each message is one line: what is wrong, and how to mend it.

A front end prints the message and exits with `exit_code`; no traceback reaches a user.
"""

from __future__ import annotations


class BitMarError(Exception):
    """Base of every error that BitMar raises on purpose."""

    exit_code = 1


class UsageError(BitMarError):
    """The request itself is wrong: an unknown option value, an empty task."""

    exit_code = 2


class ConfigError(BitMarError):
    """A configuration file or value is refused."""


class FleetError(BitMarError):
    """A fleet file is refused."""


class ImageError(BitMarError):
    """An image cannot be used."""


class CheckpointError(BitMarError):
    """A checkpoint is damaged, of another version, or does not fit."""


class MemoryStoreError(BitMarError):
    """The memory store is damaged, of another version, or does not fit."""


class TryAgainError(BitMarError):
    """Something passing: a lock that is held, a network that does not answer."""

    exit_code = 3


class MissingError(BitMarError):
    """A file, model or data set is not there."""

    exit_code = 4


class ModelMissingError(MissingError):
    """No checkpoint where one was looked for."""
