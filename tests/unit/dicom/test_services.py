"""The table of services: what is negotiated, who answers, and what becomes of an error."""

from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyFind

from gateway.dicom.services import Service
from gateway.errors import Forbidden, Unavailable


def find_service(serve) -> Service[str]:
    return Service(frozenset({StudyFind}), C_FIND, serve)


def ask(port: int, identifier: Dataset | None = None, *, times: int = 1) -> list[list[tuple[Dataset, Dataset | None]]]:
    ae = AE("ASKER")
    ae.add_requested_context(StudyFind)
    association = ae.associate("127.0.0.1", port, ae_title="RCPGATEWAY")
    assert association.is_established
    asked = identifier or Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    answers = [list(association.send_c_find(asked, StudyFind)) for _ in range(times)]
    association.release()
    return answers


def test_a_message_reaches_the_handler_of_its_sop_class_with_the_caller_and_its_identifier(make_scp):
    def serve(request, peer):
        answer = Dataset()
        answer.PatientID = f"{peer}/{request.identifier().QueryRetrieveLevel}"
        request.respond(0xFF00, answer)
        request.respond(0x0000)

    port = make_scp(services=[find_service(serve)]).port
    [[(pending, data), (done, nothing)]] = ask(port)
    assert (pending.Status, data.PatientID) == (0xFF00, "ASKER@127.0.0.1/STUDY")
    assert (done.Status, nothing) == (0x0000, None)


def test_without_a_line_in_the_table_the_context_is_refused(make_scp):
    ae = AE()
    ae.add_requested_context(StudyFind)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", make_scp().port, ae_title="RCPGATEWAY")
    assert [str(context.abstract_syntax) for context in association.rejected_contexts] == [StudyFind]
    assert association.send_c_echo().Status == 0
    association.release()


def test_an_error_is_the_last_response_and_the_association_goes_on(make_scp):
    errors = iter([Unavailable("database", "Absente."), Forbidden("interdit", "Non."), RuntimeError("DUPONT")])

    def serve(request, peer):
        raise next(errors)

    answers = ask(make_scp(services=[find_service(serve)]).port, times=3)
    assert [[(status.Status, status.ErrorComment) for status, _ in one] for one in answers] == [
        [(0xA700, "database: Absente.")],
        [(0x0124, "interdit: Non.")],
        [(0xC000, "internal-error: Defaut interne de la passerelle.")],
    ]


def test_a_caller_may_take_objects_itself_and_store_them_too(make_scp, folder):
    ae = AE("ASKER")
    ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian, JPEG2000])
    role = build_role(CTImageStorage, scp_role=True)
    association = ae.associate("127.0.0.1", make_scp().port, ae_title="RCPGATEWAY", ext_neg=[role])
    [context] = association.accepted_contexts
    assert (context.as_scp, context.as_scu) == (True, False)
    association.release()
    # Without a word about roles, the caller sends and we keep.
    association = ae.associate("127.0.0.1", make_scp().port, ae_title="RCPGATEWAY")
    [context] = association.accepted_contexts
    assert (context.as_scp, context.as_scu) == (False, True)
    association.release()
