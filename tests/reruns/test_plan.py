"""What a chapter would compute is planned on empty images in place of the real ones."""

from lottolab.reruns.rehearsal import plan


def test_a_data_set_that_the_plan_does_not_know_is_read():
    planner = plan.Planner()
    assert planner.dataset("digits", {}) is None
    assert planner.dataset("a new one", {}) is None
    assert planner.dataset("cifar10", {}).images.shape == (60_000, 3, 32, 32)
    assert planner.dataset("glyphs", {"classes": 7}).classes == 7
