"""Runs as a report reads them: by what was chosen, each once."""

import shutil
from dataclasses import replace

import pytest

from attnact.errors import RunError
from attnact.page.read import (
    common,
    differing,
    find_runs,
    settings_of,
    uneven,
    without_repeats,
)
from tests.made_report import RUNS


@pytest.mark.parametrize("line", ['"x"', "[]", "[" * 9000, "{"])
def test_metrics_that_are_damaged(report_folder, tmp_path, line):
    shutil.copytree(report_folder / "runs/even", tmp_path / "runs/even")
    with (tmp_path / "runs/even/metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl: damaged"):
        find_runs([tmp_path / "runs/even"])


def test_runs_of_own_names_are_called_by_the_first_and_how_many(report_folder):
    runs, _ = find_runs([report_folder / "runs/mean"])
    several = [
        replace(
            runs[0], name=name, run=replace(runs[0].run, config=replace(runs[0].run.config, seed=n))
        )
        for n, name in enumerate(("a", "b", "c"))
    ]
    assert [setting.name for setting in settings_of(several)] == ["a and 2 more"]


def test_a_run_is_shown_once(report_folder):
    runs, _ = find_runs([report_folder / "runs/mean", report_folder / "runs"])
    assert [run.name for run in runs].count("mean") == 1
    assert sum(len(setting.runs) for setting in settings_of(runs)) == len(RUNS)


def test_what_a_model_does_not_read_makes_no_other_run(report_folder, tmp_path):
    runs, _ = find_runs([report_folder / "runs"])
    mean = next(run for run in runs if run.name == "mean")
    config = replace(mean.run.config, attention="context")
    other = replace(mean, name="other", run=replace(mean.run, config=config))
    assert without_repeats([mean, other]) == ([mean], ["Left out: other: the same choices as mean"])
    assert len(settings_of([mean, replace(other, history=[])])) == 1


def test_a_mean_over_uneven_runs_says_so(report_folder):
    """Two seeds of one fold and one of another."""
    (run,), _ = find_runs([report_folder / "runs/mean"])
    folds = [replace(run.run.config, fold=fold, seed=seed) for fold, seed in (("1", 0), ("2", 0))]
    runs = [replace(run, run=replace(run.run, config=config)) for config in folds]
    (even,) = settings_of(runs)
    assert uneven(even) == ""
    (setting,) = settings_of([*runs, replace(runs[0], name="more")])
    told = ": 2 of fold 1, 1 of fold 2; its figure is the mean over these runs"
    assert uneven(setting).endswith(told)


def test_features_that_an_older_run_does_not_know(report_folder):
    runs, _ = find_runs([report_folder / "runs"])
    older = [replace(run, features="") if run.name == "even" else run for run in runs]
    for some in (runs, older):
        assert "features" not in differing(settings_of(some))
        assert common(settings_of(some))["features"].startswith("googlenet, random")
    unknown = settings_of([replace(run, features="") for run in runs])
    assert "features" not in {**differing(unknown), **common(unknown)}


def test_many_repeats_are_told_in_few_lines(report_folder):
    runs, _ = find_runs([report_folder / "runs/mean"])
    kept, notes = without_repeats([replace(runs[0], name=f"{i}") for i in range(9)])
    assert [run.name for run in kept] == ["0"]
    assert notes == [
        *(f"Left out: {i}: the same choices as 0" for i in (1, 2, 3)),
        "Left out: 5 more that have the same choices as others",
    ]
