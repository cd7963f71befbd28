import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.fs as pafs
import pytest

from discl_ray.core.objects import Keys, Objects, PatientS3, keys_of_environment, open_s3
from discl_ray.core.run_directory import check_root
from discl_ray.core.storage import Store
from discl_ray.data.root import open_root
from discl_ray.errors import DataError, IntegrityError, SetupError, StorageError, UnreadableError
from discl_ray.spectrum.open import spectrum_at
from tests.support.s3_server import BUCKET, READER, WRITER, client, environment, proxy_before

RACES = pytest.mark.parametrize("races", [20, pytest.param(200, marks=pytest.mark.slow)])


@pytest.fixture
def store(s3_root):
    return Store.at(s3_root)


@pytest.fixture
def proxy(s3_endpoint, monkeypatch):
    """A proxy before the server, which this process goes through."""
    with proxy_before(s3_endpoint) as proxy:
        for name, value in environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        yield proxy


def at_once(function, *arguments):
    """Results of a function of each argument, called at the same time."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(function, arguments))


def test_files_come_back_as_they_were_written(store):
    assert store.list("a") == []
    assert not store.exists("a/x.json")
    store.write_json("a/x.json", {"a": [1.5, "λ"]})
    store.write("a/y.bin", b"1")
    store.write("a/y.bin", b"2")
    assert store.read_json("a/x.json") == {"a": [1.5, "λ"]}
    assert store.read("a/y.bin") == b"2"
    assert store.list("a") == ["a/x.json", "a/y.bin"]
    assert store.folders() == ["a"]
    store.delete("a/x.json")
    store.delete("a/x.json")
    store.delete("a/y.bin")
    assert not store.exists("a/x.json")
    with pytest.raises(FileNotFoundError):
        store.read("a/none")


def test_what_is_there_is_not_created_again(store):
    assert store.create("a/b", b"1")
    assert store.create("a/b", b"1"), "the same bytes are no conflict"
    assert not store.create("a/b", b"2")
    assert store.read("a/b") == b"1"


@RACES
def test_of_two_that_create_one_file_at_once_one_wins(store, races):
    for number in range(races):
        name = f"race/{number}"
        won = at_once(
            lambda data, name=name: data if store.create(name, data) else None, b"1", b"2"
        )
        assert [data for data in won if data] == [store.read(name)]


@RACES
def test_of_two_that_replace_one_version_at_once_one_wins(store, races):
    objects, path = store.objects, store.path("lock")
    objects.put(path, b"start")
    for number in range(races):
        _, version = objects.get(path)

        def replace(who, number=number, version=version):
            data = f"{who} {number}".encode()
            return data if objects.replace(path, data, version) else None

        won = [data for data in at_once(replace, "first", "second") if data]
        assert won == [objects.get(path)[0]]


def test_a_large_object_is_written_whole(store, monkeypatch):
    from discl_ray.core import objects

    monkeypatch.setattr(objects, "PART", 5 * 2**20)
    data = bytes(range(256)) * 2**16
    store.write("large", data)
    assert store.read("large") == data


@pytest.mark.parametrize("kind", ["SlowDown", "InternalError", "reset", "lost"])
def test_a_server_that_fails_one_request_in_twenty_loses_nothing(proxy, s3_root, kind):
    proxy.fault = lambda number, *_: kind if number % 20 == 0 else ""
    store = Store.at(f"{s3_root}?endpoint_override={proxy.endpoint}&scheme=http")
    for number in range(30):
        assert store.create(f"{kind}/{number}", b"%d" % number)
        store.write(f"{kind}/again", b"%d" % number)
        assert store.read(f"{kind}/{number}") == b"%d" % number
        assert len(store.list(kind)) == number + 2
    path = store.path("lock")
    store.objects.put(path, b"0")
    _, version = store.objects.get(path)
    for number in range(1, 30):
        version = store.objects.replace(path, b"%d" % number, version)
        assert version is not None
    assert proxy.failed >= 8


def test_an_answer_that_is_lost_is_no_conflict(proxy, s3_root):
    store = Store.at(f"{s3_root}?endpoint_override={proxy.endpoint}&scheme=http")
    lost = iter([True])
    proxy.fault = lambda _, method, __: "lost" if method == "PUT" and next(lost, False) else ""
    assert store.create("a", b"1")
    assert proxy.failed == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredToken", "the credentials have expired); renew AWS_ACCESS_KEY_ID"),
        ("AccessDenied", "these credentials are not allowed to); let them list, read, write"),
        ("NoSuchBucket", "there is no such bucket); create the bucket"),
    ],
)
def test_what_a_server_refuses_is_said_in_one_line(proxy, s3_root, code, said):
    root = f"{s3_root}?endpoint_override={proxy.endpoint}&scheme=http"
    store = Store.at(root)
    store.write("a", b"1")
    proxy.fault = lambda *_: code
    with pytest.raises(SetupError) as refused:
        check_root(root)
    assert f"run.root = '{root}': cannot be written ({said}" in str(refused.value)
    with pytest.raises(StorageError) as unwritten:
        store.write("b", b"1")
    assert said in str(unwritten.value)
    with pytest.raises(UnreadableError) as unread:
        store.read_json("a")
    assert said in str(unread.value)
    with pytest.raises(DataError) as no_data:
        open_root(root)
    assert said.partition(")")[0] in str(no_data.value)
    for error in (refused, unwritten, unread, no_data):
        assert "\n" not in str(error.value)


def test_the_real_server_refuses_the_same(s3_root, monkeypatch):
    check_root(s3_root)
    assert Store.at(s3_root).list() == []
    nowhere = "s3://nowhere-at-all/runs"
    with pytest.raises(SetupError, match=r"run\.root = 's3://nowhere.*there is no such bucket"):
        check_root(nowhere)
    with pytest.raises(DataError, match=r"data\.root = 's3://nowhere.*there is no such bucket"):
        open_root(nowhere)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    with pytest.raises(SetupError, match=r"these credentials are not allowed to\)"):
        check_root(s3_root)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SetupError, match=r"does not accept the credentials"):
        check_root(s3_root)
    with pytest.raises(DataError, match=r"does not accept the credentials"):
        open_root(s3_root)


def test_data_needs_to_be_listed_and_read_only(proxy, s3_root):
    proxy.fault = lambda *_: "AccessDenied"
    with pytest.raises(DataError, match=r"not allowed to\); let them list and read there, or set"):
        open_root(f"{s3_root}?endpoint_override={proxy.endpoint}&scheme=http")


@pytest.mark.parametrize(
    ("value", "used", "hint"),
    [
        ("http://127.0.0.1:9", "http", "if it speaks https, set AWS_ENDPOINT_URL=https://"),
        ("https://127.0.0.1:9", "https", "if it speaks http, set AWS_ENDPOINT_URL=http://"),
        ("127.0.0.1:9", "https", "AWS_ENDPOINT_URL names no scheme, so https is used; if it"),
    ],
)
def test_a_server_that_is_down_is_named_soon(monkeypatch, value, used, hint):
    for name, text in {**environment("h:1"), "AWS_ENDPOINT_URL": value}.items():
        monkeypatch.setenv(name, text)
    begun = time.monotonic()
    with pytest.raises(DataError) as no_data:
        open_root("s3://bucket/photos")
    with pytest.raises(SetupError, match=rf"^spectrum\.path = .*the server {used}://127.0.0.1:9"):
        spectrum_at("s3://bucket/spectrum")
    assert time.monotonic() - begun < 60, "pyarrow alone takes 100 s"
    said = f"the server {used}://127.0.0.1:9 fails or does not answer); go on when it does; {hint}"
    assert said in str(no_data.value)


def test_it_is_shown_as_the_uri_that_opens_it(s3_root):
    store = Store.at(s3_root).within("runs/ü ?%")
    store.write("lam_pct=50", b"1")
    assert store.parent.location("x") == f"{s3_root}/runs/x"
    assert store.location("lam_pct=50") == f"{s3_root}/runs/ü %3F%25/lam_pct=50"
    folder, name = Store.file(store.location("lam_pct=50"))
    assert folder.read(name) == b"1"
    with pytest.raises(IntegrityError, match=rf"^{s3_root}/runs/none: is gone"):
        Store.at(f"{s3_root}/runs").read_json("none")


def test_a_server_without_conditional_writes_is_refused(proxy, s3_root):
    proxy.fault = lambda _, method, __: "unconditional" if method == "PUT" else ""
    with pytest.raises(SetupError, match="no conditional writes"):
        check_root(f"{s3_root}?endpoint_override={proxy.endpoint}&scheme=http")


def test_a_bucket_that_vanishes_is_no_damaged_file(s3_endpoint, s3_root):
    plain = client(s3_endpoint)
    plain.create_dir("vanishing")
    store = Store.at("s3://vanishing/a")
    store.write("x.json", b"{}")
    with pytest.raises(IntegrityError, match=r"y\.json: is gone") as gone:
        store.read_json("y.json")
    assert not isinstance(gone.value, UnreadableError)
    plain.delete_dir("vanishing")
    with pytest.raises(UnreadableError, match="there is no such bucket"):
        store.read_json("x.json")
    with pytest.raises(StorageError, match="there is no such bucket"):
        store.write("x.json", b"{}")


READ = """
import pickle, sys
from discl_ray.core.storage import Store
store = pickle.loads(bytes.fromhex(sys.argv[1]))
assert store.create("from another process", store.read("x"))
"""


def test_another_process_opens_it_with_its_own_keys(store):
    store.write("x", b"1")
    pickled = pickle.dumps(store)
    assert WRITER[1].encode() not in pickled
    subprocess.run([sys.executable, "-c", READ, pickled.hex()], check=True, timeout=60)
    assert store.read("from another process") == b"1"
    again = pickle.loads(pickled)  # noqa: S301
    assert isinstance(again.filesystem, PatientS3)
    assert again.filesystem is store.filesystem


def test_address_and_keys_come_from_the_uri_or_from_the_environment(monkeypatch, tmp_path):
    for name, value in environment("h:1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    opened = open_s3("b", "").__reduce__()[1]
    assert opened == ("b", "endpoint_override=http://h:1&region=us-east-1")
    assert keys_of_environment() == Keys(*WRITER, "token")
    opened = open_s3("b", "region=x&endpoint_override=g:2&scheme=http").__reduce__()[1]
    assert opened == ("b", "region=x&endpoint_override=g:2&scheme=http")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "keys").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n"
        "[other]\naws_access_key_id=d\naws_secret_access_key=e\naws_session_token=f\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    assert keys_of_environment() == Keys("a", "b%c", "")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert keys_of_environment() == Keys("d", "e", "f")
    monkeypatch.setenv("AWS_PROFILE", "none")
    assert keys_of_environment() == Keys()


def test_other_file_systems_have_no_conditional_writes(tmp_path):
    assert Objects.of(pafs.LocalFileSystem()) is None
    store = Store.at(f"memory://{tmp_path.name}")
    assert store.objects is None
    assert store.has_bucket()
    assert store.create("a", b"1")
    assert store.create("a", b"1")
    assert not store.create("a", b"2")


def test_gs_is_opened_by_the_same_door():
    store = Store.at("gs://anonymous@bucket/a")
    assert store.objects is not None
    assert store.base == "bucket/a"
    assert store.name != BUCKET
