"""What an association negotiates beside contexts: roles, extended negotiation, and what is offered and not taken."""

import struct

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.sop_class import StorageCommitmentPushModel as Push
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as StudyGet
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as StudyMove
from sqlalchemy import func, select

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.imaging import Instance
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.unit.dicom.raw_peer import ABORT, ASSOCIATE_AC, CT, P_DATA, Peer, item, status, whole_store


@pytest.fixture
def here(port, world):
    world.session.commit()
    return port


def asked(level: str, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(identifier, name, value)
    return identifier


def test_one_association_lays_objects_down_and_takes_them_back(here, ct):
    """Both roles asked for one class, both granted `[PS3.7 table D.3-11]`."""
    taken: list[bytes] = []

    def keep(event) -> int:
        taken.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    ae = AE(AE_TITLE)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(StudyGet)
    role = build_role(CTImageStorage, scu_role=True, scp_role=True)
    association = ae.associate(
        "127.0.0.1", here.port, ae_title="RCPGATEWAY", ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    [context] = [one for one in association.accepted_contexts if one.abstract_syntax == CTImageStorage]
    assert (context.as_scu, context.as_scp) == (True, True)
    assert [association.send_c_store(path).Status for path in ct] == [0x0000] * len(ct)
    answers = list(association.send_c_get(asked("STUDY", StudyInstanceUID=DOMINIQUE.study_uid), StudyGet))
    assert association.send_c_store(ct[0]).Status == 0x0000  # and once more after it
    association.release()
    assert (answers[-1][0].Status, answers[-1][0].NumberOfCompletedSuboperations) == (0x0000, len(ct))
    assert len(taken) == len(ct)


def role(sop_class: bytes, scu: int, scp: int) -> bytes:
    return item(0x54, struct.pack(">H", len(sop_class)) + sop_class + bytes([scu, scp]))


def roles_of(answer: bytes) -> list[bytes]:
    """Role selection items of an A-ASSOCIATE-AC."""

    def items(body: bytes) -> list[tuple[int, bytes]]:
        found = []
        while body:
            kind, length = struct.unpack_from(">BxH", body)
            found.append((kind, body[4 : 4 + length]))
            body = body[4 + length :]
        return found

    [user] = [body for kind, body in items(answer[68:]) if kind == 0x50]
    return [body for kind, body in items(user) if kind == 0x54]


@pytest.mark.parametrize(
    ("proposed", "granted"),
    [((1, 0), (1, 0)), ((0, 1), (0, 1)), ((1, 1), (1, 1))],
)
def test_roles_of_a_storage_class_are_granted_as_asked(here, session, proposed, granted, ct):
    peer = Peer(here.port, calling=AE_TITLE.encode(), negotiated=role(CT, *proposed))
    assert roles_of(peer.answer) == [struct.pack(">H", len(CT)) + CT + bytes(granted)]
    content = ct[0].read_bytes()
    data = content[144 + int.from_bytes(content[140:144], "little") :]
    peer.send(whole_store(str(dcmread(ct[0]).SOPInstanceUID).encode(), data))
    kind, body = peer.read()
    # Who only takes objects lays none down.
    assert (kind, status(body)) == (P_DATA, 0x0000 if granted[0] else 0x0122)
    peer.release()
    session.rollback()
    assert session.scalar(select(func.count()).select_from(Instance)) == granted[0]
    assert storescu(here.port, *ct).returncode == 0


def test_roles_that_nobody_has_harm_nobody(here, ct):
    """No role at all, a role for a class that was not proposed, one for a service of ours, one twice."""
    for negotiated in (
        role(CT, 0, 0),
        role(b"1.2.840.10008.5.1.4.1.1.4", 1, 1),
        role(StudyFind.encode(), 0, 1),
        role(CT, 1, 0) + role(CT, 0, 1),
        role(CT, 7, 9),
    ):
        peer = Peer(here.port, calling=AE_TITLE.encode(), negotiated=negotiated, expect=None)
        assert peer.kind in (ASSOCIATE_AC, ABORT)
        peer.close()
    assert storescu(here.port, *ct).returncode == 0


def test_commitment_is_asked_with_and_without_words_about_roles(here):
    for words in ([], [build_role(Push, scu_role=True)], [build_role(Push, scu_role=True, scp_role=True)]):
        ae = AE(AE_TITLE)
        ae.add_requested_context(Push)
        association = ae.associate("127.0.0.1", here.port, ae_title="RCPGATEWAY", ext_neg=words)
        [context] = association.accepted_contexts
        assert context.as_scu
        association.release()


def test_relational_retrieval_is_granted_and_nothing_else(here):
    """[PS3.4 C.5.2.1, C.5.3.1]: of several bytes the first; the answer is as long as the question was understood."""
    ae = AE(AE_TITLE)
    words = []
    for model, said in ((StudyFind, b"\x01\x01\x01\x01\x01"), (StudyMove, b"\x01\x01"), (StudyGet, b"\x00")):
        ae.add_requested_context(model)
        extended = SOPClassExtendedNegotiation()
        extended.sop_class_uid, extended.service_class_application_information = model, said
        words.append(extended)
    association = ae.associate("127.0.0.1", here.port, ae_title="RCPGATEWAY", ext_neg=words)
    granted = association.acceptor.sop_class_extended
    association.release()
    assert granted == {StudyFind: b"\x01\x01\x01", StudyMove: b"\x01", StudyGet: b"\x00"}


def test_a_relational_get_needs_no_keys_of_higher_levels(here, ct):
    """Only the object's own UID is said, whether relational retrieval was negotiated or not."""
    assert storescu(here.port, *ct).returncode == 0
    wanted = str(dcmread(ct[2]).SOPInstanceUID)
    for said in (None, b"\x01"):
        taken: list[str] = []

        def keep(event, taken=taken) -> int:
            taken.append(str(event.request.AffectedSOPInstanceUID))
            return 0x0000

        ae = AE(AE_TITLE)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        ae.add_requested_context(StudyGet)
        words = [build_role(CTImageStorage, scp_role=True)]
        if said is not None:
            extended = SOPClassExtendedNegotiation()
            extended.sop_class_uid, extended.service_class_application_information = StudyGet, said
            words.append(extended)
        association = ae.associate(
            "127.0.0.1", here.port, ae_title="RCPGATEWAY", ext_neg=words, evt_handlers=[(evt.EVT_C_STORE, keep)]
        )
        *_, (last, _) = association.send_c_get(asked("IMAGE", SOPInstanceUID=wanted), StudyGet)
        association.release()
        assert (last.Status, taken) == (0x0000, [wanted])


def test_several_operations_at_once_and_user_identity_are_not_negotiated(here):
    ae = AE(AE_TITLE)
    ae.add_requested_context(StudyFind)
    window, identity = AsynchronousOperationsWindowNegotiation(), UserIdentityNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 0
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"nom", b"secret"
    identity.positive_response_requested = True
    association = ae.associate("127.0.0.1", here.port, ae_title="RCPGATEWAY", ext_neg=[window, identity])
    assert association.is_established
    assert association.acceptor.asynchronous_operations == (1, 1)
    assert association.acceptor.user_identity is None
    association.release()


def test_no_transfer_syntax_in_common_is_said_for_that_context_alone(here):
    ae = AE(AE_TITLE)
    ae.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.4.94")  # JPIP: its objects do not hold their pixels
    ae.add_requested_context(StudyFind)
    association = ae.associate("127.0.0.1", here.port, ae_title="RCPGATEWAY")
    assert [one.abstract_syntax for one in association.accepted_contexts] == [StudyFind]
    [refused] = association.rejected_contexts
    assert (refused.abstract_syntax, refused.result) == (CTImageStorage, 0x04)
    association.release()
