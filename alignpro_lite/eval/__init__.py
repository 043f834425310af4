"""How much better the answers are, system by system, and what the reward does not see.

Needs the extra `[eval]`: pip install "alignpro-lite[cpu,eval]".
"""

from pathlib import Path

QUICK = Path(__file__).with_name("quick")
"""The folder of what `alignpro-lite eval quick` compares."""
