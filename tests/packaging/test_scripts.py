"""The scripts make their environment once, by what the machine has; stand-ins for uv and Python keep a log."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scripts/demo", "scripts/test", "scripts/check", "scripts/soak", "scripts/env", ".ci/run")
TOOLS = ("cat", "cksum", "dirname", "mkdir", "mv", "rm", "sh", "chmod")

MAKE = """
make() {
    mkdir -p "$1/bin"
    printf '#!/bin/sh\\necho "venv python $*" >>"$LOG"\\n' >"$1/bin/python"
    printf '#!/bin/sh\\necho "jobd" "$@"\\n' >"$1/bin/jobd"
    chmod +x "$1/bin/python" "$1/bin/jobd"
}
"""

UV = """#!/bin/sh
echo "uv $*" >>"$LOG"
for last; do :; done
case "$1 ${UV_DOES:-}" in
venv*) make "$last" ;;
"pip dies") kill -KILL $PPID ;;
"pip fails") exit 1 ;;
esac
"""

# It answers questions about itself as the real one, and makes environments as it is told to.
PYTHON = f"""#!/bin/sh
case "$1 $2 ${{3:-}}" in
"-c "*) exec '{sys.executable}' "$@" ;;
"-m pip -V") [ "${{VENV_DOES:-}}" = without_pip ] ;;
*) echo "python $*" >>"$LOG" ;;
esac
for last; do :; done
case "$1 $2 ${{VENV_DOES:-}}" in
"-m venv "|"-m venv without_pip") [ "$3" = --without-pip ] || [ -z "${{VENV_DOES:-}}" ] && make "$last" ;;
"-m venv fails") exit 1 ;;
esac
"""


class Checkout:
    """A copy of the scripts, on a machine that has only what is put on its PATH."""

    def __init__(self, folder):
        self.root, self.bin, self.log = folder / "check out", folder / "bin", folder / "log"
        self.bin.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.log.touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def put(self, name, text):
        path = self.bin / name
        path.write_text(text.replace("\n", MAKE, 1))
        path.chmod(0o755)

    def run(self, *words, cwd=None, **env):
        return subprocess.run(
            [str(self.root / words[0]), *words[1:]],
            cwd=cwd or self.root,
            env={"PATH": str(self.bin), "LOG": str(self.log), "HOME": str(self.bin), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def lines(self, pattern):
        return [line for line in self.log.read_text().splitlines() if re.search(pattern, line)]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def with_uv(checkout):
    checkout.put("python3", PYTHON)
    checkout.put("uv", UV)
    return checkout


@pytest.fixture
def with_python(checkout):
    checkout.put("python3", PYTHON)
    return checkout


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_posix_sh(name):
    path = ROOT / name
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert name == "scripts/env" or (os.access(path, os.X_OK) and path.read_text().startswith("#!/bin/sh\n"))


def test_the_second_run_installs_nothing(with_uv):
    first, second = with_uv.run("scripts/demo", "one"), with_uv.run("scripts/demo", "two")
    assert (first.stdout, second.stdout, second.stderr) == ("jobd demo one\n", "jobd demo two\n", "")
    assert len(with_uv.lines("^uv venv")) == len(with_uv.lines("^uv pip install")) == 1


def test_arguments_and_the_caller_s_folder_do_not_matter(with_uv, tmp_path):
    assert with_uv.run("scripts/demo", "--dir", "a b", cwd=tmp_path).stdout == "jobd demo --dir a b\n"


def test_a_changed_pyproject_is_installed_anew(with_uv):
    with_uv.run("scripts/demo")
    (with_uv.root / "pyproject.toml").write_text("[project]\n")
    with_uv.run("scripts/demo")
    assert len(with_uv.lines("^uv pip install")) == 2


def test_an_interrupted_build_is_made_anew(with_uv):
    assert with_uv.run("scripts/demo", UV_DOES="dies").returncode == -signal.SIGKILL
    assert not (with_uv.root / ".jobd/venv/stamp").exists()
    assert with_uv.run("scripts/demo").stdout == "jobd demo\n"
    assert len(with_uv.lines("^uv venv")) == 2


def test_the_demo_needs_no_test_dependencies_and_the_tests_do(with_uv):
    with_uv.run("scripts/demo")
    with_uv.run("scripts/test", "-x")
    assert [line.split(" -e ")[1] for line in with_uv.lines("^uv pip")] == [".", ".[test]"]
    assert with_uv.lines("^venv python -m pytest .*-x$")


def test_the_peers_of_the_bench_have_an_environment_of_their_own(with_uv):
    with_uv.run("scripts/bench", "--peers", "--quick")
    assert [line.split(" -e ")[1] for line in with_uv.lines("^uv pip")] == [".[peers]"]
    assert with_uv.lines("^venv python scripts/bench.d/compare.py --quick$")


def test_where_uv_cannot_venv_does(with_uv):
    answer = with_uv.run("scripts/demo", UV_DOES="fails")
    assert "uv could not" in answer.stderr
    assert answer.stdout == "jobd demo\n"
    assert len(with_uv.lines("^venv python -m pip install -q -e .$")) == 1


def test_without_uv_venv_does(with_python):
    assert with_python.run("scripts/demo").stdout == "jobd demo\n"
    assert with_python.lines("^venv python -m pip install -q -e .$")


def test_without_ensurepip_the_system_s_pip_installs_into_the_environment(with_python):
    assert with_python.run("scripts/demo", VENV_DOES="without_pip").stdout == "jobd demo\n"
    target = re.escape(str(with_python.root / ".jobd/venv/bin/python"))
    assert with_python.lines(f"^python -m pip --python {target} install -q -e .$")


def test_without_any_of_them_the_last_line_says_what_to_install(with_python):
    answer = with_python.run("scripts/demo", VENV_DOES="fails")
    assert answer.returncode == 1
    assert "install uv" in answer.stderr.splitlines()[-1]


def test_without_python_one_line_says_so(checkout):
    answer = checkout.run("scripts/demo")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 1)
    assert "needs Python 3.11 or later" in answer.stderr
