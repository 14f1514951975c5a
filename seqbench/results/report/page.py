"""Render the report page: markup, style, script, Plotly and data in one HTML text.

All data from runs is in one JSON block, which page.js turns into text nodes, never into markup. The
page's content security policy allows only its own scripts (by hash) and no network access.
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
    """Return the page as HTML; all data from runs is ASCII.

    Args:
        content: as returned by `build_content`.

    Raises:
        ConfigError: if Plotly is not installed.
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
    """Return JSON that cannot close its script block or open another: ASCII without `<`."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
