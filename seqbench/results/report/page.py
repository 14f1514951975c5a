"""Puts the page together: markup, style, script, Plotly and the data, in one text.

What comes from runs is in one block of JSON, which page.js turns into text nodes: no markup is ever
made of it. The page's policy lets these very scripts run and no other, and forbids the network.
"""

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any

from seqbench.errors import ConfigError

HERE = Path(__file__).parent


def render(content: dict[str, Any]) -> str:
    """The page as HTML, in ASCII but for our own texts.

    Args:
        content: as `build_content` gives it.

    Raises:
        ConfigError: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError("a report needs Plotly: pip install 'seqbench[report]'") from None
    scripts = {"plotly": get_plotlyjs(), "script": _file("page.js")}
    digests = " ".join(f"'sha256-{_digest(text)}'" for text in scripts.values())
    policy = (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return Template(_file("page.html")).substitute(
        scripts, policy=policy, style=_file("page.css"), data=_inert(content)
    )


def _inert(content: dict[str, Any]) -> str:
    """JSON that can neither end its block nor begin another: only ASCII, and no `<`."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
