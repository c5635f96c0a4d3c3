"""What a host checks before it works with a device: the shared key, the agent's code, the bundle, an engine."""

from typing import Any

from hil.host.session_values import DeviceError, DeviceInfo
from hil.line.code_id import code_id
from hil.line.key import fresh_nonce, prove
from payload.bundle import Bundle

TOLD_AT_HELLO = ("machine", "cpu", "cores", "memory_mib", "system", "python", "emulated", "window", "kernel")
TOLD_AT_LOAD = ("engine", "load_s", "ran")
LONGEST_CHALLENGE = 128


def answer_challenge(name: str, key: bytes | None, told: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(fields for the second HELLO, the proof that the agent owes); ({}, "") where no key is in play."""
    challenge = told.get("challenge")
    if challenge is None:
        if key is not None:
            raise DeviceError(f"device {name}: asks for no key; start the agent with --key, or leave ?key= out")
        return {}, ""
    if key is None:
        raise DeviceError(f"device {name}: wants a key; add ?key=FILE to its URL, the file that its agent was given")
    challenge, nonce = str(challenge)[:LONGEST_CHALLENGE], fresh_nonce()
    proof = {"nonce": nonce, "proof": prove(key, "host", challenge, nonce)}
    return proof, prove(key, "agent", challenge, nonce)


def check_proof(name: str, told: dict[str, Any], wanted: str) -> None:
    """DeviceError where the agent does not show that it holds the key, too."""
    if told.get("proof") != wanted:
        raise DeviceError(f"device {name}: does not show that it holds the key; another program answers there")


def check_identity(name: str, hello: dict[str, Any], bundle: Bundle) -> None:
    """DeviceError where agent and host are of different code, or hold different bundles."""
    if hello.get("code_id") != code_id():
        raise DeviceError(
            f"device {name}: agent code {hello.get('code_id')}, this host has {code_id()}; run `hil deploy` again"
        )
    if hello.get("bundle_id") != bundle.bundle_id:
        raise DeviceError(
            f"device {name}: bundle {hello.get('bundle')} (id {hello.get('bundle_id')}), "
            f"this run wants {bundle.name} (id {bundle.bundle_id}); run `hil deploy` again"
        )


def choose_engine(name: str, wanted: str, hello: dict[str, Any]) -> str:
    """The engine to LOAD with: the wanted one, or for `auto` the one that runs the encoder in INT8 there."""
    there = hello.get("engines") or {}
    if wanted != "auto":
        return wanted
    if not there:
        raise DeviceError(f"device {name}: no inference runtime there; install openvino or onnxruntime on it")
    if hello.get("machine") == "aarch64" and "onnxruntime" in there:
        return "onnxruntime"  # OpenVINO has no INT8 convolution of the encoder's kind on ARM: LOAD refuses it
    return str(next(iter(there)))


def with_remedy(url: str, engine: str, refusal: str) -> str:
    """A device's refusal with what helps: on ARM, OpenVINO runs this convolution in float, whatever is rebuilt."""
    if "run in float" not in refusal or engine != "openvino":
        return refusal
    remedy = f"use {url}+onnxruntime" if url.startswith("emulated:") else "use --engine onnxruntime"
    return f"{refusal.partition('; rebuild')[0]}; a rebuild does not help where OpenVINO has no such kernel: {remedy}"


def device_info(name: str, hello: dict[str, Any], loaded: dict[str, Any]) -> DeviceInfo:
    """What the device told at HELLO and LOAD. DeviceError where something is missing."""
    try:
        told = {field: hello[field] for field in TOLD_AT_HELLO} | {field: loaded[field] for field in TOLD_AT_LOAD}
    except KeyError as missing:
        raise DeviceError(f"device {name}: does not tell {missing}; deploy the agent again") from None
    if told["emulated"] is not None:
        told["load_s"] = None  # time in emulation means nothing
    return DeviceInfo(**told)
