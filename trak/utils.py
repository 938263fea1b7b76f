"""Published helper names (traker 0.3.2)."""


def test_install(use_fast_jl: bool = False) -> None:
    """Run the self-check of `python -m trak`; no CUDA extension is needed, so `use_fast_jl` decides nothing."""
    from trak.selfcheck import selfcheck

    print(selfcheck())


test_install.__test__ = False  # type: ignore[attr-defined]
