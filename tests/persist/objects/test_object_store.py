"""Writes under conditions against a real S3 server, and what errors of a store are called."""

import pytest

from tests.object_server import BUCKET, READER, SECRET
from training.data.objects.address import Address
from training.data.objects.store import ABSENT, Conflict, ObjectStore, StoreError, digest_of_store
from training.errors import HostError


def test_of_two_that_create_or_replace_an_object_one_succeeds(there):
    one, other = ObjectStore(there), ObjectStore(there)
    version = one.put("a", b"1", ABSENT)
    with pytest.raises(Conflict, match="another host has written"):
        other.put("a", b"2", ABSENT)
    newer = other.put("a", b"2", version)
    with pytest.raises(Conflict):
        one.put("a", b"3", version)
    assert one.get("a") == (b"2", newer)
    with pytest.raises(Conflict):
        one.put("never made", b"3", version)
    assert one.get("never made") is None


def test_names_of_files_are_keys_as_they_are(there):
    store = ObjectStore(there)
    names = ["a b.txt", "per%cent%41", "ü.bin", "it's", "a+b&c=d", "[x]*?#~"]
    for name in names:
        store.put(f"exports/{name}", name.encode())
    assert [store.get(f"exports/{name}")[0] for name in names] == [name.encode() for name in names]
    assert sorted(one.key for one in store.list("exports")) == sorted(f"exports/{name}" for name in names)


@pytest.mark.parametrize("condition", ["create", "replace"])
def test_a_write_whose_answer_was_lost_and_that_was_repeated_is_no_conflict(there, proxy, condition):
    store = ObjectStore(there)
    version = ABSENT if condition == "create" else store.put("a", b"0")
    proxy.losing = 1
    store.put("a", b"1", version)
    assert not proxy.losing and store.get("a")[0] == b"1"


def test_a_store_that_ignores_conditions_is_recognized(there, proxy):
    assert ObjectStore(there).check_conditions()
    proxy.deaf = True
    store = ObjectStore(there)
    assert not store.check_conditions() and not store.conditional
    assert not list(store.list()), "the probe is deleted"
    version = store.put("a", b"1", ABSENT)  # then it is looked at before it is written
    with pytest.raises(Conflict):
        store.put("a", b"2", ABSENT)
    store.put("a", b"2", version)
    with pytest.raises(Conflict):
        store.put("a", b"3", version)


def test_a_single_write_has_the_md5_as_its_etag(there):
    assert ObjectStore(there).put("a", b"content").etag == digest_of_store(b"content")


@pytest.mark.parametrize(
    ("environment", "bucket", "why"),
    [
        ({"AWS_ACCESS_KEY_ID": "unknown"}, BUCKET, r"not accept the key \(403 InvalidAccessKeyId\).*AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "x"}, BUCKET, r"not accept the key \(403 SignatureDoesNotMatch\)"),
        ({"AWS_ACCESS_KEY_ID": READER}, BUCKET, r"the key may not write there \(403 AccessDenied\).*list and delete"),
        ({}, "no-such-bucket", r"there is no bucket no-such-bucket at http.* \(404 NoSuchBucket\)\. Create it"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, BUCKET, "no credentials.*Set.*export-credentials"),
        ({"AWS_ACCESS_KEY_ID": None}, BUCKET, "there are no credentials for it"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, BUCKET, r"not answer\. Check the network and AWS_ENDPOINT_URL"),
    ],
    ids=["unknown key", "wrong secret", "read only", "no bucket", "no key", "half a key", "no server"],
)
def test_what_is_wrong_with_a_place_is_named_with_the_remedy(there, monkeypatch, environment, bucket, why):
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")  # on Amazon's hosts, keys come from there
    with pytest.raises((StoreError, HostError), match=why) as caught:
        ObjectStore(Address("s3", bucket, "x")).check_conditions()
    assert SECRET not in str(caught.value)


def test_a_store_that_fails_is_named_with_its_status(there, proxy):
    proxy.failing = 503
    with pytest.raises(StoreError, match=r"the store failed \(503\)"):
        ObjectStore(there).put("a", b"1")
    proxy.failing = 400
    with pytest.raises(StoreError, match=r"the store refused to write \(400\)"):
        ObjectStore(there).put("a", b"1")


@pytest.mark.parametrize(("scheme", "variable"), [("gs", "GOOGLE_APPLICATION_CREDENTIALS"), ("az", "AZURE_STORAGE")])
def test_other_stores_name_their_own_variables(monkeypatch, scheme, variable):
    """Without an account nothing of them can be tried but this."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(HostError, match=f"{scheme}://bucket/x: .*({variable}|/nowhere/key.json)"):
        ObjectStore(Address(scheme, "bucket", "x"))
