"""The Python blocks in README.md and docs/ run as tests.

A ```python block runs, top to bottom with the other blocks of its page, in
one namespace; a block in any other language is only read. An async example
calls ``anyio.run`` itself. The programs of the tutorial, which its pages show and
import, are beside them, in docs/tutorial/. ``<!--- skip: next -->`` above a block leaves it out.
"""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
).pytest()
