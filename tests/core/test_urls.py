"""What a URL may be is known without anything of a network."""

import subprocess
import sys


def test_checking_a_url_loads_no_network() -> None:
    """Validation does not pay for TLS and HTTP."""
    code = "import kflow.core.urls, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"ssl", "http.client", "urllib.request"} & set(done.stdout.split())
