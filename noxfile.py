"""The checks of this repository: ``nox`` runs the default sessions, ``nox -l`` lists all of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nox
from nox import project


nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs"]

PYPROJECT = project.load_toml("pyproject.toml")
PYTHONS = project.python_versions(PYPROJECT)
EXTRAS = ("cli", "dask", "dlt", "export", "mcp", "report")
"""The extras that the tests need, apart from `speedups`."""
PARALLEL = ("-n", str((os.cpu_count() or 1) + 1), "--dist", "loadgroup")
"""One more process than cores, because many tests wait for a socket or a child process."""

IN_CI = bool(os.environ.get("CI"))
SKIPPED_IN_LOWEST = [
    "tests/batch/test_read_rows.py",
    "tests/core/test_imports.py",
    "tests/core/test_pagination.py",
    "tests/docs",
    "tests/emulator/test_persistence.py",
    "tests/emulator/test_pytest_plugin.py",
    "tests/integrations/test_page_ranges.py",
    "tests/report/test_report_page.py",
    *(f"tests/cli/test_cli_{name}.py" for name in ("calls", "export", "process", "start", "webhooks")),
]
"""Tests whose dependencies are also used by other tests: the session `lowest` does not need them."""

USES_MSGSPEC = [
    *(f"tests/core/test_{name}.py" for name in ("json", "parsing", "unparsed_runs")),
    "tests/export/test_formats.py",
    "tests/export/test_since_last.py",
]
"""Tests of the modules that use msgspec."""

if pyenv := shutil.which("pyenv"):  # its shims run only the versions that this variable names
    installed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=False).stdout  # noqa: S603 (no input)
    os.environ.setdefault("PYENV_VERSION", ":".join(reversed(installed.split())))


def _group(name: str) -> list[str]:
    return list(project.dependency_groups(PYPROJECT, name))


def _pip(session: nox.Session, *arguments: str) -> object:
    """Run a pip command with the tool that made the environment; return its output."""
    if session.venv_backend == "uv":
        return session.run("uv", "pip", *arguments, silent=True)
    yes = ("--yes",) if arguments[0] == "uninstall" else ()
    return session.run("python", "-m", "pip", *arguments, *yes, silent=True)


def _lower_bounds(*extras: str) -> list[str]:
    """Pin each direct dependency to the oldest version that pyproject.toml accepts."""
    metadata = PYPROJECT["project"]
    requirements = list(metadata["dependencies"])
    for extra in extras:
        requirements += metadata["optional-dependencies"][extra]
    return [requirement.replace(">=", "==") for requirement in requirements]


def _run_tests(session: nox.Session) -> None:
    """Run all tests except the slow ones, or pytest with the arguments after ``--``; in CI, check the coverage."""
    session.install("-e", f".[{','.join(EXTRAS)},speedups]", *_group("test"))
    selection = session.posargs or ("-m", "not slow", *PARALLEL)
    if session.posargs or not IN_CI:  # coverage makes the tests 50 % slower
        session.run("python", "-m", "pytest", *selection)
        return
    session.run("coverage", "erase")
    # Not pytest-cov: the package's pytest plugin is imported before pytest-cov would start to measure.
    session.run("coverage", "run", "-m", "pytest", *selection)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with the Python that runs nox."""
    _run_tests(session)


@nox.session(python=PYTHONS, default=False)
def pythons(session: nox.Session) -> None:
    """Run the tests with each supported Python that is installed."""
    _run_tests(session)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run the slow tests: killed processes, fault injection, memory."""
    session.install("-e", f".[{','.join(EXTRAS)},speedups]", *_group("test"))
    session.run("python", "-m", "pytest", "-m", "slow", "--timeout", "300", *PARALLEL, *session.posargs)


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest accepted dependencies, first without the extra `speedups`, and some with it."""
    session.install("-e", f".[{','.join(EXTRAS)}]", *_lower_bounds(*EXTRAS), *_group("test"))
    selection = ("-m", "not slow", *(f"--ignore={path}" for path in SKIPPED_IN_LOWEST), *PARALLEL)
    session.run("python", "-m", "pytest", *(session.posargs or selection), env={"HYPOTHESIS_PROFILE": "quick"})
    session.install(*_lower_bounds("speedups"))
    # Quiet, because .ci/run counts the summary lines of pytest.
    session.run("python", "-m", "pytest", "-q", *USES_MSGSPEC, *PARALLEL, env={"HYPOTHESIS_PROFILE": "quick"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, import rules, spelling and words to avoid."""
    session.install("-e", ".", *_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    session.run("codespell")
    session.run("python", "-m", "tests.support.language")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, and of the API as callers use it."""
    session.install("-e", f".[{','.join(EXTRAS)},speedups]", *_group("types"))
    session.run("mypy", "aiocopyai", "tests/typing")
    session.run("pyright", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning or a broken reference is an error."""
    session.install("-e", ".[cli,dask,dlt,export,mcp]", *_group("docs"))
    session.run("sphinx-build", "-W", "-E", "--keep-going", "-q", "docs", "docs/_build")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Compare the client with plain aiohttp and other clients; ``-- comparison``: losses; ``-- dask``: Dask workers."""
    scripts = {"comparison": ("comparison.py", "dlt"), "dask": ("dask_workers.py", "dask")}
    name = session.posargs[0] if session.posargs else ""
    # No other extras: their dependencies would change what is measured. If numpy is installed, pyarrow imports it.
    script, extras = scripts.get(name, ("run.py", "cli,export"))
    session.install("-e", f".[{extras},speedups]", *_group("bench"))
    session.run("python", f"tests/benchmarks/{script}", *session.posargs[name in scripts :])


@nox.session(default=False)
def storm(session: nox.Session) -> None:
    """Inject faults for about ten minutes; print the table of docs/fault-injection-results.md."""
    session.install("-e", ".[speedups]", *_group("test"))
    session.run("python", "-m", "tests.support.storm", *session.posargs)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Check the dependencies for known vulnerabilities, with PyPI's JSON API, which a mirror may not have."""
    session.install(f".[{','.join(EXTRAS)},speedups]")
    folder = Path(session.create_tmp())
    requirements, report = folder / "requirements.txt", folder / "report.json"
    frozen = str(_pip(session, "freeze")).splitlines()
    requirements.write_text("\n".join(line for line in frozen if "aiocopyai" not in line), "utf-8")
    report.unlink(missing_ok=True)
    session.install("pip-audit")
    options = ("--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json")
    session.run(
        *("pip-audit", *options, "--requirement", str(requirements), "--output", str(report)),
        success_codes=[0, 1],
        silent=True,
    )
    if not report.exists():
        session.error("NOT AUDITED: pip-audit could not reach PyPI's JSON API")
    packages = json.loads(report.read_text("utf-8"))["dependencies"]
    # pip-audit skips a package that the API does not know, and succeeds.
    if skipped := [package["name"] for package in packages if "skip_reason" in package]:
        session.error(f"NOT AUDITED: PyPI's JSON API, as seen from here, does not know {', '.join(skipped)}")
    if found := [f"{package['name']} {vuln['id']}" for package in packages for vuln in package["vulns"]]:
        session.error(f"known vulnerabilities: {', '.join(found)}")
    session.log(f"{len(packages)} packages, no known vulnerabilities")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the distributions, in the folder given after ``--``; check their metadata, and try the wheel (`smoke`)."""
    out = Path(session.posargs[0] if session.posargs else session.create_tmp()).resolve()
    for old in (*out.glob("*.tar.gz"), *out.glob("*.whl")):
        old.unlink()
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(out))
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    session.notify("smoke", [str(wheel)])


@nox.session(default=False)
def smoke(session: nox.Session) -> None:
    """Install only a wheel in an empty environment, and use it."""
    script = Path("tests", "support", "smoke.py").resolve()
    session.chdir(session.create_tmp())  # outside the source tree, so that the wheel is imported
    session.install(*session.posargs)
    session.run("python", str(script))
    session.run("aiocopyai", success_codes=[2], silent=True)  # names the extra that it needs
    session.install(f"{session.posargs[0]}[cli]")
    session.run("aiocopyai", "runs", "--demo", "--limit", "3")
