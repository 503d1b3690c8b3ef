"""OHIF under ``/ohif``, when it is installed: its files, and the page that starts it on our DICOMweb.

Promises: the page is for who is signed in, with the rights that DICOMweb gives him and no other; no script that is not
a file of ours, and a policy of its own only here (WebAssembly, workers and inline styles, which it needs); a name is
looked up among those that are installed, and nothing else of the disk is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from gateway.errors import NotFound
from gateway.rcp.access import Caller
from gateway.web.authenticators import SESSION, current_caller
from gateway.web.next_path import sign_in_address

__all__ = ["BASE", "VERSION", "folder_of", "router"]

BASE: Final = "/ohif"
#: Of npm's ``@ohif/app``; `gateway.app.ohif` knows its hash.
VERSION: Final = "3.13.2"

#: What OHIF fetches ahead of need has no directive of its own: Firefox asks `default-src`.
_POLICY: Final = (
    "default-src 'self'; object-src 'none'; frame-src 'none'; media-src 'none'; "
    "script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; worker-src 'self' blob:; "
    "manifest-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".woff2": "font/woff2",
    ".woff": "font/woff",
    ".ttf": "font/ttf",
    ".xml": "text/xml",
    ".gz": "application/gzip",
}
# Names of files that change with their content.
_HASHED: Final = re.compile(r"(?:^|[./])[0-9a-f]{16}\.(?:js|wasm|woff2)$")

_PAGE: Final = """<!doctype html>
<html lang="fr"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Imagerie (OHIF)</title><link rel="icon" href="{base}/assets/favicon.ico">
<script src="{base}/start.js"></script><script defer src="{base}/{app}"></script>
<link rel="stylesheet" href="{base}/app.bundle.css"></head>
<body><noscript>Cette visionneuse demande JavaScript ; celle du portail montre les images sans lui.</noscript>
<div id="react-portal"></div><div id="root"></div></body></html>
"""
#: What the page would say in scripts of its own, which no page of ours may.
_START: Final = """window.PUBLIC_URL = "{base}/";
window.browserImportFunction = name => import(name);
const root = window.location.origin + "/dicom-web";
window.config = {{
  name: "rcp-gateway",
  // OHIF sees by itself that a machine has no WebGL, then does as this says.
  useCPURendering: !document.createElement("canvas").getContext("webgl2"),
  routerBasename: "{base}",
  extensions: [],
  modes: [],
  customizationService: {{}},
  showStudyList: true,
  maxNumberOfWebWorkers: 3,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  investigationalUseDialog: {{ option: "never" }},
  maxNumRequests: {{ interaction: 100, thumbnail: 5, prefetch: 10 }},
  showErrorDetails: "production",
  defaultDataSourceName: "rcp",
  dataSources: [
    {{
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "rcp",
      configuration: {{
        friendlyName: "RCP",
        name: "rcp",
        qidoRoot: root,
        wadoRoot: root,
        wadoUriRoot: root,
        qidoSupportsIncludeField: true,
        imageRendering: "wadors",
        thumbnailRendering: "thumbnail",
        thumbnailRequestStrategy: "fetch",
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        supportsReject: false,
        dicomUploadEnabled: false,
        singlepart: "bulkdata,pdf",
        bulkDataURI: {{ enabled: true, relativeResolution: "studies" }},
        omitQuotationForMultipartRequest: true,
      }},
    }},
  ],
  httpErrorHandler: error => {{
    if (error && error.status === 401) window.location.assign("/connexion");
  }},
}};
"""


async def _signed_in(request: Request) -> Caller | None:
    return await current_caller(request, SESSION)


Who = Annotated[Caller | None, Depends(_signed_in)]


def folder_of(data_dir: Path) -> Path:
    """Where the viewer is laid down."""
    return data_dir / "viewers" / f"ohif-{VERSION}"


def router(data_dir: Path) -> APIRouter:
    """Make the routes; what is installed later is served from then on."""
    made = APIRouter(include_in_schema=False)
    files = _Files(folder_of(data_dir))
    add = partial(made.add_api_route, methods=["GET"], response_class=Response, response_model=None)
    add(BASE, _to_the_page)
    add(f"{BASE}/start.js", files.start)
    add(f"{BASE}/", files.page)
    for page in ("viewer", "viewer/{rest:path}", "segmentation", "tmtv", "local", "notfoundstudy", "notfoundserver"):
        add(f"{BASE}/{page}", files.page)
    add(f"{BASE}/{{name:path}}", files.file)
    return made


def _to_the_page() -> Response:
    return RedirectResponse(f"{BASE}/", 308)


class _Files:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: Mapping[str, Path] = {}
        self._seen = 0.0

    def _installed(self) -> Mapping[str, Path]:
        try:
            changed = self._folder.stat().st_mtime
        except OSError:
            raise NotFound("inconnu", "La visionneuse OHIF n’est pas installée.") from None
        if changed != self._seen:
            found = (path for path in self._folder.rglob("*") if path.is_file())
            self._names = {path.relative_to(self._folder).as_posix(): path for path in found}
            self._seen = changed
        return self._names

    def page(self, request: Request, who: Who) -> Response:
        if who is None:
            return RedirectResponse(sign_in_address(request), 303)
        app = next((name for name in self._installed() if name.startswith("app.bundle.") and name.endswith(".js")), "")
        return Response(
            _PAGE.format(base=BASE, app=app), media_type="text/html", headers={"Content-Security-Policy": _POLICY}
        )

    def start(self) -> Response:
        self._installed()
        return Response(_START.format(base=BASE), media_type=_TYPES[".js"])

    def file(self, request: Request, name: str) -> Response:
        names = self._installed()
        path = names.get(name)
        if path is None or path.suffix not in _TYPES:
            raise NotFound("inconnu", "Page inconnue.")
        headers = {"Cache-Control": "public, max-age=31536000, immutable" if _HASHED.search(name) else "no-cache"}
        # A worker of its own has a policy of its own.
        headers["Content-Security-Policy"] = _POLICY
        packed = names.get(f"{name}.gz")
        if packed is not None:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("accept-encoding", ""):
                path, headers["Content-Encoding"] = packed, "gzip"
        return FileResponse(path, media_type=_TYPES[Path(name).suffix], headers=headers)
