"""The package as pip installs it, and how it finds the library."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import callbridge
from support import TestCase

SOURCE = os.environ["CALLBRIDGE_TEST_SOURCE"]
LIBRARY = os.path.join(os.environ["LD_LIBRARY_PATH"].split(":")[0], "libcallbridge.so.0")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
SAYS = "import callbridge; print(callbridge.callback(lambda arg: 6)(), callbridge.FAST, callbridge.LIBRARY)"


class InstallCase(TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def pip(self, *arguments, env=()):
        result = subprocess.run(
            PIP + list(arguments), capture_output=True, text=True, timeout=100, env={**os.environ, **dict(env)}
        )
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def says(self, env, program=sys.executable, cwd="/"):
        """What the installed package says in an environment that has nothing but `env`."""
        base = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        result = subprocess.run(
            [program, "-c", SAYS], capture_output=True, text=True, timeout=60, env={**base, **env}, cwd=cwd
        )
        return result.returncode, result.stdout.strip(), result.stderr


class Install(InstallCase):
    def test_pip_installs_it_without_network_and_setuptools(self):
        site = os.path.join(self.folder, "site")
        self.pip("install", "--no-index", "--no-deps", "--target", site, SOURCE)
        extensions = glob.glob(site + "/callbridge/_fast*.so")
        code, said, errors = self.says({"PYTHONPATH": site, "CALLBRIDGE_LIBRARY": LIBRARY})
        self.assertEqual((code, said), (0, "6 %s %s" % (bool(extensions), LIBRARY)), errors)

    def test_it_does_without_compiler(self):
        site = os.path.join(self.folder, "site")
        self.pip("install", "--no-index", "--no-deps", "--target", site, SOURCE, env={"CC": "/no/such/compiler"})
        self.assertEqual(glob.glob(site + "/callbridge/_fast*.so"), [])
        code, said, errors = self.says({"PYTHONPATH": site, "CALLBRIDGE_LIBRARY": LIBRARY})
        self.assertEqual((code, said), (0, "6 False " + LIBRARY), errors)

    def test_a_source_archive_builds_the_same(self):
        sys.path.insert(0, SOURCE + "/build_backend")
        self.addCleanup(sys.path.remove, SOURCE + "/build_backend")
        import callbridge_build

        archive = callbridge_build.build_sdist(self.folder)
        site = os.path.join(self.folder, "site")
        self.pip("install", "--no-index", "--no-deps", "--target", site, os.path.join(self.folder, archive))
        self.assertEqual(self.says({"PYTHONPATH": site, "CALLBRIDGE_LIBRARY": LIBRARY})[0], 0)

    def test_a_virtual_environment_installs_and_uninstalls_it(self):
        made = subprocess.run([sys.executable, "-m", "venv", self.folder + "/venv"], capture_output=True, text=True)
        if made.returncode != 0:
            self.skipTest("no venv here: %s" % made.stdout)
        python = self.folder + "/venv/bin/python"

        def run(*arguments):
            return subprocess.run([python, "-I", *arguments], capture_output=True, text=True, timeout=100)

        for arguments in (("install", "--no-index", SOURCE), ("check",)):
            result = run("-m", "pip", "--disable-pip-version-check", *arguments)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(self.says({"CALLBRIDGE_LIBRARY": LIBRARY}, program=python)[0], 0)
        self.assertEqual(run("-m", "pip", "uninstall", "-y", "callbridge").returncode, 0)
        self.assertEqual(self.says({"CALLBRIDGE_LIBRARY": LIBRARY}, program=python)[0], 1)


class Finding(InstallCase):
    site = os.path.dirname(os.path.dirname(callbridge.__file__))

    def test_the_loader_finds_it(self):
        code, said, errors = self.says({"PYTHONPATH": self.site, "LD_LIBRARY_PATH": os.path.dirname(LIBRARY)})
        self.assertEqual((code, said.split()[-1]), (0, "libcallbridge.so.0"), errors)

    @unittest.skipUnless(shutil.which("pkg-config"), "pkg-config is not installed")
    def test_pkg_config_finds_it(self):
        code, said, errors = self.says(
            {"PYTHONPATH": self.site, "PKG_CONFIG_PATH": os.path.dirname(LIBRARY) + "/pkgconfig"}
        )
        self.assertEqual(code, 0, errors)
        self.assertTrue(os.path.samefile(said.split()[-1], LIBRARY))

    def test_a_library_that_is_chosen_and_not_there_is_an_import_error(self):
        # Though there is another one: who has chosen wants no other.
        code, _, errors = self.says(
            {
                "PYTHONPATH": self.site,
                "CALLBRIDGE_LIBRARY": "/no/such/library.so",
                "LD_LIBRARY_PATH": os.path.dirname(LIBRARY),
            }
        )
        self.assertEqual(code, 1)
        self.assertIn("ImportError: libcallbridge is not found", errors)

    def test_another_library_is_an_import_error(self):
        with open("/proc/self/maps") as maps:
            libc = [line.split()[-1] for line in maps if "libc.so.6" in line][0]
        code, _, errors = self.says({"PYTHONPATH": self.site, "CALLBRIDGE_LIBRARY": libc})
        self.assertEqual(code, 1)
        self.assertIn("ImportError", errors)
