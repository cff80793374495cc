"""Every check of this repository: ``nox`` runs the default ones, ``nox -l`` names them all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nox
from nox import project


nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs", "lowest", "build"]

PYPROJECT = project.load_toml("pyproject.toml")
PYTHONS = project.python_versions(PYPROJECT)
EXTRAS = ("cli", "dask", "dlt", "export", "report")
"""What the tests need beside `speedups`."""
SIDE_BY_SIDE = ("-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal")
"""How all tests are run: in a process for each core and one more, as many wait for something."""

SAME_WITH_ALL = [f"tests/test_cli_{command}.py" for command in ("calls", "export", "start", "webhooks")]
"""What depends on no version of a dependency that other tests don't try as well."""


def _group(name: str) -> list[str]:
    return list(project.dependency_groups(PYPROJECT, name))


def _pip(session: nox.Session, *arguments: str) -> object:
    """Do what pip does, whichever tool made the environment; return what it put out."""
    if session.venv_backend == "uv":
        return session.run("uv", "pip", *arguments, silent=True)
    yes = ("--yes",) if arguments[0] == "uninstall" else ()
    return session.run("python", "-m", "pip", *arguments, *yes, silent=True)


def _lower_bounds(*extras: str) -> list[str]:
    """Pin each direct dependency to the oldest version that pyproject.toml admits."""
    metadata = PYPROJECT["project"]
    wanted = list(metadata["dependencies"])
    for extra in extras:
        wanted += metadata["optional-dependencies"][extra]
    return [requirement.replace(">=", "==") for requirement in wanted]


def _suite(session: nox.Session) -> None:
    """Run the tests and hold the branch coverage that pyproject.toml asks for, which those reach that aren't marked.

    `coverage run` starts before pytest: the package's plugin is imported while pytest starts up.
    """
    session.install("-e", f".[{','.join(EXTRAS)},speedups]", *_group("test"))
    if session.posargs:  # a chosen part of the tests can't cover the whole
        session.run("python", "-m", "pytest", *session.posargs)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-m", "not (slow or hypothesis or cli)", *SIDE_BY_SIDE)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    session.run("python", "-m", "pytest", "-m", "slow or hypothesis or cli", *SIDE_BY_SIDE)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with the Python that runs nox."""
    _suite(session)


@nox.session(python=PYTHONS, default=False)
def pythons(session: nox.Session) -> None:
    """Run the tests with each supported Python that is installed."""
    _suite(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run all but the slow tests with the oldest dependencies admitted, and without orjson."""
    session.install("-e", f".[{','.join(EXTRAS)}]", *_lower_bounds(*EXTRAS), *_group("test"))
    _pip(session, "uninstall", "orjson")  # which dlt brings, and does without
    quick = ("-m", "not slow", *(f"--ignore={path}" for path in SAME_WITH_ALL), *SIDE_BY_SIDE)
    session.run("python", "-m", "pytest", *(session.posargs or quick), env={"HYPOTHESIS_PROFILE": "quick"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, and of the API as a caller sees it."""
    session.install("-e", f".[{','.join(EXTRAS)},speedups]", *_group("types"))
    session.run("mypy", "aiocopyai", "tests/typing")
    session.run("pyright", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning or a broken reference is an error. It begins at docs/_build/index.html."""
    session.install("-e", ".[cli,dask,dlt,export]", *_group("docs"))
    session.run("sphinx-build", "-W", "-E", "--keep-going", "-q", "docs", "docs/_build")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the client against the floor and against others, or, with ``-- dask``, a data frame against workers."""
    if session.posargs[:1] == ["dask"]:
        session.install("-e", ".[dask,speedups]")
        session.run("python", "tests/benchmarks/dask_workers.py", *session.posargs[1:])
        return
    if session.posargs[:1] == ["comparison"]:
        session.install("-e", ".[dlt,speedups]", *_group("bench"))
        session.run("python", "tests/benchmarks/comparison.py")
        return
    session.install("-e", ".[cli,export,speedups]", *_group("bench"))
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session(default=False)
def storm(session: nox.Session) -> None:
    """Go through storms of faults for some minutes; prints the table of docs/faults.md."""
    session.install("-e", ".[speedups]", *_group("test"))
    session.run("python", "-m", "tests.support.storm", *session.posargs)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Ask PyPI for known vulnerabilities of the dependencies; needs its JSON API, which a mirror may not have."""
    session.install(f".[{','.join(EXTRAS)},speedups]")
    folder = Path(session.create_tmp())
    wanted, report = folder / "requirements.txt", folder / "report.json"
    frozen = str(_pip(session, "freeze")).splitlines()
    wanted.write_text("\n".join(line for line in frozen if "aiocopyai" not in line), "utf-8")
    report.unlink(missing_ok=True)
    session.install("pip-audit")
    options = ("--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json")
    session.run(
        *("pip-audit", *options, "--requirement", str(wanted), "--output", str(report)),
        success_codes=[0, 1],
        silent=True,
    )
    if not report.exists():
        session.error("NOT AUDITED: pip-audit could not reach PyPI's JSON API")
    packages = json.loads(report.read_text("utf-8"))["dependencies"]
    # pip-audit takes a package that it could not ask about for a good one.
    if unasked := [package["name"] for package in packages if "skip_reason" in package]:
        session.error(f"NOT AUDITED: PyPI's JSON API, as seen from here, does not know {', '.join(unasked)}")
    if bad := [f"{package['name']} {vuln['id']}" for package in packages for vuln in package["vulns"]]:
        session.error(f"known vulnerabilities: {', '.join(bad)}")
    session.log(f"{len(packages)} packages, no known vulnerabilities")


@nox.session
def build(session: nox.Session) -> None:
    """Build what is uploaded, into a folder if one is named; check its metadata, and try it by `smoke`."""
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
    """Try a wheel in an environment that is empty but for it."""
    script = Path("tests", "support", "smoke.py").resolve()
    session.chdir(session.create_tmp())  # away from the source tree, so that the wheel's package is imported
    session.install(*session.posargs)
    session.run("python", str(script))
    session.run("aiocopyai", success_codes=[2], silent=True)  # asks for the extra that it needs
    session.install(f"{session.posargs[0]}[cli]")
    session.run("aiocopyai", "runs", "--demo", "--limit", "3")
