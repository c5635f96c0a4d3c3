"""Stores that are no folder: objects in S3, from the command line to the array, and what goes wrong there."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nadir
from payload.errors import InputError
from sim.archive.store import Store
from sim.commands.root import app

run = CliRunner()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an empty bucket on a server of this process; the environment says where it is."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it tells of every request
    server = server_of.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "nothing-secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem().mkdir("scenes")
        yield "s3://scenes/europe"
    server.stop()


def said(*words: str, code: int = 0) -> str:
    found = run.invoke(app, ["archive", *words])
    assert found.exit_code == code, found.output
    return found.stdout


@pytest.fixture(scope="module")
def name(s3: str) -> str:
    """Of the one scene that is kept there."""
    (entry,) = json.loads(said("put", "demo:600", "--store", s3, "--cr", "30", "--json"))
    return str(entry["name"])


def test_a_scene_is_put_listed_and_verified_in_a_bucket(s3: str, name: str) -> None:
    (entry,) = json.loads(said("list", "--store", s3, "--json"))
    assert (entry["name"], entry["tiles"]) == (name, {"coded": 9})
    assert said("verify", "--store", s3, "--decode").splitlines()[-1] == "1 files, 0 damaged"


def test_a_window_comes_out_of_a_bucket_as_out_of_a_folder(s3: str, name: str, tmp_path: Path) -> None:
    import rasterio

    out = tmp_path / "window.tif"
    said("get", name, "--store", s3, "--out", str(out), "--window", "300,300,40,50")
    folder = tmp_path / "same"
    said("put", "demo:600", "--store", str(folder), "--cr", "30")
    with rasterio.open(out) as file, nadir.open(folder / f"{name}.nadir") as scene:
        assert np.array_equal(file.read(), scene[:, 300:340, 300:350])


def test_a_window_out_of_a_bucket_costs_a_few_small_requests(s3: str, name: str) -> None:
    scene = nadir.open(f"{s3}/{name}.nadir")
    before = scene.octets.read_octets
    scene[:, 300:340, 300:350]
    assert scene.octets.read_octets - before < scene.octets.size() / 3
    assert scene.octets.requests <= 4


def test_a_bit_that_flips_in_a_bucket_is_found(s3: str, name: str) -> None:
    import s3fs

    files, where = s3fs.S3FileSystem(), f"{s3}/damaged.nadir"
    octets = bytearray(files.cat_file(f"{s3}/{name}.nadir"))
    octets[len(octets) // 2] ^= 4
    files.pipe_file(where, bytes(octets))
    try:
        assert "tile (1, " in said("verify", "damaged", "--store", s3, code=1)
    finally:
        files.rm_file(where)


@pytest.mark.parametrize("verb", [("list",), ("verify",), ("get", "none", "--out", "none.tif")])
def test_a_bucket_that_is_not_there_is_one_clear_line(s3: str, verb: tuple[str, ...]) -> None:
    found = run.invoke(app, ["archive", *verb, "--store", "s3://no-such-bucket/x"])
    assert isinstance(found.exception, InputError) or found.exit_code == 2, found.output
    assert "no-such-bucket" in str(found.exception)


def test_a_server_that_does_not_answer_is_one_clear_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    impatient = {"skip_instance_cache": True, "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(InputError, match="s3://elsewhere"):
        Store("s3://elsewhere", impatient).names()


def test_without_credentials_a_bucket_is_one_clear_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("AWS_") and key != "AWS_ENDPOINT_URL"]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match="credentials"):
        Store("s3://scenes", {"skip_instance_cache": True}).names()
