"""The embedded PostgreSQL, run for real.

Under root the server is another user and pytest's own temporary folders (0700, root's) are the closed tree; two tests
that need root, or a second user, exist only there. Run as an ordinary user, the same tests prove the plain case.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from gateway.errors import Fault
from gateway.model import embedded
from gateway.model.embedded import EmbeddedServer, account, binaries, running
from gateway.model.embedded.cluster import Cluster
from tests.loopback import until

ROOT = os.geteuid() == 0
REPOSITORY = Path(embedded.__file__).parents[3]

USER = """
import sys, time
from pathlib import Path
from gateway.model.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.read()
if sys.argv[2:] != ["die"]:
    server.stop()
print("left", flush=True)
"""


def user_process(data: Path, *, environment: dict[str, str] | None = None, **options) -> subprocess.Popen[str]:
    """Another process that uses the server until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", USER, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
        **options,
    )


def leave(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    assert process.stdout.readline() == "left\n"
    assert process.wait(60) == 0
    process.stdout.close()


def put(url: str, value: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (%s)", (value,))


def kept(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept ORDER BY value")]


def postmaster(data: Path) -> int:
    return int((Cluster.of(data).data / "postmaster.pid").read_text().split("\n")[0])


def keeper_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def alive(data: Path) -> bool:
    return bool(Cluster.of(data).processes())


def modes(folder: Path) -> dict[Path, tuple[int, int, int]]:
    return {
        each: (stat.S_IMODE(each.stat().st_mode), each.stat().st_uid, each.stat().st_gid)
        for each in (folder, *folder.parents)
    }


@contextlib.contextmanager
def open_folder():
    """A folder whose parents everybody may cross, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A home whose cluster was made once: making one is most of what a start costs."""
    folder = tmp_path_factory.mktemp("made")
    with running(folder):
        pass
    return Cluster.of(folder).home


@pytest.fixture
def data(tmp_path, made) -> Path:
    """A data directory whose cluster is made already."""
    subprocess.run(["cp", "-a", made, tmp_path / "postgres"], check=True)
    return tmp_path


def test_it_starts_serves_stops_and_starts_again(tmp_path):
    before = modes(tmp_path)
    with running(tmp_path / "data") as url:
        put(url, 1)
        with psycopg.connect(url) as connection:
            said = {
                name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]
                for name in ("server_encoding", "listen_addresses", "fsync", "timezone")
            }
            collation, superuser = connection.execute(
                "SELECT d.datcollate, r.rolsuper FROM pg_database d, pg_roles r "
                "WHERE d.datname = current_database() AND r.rolname = current_user"
            ).fetchone()
        assert said == {"server_encoding": "UTF8", "listen_addresses": "", "fsync": "on", "timezone": "UTC"}
        assert (collation, superuser) == ("C", False)
    assert not alive(tmp_path / "data")
    with running(tmp_path / "data") as url:
        assert kept(url) == [1]
    assert modes(tmp_path) == before


def test_the_server_is_never_root_and_listens_on_no_port(data):
    with running(data) as url:
        pid = postmaster(data)
        assert Path(f"/proc/{pid}").stat().st_uid == (
            pwd.getpwnam(account.SYSTEM_USER).pw_uid if ROOT else os.geteuid()
        )
        inodes = {
            str(entry.readlink()).removeprefix("socket:[").removesuffix("]")
            for entry in Path(f"/proc/{pid}/fd").iterdir()
            if str(entry.readlink()).startswith("socket:")
        }
        for table in ("tcp", "tcp6", "udp", "udp6"):
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            assert not inodes & {row.split()[9] for row in rows}
        with psycopg.connect(url) as connection:
            (method,) = connection.execute("SELECT split_part(system_user, ':', 1)").fetchone()
        assert method == "peer"
    if ROOT:
        entry = pwd.getpwnam(account.SYSTEM_USER)
        assert entry.pw_shell == "/usr/sbin/nologin"
        assert entry.pw_dir == "/nonexistent"


def test_sqlalchemy_and_asyncpg_take_the_same_url(data):
    import asyncio

    import asyncpg
    import sqlalchemy

    async def ask(url: str) -> int:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval("SELECT 42")
        finally:
            await connection.close()

    with running(data) as url:
        assert asyncio.run(ask(url)) == 42
        engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT 43")) == 43
        engine.dispose()


def test_several_starters_at_once_make_one_server(data):
    starters = [user_process(data) for _ in range(4)]
    urls = {starter.stdout.readline() for starter in starters}
    assert len(urls) == 1
    parents = {}
    for pid in Cluster.of(data).processes():
        with contextlib.suppress(FileNotFoundError):  # a connection's process may just have ended
            parents[pid] = keeper_of(pid)
    # One postmaster, and everything else is its child.
    assert {pid for pid, parent in parents.items() if parent not in parents} == {postmaster(data)}
    for starter in starters[:-1]:
        leave(starter)  # among them the one that started it
        assert alive(data)
    leave(starters[-1])
    assert not alive(data)


def test_it_dies_with_an_owner_killed_by_sigkill(data):
    owner = user_process(data)
    put(owner.stdout.readline().strip(), 7)
    owner.kill()
    owner.wait()
    until(lambda: not alive(data))
    with running(data) as url:
        assert kept(url) == [7]


def test_a_start_right_after_a_sigkill_waits_for_the_old_server_to_be_gone(data):
    for value in range(3):
        owner = user_process(data)
        put(owner.stdout.readline().strip(), value)
        owner.kill()  # and no wait: the next owner comes while the keeper stops the server
        owner.wait()
    with running(data) as url:
        assert kept(url) == [0, 1, 2]


def test_a_killed_owner_leaves_the_server_to_the_others(data):
    owner = user_process(data)
    owner.stdout.readline()
    with running(data) as url:
        owner.kill()
        owner.wait()
        put(url, 3)
        assert kept(url) == [3]
    assert not alive(data)


def test_data_survives_a_sigkill_of_the_postmaster_and_it_comes_back(data):
    with running(data) as url:
        put(url, 5)
        first = postmaster(data)
        os.kill(first, signal.SIGKILL)

        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                return kept(url) == [5]
            return False

        until(answers)
        assert postmaster(data) != first


def test_a_killed_keeper_takes_the_server_down_cleanly_and_a_new_one_comes(data, monkeypatch):
    monkeypatch.setattr("gateway.model.embedded.server._WATCH_EVERY_S", 0.05)
    with running(data) as url:
        put(url, 6)
        first = postmaster(data)
        os.kill(keeper_of(first), signal.SIGKILL)

        def another() -> bool:
            with contextlib.suppress(psycopg.OperationalError, OSError, ValueError):
                return kept(url) == [6] and postmaster(data) != first
            return False

        until(another)
    assert "received fast shutdown request" in Cluster.of(data).log.read_text()
    assert not alive(data)


def test_a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(data):
    with running(data) as url:
        put(url, 8)
    cluster = Cluster.of(data)
    owner = cluster.data.stat().st_uid
    identity = {"user": owner} if ROOT else {}
    # A container that starts again often gives the old number to another process of the same user.
    stranger = subprocess.Popen(["/bin/sleep", "600"], cwd="/", **identity)
    try:
        stale = cluster.data / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{cluster.data}\n1700000000\n5432\n/nowhere\n\n  123456   0\nready   \n")
        os.chown(stale, owner, -1)
        with running(data) as url:
            assert kept(url) == [8]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_postmaster_left_without_a_keeper_is_stopped_and_replaced(data):
    with running(data) as url:
        put(url, 9)
    cluster = Cluster.of(data)
    who = account.server_account(cluster.data)
    programs = binaries.Binaries.usable_by(who, cluster.home)
    folder = cluster.prepare_socket_folder(who)
    identity = {} if who.is_caller else {"user": who.uid, "group": who.gid, "extra_groups": []}
    stray = subprocess.Popen(
        cluster.command(programs, who, folder),
        cwd=cluster.data,
        env={"PATH": "/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **identity,
    )
    server = EmbeddedServer(data)
    until((folder / ".s.PGSQL.5432").exists)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gateway.model.embedded.server._STRAY_FAST_S", 0.0)
            # Our child would stay a zombie, which lives nowhere; its end is what the start waits for.
            url = server.start()
        assert stray.wait(60) == 0
        assert kept(url) == [9]
    finally:
        server.stop()


def test_a_deep_data_directory_gets_a_short_socket(tmp_path):
    deep = tmp_path.joinpath(*["a-long-folder-name-of-some-institution"] * 6)
    with running(deep) as url:
        put(url, 1)
        server = EmbeddedServer(deep)
        assert len(os.fsencode(server.socket_folder / ".s.PGSQL.5432")) < 108


def test_two_spellings_of_a_directory_are_one_server(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    with running(tmp_path / "real") as one, running(tmp_path / "alias") as two:
        assert one == two


def test_a_crash_inside_initdb_leaves_no_half_made_cluster(tmp_path):
    home = Cluster.of(tmp_path).home
    (home / "initdb-abandoned").mkdir(parents=True)
    (home / "initdb-abandoned" / "PG_VERSION").write_text("18\n")
    with running(tmp_path) as url:
        put(url, 1)
    assert not list(home.glob("initdb-*"))


def test_another_major_version_is_refused_in_words(data):
    with running(data):
        pass
    (Cluster.of(data).data / "PG_VERSION").write_text("17\n")
    with pytest.raises(Fault, match="version 17") as refusal:
        EmbeddedServer(data).start()
    assert refusal.value.code == "embedded-version"


def test_a_server_that_cannot_start_says_why_and_leaves_nobody_waiting(data):
    from gateway.errors import Unavailable

    with running(data):
        pass
    configuration = Cluster.of(data).data / "postgresql.conf"
    configuration.write_text(configuration.read_text() + "\nno_such_setting = 1\n")
    with pytest.raises(Unavailable) as refusal:
        EmbeddedServer(data).start()
    assert refusal.value.code == "embedded-start"
    assert "configuration file" in refusal.value.text
    assert not alive(data)


def test_the_log_holds_neither_statements_nor_values(data):
    with running(data) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE person (name text PRIMARY KEY)")
        connection.execute("INSERT INTO person VALUES ('CANARI-PATIENT')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO person VALUES ('CANARI-PATIENT')")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT 'CANARI-PATIENT'::int")
    assert "CANARI" not in Cluster.of(data).log.read_text()


def test_a_squatted_socket_folder_is_refused(tmp_path, monkeypatch):
    squatted = tmp_path / "squatted"
    squatted.mkdir(mode=0o777)
    squatted.chmod(0o777)
    monkeypatch.setattr(Cluster, "socket_folder", lambda *_: squatted / "key")
    with pytest.raises(Fault) as refusal:
        EmbeddedServer(tmp_path / "data").start()
    assert refusal.value.code == "embedded-socket"


def test_a_failed_start_lets_go_of_its_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedServer, "_ensure", refuse)
        with pytest.raises(OSError):
            EmbeddedServer(tmp_path).start()
    descriptor = Cluster.of(tmp_path).lock("users")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


if ROOT:

    def test_under_a_closed_tree_the_programs_are_copied_and_nothing_else_changes(tmp_path, monkeypatch):
        closed = tmp_path / "closed" / "site-packages"
        closed.mkdir(parents=True)
        (tmp_path / "closed").chmod(0o700)
        package = binaries.Binaries.installed().root.parent
        for name in (package.name, f"{package.name}.libs"):
            (closed / name).symlink_to(package.with_name(name))
        before = modes(closed) | modes(package / "pginstall18" / "bin")
        with open_folder() as place:
            # The data directory is closed as well, so the copy goes to the system's place, which the test moves.
            monkeypatch.setattr(binaries, "SYSTEM_PLACE", place / "var")
            monkeypatch.setattr(
                binaries.Binaries, "installed", classmethod(lambda cls: cls(closed / package.name / "pginstall18"))
            )
            with running(tmp_path / "data") as url:
                put(url, 1)
                program = Path(f"/proc/{postmaster(tmp_path / 'data')}/exe").readlink()
                assert program.is_relative_to(place / "var")
            first = program.stat()
            with running(tmp_path / "data") as url:
                assert kept(url) == [1]
            assert program.stat().st_ino == first.st_ino, "copied once"
        assert modes(closed) | modes(package / "pginstall18" / "bin") == before

    def test_the_copy_stays_in_an_open_data_directory(tmp_path, monkeypatch):
        package = binaries.Binaries.installed().root.parent
        for name in (package.name, f"{package.name}.libs"):
            (tmp_path / name).symlink_to(package.with_name(name))
        monkeypatch.setattr(
            binaries.Binaries, "installed", classmethod(lambda cls: cls(tmp_path / package.name / "pginstall18"))
        )
        monkeypatch.setattr(binaries, "SYSTEM_PLACE", tmp_path / "never")
        old = os.umask(0o077)
        try:
            with open_folder() as place:
                data = place / "data"
                data.mkdir(mode=0o755)
                data.chmod(0o755)
                with running(data) as url:
                    put(url, 1)
                    program = Path(f"/proc/{postmaster(data)}/exe").readlink()
                    assert program.is_relative_to(data / "postgres" / "programs")
        finally:
            os.umask(old)
        assert not (tmp_path / "never").exists()

    def interpreter_for(user: pwd.struct_passwd, place: Path) -> dict[str, str]:
        """An interpreter of this very version that the user can reach, and the environment it wants."""
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
        program = os.path.realpath(sys.executable)
        with contextlib.suppress(PermissionError):
            subprocess.run([program, "-c", ""], check=True, **identity)
            return {"executable": program}
        (place / "bin").mkdir(parents=True)
        shutil.copy(program, place / "bin" / "python")
        library = Path(os.__file__).parent
        shutil.copytree(
            library,
            place / "lib" / library.name,
            ignore=shutil.ignore_patterns("site-packages", "test", "tests", "config-*", "idlelib", "ensurepip"),
        )
        for shared in library.parent.glob("libpython*.so*"):
            shutil.copy(shared, place / "lib")
        subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
        return {
            "executable": str(place / "bin" / "python"),
            "PYTHONHOME": str(place),
            "LD_LIBRARY_PATH": str(place / "lib"),
        }

    def test_an_ordinary_user_runs_it_as_himself_and_root_may_help(tmp_path):
        # A copy, because the clone and its environment may be closed to that user.
        nobody = pwd.getpwnam("nobody")
        with open_folder() as place:
            code = place / "code"
            for module in ("__init__.py", "model/__init__.py"):
                (code / "gateway" / module).parent.mkdir(parents=True, exist_ok=True)
                (code / "gateway" / module).write_text("")
            shutil.copy(REPOSITORY / "gateway" / "errors.py", code / "gateway")
            shutil.copytree(REPOSITORY / "gateway" / "model" / "embedded", code / "gateway" / "model" / "embedded")
            package = binaries.Binaries.installed().root.parent
            for name in ("psycopg", "psycopg_binary", "psycopg_binary.libs", package.name, f"{package.name}.libs"):
                shutil.copytree(package.with_name(name), code / name, symlinks=True)
            shutil.copy(package.with_name("typing_extensions.py"), code)
            subprocess.run(["chmod", "-R", "a+rX", str(code)], check=True)
            home = place / "home"
            home.mkdir()
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            before = modes(home)
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}
            environment = {
                "PYTHONPATH": str(code),
                "PATH": "/usr/bin:/bin",
                **interpreter_for(nobody, place / "python"),
            }
            program = environment.pop("executable")

            def his() -> subprocess.Popen[str]:
                return subprocess.Popen(
                    [program, "-W", "ignore", "-c", USER, str(home / "data")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                    **identity,
                )

            process = his()
            url = process.stdout.readline().strip()
            assert Path(f"/proc/{postmaster(home / 'data')}").stat().st_uid == nobody.pw_uid
            with running(home / "data") as same:
                assert same == url
                put(url, 2)
            leave(process)
            # Root starts an ordinary user's database as that user, and shuts him out of nothing.
            with running(home / "data") as url:
                assert kept(url) == [2]
                assert Path(f"/proc/{postmaster(home / 'data')}").stat().st_uid == nobody.pw_uid
            process = his()
            assert process.stdout.readline().strip() == url
            leave(process)
            assert modes(home) == before
