"""The pages together: all in the list, no broken link, no option that is not there."""

import re
from collections.abc import Iterator

import click
import pytest

from attnact.cli import main
from attnact.extract.plan import KIB_PER_FRAME
from attnact.train.feed.store import ROOM
from tests.pages import DOCS, page, rows

ROOT = DOCS.parent
PAGES = sorted(file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md"))
NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
# Of every command, and of other programs.
OTHERS = ("--head", "--help", "--strict", "--trials", "--nproc-per-node", "--nnodes")


def options(group: click.Group = main) -> Iterator[str]:
    """Every option of every command."""
    for command in group.commands.values():
        for parameter in command.params:
            yield from parameter.opts
        if isinstance(command, click.Group):
            yield from options(command)


def test_every_page_is_in_the_list_once():
    assert sorted(re.findall(r"\S+\.md", NAV)) == PAGES


@pytest.mark.parametrize("name", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", page(name)):
        if not target.startswith(("http://", "https://")):
            assert (DOCS / name).parent.joinpath(target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("name", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_options_are_those_of_the_commands(name):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page(name)))
    assert named <= {*options(), *OTHERS}


def test_every_module_of_the_python_page_is_there():
    modules = re.findall(r"^::: attnact\.?(\S*)", page("api.md"), re.MULTILINE)
    for module in modules:
        path = ROOT.joinpath("attnact", *module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


@pytest.mark.parametrize("name", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_files_of_the_source_that_pages_name_are_there(name):
    made = re.findall(r"^`(\S+)`:$", page(name), re.MULTILINE)  # by whoever follows the page
    named = re.findall(r"`((?:attnact|extract|train|tests)/[\w/]+\.py)`", page(name))
    assert [file for file in named if file not in made and not (ROOT / file).is_file()] == []


def test_the_readmes_tree_is_that_of_the_source():
    tree = re.findall(r"^( *)(\w+/)|^ +([\w/]+\.py)", page("../README.md"), re.MULTILINE)
    assert len(tree) > 20
    top = ""
    for indent, folder, file in tree:
        if folder and not indent:
            top = folder
        assert (ROOT / top / ("" if folder == top else folder or file)).exists(), folder or file


def test_sizes_are_those_that_the_dry_run_reckons_with():
    told = {row[0]: list(map(int, row[1:])) for row in rows("performance.md", "`--compression`")}
    for column, sizes in zip((0, 2), KIB_PER_FRAME.values(), strict=True):
        assert {name: row[column : column + 2] for name, row in told.items()} == {
            name: [round(kib), round(kib * 640_000 / 2**20)] for name, kib in sizes.items()
        }
    assert f"{ROOM:.0%}".replace("%", " %") in page("performance.md")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("extraction", "bvlc_googlenet, files to cache, start included"),
        ("cache", "read random clips, float16, zstd"),
        ("training", "training step, location, B 128, 3×512, bfloat16, 2 threads"),
        ("evaluation", "scoring at stride 1, location, 3×512, float32"),
    ],
)
def test_the_readmes_figures_are_those_that_the_bench_wrote(line, part):
    """Medians of here, of what is beside it, and of the bound, from the tables of a CPU."""
    number = r"[\d.,]*\d"
    (measured,) = re.findall(rf"^\| {part} \|(.*)", page("performance.md"), re.M)[:1]
    medians = [re.findall(number, cell)[0] for cell in measured.split("|")[:3]]
    (told,) = [row for row in rows("../README.md", "| here") if row[0].startswith(line)]
    assert set(medians) <= set(re.findall(number, " ".join(told[1:]))), medians


def test_the_readme_stays_short():
    assert len(page("../README.md").splitlines()) < 150
    assert len(page("../CONTRIBUTING.md").splitlines()) < 60


def test_no_machine_is_named():
    for name in [*PAGES, "../README.md", "../CHANGELOG.md", "../CONTRIBUTING.md"]:
        assert not re.search(r"(?<![\w`.~])/(?:home|root|tmp|work)/", page(name)), name
