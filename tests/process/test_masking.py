"""No password leaves the process in what it says, wherever the URI that holds it stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.config import dump_config, load_config
from discl_ray.data.wording import shown
from discl_ray.errors import ConfigError, DataError, ImageError
from discl_ray.process.calls import BY_MAKE, Call
from discl_ray.process.masking import masked
from tests.support.runs import ROOT

CONF = ROOT / "conf" / "digits_lt.yaml"
URI = "s3://AKIDEXAMPLE:wJalr/XUtn+FEMI@bucket/images"

letters = st.text("abcXYZ019+_-.%", min_size=1, max_size=12)
secrets = st.text("abcXYZ+_-.%/=", min_size=6, max_size=40).map(
    lambda text: f"q{text}q"
)  # a port has digits alone


@given(
    letters,
    secrets,
    letters,
    st.sampled_from(["s3", "ftp", "hdfs", "https", "sftp", "abfs"]),
    st.sampled_from(["", " ", "'"]),
)
def test_the_name_and_the_password_of_a_uri_are_masked_and_the_place_is_not(
    user, secret, place, scheme, quote
):
    before, after = f"run.root = {quote}", f"{place}/a b{quote}: cannot be written"
    assert (
        masked(f"{before}{scheme}://{user}:{secret}@{after}") == f"{before}{scheme}://***@{after}"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "s3://bucket/a?access_key=AKID&secret_key=b%2Bc&region=eu",
            "s3://bucket/a?access_key=***&secret_key=***&region=eu",
        ),
        ("https://host/x?sv=1&sig=abc%3D", "https://host/x?sv=1&sig=***"),
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("s3://a:b@c/d and s3://e:f@g", "s3://***@c/d and s3://***@g"),
        ("s3://k:p@ss@bucket/x", "s3://***@bucket/x"),
    ],
)
def test_tokens_and_options_too(text, expected):
    assert masked(text) == expected
    assert masked(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/folder@2/x:y@z",
        "hdfs://namenode:8020/data/v@2",
        "http://127.0.0.1:8265",
        "abfs://container@account.dfs.core.windows.net/x",
        "s3://bucket/x?region=eu-central-1&endpoint_override=localhost:9000",
        "/home/me:you@here/x",
        "a photo of {name}: key=value",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


def test_refusals_commands_and_the_recorded_configuration_are_masked(tmp_path):
    words = f"run.root={URI}"
    for environment in ({}, {BY_MAKE: "generate"}):
        command = Call.of(["jobs/generate.py", words, "seed=1"], environment).command("train")
        assert "wJalr" not in command
        assert "s3://***@bucket/images" in command
    with pytest.raises(ConfigError) as caught:
        load_config(CONF, [f"run.rot={URI}"])
    assert "wJalr" not in str(caught.value)
    assert "run.rot = 's3://***@bucket/images'" in str(caught.value)
    config = load_config(CONF, [words])
    assert config.run.root == URI  # what is opened is whole
    assert "wJalr" not in dump_config(config)
    assert "wJalr" not in shown(URI, 24)
    error = ImageError("unreadable", URI)
    assert (error.reason, str(error)) == ("unreadable", "unreadable: s3://***@bucket/images")
    assert str(DataError("")) == ""
