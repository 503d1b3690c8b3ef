"""IPv6: a port for both families, who calls on it, and destinations; dcmtk 3.6.7 speaks IPv4 only, pynetdicom both.

A machine without IPv6 shows the same of IPv4; how addresses compare is shown everywhere
(`tests/unit/rcp/test_peer_proofs.py`).
"""

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as StudyMove
from pynetdicom.sop_class import Verification
from sqlalchemy import func, select, update

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.imaging import Instance
from gateway.model.partner import PartnerCredential
from gateway.settings import Dicom
from gateway.transport import Address
from tests.e2e.dicom.conftest import AE_TITLE, storescu
from tests.e2e.dicom.peers import register
from tests.loopback import ipv6_offered
from tests.world import audit_lines

#: The loopback address to show it with, one for every address of the machine, and one that is not registered.
HERE, ANY, OTHER = ("::1", "::", "127.0.0.1") if ipv6_offered() else ("127.0.0.1", "0.0.0.0", "203.0.113.7")  # noqa: S104


@pytest.fixture
def both(make_port, world):
    """Our port on every address."""
    world.session.commit()
    return make_port(profile="prod", dicom=Dicom(bind=Address(ANY, 0)))


def place(session, **details) -> None:
    session.execute(update(PartnerCredential).where(PartnerCredential.value == AE_TITLE).values(details=details))
    session.commit()


def echo(port: int, host: str = HERE) -> bool:
    ae = AE(AE_TITLE)
    ae.add_requested_context(Verification)
    association = ae.associate(host, port, ae_title="RCPGATEWAY")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return status.Status == 0x0000


def test_who_was_registered_in_ipv4_is_known_on_a_port_for_both(both, ct, session):
    """The socket shows it as ::ffff:127.0.0.1."""
    assert storescu(both.port, *ct).returncode == 0
    assert session.scalar(select(func.count()).select_from(Instance)) == len(ct)
    place(session, host="203.0.113.7", port=104)
    assert storescu(both.port, *ct).returncode != 0


def test_who_was_registered_in_one_family_is_not_known_by_the_other(both, session):
    place(session, host=OTHER, port=104)
    assert not echo(both.port)
    assert audit_lines(session)[-1]["reason"] == "adresse-inattendue"
    place(session, host=HERE, port=104)
    assert echo(both.port)


def test_a_port_on_one_address_answers_and_moves_there(make_port, ct, session, world, tmp_path):
    port = make_port(profile="prod", dicom=Dicom(bind=Address(HERE, 0)))
    place(session, host=HERE, port=104)
    sender = AE(AE_TITLE)
    sender.add_requested_context(CTImageStorage)
    sender.add_requested_context(StudyMove)
    taken: list[str] = []

    def keep(event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    reader = AE("LECTEUR")
    reader.add_supported_context(CTImageStorage)
    listening = reader.start_server((HERE, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    register(session, world.partner, "LECTEUR", listening.server_address[1], host=HERE)
    association = sender.associate(HERE, port.port, ae_title="RCPGATEWAY")
    try:
        assert association.is_established
        assert [association.send_c_store(path).Status for path in ct] == [0x0000] * len(ct)
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", DOMINIQUE.study_uid
        *_, (status, _) = association.send_c_move(asked, "LECTEUR", StudyMove)
    finally:
        association.release()
        listening.shutdown()
    assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, len(ct))
    assert len(taken) == len(ct)
