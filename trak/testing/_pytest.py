"""Imports pytest, and lets it explain failed assertions of the contracts."""

from trak._utils.optional import import_optional_dependency

pytest = import_optional_dependency("pytest", "trak.testing needs pytest", "testing")
for _name in ("baselines", "gradients", "projectors", "store", "tasks"):
    pytest.register_assert_rewrite(f"trak.testing.{_name}")
