"""Imports pytest, and lets it explain failed assertions of the contracts."""

from trak._utils.optional import import_optional_dependency

pytest = import_optional_dependency("pytest", "trak.testing needs pytest", "testing")
pytest.register_assert_rewrite("trak.testing.contracts")
