"""Made videos and surroundings of extractions, where a module asks for them."""

from pathlib import Path

import pytest

from tests.made_extraction import make_videos, surround


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch)


@pytest.fixture(scope="module")
def root(make_clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_videos(folder, make_clip)
    return folder
