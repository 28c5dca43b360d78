"""Fake devices, strictness and caches for every test: set before jax is imported, and inherited by child processes."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
if version("jaxlib").startswith("0.10."):  # jaxlib refuses flags that it does not know
    # Fusions through LLVM directly, not MLIR: that compiles in two thirds of the time.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"  # parts cost, and there is a core a worker
os.environ["MPLBACKEND"] = "agg"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # programs are small: compiling them takes most of the time
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # telling where each operation is from took a tenth of the time
# Compiled programs are kept between runs of the tests; the folder may be deleted at any time.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(REPOSITORY / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
if os.environ.get("OBJCENTRIC_DATA"):
    os.environ["OBJCENTRIC_DATA"] = os.path.abspath(os.environ["OBJCENTRIC_DATA"])

import jax  # noqa: E402
import pytest  # noqa: E402

gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, few of them garbage: looking for it took a tenth of it

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers inherit the folder from the process that starts them
        os.environ["OBJCENTRIC_CACHE"] = tempfile.mkdtemp(prefix="objcentric-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["OBJCENTRIC_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Each compiled program maps memory several times; at 65530 maps Linux lets a process crash."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 15_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that $OBJCENTRIC_DATA names; tests that need it are skipped without it."""
    folder = os.environ.get("OBJCENTRIC_DATA", "")
    if not folder:
        pytest.skip("real data: set OBJCENTRIC_DATA to the folder that holds it")
    if not Path(folder).is_dir():
        pytest.skip(f"real data: OBJCENTRIC_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def mnist_dir(data_dir: Path) -> Path:
    """The folder of MNIST's four idx-ubyte.gz files."""
    folder = data_dir / "mnist"
    files = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"real data: {folder} lacks {', '.join(missing)}")
    return folder
