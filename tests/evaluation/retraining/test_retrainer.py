"""Progress of retraining."""


def test_progress_counts_the_models_that_are_there(call, capsys):
    call(subsets=2)
    capsys.readouterr()
    call(progress=True)
    printed = capsys.readouterr().err
    assert "4/10" in printed
    assert "10/10" in printed
    assert "model/s" in printed
