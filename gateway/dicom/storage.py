"""Where received objects go: staged, hashed and synced by the blob store, then one row, then the answer.

Promises
--------
* 0x0000 leaves after the bytes are durable and the row is committed; a crash between them costs a re-send only.
* An object that cannot be read, or is not what its command said, is kept in quarantine and refused.
* The calling application is known by its AE title and, when its partner registered them, its address and its TLS client
  certificate; where a certificate was registered, nobody is known without it, in the clear neither.

Does not judge patients: `gateway.rcp.imaging` does.
"""

from __future__ import annotations

import logging
from functools import partial

from sqlalchemy import select

from gateway.dicom import outcome, translate
from gateway.dicom.command import Answer, StoreRequest, part10_head
from gateway.dicom.commitment import Commitments
from gateway.dicom.find import Searches
from gateway.dicom.retrieve import Retrieval
from gateway.dicom.scp import Scp
from gateway.dicom.scu import Ours
from gateway.dicom.succession import HEAD_BYTES
from gateway.dicom.wire import Limits
from gateway.errors import Conflict, GatewayError, InvalidContent, UnknownIdentity
from gateway.exchange.blobs import BlobStore
from gateway.model.partner import Partner, PartnerCredential
from gateway.rcp import access, imaging, registry
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.imaging import Content
from gateway.rcp.imaging_arrivals import Arrivals
from gateway.rcp.imaging_destinations import LOCATED
from gateway.rcp.imaging_facts import ObjectFacts
from gateway.rcp.peer_proofs import Places, fingerprint_of, recognised
from gateway.rcp.step import Step, Steps
from gateway.settings import Settings

__all__ = ["Keeper", "Keeping", "Partners", "component", "ours"]

LOG = logging.getLogger(__name__)


def component(settings: Settings, steps: Steps, blobs: BlobStore) -> Scp[Caller]:
    """Build the DICOM port of one process: ``start()`` it, and ``stop()`` it to drain."""
    return Scp(
        bind=settings.dicom.bind,
        ae_title=settings.dicom.ae_title,
        peers=Partners(steps, trial=not settings.prod),
        storage=Keeper(steps, blobs, tolerant=settings.dicom.duplicates == "warn"),
        services=(
            *Searches(steps, settings.dicom.ae_title).services(),
            *Retrieval(steps, blobs, ours(settings)).services(),
            *Commitments(steps, blobs, ours(settings)).services(),
        ),
        limits=Limits(max_associations=settings.limits.dicom_associations),
        tls=settings.dicom.tls,
        require_called_ae_title=settings.prod,
        shared=settings.dicom.workers > 1,
    )


def ours(settings: Settings) -> Ours:
    """How this gateway calls other applications."""
    return Ours(settings.dicom.ae_title, settings.dicom.tls, frozenset(settings.dicom.tls_destinations))


class Partners:
    """The registry of partners as the port asks it (`gateway.dicom.scp.Peers`).

    Who is registered without an address or a certificate may lay images down from anywhere; he reads none, but of a
    trial.

    Parameters
    ----------
    trial
        Take an unknown AE title for partner ``dev`` (CONTRACT); never in ``prod``.
    """

    def __init__(self, steps: Steps, *, trial: bool) -> None:
        self._steps = steps
        self._trial = trial

    def recognise(self, calling_ae_title: str, address: str, certificate: bytes | None) -> Caller:
        """Return whoever calls, or raise `UnknownIdentity`."""
        find = partial(self._find, title=calling_ae_title, address=address, shown=fingerprint_of(certificate))
        return recognised(address, lambda places: self._steps.run(access.SYSTEM, partial(find, places=places)))

    def _find(self, step: Step, *, title: str, address: str, shown: str | None, places: Places) -> Caller | None:
        credential = step.session.scalars(
            select(PartnerCredential)
            .join(Partner, Partner.id == PartnerCredential.partner_id)
            .where(
                PartnerCredential.kind == "aet",
                PartnerCredential.value == title,
                PartnerCredential.revoked_at.is_(None),
                Partner.revoked_at.is_(None),
            )
        ).one_or_none()
        partner: Partner
        if credential is not None:
            host, certificates = credential.details.get("host"), credential.details.get("certificates")
            if host and not places.know([str(host)]):
                return None
            if host and not places.at(str(host)):
                raise self._refused(title, address, "adresse-inattendue")
            if certificates and shown not in certificates:
                raise self._refused(title, address, "certificat-inattendu")
            partner, located = credential.partner, bool(host or certificates) or self._trial
        elif self._trial:
            partner, located = registry.trial_partner(step), True
        else:
            raise self._refused(title, address, "titre-ae-inconnu")
        return Caller(
            kind=CallerKind.PACS,
            partner_id=partner.id,
            identifier=title,
            name=partner.name,
            scopes=frozenset({LOCATED} if located else ()),
            wire="dicom",
            address=address,
        )

    def _refused(self, title: str, address: str, reason: str) -> UnknownIdentity:
        error = UnknownIdentity("unknown-ae-title", "Application DICOM inconnue de la passerelle.")
        caller = Caller(kind=CallerKind.PACS, identifier=title, wire="dicom", address=address)
        error.trail = access.facts(caller, "refus", action="E", outcome="4", reason=reason)
        return error


class Keeper:
    """Storage of the port (`gateway.dicom.scp.Storage`).

    Parameters
    ----------
    tolerant
        Answer a warning, not an error, to other bytes under a known SOPInstanceUID; they are kept aside all the same.
    """

    def __init__(self, steps: Steps, blobs: BlobStore, *, tolerant: bool = False) -> None:
        self._steps = steps
        self._tolerant = tolerant
        self._arrivals = Arrivals(steps)
        self._blobs = blobs

    def open(self, request: StoreRequest, peer: Caller) -> Keeping:
        """Begin to keep one object."""
        return Keeping(self._steps, self._arrivals, self._blobs, request, peer, tolerant=self._tolerant)


class Keeping:
    """One object on its way in (`gateway.dicom.intake.Sink`)."""

    def __init__(
        self,
        steps: Steps,
        arrivals: Arrivals,
        blobs: BlobStore,
        request: StoreRequest,
        caller: Caller,
        *,
        tolerant: bool,
    ) -> None:
        self._steps = steps
        self._tolerant = tolerant
        self._arrivals = arrivals
        self._blobs = blobs
        self._request = request
        self._caller = caller
        self._staged = blobs.stage()
        self._head: bytearray | None = bytearray(part10_head(request))
        self._early: ObjectFacts | None = None
        try:
            self._staged.write(self._head)
        except BaseException:
            self._staged.close()
            raise

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes, and read what they say as soon as the pixels have begun."""
        self._staged.write(chunk)
        if self._head is not None:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._early = translate.read_early(self._staged.path, bytes(self._head))
                self._head = None

    def discard(self) -> None:
        """Forget what is not durable."""
        self._staged.close()

    def answered(self) -> None:
        """Open the file of the next object while its sender still makes it."""
        self._blobs.foresee()

    def commit(self) -> Answer:
        """Make the object durable, then known, or keep it aside; raises what its sender is told."""
        facts = self._facts()
        blob = self._staged.commit()
        self._staged.close()
        content = Content(blob.sha256, blob.size_bytes)
        try:
            refusal = self._kept(facts, content)
        except InvalidContent as error:
            self._aside(content, error.code)
            raise
        except GatewayError:
            raise  # not kept, and said so: the sender sends again
        except Exception as error:
            # A defect of ours must not lose what a hospital sent: kept aside, replayed once mended.
            LOG.error("dicom object not understood: %s", outcome.where(error))  # noqa: TRY400 - no traceback in the log
            self._aside(content, "defaut")
            raise
        if refusal is None:
            return Answer()
        if self._tolerant and isinstance(refusal, Conflict):
            return outcome.warning(refusal)
        raise refusal

    def _kept(self, facts: ObjectFacts | Exception, content: Content) -> GatewayError | None:
        if isinstance(facts, Exception):
            raise facts
        return self._arrivals.keep(self._caller, facts, content)

    def _facts(self) -> ObjectFacts | Exception:
        """Read the object before it is kept; what cannot be read is kept all the same."""
        try:
            facts = self._early or translate.read(self._staged.path)
        except Exception as error:  # noqa: BLE001 - raised again once the bytes are kept
            return error
        said = (facts.instance.sop_instance_uid, facts.instance.sop_class_uid)
        if said != (self._request.sop_instance_uid, self._request.sop_class_uid):
            return InvalidContent("dicom-mismatch", "Objet autre que celui que la commande annonce.", rule=True)
        if self._request.study_instance_uid not in (None, facts.study.study_instance_uid):
            # Told at once: nothing for anybody to look at.
            raise InvalidContent("study-mismatch", "Objet d’une autre étude que celle de l’adresse.", rule=True)
        return facts

    def _aside(self, content: Content, reason: str) -> None:
        uid = self._request.sop_instance_uid
        self._steps.run(self._caller, lambda step: imaging.quarantine(step, uid, content, reason))
