#!/usr/bin/python3
"""No object of the given static libraries has state outside its functions' and shards' objects: no global and no
thread_local variable. Constants and what the compiler makes for classes are none.

  check_state.py LIBRARY...
"""

import re
import subprocess
import sys
import unittest

LIBRARIES = []
# Tables of classes, what sanitizers and profilers add, and constants by their names: of a library for link-time
# optimisation the sections are not known yet.
NO_STATE = re.compile(r"^(vtable|typeinfo|typeinfo name|VTT|construction vtable) for "
                      r"|^_*(asan|tsan|ubsan|sanitizer|profc|llvm|odr_asan|covrec)|^constinit$|(^|::)k[A-Z]\w*$")


def state_of(library):
    """Names of variables that can change, by what `llvm-nm` says of the sections they lie in."""
    command = ["llvm-nm-19", "--demangle", "--defined-only", library]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    found = []
    for line in listed.stdout.splitlines():
        fields = line.split(maxsplit=2)
        if len(fields) < 3 or fields[1] not in "bBdDgGsSuC" or NO_STATE.search(fields[2]):
            continue
        found.append(fields[2])
    return found


class NoState(unittest.TestCase):
    def test_no_globals_and_no_thread_locals(self):
        self.assertTrue(LIBRARIES)
        for library in LIBRARIES:
            with self.subTest(library=library):
                self.assertEqual(state_of(library), [])


if __name__ == "__main__":
    LIBRARIES = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
