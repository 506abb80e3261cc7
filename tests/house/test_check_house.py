"""tools/check-house finds what it is there for: each rule is broken once in a small house of its own."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "check-house"
MACHINE_PATH = "/" + "work/main"
RFC = "RFC"  # apart from its number, so that the tool does not find these citations here


class CheckHouse(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="postrider-house-")
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("docs/rfcs.txt", "# cited\n5321 Simple Mail Transfer Protocol\n")
        self.write("engine/core/word.h", "#pragma once\n")
        self.write("engine/io/ring.h", '#pragma once\n#include "engine/core/word.h"\n')
        (self.root / "tools").mkdir()
        shutil.copy(TOOL, self.root / "tools" / "check-house")
        subprocess.run(["git", "init", "-q", str(self.root)], check=True)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_tool(self, *arguments):
        subprocess.run(["git", "-C", str(self.root), "add", "-A"], check=True)
        command = [sys.executable, str(self.root / "tools" / "check-house"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    def finds(self, name, text, told):
        self.write(name, text)
        code, lines = self.run_tool()
        self.assertEqual((code, lines), (1, [told]))

    def test_a_good_house_passes(self):
        self.write("dns/a.cc", '// RFC 5321 5.1\n#include "engine/io/ring.h"\n')
        self.write("queue/message.h", "#pragma once\n")
        self.write("engine/smtp/session.cc", '#include "engine/io/ring.h"\n#include "queue/message.h"\n')
        self.write("engine/main.cc", '#include "dns/a.cc"\n')
        self.write("tests/unit/dns/helper.h", "#pragma once\n")
        self.write("tests/unit/dns/test_a.cc", '#include "helper.h"\n#include "dns/a.cc"\n')
        self.write("tests/t.py", 'ORIGINAL = "rfc822;a@b"\n')
        self.assertEqual(self.run_tool(), (0, []))

    def test_a_room_that_includes_what_it_may_not(self):
        self.finds(
            "engine/core/bad.h",
            '#include "engine/io/ring.h"\n',
            'engine/core/bad.h:1: include "engine/io/ring.h": engine/core/ may include nothing of ours',
        )

    def test_pure_smtp_that_includes_the_ring(self):
        self.finds(
            "engine/smtp/transaction.cc",
            '\n#include "engine/io/ring.h"\n',
            'engine/smtp/transaction.cc:2: include "engine/io/ring.h": engine/smtp/ may include engine/core/, '
            "queue/message.h",
        )

    def test_an_include_that_does_not_start_at_the_root(self):
        self.finds(
            "engine/core/bad.h",
            '#include "word.h"\n',
            'engine/core/bad.h:1: include "word.h": no such file from the root; includes start there',
        )

    def test_a_source_outside_every_room(self):
        self.finds("lib/x.cc", "\n", "lib/x.cc:1: lies in no room of docs/architecture.md")

    def test_citations(self):
        self.finds("dns/a.cc", f"// {RFC} 9999 1\n", f"dns/a.cc:1: {RFC} 9999 is not in docs/rfcs.txt")
        for form in (f"{RFC}5321", f"{RFC}-5321", f"{RFC.lower()} 5321"):
            told = f'dns/a.cc:1: citation "{form}": write "{RFC} 5321 4.5.3"'
            self.finds("dns/a.cc", f"// {form} 4\n", told)
        self.finds(
            "dns/a.cc",
            f"// {RFC} 5321 section 4.5\n",
            f'dns/a.cc:1: citation of {RFC} 5321: write the section as a bare number, "{RFC} 5321 4.5.3"',
        )

    def test_a_path_of_one_machine(self):
        self.finds("docs/x.md", f"see {MACHINE_PATH}\n", 'docs/x.md:1: "' + "/" + 'work/" is a path of one machine')

    def test_long_functions_and_files_only_warn(self):
        body = "    // }\n" * 130
        self.write("dns/a.cc", f"namespace x {{\nint f(int a) {{\n{body}}}\n}}\n" + "\n" * 400)
        self.assertEqual(
            self.run_tool(), (0, ["dns/a.cc: warning: 534 lines", "dns/a.cc:2: warning: a function of 132 lines"])
        )

    def test_a_header_that_does_not_compile_alone(self):
        self.write("dns/bad.h", "#pragma once\nstd::string name;\n")
        self.write("dns/good.h", "#pragma once\n#include <string>\ninline std::string name;\n")
        self.write(
            "build/compile_commands.json",
            '[{"directory": "%s", "file": "a.cc", "command": "clang++-19 -I. -std=c++2b -c a.cc"}]' % self.root,
        )
        code, lines = self.run_tool("--headers", str(self.root / "build"))
        self.assertEqual(code, 1)
        self.assertEqual(lines[0], "dns/bad.h:1: does not compile alone")
        self.assertEqual(lines[-1], "check-house: 4 headers")


if __name__ == "__main__":
    unittest.main()
