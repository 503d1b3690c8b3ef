"""Drives odil, a DIMSE implementation in C++, for the tests: JSON lines {number, do, …} in, {number, …} out.

For Debian's own interpreter, whose package python3-odil is; nothing of the gateway is imported. Everything on the wire
is the library's own: `send` opens one association and makes its requests one after the other.
"""

import json
import os
import sys
from pathlib import Path

import odil

PresentationContext = odil.AssociationParameters.PresentationContext
Role = PresentationContext.Role
NAMES = {
    ("find", "study"): "StudyRootQueryRetrieveInformationModelFind",
    ("find", "patient"): "PatientRootQueryRetrieveInformationModelFind",
    ("get", "study"): "StudyRootQueryRetrieveInformationModelGet",
    ("get", "patient"): "PatientRootQueryRetrieveInformationModelGet",
}
ECHO = "1.2.840.10008.1.1"


class Peer:
    """What is told on one line, done."""

    def __init__(self) -> None:
        self._keep = Path()
        self._kept = 0

    def keep(self, folder: str) -> dict:
        self._keep = Path(folder)
        return {}

    def send(self, asked: list, port: int, calling: str, called: str, pdu: int = 16384, classes=(), written=None):
        """One association: a context for each class and syntax that the requests need, `classes` as whom to receive."""
        wanted: dict[tuple[str, str], Role] = {}
        objects = {}
        for place, one in enumerate(asked):
            if one["kind"] == "echo":
                wanted[ECHO, odil.registry.ImplicitVRLittleEndian] = Role.SCU
            elif one["kind"] == "store":
                with odil.open(one["file"]) as stream:
                    head, data = odil.Reader.read_file(stream)
                objects[place] = data
                # It chooses a context by the class alone: one syntax of a class on an association.
                wanted[first(data, "SOPClassUID"), first(head, "TransferSyntaxUID")] = Role.SCU
            else:
                wanted[model(one), odil.registry.ExplicitVRLittleEndian] = Role.SCU
        for sop_class, syntax in classes:
            wanted[sop_class, syntax] = Role.SCP
        association = odil.Association()
        association.set_peer_host("127.0.0.1")
        association.set_peer_port(port)
        association.set_tcp_timeout(60)
        contexts = [PresentationContext(uid, [syntax], role) for (uid, syntax), role in wanted.items()]
        parameters = association.update_parameters()
        parameters.set_calling_ae_title(calling).set_called_ae_title(called).set_maximum_length(pdu)
        parameters.set_presentation_contexts(contexts)
        association.associate()
        if written:
            for place, data in objects.items():
                write(data, Path(written) / f"{place}.bytes")
        try:
            return {"answers": [self._ask(association, one, objects.get(place)) for place, one in enumerate(asked)]}
        finally:
            association.release()

    def _ask(self, association, one: dict, data) -> list[dict]:
        if one["kind"] == "echo":
            odil.EchoSCU(association).echo()
            return [{"status": 0}]
        if one["kind"] == "store":
            # Its StoreSCU looks at no status, so the answer is read here.
            sop_class, uid = first(data, "SOPClassUID"), first(data, "SOPInstanceUID")
            request = odil.messages.CStoreRequest(association.next_message_id(), sop_class, uid, 0, data)
            association.send_message(request, sop_class)
            answer = association.receive_message().get_command_set()
            return [{"status": answer.as_int("Status")[0]}]
        query = odil.DataSet()
        for keyword, value in one["keys"].items():
            values = [str(part) for part in (value if isinstance(value, list) else [value]) if part != ""]
            query.add(keyword, values)
        scu = {"find": odil.FindSCU, "get": odil.GetSCU}[one["kind"]](association)
        scu.set_affected_sop_class(model(one))
        if one["kind"] == "find":
            return [{"said": said(found)} for found in scu.find(query)]
        taken = scu.get(query)
        for found in taken:
            self._kept += 1
            name = self._keep / f"{os.getpid()}-{self._kept}"
            about = {"sop_class": first(found, "SOPClassUID"), "uid": first(found, "SOPInstanceUID")}
            name.with_suffix(".json").write_text(json.dumps(about | {"syntax": found.get_transfer_syntax()}))
            write(found, name.with_suffix(".bytes"))
        return [{"completed": len(taken)}]


def model(one: dict) -> str:
    return getattr(odil.registry, NAMES[one["kind"], one.get("model", "study")])


def first(data, keyword: str) -> str:
    value = data.as_string(keyword)[0]
    return value.decode("ascii") if isinstance(value, bytes) else value


def said(found) -> dict:
    """Values by keyword, as the other peers say them: names as groups, numbers as numbers."""
    tree = json.loads(odil.as_json(found))
    keyword = odil.registry.public_dictionary
    return {
        keyword[odil.ElementsDictionaryKey(odil.Tag(tag))].keyword: one.get("Value", []) for tag, one in tree.items()
    }


def write(data, path: Path) -> None:
    with odil.open(str(path), "wb") as stream:
        odil.Writer(stream, data.get_transfer_syntax()).write_data_set(data)


def main() -> None:
    peer = Peer()
    for line in sys.stdin:
        told = json.loads(line)
        number, what = told.pop("number"), told.pop("do")
        try:
            answer = getattr(peer, what)(**told)
        except Exception as error:  # noqa: BLE001 - what the library says is what the test wants to know
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps({"number": number, **answer}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
