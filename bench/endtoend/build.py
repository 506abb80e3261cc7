"""What a build folder was made with, and a second one of another revision made alike (--compare)."""

import ast
import configparser
import json
import pathlib
import re
import shutil
import subprocess
import tempfile

from .processes import Failure

# The rest of the options keep their defaults; tests and benchmarks are left out.
COPIED = ("buildtype", "b_lto", "b_lto_mode", "mimalloc", "pkg_config_path")


def options_of(build):
    """{name: value} of a configured folder."""
    done = subprocess.run(["meson", "introspect", "--buildoptions", build], capture_output=True, text=True, check=True)
    return {option["name"]: option["value"] for option in json.loads(done.stdout)}


def source_of(build, otherwise):
    """The tree that a folder builds."""
    try:
        return json.loads((build / "meson-info" / "meson-info.json").read_text())["directories"]["source"]
    except (OSError, KeyError, ValueError):
        return otherwise


def native_files_of(build, root, tree):
    """The machine files that a folder was configured with; those of the repository are taken from `tree`."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(build / "meson-private" / "cmd_line.txt")
    named = ast.literal_eval(parser.get("properties", "native_file", fallback="[]"))
    found = [pathlib.Path(name) if pathlib.Path(name).is_absolute() else root / name for name in named]
    return [tree / path.relative_to(root) if path.is_relative_to(root) else path for path in found]


def flags_of(build):
    """One line of what matters for speed."""
    try:
        options = options_of(build)
    except (subprocess.CalledProcessError, ValueError):
        return "unknown"
    log = (build / "meson-logs" / "meson-log.txt").read_text(errors="replace")
    compiler = re.search(r"^C\+\+ compiler for the host machine: .*\((\w+ [\d.]+)", log, re.M)
    name = compiler[1] if compiler else "unknown compiler"
    lto = f"{options.get('b_lto_mode', '')} LTO" if options.get("b_lto") else "no LTO"
    return f"{name}, {options['buildtype']}, {lto}"


class Revision:
    """`postrider` of another revision, in a worktree of its own that goes with this object."""

    def __init__(self, root, build, name):
        self.root, self.name = root, name
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-revision-"))
        self.tree = self.folder / "tree"
        try:
            self.run("git", "-C", root, "worktree", "add", "--detach", self.tree, name)
            self.commit = self.run("git", "-C", self.tree, "rev-parse", "--short=12", "HEAD").strip()
            options = options_of(build)
            values = {key: options[key] for key in COPIED if key in options}
            values["pkg_config_path"] = ",".join(values.get("pkg_config_path", [])) or \
                str(root / "build/deps/wolfssl/lib/pkgconfig")
            words = [f"-D{key}={str(value).lower() if isinstance(value, bool) else value}"
                     for key, value in values.items()]
            natives = [word for path in native_files_of(build, root, self.tree) for word in ("--native-file", path)]
            self.run("meson", "setup", self.tree / "build", self.tree, *natives, "-Dtests=false",
                     "-Dbenchmarks=false", *words)
            self.run("ninja", "-C", self.tree / "build", "postrider")
        except BaseException:
            self.remove()
            raise
        self.program = self.tree / "build" / "postrider"

    @staticmethod
    def run(*command):
        done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise Failure(f"{' '.join(str(c) for c in command[:4])} ...: {(done.stderr or done.stdout)[-800:]}")
        return done.stdout

    def remove(self):
        subprocess.run(["git", "-C", self.root, "worktree", "remove", "--force", self.tree], capture_output=True,
                       check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run(["git", "-C", self.root, "worktree", "prune"], capture_output=True, check=False)
