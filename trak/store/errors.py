"""Errors that callers may want to tell apart; all are ValueErrors."""


class StoreError(ValueError):
    """The store is damaged, or was not written by this library."""


class ConfigMismatchError(ValueError):
    """The recorded configuration of a store does not match the one asked for."""


class CheckpointMismatchError(ValueError):
    """A model_id belongs to a checkpoint with other weights."""
