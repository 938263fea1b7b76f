"""Tasks by name."""

import pytest

from trak.tasks import (
    TASKS,
    ImageClassification,
    LanguageModeling,
    Regression,
    Task,
    make_task,
    register_task,
)
from trak.tasks.base import stored_name
from trak.tasks.registry import describe_output


def test_unknown_task_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'image_clasification': did you mean 'image_classification'\?"):
        make_task("image_clasification")
    with pytest.raises(ValueError, match="'zzz': use one of classification, clip, image_classification"):
        make_task("zzz")


def test_what_is_no_task_is_refused_with_its_type():
    with pytest.raises(TypeError, match="got int"):
        make_task(3)
    with pytest.raises(TypeError, match="got type"):
        make_task(dict)


def test_tasks_are_made_from_names_classes_and_instances():
    assert type(make_task("regression")) is Regression
    assert type(make_task(Regression)) is Regression
    task = Regression()
    assert make_task(task) is task


def test_taken_task_name_is_refused_and_keeps_its_owner():
    class Other(Regression):
        pass

    # The name alone does not make it the same class.
    namesake = type("Regression", (Regression,), {"__qualname__": "Regression", "__module__": "elsewhere"})
    for cls in (Other, namesake):
        with pytest.raises(ValueError, match=r"'regression' is taken by trak\.tasks\.regression\.Regression"):
            register_task("regression")(cls)
        assert TASKS["regression"] is Regression
        assert Regression.name == "regression"


def test_a_class_defined_again_replaces_the_first():
    def define():
        @register_task("defined_twice")
        class Twice(Regression):
            pass

        return Twice

    try:
        define()
        second = define()
        assert TASKS["defined_twice"] is second
    finally:
        del TASKS["defined_twice"]


def test_only_tasks_can_be_registered_and_only_under_a_name():
    with pytest.raises(TypeError, match="needs a name"):
        register_task(ImageClassification)
    with pytest.raises(TypeError, match=r"only a subclass of trak\.tasks\.Task"):
        register_task("no_task")(object)


class TestOutputInWords:
    def test_every_task_of_the_library_says_what_its_output_is(self):
        for name, task in TASKS.items():
            said = describe_output(stored_name(task), {"output_kind": "margin", "reduction": "mean"})
            assert said, name
            assert said != (task.__doc__ or "").splitlines()[0]

    @pytest.mark.parametrize("output", ["margin", "mean_margin", "cross_entropy"])
    def test_settings_decide_it_where_they_decide_the_output(self, output):
        mean, total = (LanguageModeling(output, reduction).describe() for reduction in ("mean", "sum"))
        assert describe_output(**total) == f"{describe_output(**mean)}, times their number"
        assert ("probability" if output == "cross_entropy" else "log-odds") in describe_output(**mean)

    def test_of_a_task_of_ones_own_it_is_the_first_line_of_a_docstring(self):
        class OnClass(Task):
            """Height of the wave.

            More of it."""

            def output(self, model, batch): ...

        class OnOutput(OnClass):
            """Not this."""

            def output(self, model, batch):
                """
                Length of the wave.
                """

        class Neither(Task):
            def output(self, model, batch): ...

        class Named(Task):
            output_description = "width of the wave"

            def output(self, model, batch):
                """Not this."""

        said = [describe_output(stored_name(t), {}) for t in (OnClass, OnOutput, Neither, Named)]
        assert said == ["Height of the wave.", "Length of the wave.", None, "width of the wave"]

    def test_what_is_said_of_an_output_is_not_said_of_another_that_overrides_it(self):
        class SameMargin(ImageClassification):
            """Reads other batches."""

            def logits_and_labels(self, model, batch): ...

        class OtherOutput(ImageClassification):
            def output(self, model, batch): ...

        assert describe_output(stored_name(SameMargin), {}) == ImageClassification.output_description
        assert describe_output(stored_name(OtherOutput), {}) is None

    def test_unknown_names_and_damaged_settings_say_nothing_or_the_same(self):
        assert describe_output("nobody's task", {}) is None
        assert describe_output("image_classification", [3]) == ImageClassification.output_description
        assert describe_output("language_modeling", {"output_kind": ["margin"]}) is None
