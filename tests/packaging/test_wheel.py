"""What is built is what is needed, and it runs from there."""

import contextlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling import build as backend

from jobd import Jobd

ROOT = Path(__file__).parents[2]


def build(source, folder, *targets):
    """Build as pip does, by the backend's own functions, in the folder of the source."""
    with contextlib.chdir(source):
        for target in targets:
            target(str(folder))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder, backend.build_sdist, backend.build_wheel)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_the_schema_that_lies_at_the_root(wheel):
    assert wheel.read("jobd/schema.sql") == (ROOT / "schema.sql").read_bytes()


def test_the_wheel_holds_every_module_the_marker_of_types_and_nothing_else(wheel):
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "jobd").rglob("*") if path.suffix in {".py", ".typed"}}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name for name in packed if name.endswith((".py", ".typed"))} == sources
    assert all(name.startswith("jobd/") for name in packed)


def test_the_wheel_brings_the_command_the_plugin_and_the_licence(wheel):
    meta = {Path(name).name: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert "jobd = jobd.cli:main" in meta["entry_points.txt"]
    assert "[pytest11]\njobd.testing = jobd.testing" in meta["entry_points.txt"]
    assert meta["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "Requires-Python: >=3.11" in meta["METADATA"]


def test_a_wheel_built_from_the_sdist_is_the_same(built, wheel, tmp_path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        # The first releases of 3.11 have no filters yet; later ones warn where none is given.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    build(next(tmp_path.iterdir()), tmp_path / "again", backend.build_wheel)
    with zipfile.ZipFile(next((tmp_path / "again").glob("*.whl"))) as again:
        assert sorted(again.namelist()) == sorted(wheel.namelist())
        assert {name: again.getinfo(name).CRC for name in again.namelist()} == {
            name: wheel.getinfo(name).CRC for name in wheel.namelist()
        }


def test_an_installed_jobd_finds_its_schema_and_runs_away_from_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    away = tmp_path / "away"
    away.mkdir()
    (away / "a.txt").write_text("one\ntwo\n")
    ran = subprocess.run(
        [sys.executable, "-m", "jobd", "--db", "jobs.db", "run", "jobd.demo:checksum", "a.txt"],
        cwd=away, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    with contextlib.closing(Jobd(away / "jobs.db")) as app:
        assert [result.value["lines"] for result in app.job(1).results()] == [2]
