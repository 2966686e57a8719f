"""Networks and keys that others bring: signed, verified, or refused in one line."""

import hashlib
import json
import math
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dating import dated
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

from lottolab import ownership
from lottolab.cli import main
from lottolab.jobs import display
from lottolab.nets import models
from lottolab.ownership import SignatureKey
from lottolab.ownership.attacks import symmetry
from lottolab.ownership.channels import alignment
from lottolab.ownership.signatures import networks, qr, signature
from lottolab.runs import progress

pytestmark = pytest.mark.usefixtures("on_one_thread")
SIGN = ["ownership", "embed", "net", "--text", "Ada", "--key", "key"]
SIGN += ["--output", "signed"]
ASK = ["--key", "key", "--claim", "Ada"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Let each test name files in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def sparse(shapes, density=0.3, seed=0):
    """Return random tensors by name, those of two and more axes with zeros."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            weight *= torch.rand(shape, generator=generator) < density
        state[name] = weight
    return state


SHAPES = {"conv1.weight": (16, 3, 3, 3), "conv2.weight": (32, 32, 3, 3)}
SHAPES |= {"bn.weight": (32,), "fc.weight": (10, 32), "fc.bias": (10,)}


def signed(state=None, *more):
    """Sign a network in the file `net` and return what is in the file `signed`."""
    save_file(sparse(SHAPES) if state is None else state, "net")
    assert main([*SIGN, *more]) == 0
    return load_file("signed")


def verified(state, *more):
    """Return the exit code of a claim on a network."""
    save_file({n: w.contiguous() for n, w in state.items()}, "suspect")
    return main(["ownership", "verify", "suspect", *ASK, *more])


def refused(capsys, words):
    """Return the one line with which a command ends; it writes nothing."""
    before = {p: p.read_bytes() for p in Path().iterdir() if p.is_file()}
    capsys.readouterr()
    assert main(words) == 2
    assert {p: p.read_bytes() for p in Path().iterdir() if p.is_file()} == before
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    return told.err


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3)
        self.second = nn.Conv2d(24, 32, 3)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.fc(x.mean((2, 3)))


def under_pruning():
    """Return a network that torch prunes, as it is before `prune.remove`."""
    torch.manual_seed(0)
    model = Small()
    for name in ("first", "second", "fc"):
        prune.random_unstructured(getattr(model, name), "weight", 0.7)
    return model


def test_what_torch_prunes_is_signed_as_the_weight_that_it_computes_with():
    model = under_pruning()
    wanted = {n: getattr(model, n).weight.detach().clone() for n in ("first", "second")}
    state = signed(model.state_dict())
    plain = Small()
    plain.load_state_dict(state)  # the names and shapes of after prune.remove
    assert torch.equal(state["first.weight"], wanted["first"])
    assert (state["second.weight"] != 0).sum() == (wanted["second"] != 0).sum()
    assert verified(state) == 0
    prune.custom_from_mask(plain.second, "weight", state["second.weight"] != 0)
    with torch.no_grad():
        plain.second.weight_orig += 1.0  # what the mask hides is nobody's weight
    assert verified(plain.state_dict()) == 0
    save_file(plain.state_dict(), "trained")
    assert main(["ownership", "calibrate", "trained", "--key", "key"]) == 0
    assert json.loads(Path("key").read_text())["threshold"] > 0


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.float16, (512, 512, 3, 3)),
        (torch.bfloat16, (64, 64, 3, 3)),
        (torch.float64, (64, 64, 3, 3)),
        (torch.float16, (64, 64)),
    ],
)
def test_a_network_of_another_precision_stays_finite(dtype, shape):
    before = {n: w.to(dtype) for n, w in sparse({"w": shape}, 0.5).items()}
    after = signed(before)["w"]
    assert after.dtype == dtype
    assert after.isfinite().all()
    assert (after != 0).sum() == (before["w"] != 0).sum()
    moved = after[(after != 0) & (before["w"] == 0)].double().abs()
    kept = before["w"][before["w"] != 0].double().abs()
    assert moved.tolist() == pytest.approx([kept.mean().item()] * len(moved), rel=0.01)
    assert verified({"w": after}) == 0


def test_a_channel_that_only_double_precision_can_hold_is_not_empty():
    state = {n: w.double() for n, w in signed().items()}
    state["conv2.weight"] = state["conv2.weight"] * 1e-60
    assert verified(state) == 0


@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "_orig_mod.module.", "x."])
def test_a_thief_who_renames_and_has_another_head_is_found(front):
    state = signed()
    state |= {"fc.weight": torch.randn(7, 32), "fc.bias": torch.zeros(7)}
    del state["bn.weight"]
    assert verified({f"{front}{n}": w for n, w in state.items()}) == 0


def test_a_thief_who_renames_everything_and_leaves_a_decoy_is_found(capsys):
    state = signed()
    real, decoy = state["conv2.weight"], sparse({"w": (32, 32, 3, 3)}, seed=5)["w"]
    assert verified({"conv2.weight": decoy, "a": real}) == 0
    assert "in a: text 'Ada'" in capsys.readouterr().out
    assert verified({"conv2.weight": decoy * math.nan, "a": real}) == 0
    assert verified({"conv2.weight": decoy}) == 1


def test_the_p_value_pays_for_every_layer_that_could_be_meant(capsys):
    state = signed()
    others = {f"other{i}": sparse({"w": (32, 32, 1, 1)}, seed=i)["w"] for i in range(9)}
    told = []
    for suspect in ({"a": state["conv2.weight"]}, others | state):
        capsys.readouterr()
        assert verified(suspect) == 0
        told.append(float(capsys.readouterr().out.split("p = ")[1].split(":")[0]))
    assert told[1] == pytest.approx(10 * told[0], rel=0.1, abs=0)


def test_strangers_are_accepted_no_more_often_than_the_p_value_says():
    """Ten layers each to be mistaken for the owner's: the smallest p-value is paid."""
    square = {"w": (21, 21)}  # one window, so that its price hides nothing
    key = networks.embed(sparse(square), "Ada")[1]
    drawn = []
    for seed in range(60):
        state = sparse({f"w{i}": (21, 21) for i in range(10)}, 0.5, seed)
        drawn.append(networks.verify(state, key, claim="Ada")[1].p_value)
    assert sum(p <= 0.05 for p in drawn) <= 9  # 3 are expected at most


def fitting(state, key):
    """Return a key and the ASCII text whose code is most like a stranger's layer."""
    modules = signature.extract(state, key)
    stream = qr.bits(signature.covered(modules, key), key.form)
    count = qr.capacity(key.version, key.ecc)
    letters = np.arange(32, 127, dtype=np.uint8)
    known = np.unpackbits(letters[:, None], axis=1)
    wanted = stream[12 : 12 + 8 * count].reshape(count, 8)
    unlike = (known != wanted[:, None]).sum(2)
    text = bytes(letters[unlike.argmin(1)]).decode()
    return replace(key, digest=hashlib.sha256(text.encode()).hexdigest()), text


def test_a_text_that_is_chosen_to_fit_claims_nothing():
    """One text of all fits any network: a claimant has chosen it when he saw that."""
    suspect = sparse({"w": (21, 21)}, 0.5)
    masks = {"w": suspect["w"][:, :, None, None] != 0}
    taken = 0
    for seed in range(10):
        secret = f"{seed:064x}"
        _, key = signature.choose(masks, "x", secret, ecc="L")
        key, text = fitting({"w": suspect["w"][:, :, None, None]}, key)
        plain = {"w": suspect["w"][:, :, None, None]}
        taken += signature.verify(plain, key, claim=text).accepted
        found = networks.verify(suspect, key, claim=text)[1]
        assert not found.accepted
        assert found.p_value > 0.01
    assert taken > 5  # by who knows that the text came first


def test_the_p_value_of_a_claim_is_the_sum_over_all_keys_that_could_have_been():
    """All but the secret: window, text and its length, format, threshold."""
    state = signed()
    key = SignatureKey.load("key")
    places = len(qr.places(key.version))
    tries = key.windows * 256**3 * qr.capacity(key.version, key.ecc)
    tries *= 40 * 4 * 8 * (places + 1)
    found = networks.verify(state, key, claim="Ada")[1]
    assert found.p_value == pytest.approx(tries * 0.5**places, rel=1e-9, abs=0)
    found = networks.verify(state, key, claim="Ada", dated=True)[1]
    tries = key.windows * signature.READINGS
    assert found.p_value == pytest.approx(tries * 0.5**places, rel=1e-9, abs=0)


def test_a_text_that_no_float_can_count_is_claimed():
    huge, text = sparse({"w": (200, 200)}, 0.5), "a" * 1000
    made, key = networks.embed(huge, text)
    assert networks.verify(made, key, claim=text)[1].accepted
    assert not networks.verify(huge, key, claim=text)[1].accepted


def test_a_published_hash_is_checked_and_lowers_the_price(capsys):
    signed()
    nonce = ["--nonce", "0123456789abcdef"]
    capsys.readouterr()
    assert main(["ownership", "commit", "--key", "key", "--text", "Ada", *nonce]) == 0
    published = ["--published", capsys.readouterr().out.split()[1]]
    told = []
    for more in ([], [*published, *nonce]):
        assert main(["ownership", "verify", "signed", *ASK, *more]) == 0
        told.append(float(capsys.readouterr().out.split("p = ")[1].split(":")[0]))
    assert told[1] < told[0] / 1e6
    for more in (published, nonce, [*published, "--nonce", "0" * 16]):
        told = refused(capsys, ["ownership", "verify", "signed", *ASK, *more])
        assert "--published" in told
    words = ["verify", "signed", "--key", "key", *published, *nonce]
    assert "--claim must be given" in refused(capsys, ["ownership", *words])
    values = json.loads(Path("key").read_text()) | {"threshold": 0.5}
    Path("key").write_text(json.dumps(values))
    words = ["ownership", "verify", "signed", *ASK, *published, *nonce]
    assert "must be the hash" in refused(capsys, words)


def test_prefixes_do_not_hinder_alignment():
    Path("groups").write_text('{"a": {"module.conv2.weight": 0, "fc.weight": 1}}')
    twin = {f"module.{n}": w for n, w in sparse(SHAPES).items()}
    state = signed(twin, "--groups", "groups")
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    chain = {n: state[f"module.{n}"] for n in ("conv2.weight", "fc.weight")}
    moved = chain["conv2.weight"][order], chain["fc.weight"][:, order].contiguous()
    stolen = {"_orig_mod.conv2.weight": moved[0], "_orig_mod.fc.weight": moved[1]}
    assert verified(stolen) == 1
    assert verified(stolen, *dated("key", "Ada", "net", "groups")) == 0


def resnet(**changed):
    """Return a sparse ResNet-8 of lottolab with the names that `changed` replaces."""
    model = models.build("resnet8", channels=1, classes=10, width=16, seed=0)
    state = {n: w.clone() for n, w in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for name, weight in state.items():
        if weight.ndim == 4 and name != "conv1.weight":
            weight *= torch.rand(weight.shape, generator=generator) < 0.3
    return state | changed


@pytest.mark.parametrize(
    "head",
    [
        {"fc.weight": (7, 64), "fc.bias": (7,)},
        {"fc.weight": (10, 128), "fc.bias": (10,)},
        {"head.0.weight": (30, 64), "head.2.weight": (10, 30), "head.0.bias": (30,)},
        {"fc.weight": (10, 64), "extra.conv.weight": (5, 5, 3, 3)},
    ],
    ids=["classes", "inputs", "other names", "a branch"],
)
def test_a_resnet_with_another_head_is_aligned_and_verified(head):
    state = symmetry.permute(signed(resnet()), seed=3)
    gone = ("fc.", "num_batches_tracked")
    stolen = {n: w for n, w in state.items() if not n.startswith(gone[0])}
    stolen = {n: w for n, w in stolen.items() if not n.endswith(gone[1])}
    stolen |= {n: torch.randn(shape) for n, shape in head.items()}
    stolen["unused"] = torch.tensor([math.nan])
    assert verified(stolen) == 1
    assert verified(stolen, *dated("key", "Ada", "net")) == 0


def test_a_chain_with_another_head_is_aligned_and_verified(capsys):
    names = {"a.weight": (40, 12), "b.weight": (32, 40), "c.weight": (5, 32)}
    state = signed(sparse(names | {"c.bias": (5,)}))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    stolen = {"a.weight": state["a.weight"], "b.weight": state["b.weight"][order]}
    for head in ({}, {"c.weight": torch.randn(9, 32)}, {"c.weight": torch.randn(5, 9)}):
        assert verified(stolen | head) == 1
        assert verified(stolen | head, *dated("key", "Ada", "net")) == 0
    del stolen["a.weight"]
    stolen["b.weight"] = torch.zeros(30, 40)
    capsys.readouterr()
    assert verified(stolen, *dated("key", "Ada", "net")) == 2
    assert "b.weight must be (32, 40)" in capsys.readouterr().err


def test_a_tensor_of_the_reference_that_is_not_used_is_left_out():
    unused = {"unused.weight": torch.randn(7, 9), "ema": torch.ones(3)}
    state = signed(resnet() | unused)
    state = symmetry.permute({n: state[n] for n in state if n not in unused}, seed=3)
    assert verified(state, *dated("key", "Ada", "net")) == 0
    names = {"a.weight": (40, 12), "b.weight": (32, 40), "c.weight": (5, 32)}
    Path("signed").unlink()
    Path("key").unlink()
    state = signed(sparse(names) | {"b.unused": torch.randn(7, 9)})
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    moved = state["b.weight"][order], state["c.weight"][:, order].contiguous()
    stolen = {"a.weight": state["a.weight"], "b.weight": moved[0], "c.weight": moved[1]}
    assert verified(stolen) == 1
    assert verified(stolen, *dated("key", "Ada", "net")) == 0


def test_what_is_added_and_not_used_does_not_hinder():
    state = symmetry.permute(signed(resnet()), seed=3)
    block = {n: w for n, w in state.items() if n.startswith("layer1.0.")}
    for more in (
        {n.replace("layer1.0", "layer1.1"): 0 * w for n, w in block.items()},
        {"layer1.0.junk": torch.ones(3)},
        {"layer2.0.conv1.bias": torch.zeros(len(state["layer2.0.conv1.weight"]))},
        {"layer1.0.bn1.num_batches_tracked": torch.tensor(math.nan)},
    ):
        assert verified(state | more, *dated("key", "Ada", "net")) == 0


@torch.no_grad()
def test_bottlenecks_are_followed():
    model = models.build("resnet50", channels=3, classes=10, width=8, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim == 4:
            weight *= torch.rand(weight.shape, generator=generator) < 0.3
    images = torch.randn(2, 3, 16, 16, generator=generator)
    state = signed({n: w.clone() for n, w in model.state_dict().items()})
    stolen = symmetry.permute(state, seed=3)
    answers = []
    for weights in (state, stolen):
        model.load_state_dict(weights)
        answers.append(model(images))
    assert torch.allclose(*answers, rtol=1e-3, atol=1e-5)
    assert verified(stolen) == 1
    assert verified(stolen, *dated("key", "Ada", "net")) == 0
    with pytest.raises(ValueError, match="must have two convolutions"):
        symmetry.logits(state, images)


def test_a_copy_is_looked_for_once_and_in_layers_of_the_keys_shape(monkeypatch):
    state = symmetry.permute(signed(resnet()), seed=3)
    counts = {"starts": 0, "scales": 0}
    ascend, additive = alignment._ascend, alignment.additive

    def started(*given):
        counts["starts"] += 1
        return ascend(*given)

    def scaled(*given, **more):
        counts["scales"] += 1
        return additive(*given, **more)

    monkeypatch.setattr(alignment, "_ascend", started)
    monkeypatch.setattr(alignment, "additive", scaled)
    assert verified(state, *dated("key", "Ada", "net")) == 0
    shape = SignatureKey.load("key").shape
    alike = [w for w in state.values() if tuple(w.shape[:2]) == shape]
    assert counts == {"starts": 1, "scales": len(alike)}
    assert verified(resnet(), *dated("key", "Ada", "net")) in (0, 1)
    stranger = models.build("resnet8", channels=1, classes=10, width=16, seed=5)
    assert verified(stranger.state_dict(), *dated("key", "Ada", "net")) == 1
    assert counts["starts"] == 2 + 3


def test_what_is_being_done_is_told_to_who_watches(monkeypatch, tmp_path):
    state = symmetry.permute(signed(resnet()), seed=3)
    (tmp_path / "events").mkdir()
    monkeypatch.setenv(progress.FOLDER, str(tmp_path / "events"))
    assert verified(state, *dated("key", "Ada", "net")) == 0
    (file,) = (tmp_path / "events").iterdir()
    told = display.State()
    for line in file.read_text().splitlines():
        told.feed(json.loads(line))
    assert told.line().startswith("matching the channels of ")


def test_a_pattern_of_two_in_four_is_left_alone(capsys):
    fours = torch.rand(48, 12, 4, generator=torch.Generator().manual_seed(0))
    kept = (fours.argsort(-1).argsort(-1) < 2).flatten(1)
    state = {"a.weight": torch.randn(48, 48) * kept}
    state |= {"b.weight": state["a.weight"] + 0.0}
    save_file(state, "net")
    told = refused(capsys, SIGN)
    assert "a 2:4 pattern in a.weight, which a signature would break" in told
    assert "2:4" in refused(capsys, [*SIGN, "--layer", "b.weight"])
    state["c.weight"] = sparse({"w": (48, 48)}, 0.5)["w"]
    changed = signed(state)
    assert [n for n in state if not torch.equal(state[n], changed[n])] == ["c.weight"]


KINDS = {
    "transformer": lambda: nn.TransformerEncoderLayer(32, 4, 64),
    "perceptron": lambda: nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 5)),
    "LeNet": lambda: nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(400, 120), nn.Linear(120, 84)
    ),
    "Conv1d": lambda: nn.Sequential(nn.Conv1d(30, 40, 3), nn.Conv1d(40, 30, 3)),
    "Conv3d": lambda: nn.Sequential(nn.Conv3d(30, 40, 3)),
}


@pytest.mark.parametrize("amount", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_every_kind_are_signed(kind, amount):
    torch.manual_seed(0)
    model = KINDS[kind]()
    for module in list(model.modules()):
        if type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d):
            prune.l1_unstructured(module, "weight", amount)
            prune.remove(module, "weight")
    before = {n: w.clone() for n, w in model.state_dict().items()}
    after = signed(before)
    model.load_state_dict(after)
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    assert changed == [json.loads(Path("key").read_text())["layer"]]
    counts = [int((s[changed[0]] != 0).sum()) for s in (before, after)]
    assert counts[0] == counts[1]
    assert verified(after) == 0


def test_the_first_layer_is_the_first_by_number_that_is_sparse():
    names = {f"f.{i}.weight": (32, 32, 3, 3) for i in (10, 3, 1)}
    state = sparse(names)
    state["f.1.weight"] = torch.randn(32, 32, 3, 3)
    changed = signed(state)
    assert not torch.equal(changed["f.3.weight"], state["f.3.weight"])


def a_mask():
    return {"mask": torch.rand(40, 40).round(), "w": torch.randn(40, 40)}


@pytest.mark.parametrize(
    ("state", "more", "message"),
    [
        ({}, [], "net must hold at least one tensor"),
        ({"a": torch.tensor(1.0)}, [], "must have pruned weights"),
        ({"a": torch.zeros(0, 64), "b": torch.zeros(64, 0)}, [], "pruned weights"),
        ({"a": torch.eye(64).to(torch.int8)}, [], "must have pruned weights"),
        ({"a": torch.eye(64).to(torch.int8)}, ["--layer", "a"], "floating-point"),
        ({"a": torch.ones(64)}, ["--layer", "a"], "two axes"),
        ({"a": torch.ones(64, 64)}, ["--layer", "a"], "must have zeros"),
        (a_mask(), [], "must have pruned weights"),
        (a_mask(), ["--layer", "mask"], "a mask and no weights"),
        (sparse({"a": (16, 6, 5, 5), "b": (30, 20)}), [], "b is 30 × 20"),
        (sparse({"a": (64, 64), "b": (64, 2)}), ["--layer", "b"], "b is 64 × 2"),
        (
            sparse({"a": (64, 64)}) | {"b": torch.tensor([math.nan])},
            [],
            "b must be fin",
        ),
        ({"a": sparse({"a": (64, 64)})["a"] / 0.0}, [], "a must be finite"),
        ({"a": sparse({"a": (64, 64)})["a"] * 3e37}, [], "too large"),
        (sparse({"a": (64, 64)}), ["--layer", "c"], "layer must be one of a, got 'c'"),
        (sparse({"a": (64, 64)}), ["--ecc", "X"], "ecc must be one of"),
        (sparse({"a": (64, 64)}), ["--output", "none/signed"], "none is no folder"),
        (sparse({"a": (64, 64)}), ["--output", "key"], "key and output must be two"),
    ],
)
def test_a_network_that_cannot_be_signed_is_refused(capsys, state, more, message):
    save_file(state, "net")
    assert message in refused(capsys, [*SIGN, *more])


def test_integers_of_a_suspect_are_read():
    state = signed()
    whole = (state["conv2.weight"].sign() * 3).to(torch.int8)
    assert verified({"conv2.weight": whole}) == 0
    assert verified({"conv2.weight": whole.bool()}) == 0


@pytest.mark.parametrize(
    "suspect",
    [
        {"conv2.weight": torch.tensor(1.0)},
        {"conv2.weight": torch.zeros(32, 32, 0, 3)},
        {"conv2.weight": torch.full((32, 32, 3, 3), math.nan)},
        {"conv2.weight": torch.zeros(31, 32, 3, 3)},
    ],
)
def test_a_suspect_without_the_layer_is_another_network(capsys, suspect):
    signed()
    save_file(suspect, "suspect")
    told = refused(capsys, ["ownership", "verify", "suspect", *ASK])
    assert "the key is for another network" in told


def test_the_exit_code_tells_a_verdict_from_a_missing_file(capsys):
    signed()
    there, gone = ["--key", "key"], ["--key", "gone"]
    Path("folder").mkdir()
    for words in (["gone", *there], ["net", *gone], ["folder", *there]):
        refused(capsys, ["ownership", "verify", *words])
    refused(capsys, ["ownership", "verify", "net", "--key", "folder"])
    refused(capsys, ["ownership", "verify", "net", *there, "--reference", "gone"])
    assert main(["ownership", "verify", "net", *there]) == 1
    assert main(["ownership", "verify", "signed", *there]) == 0


def test_a_key_is_calibrated_by_the_signed_network_alone(capsys):
    signed()
    told = refused(capsys, ["ownership", "calibrate", "net", "--key", "key"])
    assert "must carry the key's signature" in told
    assert main(["ownership", "calibrate", "signed", "--key", "key"]) == 0


# -- texts ---------------------------------------------------------------------------

TEXTS = ["Zoë", "São", "日本", "Ada"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_one_in_both_forms_of_unicode(text, capsys):
    composed, apart = (unicodedata.normalize(f, text) for f in ("NFC", "NFD"))
    for written, asked in ((composed, apart), (apart, composed), (apart, apart)):
        save_file(sparse(SHAPES), "net")
        words = [*SIGN, "--text", written]
        assert main(words) == 0
        asks = ["--key", "key", "--claim", asked]
        assert main(["ownership", "verify", "signed", *asks]) == 0
        assert repr(composed) in capsys.readouterr().out
        nonce = ["--nonce", "0123456789abcdef"]
        told = []
        for spelled in (composed, apart):
            words = ["ownership", "commit", "--key", "key", "--text", spelled, *nonce]
            assert main(words) == 0
            told.append(capsys.readouterr().out)
        assert told[0] == told[1]
        Path("key").unlink()
        Path("signed").unlink()


def test_a_key_from_before_texts_were_normalised_still_verifies(monkeypatch):
    apart = unicodedata.normalize("NFD", "São")
    with monkeypatch.context() as patch:
        patch.setattr(unicodedata, "normalize", lambda form, text: text)
        masks = {"w": sparse({"w": (32, 32, 3, 3)})["w"] != 0}
        masks, key = ownership.embed(masks, apart)
    state = {"w": masks["w"].float()}
    for claim in ("São", apart):
        assert ownership.verify(state, key, claim=claim).accepted


def test_two_texts_that_look_alike_are_told_apart(capsys):
    signed()
    asked = ["ownership", "verify", "signed", "--key", "key", "--claim", "Аda"]
    assert r"'\u0410da'" in refused(capsys, asked)  # a Cyrillic A


# -- keys ----------------------------------------------------------------------------


def test_a_key_cannot_set_its_own_price(capsys):
    """Windows of 1e-300 made everybody's network everybody's."""
    signed()
    values = json.loads(Path("key").read_text())
    assert values["windows"] == 144
    for windows in (1e-300, 0, 1, 143, 144.0, -144, None, "144"):
        Path("key").write_text(json.dumps(values | {"windows": windows}))
        told = refused(capsys, ["ownership", "verify", "net", *ASK])
        assert "windows must be 144" in told


WRONG = {
    "layer": [None, 1, ["a"]],
    "shape": [None, 32, "ab", [32], [32, 32, 3], [32.0, 32], [0, 0], [20, 32], [{}, 1]],
    "row": [-5, 12, 1.0, True, None, "1", 10**30],
    "column": [-1, 12, 0.5, [1]],
    "version": [0, 41, -1, 1.0, True, "1", None],
    "ecc": ["X", "h", "", None, 1, ["H"], {}],
    "mask": [-1, 8, 9, 1.5, False, None],
    "secret": ["", "zz", "abc", "ab", None, 5, "AB " * 30],
    "threshold": [-0.1, 1, 1.5, "0", None, True, math.nan, math.inf],
    "digest": ["", "ab", None, 7, "x" * 64],
}


@pytest.mark.parametrize("field", WRONG)
def test_a_field_that_no_key_has_is_refused_in_one_line(capsys, field):
    signed()
    values = json.loads(Path("key").read_text())
    for wrong in WRONG[field]:
        Path("key").write_text(json.dumps(values | {field: wrong}))
        told = refused(capsys, ["ownership", "verify", "signed", *ASK])
        assert "key" in told
        assert field in told


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", "3", "null", '"a"', "[" * 10**5, "{}", '{"a": 1}', "\ud800"],
)
def test_what_is_no_key_is_refused_in_one_line(capsys, text):
    signed()
    Path("key").write_bytes(
        text.encode("utf-16" if text == "\ud800" else "utf-8", "surrogatepass")
    )
    assert "key" in refused(capsys, ["ownership", "verify", "signed", *ASK])


def test_a_key_that_is_right_is_read_as_it_was_written():
    masks = {"w": sparse({"w": (32, 40)})["w"][:, :, None, None] != 0}
    _, key = ownership.embed(masks, "Ada")
    key.save("key")
    assert SignatureKey.load("key") == key
    assert SignatureKey(**asdict(key)) == key
    assert key.windows == 12 * 20
    with pytest.raises(ValueError, match="windows must be 240"):
        replace(key, windows=1)


# -- damaged files -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["verify", "calibrate", "embed", "align"])
def test_a_damaged_network_is_judged_or_refused_in_a_line(capsys, command):
    """Cut off, or with a bit flipped in the header or anywhere."""
    signed()
    whole = Path("signed").read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    generator = torch.Generator().manual_seed(0)
    words = {
        "verify": ["verify", "bad", *ASK],
        "calibrate": ["calibrate", "bad", "--key", "key"],
        "embed": ["embed", "bad", "--text", "Ada", "--key", "k", "--output", "o"],
        "align": ["align", "bad", "--reference", "net", "--output", "o"],
    }[command]
    for trial in range(30):
        data = bytearray(whole)
        place = int(
            torch.randint(head if trial % 2 else len(data), (1,), generator=generator)
        )
        if trial % 5 == 0:
            data = data[:place]
        else:
            data[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        Path("bad").write_bytes(data)
        for name in ("k", "o"):
            Path(name).unlink(missing_ok=True)
        capsys.readouterr()
        code = main(["ownership", *words])
        told = capsys.readouterr()
        assert code in (0, 1, 2) if command == "verify" else code in (0, 2)
        assert len(told.err.splitlines()) == (code == 2)
        if code == 2:
            assert not Path("k").exists()
            assert not Path("o").exists()
        elif command == "embed":
            assert all(w.isfinite().all() for w in load_file("o").values())


def test_a_damaged_key_accepts_nothing_that_it_did_not(capsys):
    signed()
    whole = Path("key").read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        data = bytearray(whole)
        place = int(torch.randint(len(data), (1,), generator=generator))
        data[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        Path("key").write_bytes(data)
        capsys.readouterr()
        assert main(["ownership", "verify", "net", *ASK]) in (1, 2)
        assert len(capsys.readouterr().err.splitlines()) <= 1


def test_signing_and_verifying_by_hand_agree_with_the_commands():
    state = signed()
    key = SignatureKey.load("key")
    assert signature.verify(state, key, claim="Ada").agreement == 1
