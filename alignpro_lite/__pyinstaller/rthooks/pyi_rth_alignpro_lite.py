"""Runs before a frozen app: the app is the interpreter of the package's children.

The package tries models and renders templates in child interpreters, started with
`sys.executable -I -X utf8 -c CODE`. In a frozen app that is the app itself, which would open a
second window. Here such a child runs its code, and ends before the app begins.
"""


def _run_child() -> None:
    import os
    import sys

    if os.environ.get("ALIGNPRO_LITE_CHILD") != "1" or sys.argv[1:5] != ["-I", "-X", "utf8", "-c"]:
        return
    _, _, _, _, _, code, *arguments = sys.argv
    sys.argv[:] = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})
    sys.exit()


_run_child()
del _run_child
