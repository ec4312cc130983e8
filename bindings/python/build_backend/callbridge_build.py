"""Builds the wheel: a PEP 517 backend of the standard library alone, so that pip needs no network and no setuptools.

The C extension is part of the wheel if a C compiler and Python.h are there, unless CALLBRIDGE_PURE=1 says otherwise;
without it the wheel is for any platform.
"""
import base64
import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "callbridge"
NAME = "callbridge"
VERSION = next(
    line.split('"')[1] for line in (PACKAGE / "__init__.py").read_text().splitlines() if line.startswith("__version__")
)
METADATA = """\
Metadata-Version: 2.1
Name: {name}
Version: {version}
Summary: Python functions as C callbacks that are never called after they are gone
License: MIT OR Apache-2.0
Requires-Python: >=3.11
Description-Content-Type: text/markdown

{readme}"""


def _extension(folder):
    """The compiled extension, or None, with the reason on stderr."""
    if os.environ.get("CALLBRIDGE_PURE", "0") not in ("", "0"):
        return None
    target = Path(folder) / ("_fast" + sysconfig.get_config_var("EXT_SUFFIX"))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = compiler + ["-O2", "-fPIC", "-shared", "-I" + sysconfig.get_paths()["include"]]
    command += shlex.split(os.environ.get("CFLAGS", ""))
    command += [str(PACKAGE / "_fast.c"), "-o", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print("callbridge: without the C extension:", getattr(error, "stderr", "") or error, file=sys.stderr)
        return None
    return target


def _metadata():
    return METADATA.format(name=NAME, version=VERSION, readme=(ROOT / "README.md").read_text())


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with tempfile.TemporaryDirectory() as folder:
        extension = _extension(folder)
        tag = "py3-none-any"
        if extension is not None:
            version = "cp%d%d" % sys.version_info[:2]
            tag = "%s-%s-%s" % (version, version, sysconfig.get_platform().replace("-", "_").replace(".", "_"))
        wheel = "%s-%s-%s.whl" % (NAME, VERSION, tag)
        record = []
        with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:

            def add(name, data):
                archive.writestr(name, data)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                record.append("%s,sha256=%s,%d" % (name, digest, len(data)))

            for path in sorted(PACKAGE.iterdir()):
                if path.suffix == ".py":
                    add("callbridge/" + path.name, path.read_bytes())
            if extension is not None:
                add("callbridge/" + extension.name, extension.read_bytes())
            info = "%s-%s.dist-info/" % (NAME, VERSION)
            add(info + "METADATA", _metadata().encode())
            purelib = "false" if extension is not None else "true"
            add(
                info + "WHEEL",
                ("Wheel-Version: 1.0\nGenerator: callbridge\nRoot-Is-Purelib: %s\nTag: %s\n" % (purelib, tag)).encode(),
            )
            record.append(info + "RECORD,,")
            archive.writestr(info + "RECORD", "\n".join(record) + "\n")
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    name = "%s-%s" % (NAME, VERSION)
    with tarfile.open(Path(sdist_directory) / (name + ".tar.gz"), "w:gz") as archive:
        for path in ("pyproject.toml", "README.md", "build_backend/callbridge_build.py", "src/callbridge"):
            archive.add(ROOT / path, name + "/" + path, filter=lambda entry: None if "__pycache__" in entry.name else entry)
        with tempfile.NamedTemporaryFile() as info:
            info.write(_metadata().encode())
            info.flush()
            archive.add(info.name, name + "/PKG-INFO")
    return name + ".tar.gz"
