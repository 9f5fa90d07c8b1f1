"""What a cache says of how it was made."""

import shlex

from attnact.cache.provenance import RANDOM_WEIGHTS, command, marked, now, titled, versions


def test_the_command_can_be_typed_again(monkeypatch):
    typed = ["features", "folder", "--videos", "my clips/$x", "--folds", "3"]
    monkeypatch.setattr("sys.argv", ["/somewhere/attnact", *typed])
    assert shlex.split(command()) == ["attnact", *typed]
    monkeypatch.setattr("sys.argv", ["attnact", "features", "hmdb51"])
    assert command() == "attnact features hmdb51"


def test_the_time_is_set_where_builds_must_come_out_the_same(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert now() == "1970-01-02T00:00:00+00:00"


def test_versions_and_marks():
    assert set(versions("torch", "numpy")) == {"attnact", "torch", "numpy"}
    assert marked(["video", "score"], True) == [f"video ({RANDOM_WEIGHTS})", "score"]
    assert marked(["video", "score"], False) == ["video", "score"]
    assert titled("a sweep", True) == f"a sweep\n{RANDOM_WEIGHTS}"
    assert titled("", True) == RANDOM_WEIGHTS
    assert titled("a sweep", False) == "a sweep"
