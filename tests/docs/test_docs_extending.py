"""The page on extending: its files and changes are made in a copy of the source, and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import blocks, page

ROOT = Path(__file__).resolve().parents[2]

# After the page's own lines, which make `network` and the file of its weights.
HOLD_AGAINST_IT = """
from attnact.extract.networks.backbone import load_backbone

frames = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
cubes = load_backbone("densenet121", "densenet121.pth")(frames)
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
data = ((frames / 255 - mean) / std).permute(0, 3, 1, 2)
with torch.inference_mode():
    due = torch.relu(network.eval().features(data)).permute(0, 2, 3, 1)
assert cubes.shape == (2, 7, 7, 1024)
assert torch.allclose(cubes, due, atol=1e-4 * float(due.max()))
"""


def changes() -> list[tuple[str, str]]:
    """What each diff of the page takes away and what it puts there, piece by piece."""
    pieces = []
    for block in blocks("extending.md", "diff"):
        for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", block, re.MULTILINE):
            pieces.append((re.sub("(?m)^-", "", old), re.sub(r"(?m)^\+", "", new)))
    return pieces


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with the page's files and changes in it."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("attnact", "extract", "train"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=leave)
    names = re.findall(r"^`(extract/\S+\.py)`:$", page("extending.md"), re.MULTILINE)
    for name, code in zip(names, blocks("extending.md", "python"), strict=True):
        (root / name).write_text(code, encoding="utf-8")
    places = [
        "attnact/vocabulary.py",
        "extract/datasets/__init__.py",
        "extract/networks/backbone.py",
    ]
    for old, new in changes():
        (file,) = [file for file in places if old in (root / file).read_text(encoding="utf-8")]
        text = (root / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (root / file).write_text(text.replace(old, new), encoding="utf-8")
    return root


def run(copy: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_every_change_is_made_once():
    assert len(changes()) == 6


def test_the_data_set_is_listed_and_refuses_what_is_missing(copy):
    for action in ("boxing", "handclapping", "handwaving", "jogging", "running", "walking"):
        for person in ("01", "02"):
            path = copy / "kth" / action / f"person{person}_{action}_d1_uncomp.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    program = (
        "from pathlib import Path; from attnact.extract.datasets import load_dataset, base;"
        "data = load_dataset('kth', Path('kth')); sides = data.folds['1'];"
        "assert [int(side) for side in sides] == [1, 2] * 6;"
        "assert not base.straddling_groups(data.videos, sides);"
        "print(data.warnings)"
    )
    assert "12 of 599 videos" in run(copy, "-c", program)
    assert "kth: KTH\n  599 videos, 6 classes" in run(copy, "-m", "attnact", "datasets")
    (copy / "kth/walking/person01_walking_d1_uncomp.avi").unlink()
    (copy / "kth/walking/person02_walking_d1_uncomp.avi").unlink()
    program = "from attnact.cli import main; main(['features', 'kth', '--videos', 'kth'])"
    with pytest.raises(AssertionError, match=r"no videos in walking; unpack walking\.zip there"):
        run(copy, "-c", program)


def test_the_backbone_gives_the_networks_own_cubes(copy):
    assert "densenet121" in run(copy, "-m", "attnact", "features", "--help")
    (save,) = blocks("extending.md", "py")
    assert 'weights="IMAGENET1K_V1"' in save
    run(copy, "-c", save.replace('"IMAGENET1K_V1"', "None") + HOLD_AGAINST_IT)


def test_the_code_has_the_style_of_the_rest(copy):
    """Where ruff is, and it is in the environment of every developer."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("no ruff here")
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--quiet"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, *options, "extract"], cwd=copy, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
