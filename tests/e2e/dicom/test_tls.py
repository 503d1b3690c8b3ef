"""The port over TLS: dcmtk's programs with good and bad certificates, and what openssl finds that it negotiates.

Debian's dcmsend, movescu and getscu speak no TLS: they go through a tunnel that Python's ssl makes.
"""

import contextlib
import re
import ssl
import subprocess
import urllib.request

import pytest
from sqlalchemy import func, select

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.imaging import Instance
from gateway.model.partner import Partner, PartnerCredential
from gateway.rcp import registry
from gateway.rcp.access import SYSTEM
from gateway.rcp.registry import AeTitle, PartnerFacts
from gateway.settings import Dicom
from gateway.transport import Address, Tls
from tests.e2e.dicom.conftest import AE_TITLE, need, running_orthanc, storescu
from tests.e2e.dicom.peers import data_sets, dcmtk, presenting, receiver, register, tunnel
from tests.loopback import free_port, until
from tests.unit.dicom.raw_peer import Peer
from tests.world import audit_lines

STUDY = f"StudyInstanceUID={DOMINIQUE.study_uid}"
KEYS = ["QueryRetrieveLevel=STUDY", STUDY]

# The suites of BCP 195 that have forward secrecy and authenticated encryption, for a port whose key is RSA; and those
# of TLS 1.3 that OpenSSL offers by itself [RFC 9325 4.2].
TLS_1_2 = {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"}
TLS_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}


def tool(name: str, port: int, *options: str, files=(), calling: str = AE_TITLE):
    command = [need(name), "-v", "-aet", calling, "-aec", "RCPGATEWAY", *options, "127.0.0.1", str(port)]
    return subprocess.run(
        [*command, *map(str, files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
    )


def stored(session) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(Instance))


def test_every_verb_is_served_over_tls_to_who_shows_a_certificate(secured, authority, ct, session, world, tmp_path):
    shown = presenting(authority)
    echo = tool("echoscu", secured.port, *shown)
    assert (echo.returncode, "Received Echo Response (Success)" in echo.stdout) == (0, True), echo.stdout
    sent = tool("storescu", secured.port, *shown, files=ct[:3])
    assert (sent.returncode, sent.stdout.count("Received Store Response (Success)")) == (0, 3), sent.stdout
    with tunnel(secured.port, authority) as plain:
        sent = tool("dcmsend", plain, files=ct)
        assert (sent.returncode, stored(session)) == (0, len(ct)), sent.stdout
        target = tmp_path / "got"
        target.mkdir()
        assert dcmtk("getscu", plain, "-S", "+B", "-od", str(target), keys=KEYS).returncode == 0
        assert data_sets(target.iterdir()) == data_sets(ct)
        with receiver(tmp_path / "lecteur", "LECTEUR", *shown) as reader:  # sub-operations over TLS, both certificates
            register(session, world.partner, "LECTEUR", reader.port)
            assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=KEYS).returncode == 0
            assert data_sets(reader.files) == data_sets(ct)
    found = dcmtk("findscu", secured.port, "-S", *shown, keys=[*KEYS, "PatientID"])
    assert (found.returncode, DOMINIQUE.patient_id in found.stdout) == (0, True), found.stdout


@pytest.mark.parametrize("profile", ["--profile-bcp195", "--profile-bcp195-nd", "--profile-bcp195-ex"])
def test_dcmtk_s_profiles_of_bcp_195_are_spoken_with(secured, authority, profile):
    assert tool("echoscu", secured.port, *presenting(authority), profile).returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        (),  # in the clear
        ("--anonymous-tls", "-ic"),
        ("foreign",),
        ("expired",),
        ("server",),  # a certificate for servers only
        ("here", "--profile-aes"),  # retired: without forward secrecy
        ("here", "--profile-null"),  # retired: not encrypted
        ("here", "--cipher", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"),
        ("here", "--cipher", "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"),
    ],
    ids=" ".join,
)
def test_without_a_good_certificate_or_a_good_cipher_nothing_is_stored_and_the_port_lives(
    secured, authority, ct, session, options
):
    if options and not options[0].startswith("-"):
        options = (*presenting(authority, options[0]), "-ic", *options[1:])
    if "--cipher" in options:
        options = (*options, "--profile-null")  # else dcmtk adds the suites of its default profile
    refused = tool("storescu", secured.port, *options, files=ct)
    assert refused.returncode != 0
    assert "Received Store Response" not in refused.stdout
    assert stored(session) == 0
    assert tool("echoscu", secured.port, *presenting(authority)).returncode == 0


def test_a_destination_whose_certificate_names_another_host_gets_nothing(
    secured, authority, ct, session, world, tmp_path
):
    with (
        tunnel(secured.port, authority) as plain,
        receiver(tmp_path / "lecteur", "LECTEUR", *presenting(authority, "other")) as reader,
    ):
        assert storescu(plain, *ct).returncode == 0
        register(session, world.partner, "LECTEUR", reader.port)
        assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=KEYS).returncode != 0
        assert reader.files == []


def test_a_destination_of_the_list_is_never_sent_to_in_the_clear(secured, authority, ct, session, world, tmp_path):
    with tunnel(secured.port, authority) as plain, receiver(tmp_path / "lecteur", "LECTEUR") as reader:
        assert storescu(plain, *ct).returncode == 0
        register(session, world.partner, "LECTEUR", reader.port)
        assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=KEYS).returncode != 0
        assert reader.files == []


def test_orthanc_sends_over_tls_and_is_sent_to(make_port, authority, ct, session, world, tmp_path):
    """Both ways with certificates of both sides; Orthanc asks for ours, we for Orthanc's."""
    world.session.commit()
    (tmp_path / "orthanc").mkdir()
    files = {
        "DicomTlsCertificate": "here.pem",
        "DicomTlsPrivateKey": "here.key",
        "DicomTlsTrustedCertificates": "ca.pem",
    }
    tls = Tls(certificate=authority / "here.pem", key=authority / "here.key", authorities=authority / "ca.pem")
    bind = Address("127.0.0.1", 0)
    port = make_port(profile="prod", dicom=Dicom(bind=bind, tls=tls, tls_destinations=("ORTHANC",)))
    with running_orthanc(
        tmp_path / "orthanc",
        DicomTlsEnabled=True,
        DicomTlsRemoteCertificateRequired=True,
        DicomCheckCalledAet=False,
        DicomModalities={"us": {"AET": "RCPGATEWAY", "Host": "127.0.0.1", "Port": port.port, "UseDicomTls": True}},
        **{name: str(authority / file) for name, file in files.items()},
    ) as pacs:
        assert pacs.post("/modalities/us/echo", {}) == {}
        found = [pacs.post("/instances", path.read_bytes())["ID"] for path in ct]
        sent = pacs.post("/modalities/us/store", {"Resources": found})
        assert (sent["InstancesCount"], sent["FailedInstancesCount"], stored(session)) == (len(ct), 0, len(ct))
        for one in found:
            urllib.request.urlopen(urllib.request.Request(f"{pacs.http}/instances/{one}", method="DELETE")).close()
        register(session, world.partner, "ORTHANC", pacs.dicom_port)
        with tunnel(port.port, authority) as plain:
            assert dcmtk("movescu", plain, "-S", "-aem", "ORTHANC", keys=KEYS).returncode == 0
        assert sorted(pacs.get("/instances")) == sorted(found)


# What is really negotiated, by openssl from outside


def s_client(port: int, authority, *options: str) -> tuple[str, str] | None:
    """Version and cipher that openssl negotiates with a port; None when it cannot."""
    shown = ("-cert", str(authority / "here.pem"), "-key", str(authority / "here.key"))
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *shown, *options],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    found = re.search(r"^New, (\S+), Cipher is (\S+)$", said, re.MULTILINE)
    return None if found is None or found[2] == "(NONE)" else (found[1], found[2])


ANYTHING = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"


@contextlib.contextmanager
def lenient(authority):
    """A server that takes whatever openssl can speak: what it refuses, our client cannot say."""
    port = free_port()
    files = ("-cert", str(authority / "here.pem"), "-key", str(authority / "here.key"))
    command = ["openssl", "s_server", "-accept", str(port), *files, "-cipher", ANYTHING, "-quiet"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: s_client(port, authority) is not None)
        yield port
    finally:
        process.kill()
        process.wait()


REFUSED = [
    *((version, "-cipher", "ALL:@SECLEVEL=0") for version in ("-tls1", "-tls1_1")),
    *(
        ("-tls1_2", "-cipher", f"{kind}:@SECLEVEL=0")
        for kind in ("eNULL", "aNULL", "kRSA", "kDHE", "AES128-GCM-SHA256", "ECDHE+AES+SHA1", "ECDHE+SHA384:!AESGCM")
    ),
]


def test_only_the_versions_and_ciphers_of_bcp_195_are_negotiated(secured, authority):
    def offered(version: str, option: str, everything: str) -> set[str]:
        found: list[str] = []
        while True:
            left = ":".join(name for name in everything.split(":") if name not in found)
            left = left if option == "-ciphersuites" else ":".join([left, *(f"!{name}" for name in found)])
            answer = s_client(secured.port, authority, version, option, left)
            if answer is None:
                return set(found)
            found.append(answer[1])
            if set(found) == TLS_1_3:
                return set(found)  # an empty list of suites cannot be offered

    assert offered("-tls1_2", "-cipher", ANYTHING) == TLS_1_2
    ccm = "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256"
    assert offered("-tls1_3", "-ciphersuites", ":".join([*sorted(TLS_1_3), ccm])) == TLS_1_3
    assert s_client(secured.port, authority)[0] == "TLSv1.3"  # the best of both
    with lenient(authority) as control:
        for options in REFUSED:
            assert s_client(control, authority, *options) is not None, options
            assert s_client(secured.port, authority, *options) is None, options


def test_no_name_is_needed_and_none_is_wrong(secured, authority):
    for option in (("-noservername",), ("-servername", "autre-nom.example")):
        assert s_client(secured.port, authority, *option) is not None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_ticket_outlives_the_conversation(secured, authority, version):
    """A ticket is encrypted under one key for as long as the process lives: forward secrecy would end there."""
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(authority / "here.pem", authority / "here.key")

    def wrap(sock):
        return context.wrap_socket(sock, server_hostname="127.0.0.1")

    peer = Peer(secured.port, calling=AE_TITLE.encode(), wrap=wrap)  # what it read holds the tickets of TLS 1.3
    assert peer.sock.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
    assert peer.sock.session is None or not peer.sock.session.has_ticket
    peer.release()


# Whose certificate


def fingerprint(authority, name: str) -> str:
    """As openssl prints it for an operator."""
    command = ["openssl", "x509", "-in", str(authority / f"{name}.pem"), "-noout", "-fingerprint", "-sha256"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]


@pytest.fixture
def bound(represented, authority, session, world):
    """A second hospital whose application SCANNER shows one of two certificates, and has no registered address."""
    prints = (fingerprint(authority, "another"), fingerprint(authority, "other"))
    facts = PartnerFacts(name="CHU Y", ae_titles=(AeTitle("SCANNER", certificates=prints),))
    partner_id = represented.run(SYSTEM, lambda step: registry.add_partner(step, facts).id)
    partner = session.get(Partner, partner_id)
    partner.network_id = world.network.id
    session.commit()
    return partner


def test_a_registered_certificate_is_asked_for_beside_the_title(secured, authority, bound, ct, session):
    """Another hospital's certificate of the same authority says nothing of whose images these are."""
    wrong = tool("storescu", secured.port, *presenting(authority), files=ct, calling="SCANNER")
    assert (wrong.returncode != 0, "Calling AE Title Not Recognized" in wrong.stdout) == (True, True), wrong.stdout
    assert stored(session) == 0
    refusals = [line["reason"] for line in audit_lines(session) if line["action"] == "E" and line.get("reason")]
    assert "certificat-inattendu" in refusals
    for name in ("another", "other"):  # two at a time, while one takes the other's place
        right = tool("storescu", secured.port, *presenting(authority, name), files=ct, calling="SCANNER")
        assert right.returncode == 0, right.stdout
    assert set(session.scalars(select(Instance.partner_id))) == {bound.id}
    # Who proves himself by a certificate may also read, from whatever address.
    found = dcmtk("findscu", secured.port, "-S", *presenting(authority, "another"), keys=KEYS, calling="SCANNER")
    assert (found.returncode, DOMINIQUE.study_uid in found.stdout) == (0, True), found.stdout


def test_a_title_with_a_certificate_is_nobody_in_the_clear_nor_where_none_is_asked_for(
    make_port, authority, bound, ct, session
):
    """Fail closed: in trials, on a plain port and on one that asks for no certificate."""
    without_ca = Tls(certificate=authority / "here.pem", key=authority / "here.key")
    assert storescu(make_port(profile="prod").port, *ct, calling="SCANNER").returncode != 0
    assert storescu(make_port(profile="dev").port, *ct, calling="SCANNER").returncode != 0
    port = make_port(profile="prod", dicom=Dicom(bind=Address("127.0.0.1", 0), tls=without_ca))
    shown = presenting(authority, "another")
    assert tool("storescu", port.port, *shown, files=ct, calling="SCANNER").returncode != 0
    assert stored(session) == 0


def test_a_certificate_and_an_address_are_both_asked_for(secured, authority, bound, ct, session):
    [credential] = session.scalars(select(PartnerCredential).where(PartnerCredential.value == "SCANNER"))
    credential.details = credential.details | {"host": "203.0.113.7", "port": 104}
    session.commit()
    shown = presenting(authority, "another")
    assert tool("storescu", secured.port, *shown, files=ct, calling="SCANNER").returncode != 0
    credential.details = credential.details | {"host": "127.0.0.1"}
    session.commit()
    assert tool("storescu", secured.port, *shown, files=ct, calling="SCANNER").returncode == 0
