"""The savers of the published package (traker 0.3.2): accepted as `saver`, without effect."""


class AbstractSaver:
    """Everything is kept in a `trak.store.FeatureStore`."""


class MmapSaver(AbstractSaver):
    """The same."""
