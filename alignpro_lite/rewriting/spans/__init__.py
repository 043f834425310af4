"""Protected spans: what a rewrite must keep, found by one scanner for each kind of text.

`protected` compares a prompt with its rewrite; the other modules find what both hold.
"""

from alignpro_lite.rewriting.spans.protected import Protected, compile_patterns, protect

__all__ = ["Protected", "compile_patterns", "protect"]
