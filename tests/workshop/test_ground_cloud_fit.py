"""The ground's cloud network: its windows, its ONNX file, and its way into a bundle."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import BrightIsCloud

from export.bundle.add_app import add_gate
from export.bundle.add_ground_mask import add_ground_mask
from export.clouds import decoded, ground_fit, teacher
from export.clouds import windows as windows_module
from export.clouds.ground_network import GROUND_CELL_PX, STAGES, GroundMaskNetwork, GroundUnet
from export.clouds.windows import CLASSIFIED, CLEAR, DRAWN, NO_SCL, UNKNOWN, WINDOW_PX, Coarse, Window, averaged
from export.graphs.to_onnx import SHORTER_ABOVE
from payload.bundle import GROUND_CLOUDS_FILE, load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.signature import FILE as SIGNATURE_FILE
from sim.ground.cloud_net import MULTIPLE_PX


def window(kind: int, site: str, seed: int = 0) -> Window:
    """Its upper half is bright: cloud to the teacher below."""
    rng = np.random.default_rng(seed)
    dn = rng.uniform(300.0, 1500.0, (4, 32, 32)).repeat(8, 1).repeat(8, 2).astype(np.float32)
    dn[:, : WINDOW_PX // 2] = 6000.0
    blank = np.zeros((WINDOW_PX, WINDOW_PX), np.float32)
    return Window(dn, np.full(blank.shape, NO_SCL, np.uint8), blank, blank, site, 10, "L2A", kind)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    every = [window(kind, f"site {i}", i) for i, kind in enumerate((CLASSIFIED, CLEAR, DRAWN, UNKNOWN))]
    teacher.write_part(folder / "real000.npz", every, BrightIsCloud())  # type: ignore[arg-type]
    return folder


def test_a_decoded_part_keeps_the_decoded_pixels_and_what_is_said_of_the_original(tmp_path: Path) -> None:
    halved = lambda dn: 0.5 * dn  # noqa: E731
    teacher.write_part(tmp_path / "decoded000.npz", [window(CLEAR, "a")], BrightIsCloud(), halved)  # type: ignore[arg-type]
    kept = teacher.load_labelled(tmp_path)
    assert kept["dn"][0, 0, : WINDOW_PX // 4].max() == 3000  # below what the teacher takes for cloud
    assert kept["teacher"][0, 1, : WINDOW_PX // 4].min() == 255


def test_a_window_is_decoded_near_to_what_it_was_and_not_the_same() -> None:
    dn = np.random.default_rng(0).uniform(300.0, 3000.0, (4, 32, 32)).repeat(8, 1).repeat(8, 2).astype(np.float32)
    seen = decoded.Decoded(np.random.default_rng(1))(dn)
    assert seen.shape == dn.shape and seen.dtype == np.float32
    assert 0.0 < np.abs(seen - dn).mean() < 0.5 * decoded.STEPS_DN[1]
    assert decoded.steps_dn()[0] == decoded.STEPS_DN[0] and len(decoded.steps_dn()) == decoded.KINDS_OF_STEP


def test_left_out_sites_are_not_fitted_to(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of `pool` differ in their lower half, each by its site."""
    every = teacher.load_labelled(pool)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(ground_fit, "teacher_file", Path)
    monkeypatch.setattr(ground_fit, "shorten", lambda path, dn, recipe: [seen.append(dn), GroundUnet()][1])
    monkeypatch.setattr(
        ground_fit, "load_recipe", lambda name: {"rotations": {"one": {"test": ["site 1", "site 3"]}}}
    )
    told = ground_fit.run({}, "one", pool, tmp_path)
    assert told["split"] == {"test": ["site 1", "site 3"]} and "ukis-csmask" in told["derived_from"]
    np.testing.assert_array_equal(seen[0], every["dn"][[0, 2]])
    with pytest.raises(InputError, match="rotation 'nowhere' is unknown; choose one of one"):
        ground_fit.run({}, "nowhere", pool, tmp_path)


def test_without_the_teacher_it_says_what_to_install(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"pip install ukis-csmask==1\.0\.0"):
        ground_fit.main(["--pool", str(pool), "--out", str(tmp_path)])


def test_the_network_sees_256_px_and_every_pixel_has_probabilities() -> None:
    torch.manual_seed(0)
    network = GroundMaskNetwork(GroundUnet().eval())
    dn = (3000 * torch.rand(1, 4, 512, 512)).requires_grad_()
    told = network(dn)
    assert told.shape == (1, 4, 512, 512)
    torch.testing.assert_close(told.sum(dim=1), torch.ones(1, 512, 512))
    told[0, 1, 256, 256].backward()
    rows = torch.nonzero(dn.grad[0].abs().sum(dim=(0, 2)) > 0).flatten()  # type: ignore[index]
    assert int(rows.max() - rows.min()) + 1 >= 256
    coarsest = 2 * math.prod(stage.stride for stage in STAGES)
    assert GROUND_CELL_PX * coarsest == MULTIPLE_PX  # what the ground makes of a side


def rounded(network: GroundUnet) -> GroundUnet:
    """Large weights as the file has them: 127 steps each way up to the largest of the channel that they give."""
    with torch.no_grad():
        for weights in network.parameters():
            if weights.dim() == 4 and weights.numel() > SHORTER_ABOVE:
                step = weights.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
                weights.copy_((weights / step).round() * step)
    return network


def test_the_file_tells_what_the_network_tells_in_both_runtimes_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = GroundUnet()
    table = ground_fit.export(network, tmp_path, {"rotation": "none", "split": {"test": []}})
    assert json.loads((tmp_path / "clouds.json").read_text(encoding="utf-8")) == table
    dn = np.random.default_rng(0).uniform(0, 9000, (1, 4, 96, 160)).astype(np.float32)
    wanted = GroundMaskNetwork(rounded(network).eval())(torch.from_numpy(dn)).detach().numpy()
    for engine in ("openvino", "onnxruntime"):
        (found,) = open_engine(engine).load(tmp_path / "clouds.onnx").run(dn)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_network_keeps_within_its_size() -> None:
    assert 2_000_000 <= sum(p.numel() for p in GroundUnet().parameters()) <= 2_500_000


@pytest.mark.parametrize("times", [2, 4, 8])
def test_a_coarse_window_is_the_average_of_windows_of_one_site(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "COARSER", (times,))
    every = [window(CLASSIFIED, "a", 1), window(CLASSIFIED, "a", 2), window(DRAWN, "b", 3)]
    rng = np.random.default_rng(4)
    drawn = [Coarse(every).draw(rng) for _ in range(6)]
    assert {(w.site, w.kind) for w in drawn} == {("a", CLASSIFIED), ("b", DRAWN)}
    for w in drawn:
        shapes = [getattr(w, name).shape for name in ("dn", "scl", "opacity", "cast")]
        assert shapes == [(4, WINDOW_PX, WINDOW_PX)] + [(WINDOW_PX, WINDOW_PX)] * 3
        assert w.gsd_m == 10 * times and w.level == "L2A"
        means = [e.dn.mean() for e in every if e.site == w.site]
        assert min(means) - 1 <= w.dn.mean() <= max(means) + 1  # nothing is lost or doubled
    assert np.array_equal(averaged(np.arange(16.0, dtype=np.float32).reshape(4, 4), 2), [[2.5, 4.5], [10.5, 12.5]])


def test_it_goes_into_a_bundle_and_changes_neither_its_id_nor_another_file(tmp_path: Path) -> None:
    ground_fit.export(GroundUnet(), tmp_path / "", {"rotation": "none", "split": {"test": ["a"]}})
    edge = load_bundle("edge")
    added = add_ground_mask(edge, tmp_path, tmp_path / "out" / "edge")
    assert added.bundle_id == edge.bundle_id and added.manifest["built"] == edge.manifest["built"]
    assert added.manifest["ground_clouds"]["split"] == {"test": ["a"]}
    kept = {name: sha256 for name, sha256 in edge.manifest["files"].items() if name != GROUND_CLOUDS_FILE}
    assert kept.items() <= added.manifest["files"].items()
    assert not (added.directory / SIGNATURE_FILE).exists()  # another manifest: to be signed anew
    assert added.manifest["networks"][GROUND_CLOUDS_FILE]["macs"] > 0
    again = add_ground_mask(added, tmp_path, added.directory)  # in place
    assert again.manifest == added.manifest
    with pytest.raises(InputError, match=r"no clouds\.onnx with clouds\.json"):
        add_ground_mask(edge, tmp_path / "nowhere", tmp_path / "other")


def test_a_gate_that_is_taken_brings_the_ground_s_network_along(tmp_path: Path) -> None:
    ground_fit.export(GroundUnet(), tmp_path, {"rotation": "none", "split": {"test": ["b"]}})
    source = add_ground_mask(load_bundle("edge"), tmp_path, tmp_path / "edge")
    with_gate = add_gate(load_bundle("edge-s2-12"), source, tmp_path / "s2-12")
    assert with_gate.manifest["ground_clouds"] == source.manifest["ground_clouds"]
    assert with_gate.manifest["files"][GROUND_CLOUDS_FILE] == source.manifest["files"][GROUND_CLOUDS_FILE]


def test_it_is_still_checked_against_its_sha256(tmp_path: Path) -> None:
    ground_fit.export(GroundUnet(), tmp_path, {"rotation": "none", "split": {"test": []}})
    bundle = add_ground_mask(load_bundle("edge"), tmp_path, tmp_path / "edge")
    path = bundle.file(GROUND_CLOUDS_FILE)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"ground/clouds\.onnx: sha256 is"):
        load_bundle(bundle.directory)
    assert load_bundle(bundle.directory, flight_only=True).bundle_id == bundle.bundle_id
