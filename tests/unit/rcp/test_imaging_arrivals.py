"""Objects that arrive together: what stands and what each sender is told is as if one came after another."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import psycopg
import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError

from gateway.errors import Conflict, InvalidContent, Unavailable
from gateway.model.audit import AuditLine
from gateway.model.imaging import Instance, QuarantinedObject, Series, Study
from gateway.model.partner import Partner
from gateway.rcp import access, imaging, imaging_arrivals
from gateway.rcp.imaging import Content
from gateway.rcp.imaging_arrivals import Arrivals
from tests.image_samples import STUDY, content, facts, pacs, send
from tests.loopback import wait_until
from tests.world import audit_lines, build


class Scene:
    """A hospital whose PACS sends on many associations, and a hand on when a group is written."""

    def __init__(self, session, steps, monkeypatch) -> None:
        self.session, self.steps = session, steps
        self.world = build(session)
        self.world.dossier(self.world.record(value="000003"))
        session.commit()
        self.arrivals = Arrivals(steps)
        self.groups: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.alone: list[int] = []
        write, alone = Arrivals._write, imaging_arrivals._keep_alone

        def watched(arrivals, group):
            self.groups.append(len(group))
            assert self.open.wait(60)
            return write(arrivals, group)

        def watched_alone(step, *, facts, **more):
            self.alone.append(facts.instance.number)
            return alone(step, facts=facts, **more)

        monkeypatch.setattr(Arrivals, "_write", watched)
        monkeypatch.setattr(imaging_arrivals, "_keep_alone", watched_alone)

    def keep(self, said, kept: Content | None = None, line=None):
        return self.arrivals.keep(pacs(self.world), said, kept or content(said), line)

    def together(self, *objects) -> list[Future]:
        """Send a first one alone; all others wait until it is in, and form the next group, but those refused before."""
        first, *others = objects
        self.groups.clear()
        self.open.clear()
        with ThreadPoolExecutor(len(objects)) as senders:
            sent = [senders.submit(self.keep, *first)]
            assert wait_until(lambda: self.groups)
            for number, one in enumerate(others, 1):  # one after another: the order of the queue is known
                sent.append(senders.submit(self.keep, *one))
                assert wait_until(
                    lambda number=number: len(self.arrivals._queue) + sum(other.done() for other in sent[1:]) == number
                )
            self.open.set()
        return sent

    def count(self, kind=Instance) -> int:
        self.session.rollback()
        return self.session.scalar(select(func.count()).select_from(kind))

    def numbers(self) -> list[int]:
        self.session.rollback()
        return list(self.session.scalars(select(Instance.instance_number).order_by(Instance.instance_number)))


@pytest.fixture
def scene(store, steps, monkeypatch):
    with store.session() as session:
        made = Scene(session, steps, monkeypatch)
        assert made.keep(facts(1)) is None
        yield made


def alike(*numbers: int) -> list[tuple]:
    return [(facts(number),) for number in numbers]


def test_those_who_wait_are_one_group(scene):
    sent = scene.together(*alike(*range(2, 9)))
    assert [one.result() for one in sent] == [None] * 7
    assert scene.groups == [1, 6]
    assert scene.numbers() == list(range(1, 9))
    assert (scene.count(Study), scene.count(Series)) == (1, 1)


def test_a_row_is_the_same_whoever_wrote_it(scene):
    """By the group, and by `imaging.keep` for an object of another series."""
    said = facts(2)
    assert scene.keep(said) is None
    assert scene.groups == [1]
    other = msgspec.structs.replace(
        facts(2, sop="1.2.3"), series=msgspec.structs.replace(said.series, series_instance_uid="1.2.4")
    )
    assert send(scene.steps, scene.world, other, content(said)) is None
    scene.session.rollback()
    first, second = (
        scene.session.execute(select(Instance.__table__).where(Instance.sop_instance_uid == uid)).one()._asdict()
        for uid in (said.instance.sop_instance_uid, "1.2.3")
    )
    differing = {"id", "series_id", "sop_instance_uid", "received_at"}
    assert {name: first[name] for name in first if name not in differing} == {
        name: second[name] for name in second if name not in differing
    }


def broken(said) -> tuple:
    """What the database takes of nobody: no hash."""
    return said, Content(None, 1)  # type: ignore[arg-type]


def test_one_that_fails_is_undone_alone_and_tells_its_own_sender(scene):
    first, second, third, fourth = scene.together(*alike(2, 3), broken(facts(4)), *alike(5))
    assert [one.result() for one in (first, second, fourth)] == [None] * 3
    assert third.exception() is not None
    assert scene.numbers() == [1, 2, 3, 5]


def test_a_known_one_is_kept_once_and_other_bytes_are_refused_to_its_sender_alone(scene):
    other = Content("f" * 64, 9)
    sent = scene.together(*alike(2, 1, 3), (facts(1), other), *alike(4))
    answers = [one.result() for one in sent]
    assert [type(one) for one in answers] == [type(None), type(None), type(None), Conflict, type(None)]
    assert answers[3].code == "duplicate-instance"
    assert scene.numbers() == [1, 2, 3, 4]
    [aside] = scene.session.scalars(select(QuarantinedObject)).all()
    assert (aside.sha256, aside.reason) == (other.sha256, "autres-octets")


def test_the_same_uid_twice_in_one_group_is_one_object(scene):
    other = Content("f" * 64, 9)
    sent = scene.together(*alike(2, 3), (facts(3), other), *alike(3))
    answers = [one.result() for one in sent]
    assert sum(isinstance(one, Conflict) for one in answers) in (1, 2)  # who was first decides
    kept = scene.session.scalars(select(Instance.sha256).where(Instance.instance_number == 3)).all()
    assert len(kept) == 1
    assert (kept[0] == other.sha256) == (sum(isinstance(one, Conflict) for one in answers) == 2)


@pytest.mark.parametrize("difference", [{"patient": "000099"}, {"family": "AUTRE"}])
def test_another_patient_s_object_is_refused_to_its_sender_alone(scene, difference):
    sent = scene.together(*alike(2, 3), (facts(4, **difference),), *alike(5))
    answers = [one.result() for one in sent]
    assert [type(one) for one in answers] == [type(None), type(None), InvalidContent, type(None)]
    assert answers[2].code == "identity-mismatch"
    assert scene.numbers() == [1, 2, 3, 5]
    assert scene.session.scalars(select(QuarantinedObject.reason)).all() == ["identite-autre-que-l-etude"]


def test_what_a_study_says_now_decides_not_what_it_said(scene):
    """Between two objects somebody gives the study to another patient."""
    scene.session.execute(update(Study).values(patient_id="000077"))
    scene.session.commit()
    assert scene.keep(facts(2)).code == "identity-mismatch"


def test_a_late_object_brings_a_settled_study_forward(scene, monkeypatch):
    assert scene.keep(facts(2)) is None
    with monkeypatch.context() as patched:
        patched.setattr(imaging, "EVERY_S", 0.0)
        assert imaging.settle(scene.steps) == 1
    scene.session.rollback()
    assert scene.session.scalars(select(Study)).one().settled_at is not None
    assert scene.keep(facts(3)) is None
    assert scene.groups[-1] == 1  # the series is known: it was written by a group
    scene.session.expire_all()
    scene.session.rollback()
    study = scene.session.scalars(select(Study)).one()
    assert (study.instances_count, study.settled_at) == (3, None)


def test_a_study_that_changes_while_a_group_waits_is_judged_anew_and_its_neighbour_is_not(scene):
    other = f"{STUDY}.5"
    assert scene.keep(facts(1, study=other)) is None
    scene.alone.clear()
    scene.open.clear()
    with ThreadPoolExecutor(4) as senders:
        sent = [senders.submit(scene.keep, facts(2))]
        assert wait_until(lambda: scene.groups)
        for number, said in enumerate((facts(3), facts(4, study=other), facts(5)), 1):
            sent.append(senders.submit(scene.keep, said))
            assert wait_until(lambda number=number: len(scene.arrivals._queue) == number)
        scene.session.execute(update(Study).where(Study.study_instance_uid == other).values(patient_id="000077"))
        scene.session.commit()
        scene.open.set()
    answers = [one.result() for one in sent]
    assert [type(one) for one in answers] == [type(None), type(None), InvalidContent, type(None)]
    assert answers[2].code == "identity-mismatch"
    assert (scene.groups, scene.alone) == ([1, 3], [4])
    assert scene.numbers() == [1, 1, 2, 3, 5]
    # Refused alone: nothing is known of that series any more, and the next is judged by what the study says now.
    assert scene.keep(facts(6, study=other)).code == "identity-mismatch"
    assert scene.keep(facts(7, study=other, patient="000077")) is None


def test_the_first_of_a_series_that_fails_leaves_its_turn_to_the_next(scene):
    """The one whose turn it is learns of its own refusal; whoever waits behind it is the first then."""
    said = [facts(number, study=f"{STUDY}.6") for number in (1, 2, 3)]
    scene.alone.clear()
    with ThreadPoolExecutor(3) as senders:
        with scene.steps.store.engine.connect() as other:
            other.execute(text("LOCK TABLE study IN EXCLUSIVE MODE"))
            sent = [senders.submit(scene.keep, *broken(said[0]))]
            assert wait_until(lambda: scene.alone == [1])
            sent += [senders.submit(scene.keep, one) for one in said[1:]]
            assert wait_until(lambda: [one.count for one in scene.arrivals._first.values()] == [3])
            other.rollback()
        assert isinstance(sent[0].exception(60), Exception)
        assert [one.result(60) for one in sent[1:]] == [None, None]
    assert sorted(scene.alone)[:2] == [1, 2] or sorted(scene.alone)[:2] == [1, 3]
    assert scene.arrivals._first == {}
    assert scene.keep(said[0]) is None


def test_a_series_that_is_gone_is_made_again(scene):
    scene.session.execute(delete(Instance))
    scene.session.execute(delete(Series))
    scene.session.commit()
    assert scene.keep(facts(2)) is None
    assert (scene.numbers(), scene.count(Series)) == ([2], 1)


def keep_together(scene, *every) -> list:
    objects = [(said, *rest) if rest else (said, content(said)) for said, *rest in every]
    return scene.arrivals.keep_together([(pacs(scene.world), *one) for one in objects])


def test_objects_of_one_thread_are_one_group(scene):
    assert keep_together(scene, *alike(*range(2, 9))) == [True] * 7
    assert scene.groups == [7]
    assert scene.numbers() == list(range(1, 9))
    assert keep_together(scene) == []


def test_of_one_thread_s_objects_those_that_are_not_as_foreseen_are_left_to_their_own_way(scene):
    """Known already, another patient's, of a series that is not known, the same twice: none of them is judged here."""
    elsewhere = facts(7, study=f"{STUDY}.9")
    said = [facts(2), facts(1), facts(3, family="AUTRE"), elsewhere, facts(4), facts(4)]
    told = keep_together(scene, *((one,) for one in said))
    assert (told[:4], sorted(told[4:])) == ([True, False, False, False], [False, True])
    assert scene.groups == [4]
    assert scene.numbers() == [1, 2, 4]
    assert scene.alone == [1]  # the first of all
    assert scene.count(QuarantinedObject) == 0


def test_one_that_fails_among_one_thread_s_objects_leaves_all_to_their_own_way(scene):
    assert keep_together(scene, *alike(2), broken(facts(3)), *alike(4)) == [False] * 3
    assert [scene.keep(facts(number)) for number in (2, 4)] == [None, None]
    assert scene.numbers() == [1, 2, 4]


def test_objects_of_several_threads_share_groups_that_are_bounded(scene, monkeypatch):
    """Two threads with many, and some alone, behind one who writes: each object is kept once and its thread is told."""
    monkeypatch.setattr(imaging_arrivals, "_MOST", 4)
    scene.groups.clear()
    scene.open.clear()
    with ThreadPoolExecutor(5) as senders:
        lone = [senders.submit(scene.keep, facts(2))]
        assert wait_until(lambda: scene.groups)
        many = [senders.submit(keep_together, scene, *alike(*range(first, first + 10))) for first in (10, 20)]
        lone += [senders.submit(scene.keep, facts(number)) for number in (3, 4)]
        assert wait_until(lambda: len(scene.arrivals._queue) == 22)
        scene.open.set()
        assert [one.result(60) for one in many] == [[True] * 10] * 2
        assert [one.result(60) for one in lone] == [None] * 3
    assert scene.groups == [1, 4, 4, 4, 4, 4, 2]
    assert scene.numbers() == [1, 2, 3, 4, *range(10, 30)]
    assert not scene.arrivals._busy


def test_when_the_database_goes_each_of_one_thread_s_objects_is_told_to_be_sent_again(scene, database_url):
    with ThreadPoolExecutor(1) as writers:
        with locked_study(database_url):
            sent = writers.submit(keep_together, scene, *alike(2, 3))
            assert wait_until(lambda: waiting_for_a_lock(database_url))
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (waiting_for_a_lock(database_url)[0],))
        assert [type(one) for one in sent.result(60)] == [Unavailable] * 2
    assert scene.numbers() == [1]


def waiting_for_a_lock(database_url) -> list[int]:
    with psycopg.connect(database_url, autocommit=True) as other:
        asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return [pid for (pid,) in other.execute(asked)]


@contextmanager
def locked_study(database_url, change="SELECT 1 FROM study FOR UPDATE"):
    with psycopg.connect(database_url) as other:
        other.execute(change)
        yield
        other.commit()


def test_the_first_objects_of_a_series_on_several_associations_are_one_and_a_group(scene, database_url):
    said = [
        msgspec.structs.replace(
            facts(number),
            series=msgspec.structs.replace(facts(number).series, series_instance_uid="1.2.7"),
        )
        for number in range(2, 8)
    ]
    scene.alone.clear()
    with ThreadPoolExecutor(6) as senders:
        with locked_study(database_url):
            sent = [senders.submit(scene.keep, one) for one in said]
            assert wait_until(lambda: [one.count for one in scene.arrivals._first.values()] == [6])
        assert [one.result() for one in sent] == [None] * 6
    assert len(scene.alone) == 1
    assert scene.numbers() == list(range(1, 8))
    assert scene.arrivals._first == {}


def test_an_object_that_meets_a_settling_study_waits_for_it_and_brings_it_forward(scene, database_url):
    """What it looked at before was not settled."""
    settling = "UPDATE study SET settled_at = now()"
    with ThreadPoolExecutor(1) as senders:
        with locked_study(database_url, settling):
            sent = senders.submit(scene.keep, facts(2))
            assert wait_until(lambda: waiting_for_a_lock(database_url))
        assert sent.result() is None
    scene.session.rollback()
    scene.session.expire_all()
    study = scene.session.scalars(select(Study)).one()
    assert (study.instances_count, study.settled_at) == (2, None)


def test_when_the_database_goes_all_of_the_group_are_told_to_send_again(scene, database_url, monkeypatch):
    write = Arrivals._write

    def cut(arrivals, group):
        if len(group) == 1:
            return write(arrivals, group)
        with locked_study(database_url), ThreadPoolExecutor(1) as writers:
            written = writers.submit(write, arrivals, group)
            assert wait_until(lambda: waiting_for_a_lock(database_url))
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (waiting_for_a_lock(database_url)[0],))
            return written.result()

    monkeypatch.setattr(Arrivals, "_write", cut)
    first, *others = scene.together(*alike(2, 3, 4, 5))
    assert first.result() is None
    assert [type(one.exception()) for one in others] == [Unavailable] * 3
    assert scene.numbers() == [1, 2]
    sent = scene.together(*alike(3), *alike(4))
    assert [one.result() for one in sent] == [None] * 2
    assert scene.numbers() == [1, 2, 3, 4]


def test_a_crowd_on_two_processes_loses_nothing_and_doubles_nothing(scene, make_steps):
    """Two processes know nothing of each other; every object is sent to both."""
    other = Arrivals(make_steps())
    numbers = list(range(2, 42))

    def send_all(arrivals: Arrivals, mine: list[int]) -> list[object]:
        return [arrivals.keep(pacs(scene.world), facts(number), content(facts(number))) for number in mine]

    jobs: list[Future[list[object]]] = []
    with ThreadPoolExecutor(8) as senders:
        for part in range(4):
            jobs.append(senders.submit(send_all, scene.arrivals, numbers[part::4]))
            jobs.append(senders.submit(send_all, other, numbers[part::4][::-1]))
    assert {answer for job in jobs for answer in job.result()} == {None}
    assert scene.numbers() == list(range(1, 42))
    assert (scene.count(Study), scene.count(Series), scene.count(QuarantinedObject)) == (1, 1, 0)


def test_partners_in_one_group_keep_their_own_objects(scene):
    """The same study from two hospitals: two studies, and each trail names its own sender."""
    scene.session.rollback()
    second = Partner(network_id=scene.world.network.id, name="CHU Y", finess="590000002", patient_domains=["https://y"])
    scene.session.add(second)
    scene.session.commit()
    caller = replace(pacs(scene.world), partner_id=second.id, identifier="CHUY_PACS")
    assert scene.arrivals.keep(caller, facts(1), content(facts(1))) is None
    scene.open.clear()
    scene.groups.clear()
    with ThreadPoolExecutor(3) as senders:
        jobs = [senders.submit(scene.keep, facts(2))]
        assert wait_until(lambda: scene.groups)
        jobs.append(senders.submit(scene.arrivals.keep, caller, facts(2), content(facts(2))))
        jobs.append(senders.submit(scene.keep, facts(3)))
        assert wait_until(lambda: len(scene.arrivals._queue) == 2)
        scene.open.set()
    assert [job.result() for job in jobs] == [None] * 3
    assert scene.groups == [1, 2]
    scene.session.rollback()
    found = scene.session.execute(
        select(Instance.partner_id, Study.partner_id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
    ).all()
    assert sorted(found) == sorted([(scene.world.partner.id,) * 2] * 3 + [(second.id,) * 2] * 2)
    assert STUDY in {line["object_id"] for line in audit_lines(scene.session)}


def telling(scene, said):
    """Make the line of one object as who answers its sender does; its reason tells it from the others."""

    def line(record_id):
        persons = (record_id,) if record_id else ()
        return access.facts(pacs(scene.world), "imagerie", action="C", reason="recu", persons=persons, object_id=uid)

    uid = said.instance.sop_instance_uid
    return line


def told(scene) -> list[tuple[str, int, list]]:
    """Of each line that came with an object: the object, the transaction that wrote it, the records that it names."""
    scene.session.rollback()
    rows = scene.session.execute(select(AuditLine.payload, AuditLine.xid, AuditLine.persons).order_by(AuditLine.seq))
    said = [(msgspec.json.decode(payload), xid, persons) for payload, xid, persons in rows]
    return [(line["object_id"], xid, persons) for line, xid, persons in said if line.get("reason") == "recu"]


def writers(scene) -> dict[str, int]:
    """The transaction that wrote each object's row, as PostgreSQL itself says."""
    scene.session.rollback()
    rows = scene.session.execute(text("SELECT sop_instance_uid, xmin::text::bigint FROM instance")).all()
    return dict(map(tuple, rows))


@pytest.mark.parametrize("how", ["the first of its series", "the next", "among others"])
def test_a_line_is_one_commit_with_its_object(scene, how):
    said = facts(2, study=f"{STUDY}.8" if how == "the first of its series" else STUDY)
    line = telling(scene, said)
    if how == "among others":
        sent = scene.together((facts(3),), (facts(4),), (said, content(said), line), (facts(5),))
        assert [one.result() for one in sent] == [None] * 4
        assert scene.groups == [1, 3]
    else:
        assert scene.keep(said, line=line) is None
    record = scene.session.scalars(
        select(Study.record_id).where(Study.study_instance_uid == said.study.study_instance_uid)
    ).one()
    uid = said.instance.sop_instance_uid
    assert told(scene) == [(uid, writers(scene)[uid], [record])]
    assert record is not None


def test_a_known_object_has_its_line_and_a_refused_one_has_none(scene):
    said = facts(1)
    assert scene.keep(said, line=telling(scene, said)) is None
    assert scene.keep(said, Content("f" * 64, 9), telling(scene, said)).code == "duplicate-instance"
    stranger = facts(2, family="AUTRE")
    assert scene.keep(stranger, line=telling(scene, stranger)).code == "identity-mismatch"
    assert [uid for uid, _, _ in told(scene)] == [said.instance.sop_instance_uid]
    assert scene.numbers() == [1]


def test_an_object_whose_line_cannot_be_written_is_not_kept(scene):
    said = facts(2)
    scene.session.execute(text("ALTER TABLE audit_line ADD CONSTRAINT none CHECK (event <> 'imagerie') NOT VALID"))
    scene.session.commit()
    with pytest.raises(DBAPIError):
        scene.keep(said, line=telling(scene, said))
    assert scene.keep(facts(3)) is None
    assert scene.numbers() == [1, 3]
    scene.session.execute(text("ALTER TABLE audit_line DROP CONSTRAINT none"))
    scene.session.commit()
    assert scene.keep(said, line=telling(scene, said)) is None
    assert [uid for uid, _, _ in told(scene)] == [said.instance.sop_instance_uid]


def test_a_line_names_the_record_that_its_study_is_of_now(scene):
    """Somebody gives the study to another record between two objects, which its patient and its traits do not say."""
    assert scene.keep(facts(2)) is None
    other = scene.world.record(value="000005").id
    scene.session.flush()
    scene.session.execute(update(Study).values(record_id=other))
    scene.session.commit()
    scene.alone.clear()
    for number in (3, 4):
        assert scene.keep(facts(number), line=telling(scene, facts(number))) is None
    assert [persons for _, _, persons in told(scene)] == [[other]] * 2
    assert scene.alone == [3]  # the one after it is written at once again
