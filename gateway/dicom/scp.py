"""The DICOM port: who may associate, what is negotiated, and how it stops.

Promises
--------
* A caller is recognised by AE title and address before anything is negotiated; one that is not gets a rejection.
* Every storage SOP class is accepted, private and future ones included, in the transfer syntax it is sent in; Explicit
  VR Little Endian is chosen whenever it is offered, because senders convert to what is chosen.
* `stop` lets stores under way end within `Limits.drain_s`, then aborts; it returns with the port closed.

Offers C-ECHO, C-STORE, and what the composition hands in as `gateway.dicom.services`; other contexts are refused.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import pynetdicom
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import by the library
from pynetdicom.transport import ThreadedAssociationServer

from gateway.dicom import outcome
from gateway.dicom.command import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, StoreRequest, is_uid
from gateway.dicom.intake import Sink
from gateway.dicom.proposals import Proposal, Proposals
from gateway.dicom.services import Served, Service, granted, service_contexts
from gateway.dicom.wire import Diverter, Limits, assert_library, divert
from gateway.errors import GatewayError, UnknownIdentity
from gateway.transport import Address, Tls

__all__ = ["Peers", "Scp", "Storage"]

LOG = logging.getLogger(__name__)

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)

_STORAGE: Final = frozenset(str(cx.abstract_syntax) for cx in pynetdicom.AllStoragePresentationContexts)

# Kept as received: every transfer syntax of the standard, except those whose data set does not hold its own pixels.
_NOT_SELF_CONTAINED: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.94",  # JPIP Referenced
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.204",  # JPIP HTJ2K Referenced
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
        "1.2.840.10008.1.2.7.1",  # SMPTE ST 2110, real-time video
        "1.2.840.10008.1.2.7.2",
        "1.2.840.10008.1.2.7.3",
    }
)
_TRANSFER_SYNTAXES: Final = frozenset(map(str, pynetdicom.ALL_TRANSFER_SYNTAXES)) - _NOT_SELF_CONTAINED

# A-ASSOCIATE-RJ: result, source, reason [PS3.8 9.3.4].
_UNKNOWN_CALLER: Final = (0x01, 0x01, 0x03)
_LATER: Final = (0x02, 0x03, 0x01)


class Peers(Protocol[P_co]):
    """Who may call; the registry of partners stands behind it."""

    def recognise(self, calling_ae_title: str, address: str, certificate: bytes | None) -> P_co:
        """Return whoever calls under this AE title, from this address and with this TLS certificate (DER).

        Raises
        ------
        UnknownIdentity
        """
        ...


class Storage(Protocol[P_contra]):
    """Where received objects go."""

    def open(self, request: StoreRequest, peer: P_contra) -> Sink:
        """Begin to keep one object of a known peer."""
        ...


def is_storage(abstract_syntax: UID) -> bool:
    """Whether a SOP class is one to keep: of the storage service, private, or unknown to the library."""
    return (
        str(abstract_syntax) in _STORAGE or abstract_syntax.is_private or abstract_syntax.name == str(abstract_syntax)
    )


def offered_contexts(
    proposed: Iterable[PresentationContext],
    services: Mapping[str, list[str]] | None = None,
    receives: Collection[str] = (),
) -> list[PresentationContext]:
    """Answer a caller's proposals with the contexts to negotiate from.

    Made for one association out of what it proposes: no list of every storage class is copied for each caller, and an
    unknown class needs no global switch. The acceptor's order of transfer syntaxes decides: Explicit VR Little Endian
    first, then the caller's own order, Implicit last. ``services``: abstract syntax → transfer syntaxes of what is
    offered beside storage. The caller may take the objects of a storage class itself (role SCP), which C-GET needs; for
    classes that it only takes, ``receives``, its own order stands.
    """
    services = services or {}
    transfer_syntaxes: dict[str, list[str]] = {}
    for context in proposed:
        uid = context.abstract_syntax
        if uid is not None and is_uid(uid) and str(uid) not in services and is_storage(uid):
            known = [str(syntax) for syntax in context.transfer_syntax if str(syntax) in _TRANSFER_SYNTAXES]
            transfer_syntaxes.setdefault(str(uid), []).extend(known)
    rank = {str(ExplicitVRLittleEndian): 0, str(ImplicitVRLittleEndian): 2}
    contexts = [build_context(Verification), *(build_context(uid, list(some)) for uid, some in services.items())]
    for abstract_syntax, syntaxes in transfer_syntaxes.items():
        # Without a syntax in common the refusal shall name the syntaxes (4), not the class (3) [PS3.8 table 9-18].
        ordered = list(dict.fromkeys(syntaxes)) or [str(ImplicitVRLittleEndian)]
        if abstract_syntax not in receives:
            ordered.sort(key=lambda syntax: rank.get(syntax, 1))
        context = build_context(abstract_syntax, ordered)
        context.scu_role = context.scp_role = True
        contexts.append(context)
    return contexts


def _certificate(association: Any) -> bytes | None:
    """Read the certificate that a caller showed; None in the clear, or where none is asked for."""
    transport = association.dul.socket.socket
    return transport.getpeercert(binary_form=True) if isinstance(transport, ssl.SSLSocket) else None


class _Server(ThreadedAssociationServer):
    """pynetdicom's server with a bounded queue, bounded connections, and TLS handshakes outside the accept loop."""

    request_queue_size = 128
    daemon_threads = True
    limits = Limits()
    shared = False
    _handshakes = 0
    _lock = threading.Lock()

    def server_bind(self) -> None:
        if self.shared:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # type: ignore[union-attr] # as below
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        # Stock shakes hands here, without a limit of time: one silent client would block the port.
        return self.socket.accept()  # type: ignore[union-attr] # typed optional, set by the constructor

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        # Negotiation rejects callers over `max_associations` by name; connections that never negotiate are cut here.
        within = len(self.active_associations) + self._handshakes < 2 * self.limits.max_associations + 8
        if not within:
            LOG.warning("dicom connection refused: max_associations %d", self.limits.max_associations)
        return within

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(self.limits.handshake_s)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None:
            with self._lock:
                self._handshakes += 1
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError as error:
                LOG.warning("dicom TLS handshake failed: %s", type(error).__name__)
                request.close()
                return
            finally:
                with self._lock:
                    self._handshakes -= 1
        request.settimeout(self.limits.idle_s)
        super().finish_request(request, client_address)

    def service_actions(self) -> None:
        """Stock collects garbage here every 60 turns; our associations leave no cycles worth it."""


class _SharedServer(_Server):
    """One of several on a port."""

    shared = True


class Scp(Generic[P]):
    """The listening port.

    Parameters
    ----------
    bind
        Port 0 lets the system choose; `port` says which.
    ae_title
        Ours.
    peers, storage
        Who may call, and where objects go.
    services
        What is answered beside C-ECHO and C-STORE.
    limits
        See `gateway.dicom.wire.Limits`.
    tls
        Plain when no certificate is given.
    require_called_ae_title
        Reject callers that name another AE title than ours.
    shared
        Whether other processes listen on the same port: the kernel gives each connection to one of them.
    """

    def __init__(
        self,
        *,
        bind: Address,
        ae_title: str,
        peers: Peers[P],
        storage: Storage[P],
        services: Sequence[Service[P]] = (),
        limits: Limits | None = None,
        tls: Tls | None = None,
        require_called_ae_title: bool = False,
        shared: bool = False,
    ) -> None:
        self._bind = bind
        self._limits = limits or Limits()
        self._shared = shared
        self._peers = peers
        self._storage = storage
        self._services = services
        self._tls = (tls or Tls()).serving()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._proposals = Proposals()
        self._diverters: dict[Association, Diverter] = {}
        self._lock = threading.Lock()
        self._ae = ae = AE(ae_title=ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = self._limits.max_pdu_bytes
        ae.maximum_associations = self._limits.max_associations
        ae.network_timeout = self._limits.idle_s
        ae.acse_timeout = self._limits.acse_s
        ae.dimse_timeout = self._limits.idle_s
        ae.require_called_aet = require_called_ae_title
        ae.supported_contexts = [build_context(Verification)]

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def start(self) -> None:
        """Bind and serve in a thread of its own; raises OSError when the port is taken."""
        assert_library()
        # Stock log records print PDUs, data sets and values; ours name none.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        pynetdicom._config.LOG_HANDLER_LEVEL = "none"  # noqa: SLF001 - documented configuration module
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_SOP_EXTENDED, self._on_extended),
            *(
                (event, self._on_end)
                for event in (evt.EVT_RELEASED, evt.EVT_ABORTED, evt.EVT_REJECTED, evt.EVT_CONN_CLOSE)
            ),
        ]
        server: Any = self._ae.make_server(
            (self._bind.host, self._bind.port),
            ssl_context=self._tls,
            server_class=_SharedServer if self._shared else _Server,
            evt_handlers=handlers,
        )
        server.limits = self._limits
        self._ae._servers.append(server)  # noqa: SLF001 - make_server does not, and server.shutdown removes it
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom-accept", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port, let stores under way end, abort what is left."""
        server, self._server = self._server, None
        if server is None:
            return
        self._stopping = True
        server.shutdown()
        for act, patience_s in ((Diverter.drain, self._limits.drain_s), (Diverter.abort, 3.0)):
            for diverter in self._live():
                act(diverter)
            until = time.monotonic() + patience_s
            while server.active_associations and time.monotonic() < until:
                time.sleep(0.02)
        for association in server.active_associations:
            association.kill()

    def _live(self) -> list[Diverter]:
        with self._lock:
            return list(self._diverters.values())

    # ---- pynetdicom's notifications; it swallows what they raise, so they refuse by themselves

    def _on_open(self, event: Any) -> None:
        def nobody(_: StoreRequest) -> Sink:
            raise UnknownIdentity("unknown-ae-title", "Titre d’AE inconnu de la passerelle.")

        diverter = divert(event.assoc, nobody, self._limits, self._proposals)
        with self._lock:
            # A connection that never negotiated ends without a notification.
            for gone in [one for one in self._diverters if one.ident is not None and not one.is_alive()]:
                del self._diverters[gone]
            self._diverters[event.assoc] = diverter

    def _on_requested(self, event: Any) -> None:
        association, proposal = event.assoc, event.assoc.requestor.primitive
        try:
            title, address = str(proposal.calling_ae_title).strip(), association.requestor.address
            peer = self._peers.recognise(title, address, _certificate(association))
        except UnknownIdentity:
            LOG.warning("dicom association rejected: unknown AE title or address")
            self._reject(association, _UNKNOWN_CALLER)
        except GatewayError as error:
            LOG.warning("dicom association rejected: %s", error.code)
            self._reject(association, _LATER)
        except Exception as error:  # noqa: BLE001 - the library would accept the association after a raise
            LOG.error("dicom association rejected: %s", outcome.where(error))  # noqa: TRY400 - no traceback in the log
            self._reject(association, _LATER)
        else:
            if self._stopping:
                self._reject(association, _LATER)
                return
            with self._lock:
                diverter = self._diverters[association]
            proposed = cast("Proposal", diverter.proposal)
            association.acceptor.supported_contexts = proposed.offered(self._offered)
            self._proposals.keep(proposed)
            association._serve_request = Served(association, self._services, peer, idle_s=self._limits.idle_s)  # noqa: SLF001 - pinned
            diverter.open_sink = lambda request: self._storage.open(request, peer)

    def _offered(self, proposal: A_ASSOCIATE) -> list[PresentationContext]:
        roles = (item for item in proposal.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation))
        return offered_contexts(
            proposal.presentation_context_definition_list,
            service_contexts(self._services),
            {str(role.sop_class_uid) for role in roles if not role.scu_role},
        )

    def _on_extended(self, event: Any) -> dict[str, bytes]:
        return granted(self._services, {str(uid): bytes(said) for uid, said in event.app_info.items()})

    def _reject(self, association: Any, reason: tuple[int, int, int]) -> None:
        association.acse.send_reject(*reason)
        # Waits until the rejection has left; otherwise the socket is closed over it.
        association.kill()

    def _on_end(self, event: Any) -> None:
        with self._lock:
            diverter = self._diverters.pop(event.assoc, None)
        if diverter is not None:
            LOG.info("dicom association ended: %s, %d objects kept", event.event.name, diverter.stored)
