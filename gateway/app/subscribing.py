"""What delivery to FHIR subscribers is put together from; the HTTP process and the worker seal and judge alike."""

from __future__ import annotations

import ssl

from gateway.app.gateway import Gateway
from gateway.errors import Fault
from gateway.fhir.reachable import Endpoints
from gateway.fhir.rest_hook import RestHookChannel
from gateway.fhir.subscribers import Subscribing
from gateway.web.sealed import Seal

__all__ = ["rest_hooks", "subscribing"]

#: Under which everybody comes in with ``RCP_FHIR_AUTH=off`` (`gateway.fhir.auth.open_caller`).
_TRIAL = "dev"


def subscribing(gateway: Gateway) -> Subscribing:
    """Put it together; in ``prod`` only what is outside is told."""
    settings = gateway.settings
    return Subscribing(
        seal=Seal(gateway.secret, "fhir-subscription-headers"),
        endpoints=Endpoints(loopback=not settings.prod, hosts=settings.fhir.subscription_hosts),
        base_url=f"{settings.public_url}/fhir",
        limits=settings.limits,
        trial=_TRIAL if settings.fhir.auth == "off" else None,
    )


def rest_hooks(gateway: Gateway, into: Subscribing) -> RestHookChannel:
    """The way out to subscribers.

    Raises
    ------
    Fault
        ``tls-fichiers``: its certificate, key or authorities are none.
    """
    tls = gateway.settings.fhir.subscription_tls
    try:
        context = ssl.create_default_context(cafile=str(tls.authorities) if tls.authorities else None)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        text = "Le certificat, sa clé ou les autorités (RCP_FHIR_SUBSCRIPTION_TLS_…) ne sont pas utilisables ensemble."
        raise Fault("tls-fichiers", text) from error
    return RestHookChannel(gateway.store, into, context=context)
