"""Every check of this repository: ``nox`` runs the default ones, ``nox -l`` names them all."""

from __future__ import annotations

from pathlib import Path

import nox
from nox import project


nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs", "lowest", "build"]

PYPROJECT = project.load_toml("pyproject.toml")
PYTHONS = project.python_versions(PYPROJECT)
EXTRAS = ("cli", "export", "report")
"""What the tests need beside `speedups`."""


def _group(name: str) -> list[str]:
    return list(project.dependency_groups(PYPROJECT, name))


def _lower_bounds(*extras: str) -> list[str]:
    """Pin each direct dependency to the oldest version that pyproject.toml admits."""
    metadata = PYPROJECT["project"]
    wanted = list(metadata["dependencies"])
    for extra in extras:
        wanted += metadata["optional-dependencies"][extra]
    return [requirement.replace(">=", "==") for requirement in wanted]


def _suite(session: nox.Session) -> None:
    """Run the tests and hold the branch coverage that pyproject.toml asks for.

    `coverage run` starts before pytest: the package's plugin is imported while pytest starts up.
    """
    session.install("-e", f".[{','.join(EXTRAS)},speedups]", *_group("test"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    if not session.posargs:  # a chosen part of the tests can't cover the whole
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")


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
    """Run the tests with the oldest dependencies admitted, and without orjson."""
    session.install("-e", f".[{','.join(EXTRAS)}]", *_lower_bounds(*EXTRAS), *_group("test"))
    session.run("python", "-m", "pytest", *session.posargs)


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
    session.install("-e", ".[cli,export]", *_group("docs"))
    session.run("sphinx-build", "-W", "-E", "--keep-going", "-q", "docs", "docs/_build")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the client against the floor and against others; prints one table."""
    session.install("-e", ".[speedups]", *_group("bench"))
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


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
    script = Path("tests", "smoke.py").resolve()
    session.chdir(session.create_tmp())  # away from the source tree, so that the wheel's package is imported
    session.install(*session.posargs)
    session.run("python", str(script))
    session.run("aiocopyai", success_codes=[2], silent=True)  # asks for the extra that it needs
    session.install(f"{session.posargs[0]}[cli]")
    session.run("aiocopyai", "runs", "--demo", "--limit", "3")
