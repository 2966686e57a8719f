"""The stages of `together`, on networks of a second each."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import trainings
from sklearn.metrics import roc_auc_score

from lottolab.images import datasets, partition
from lottolab.images.batches import normalise
from lottolab.membership import signals
from lottolab.membership.experiments import families, targets
from lottolab.nets import masks, tickets
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey
from lottolab.together import echoes, evidence, leaks, memories, systems, worth

pytestmark = pytest.mark.usefixtures("on_one_thread")
NETWORK = {"name": "cnn4", "width": 8, "stem": "stride2"}
RECIPE = {"epochs": 4, "batch": 20, "lr": 0.05, "crop": 0, "flip": False}
POOL = {
    "dataset": {"name": "digits", "size": 28},
    "sizes": {"pool": 400, "models": 6, "test": 100},
    "network": NETWORK,
    "recipe": RECIPE,
    "rewind_at": 0,
}
SETTING = POOL | {"seed": 1}
TEAM = {
    "structures": [NETWORK, {"name": "resnet8", "width": 8, "stem": "stride2"}],
    "ratios": [[0.4, 0.6], [0.1, 0.2]],
    "inner": {"epsilon": 8 / 255, "step": 10 / 255, "steps": 1},
    "search": RECIPE | {"epochs": 2, "lr": 1.0},
    "dense_lr": 0.05,
}
OWNER = {
    "text": "us",
    "ecc": "H",
    "triggers": 5,
    "sparsities": [0.5, 0.9],
    "team": TEAM,
}
THIEF = {"images": 200, "network": NETWORK, "recipe": RECIPE, "rho": [0.1, 1.0]}
ATTACK = {"epsilon": 8 / 255, "step": 2 / 255, "steps": 4, "eot": 4}
ATTACK |= {"images": 40, "draws": 3}
NONE, S = {"name": "none"}, {"name": "ModelGuard-S", "epsilon": 1.0}


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """Give the module a store of its own and list its trainings."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


def network(*defences):
    stage, given = systems.single(list(defences), OWNER, **SETTING)
    return stage(**given)


def measure(*defences, guard=NONE):
    given = {"defences": list(defences), "guard": guard, "owner": OWNER}
    return worth.measured(**given, thief=THIEF, attack=ATTACK, **SETTING)["metrics"]


def judge(name, **own):
    given = {"suspect": {"name": name} | own, "owner": OWNER, "thief": THIEF}
    return evidence.judged(**given, **SETTING)["metrics"]


def seen_by(fits, images):
    """Return how many of the images the last training saw."""
    known = {tuple(x.flatten().tolist()) for x in fits[-1]["images"]}
    return sum(tuple(x.flatten().tolist()) in known for x in images)


# ------------------------------------------------------------------ systems


def test_each_defence_is_built_in_or_not(fits):
    plain, signed = network(), network("signature")
    pruned = network("pruning")
    assert plain["density"] == pytest.approx(0.5, abs=1e-3)
    assert pruned["density"] == pytest.approx(0.1, abs=1e-3)
    assert signed["density"] == pytest.approx(plain["density"])
    key = SignatureKey(**signed["key"])
    claims = [
        signature.verify(n["weights"], key, claim="us").accepted
        for n in (signed, plain)
    ]
    assert claims == [True, False]
    both = network("signature", "pruning")
    assert both["density"] == pytest.approx(pruned["density"])
    start = len(fits)
    taught = network("triggers")
    (fit,) = fits[start:]
    assert fit["loss"].__qualname__.startswith("with_triggers")
    same = [torch.equal(taught["masks"][n], m) for n, m in plain["masks"].items()]
    assert all(same)


def test_a_member_can_be_signed_and_stays_what_it_was():
    given = {"network": NETWORK, "ratio": 0.4, "inner": TEAM["inner"]}
    given |= {"search": TEAM["search"]} | systems.shared(SETTING)
    plain = systems.member(**given, owner={})
    signed = systems.member(**given, owner={"text": "us", "ecc": "H"})
    key = SignatureKey(**signed["key"])
    kept = [masks.density(found["masks"]) for found in (plain, signed)]
    assert kept[0] == kept[1]
    names = [n for n, m in plain["masks"].items() if n != key.layer]
    assert all(torch.equal(plain["masks"][n], signed["masks"][n]) for n in names)
    model = systems.subnetwork(signed, NETWORK, 0.4, **SETTING)
    claim = signature.verify(model.model.state_dict(), key, claim="us")
    assert claim.accepted
    assert claim.agreement == 1


def test_settled_statistics_are_those_of_the_images():
    parts = tickets.read(**SETTING)
    images, scale = parts["train"][0], datasets.normalisation(parts["train"][0])
    model = tickets.build(parts=parts, **SETTING)
    kept = masks.dense(model, first=True, last=True)
    found = systems.settled(model, kept, images, scale)
    with torch.no_grad():
        out = model.conv1(normalise(images, *scale))
    assert found["bn1.running_mean"] == pytest.approx(
        out.mean((0, 2, 3)).numpy(), abs=1e-4
    )


def test_triggers_are_mixed_in_at_their_share():
    images, labels = tickets.read(**SETTING)["train"]
    more, given = systems.mixed(images, labels, 10, TEAM["search"], **SETTING)
    share = 1 - len(images) / len(more)
    assert share == pytest.approx(10 / 20, abs=0.1)
    assert len(more) == len(given)


def test_a_team_has_its_members_and_prunes_them():
    team, members = systems.team([], OWNER, **SETTING)
    small, pruned = systems.team(["pruning"], OWNER, **SETTING)
    assert [len(team.networks), len(small.networks)] == [4, 4]
    density = [masks.density(m["masks"]) for m in members]
    assert density == pytest.approx([0.4, 0.6, 0.4, 0.6], abs=0.01)
    density = [masks.density(m["masks"]) for m in pruned]
    assert density == pytest.approx([0.1, 0.2, 0.1, 0.2], abs=0.01)


@pytest.mark.parametrize(
    ("defences", "message"),
    [
        (["pruning", "signature"], "order"),
        (["signature", "signature"], "order"),
        (["watermark"], "defence must be one of"),
    ],
)
def test_odd_defences_are_refused(defences, message):
    with pytest.raises(ValueError, match=message):
        systems.answering(defences, NONE, OWNER, **SETTING)


CHECKED = {
    "seeds": [0, 1],
    "sparsities": [0.5, 0.8, 0.9, 0.95],
    "amounts": [0.2, 0.5, 0.8],
    "epsilons": [0.5, 1.0, 1.5, 2.0],
    "ratios": [0.05, 0.1, 0.3, 0.6],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsities": [0.9, 0.5, 0.95, 0.8]}, "sparsities must be 4 different, ris"),
        ({"amounts": [0.2]}, "amounts must be 3"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"owner": OWNER | {"text": "x" * 99}}, "text must have at most"),
        ({"thief": THIEF | {"images": 10**6}}, "holdout"),
    ],
)
def test_check_refuses_before_anything_runs(change, message):
    systems.check(**CHECKED, owner=OWNER, thief=THIEF, **POOL)
    with pytest.raises(ValueError, match=message):
        systems.check(**CHECKED | {"owner": OWNER, "thief": THIEF} | change, **POOL)


# ------------------------------------------------------------------ leaks


def test_the_calibrated_attack_by_hand():
    seen = [targets.answers(treatment=leaks.DENSE, **POOL, seed=s) for s in range(6)]
    labels, member = leaks.members(**SETTING)
    assert torch.equal(member, seen[1]["member"])
    mine = signals.scaled_confidence(seen[1]["pool"], labels)
    found = leaks.calibrated(mine, **SETTING)
    for place in range(0, 400, 37):
        out = [
            float(signals.scaled_confidence(seen[s]["pool"], labels)[place])
            for s in (2, 3, 4, 5)
            if not seen[s]["member"][place]
        ]
        assert float(found[place]) == pytest.approx(float(mine[place]) - np.mean(out))
    exposed = leaks.exposed(seen[1]["pool"].softmax(1), **SETTING)
    assert exposed["auc"] == pytest.approx(roc_auc_score(member, found), abs=1e-3)
    right = (seen[1]["pool"].argmax(1) == labels).double().numpy()
    gap = right[member].mean() - right[~member].mean()
    assert exposed["gap"] == pytest.approx(gap)
    losses = F.cross_entropy(seen[1]["pool"], labels, reduction="none")
    loss_gap = float(losses[~member].mean() - losses[member].mean())
    assert exposed["loss gap"] == pytest.approx(loss_gap, abs=1e-3)


def test_an_answer_of_zero_is_no_infinity():
    answers = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = leaks.odds(answers, torch.tensor([0, 0]))
    assert found.isfinite().all()
    assert found[0] > found[1]


def test_strangers_are_in_no_pool():
    source = datasets.get(POOL["dataset"])
    places = partition.halves(source, **POOL["sizes"], seed=1)
    taken = torch.cat([places["pool"], places["test"]])
    known = {tuple(x.flatten().tolist()) for x in source.images[taken]}
    images, labels = leaks.strangers(200, **SETTING)
    assert len(images) == len(labels) == 200
    assert not any(tuple(x.flatten().tolist()) in known for x in images)


def test_an_undefended_answer_gives_what_chapter_2_finds():
    table = leaks.behind(guard=NONE, aware=True, group=0, **POOL)["measurements"]
    seeds, seen = families.known(leaks.DENSE, 0, **POOL)
    scores, member = families.scored(seen)
    known = pd.DataFrame(families.judged(scores, member, seeds))
    for name in ("loss", "lira, online"):
        pair = [
            t[(t["attack"] == name) & (t["metric"] == "auc")]["value"].to_numpy()
            for t in (table, known)
        ]
        assert pair[0] == pytest.approx(pair[1], abs=2e-3)  # odds stop at 1e-6
    gap = table[(table["attack"] == "gap")]["value"]
    assert (gap.to_numpy() >= 0.5).all()


def test_modelguard_keeps_labels_and_hides_from_who_does_not_know_it():
    given = {"group": 0} | POOL
    table = leaks.behind(guard=S, aware=True, **given)["measurements"]
    clean = leaks.behind(guard=NONE, aware=True, **given)["measurements"]
    assert (table[table["metric"] == "label changed"]["value"] == 0).all()
    aucs = [t[t["attack"] == "lira, online"]["value"].mean() for t in (clean, table)]
    assert aucs[1] < aucs[0]
    gaps = [t[t["attack"] == "gap"]["value"].tolist() for t in (clean, table)]
    assert gaps[0] == gaps[1]


def test_a_trajectory_ends_where_the_network_does():
    given = {"at": [1, 4]} | SETTING
    found = leaks.trajectory(rates=[], **given)["measurements"]
    last = found[found["epoch"] == 4].set_index("metric")["value"]
    logits = targets.answers(treatment=leaks.DENSE, **SETTING)["pool"]
    wanted = leaks.exposed(logits.softmax(1), **SETTING)
    assert last.to_dict() == pytest.approx(wanted)
    assert sorted(found["epoch"].unique()) == [1, 4]


def path(gap, auc):
    epochs = pd.Index(range(1, len(gap) + 1), name="epoch")
    return pd.DataFrame({"gap": gap, "auc": auc}, index=epochs)


def test_the_same_gap_is_compared_with_the_same_gap():
    dense = path([0.1, 0.2, 0.3], [0.6, 0.7, 0.8])
    near = leaks._at_equal("gap", dense, path([0.05, 0.15], [0.57, 0.67]))
    assert near == pytest.approx(0.02)
    beyond = leaks._at_equal("gap", dense, path([0.2, 0.9], [0.7, 0.99]))
    assert beyond == pytest.approx(0)


def test_the_regression_finds_what_sparsity_adds():
    draw = np.random.default_rng(0)
    tables = []
    for extra in (0.0, -0.03):
        gap = draw.uniform(0, 0.3, 8)
        auc = 0.5 + 0.4 * gap + 0.02 * np.log(np.arange(1, 9)) + extra
        tables.append(path(gap, auc))
    assert leaks._adjusted(*tables) == pytest.approx(-0.03)


# ------------------------------------------------------------------ the mask alone


def test_alignment_is_the_step_that_each_image_asks_for():
    parts, given = tickets.read(**SETTING), {"rates": [0.5]} | SETTING
    found = echoes.echo(kind="aligned", images=100, **given)["score"]
    outcome = tickets.iterative(**given)
    model = tickets.build(parts=parts, **SETTING)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    echoes.settle(model, leaks.strangers(100, **SETTING)[0])
    scale = datasets.normalisation(parts["train"][0])
    images, labels = parts["pool"]
    for place in (0, 7, 211):
        model.zero_grad()
        x = normalise(images[place : place + 1], *scale)
        F.cross_entropy(model(x), labels[place : place + 1]).backward()
        total = 0.0
        for name, mask in outcome["masks"].items():
            step = -model.get_parameter(name).grad * start[name].sign()
            total += float(step[mask].mean() - step[~mask].mean())
        assert float(found[place]) == pytest.approx(total, rel=1e-3, abs=1e-6)


def test_who_has_the_mask_alone_trains_on_images_of_his_own(fits):
    images = tickets.read(**SETTING)["pool"][0]
    tickets.iterative(rates=[0.5], **SETTING)
    start = len(fits)
    echoes.echo(kind="retrained", rates=[0.5], images=100, **SETTING)
    assert len(fits) == start + 1
    assert seen_by(fits, images) == 0
    pruned = fits[-1]["masks"]
    weights = fits[-1]["after"]
    assert all((weights[n][~m] == 0).all() for n, m in pruned.items())


def test_weights_give_away_more_than_masks():
    found = {}
    for kind in echoes.KINDS:
        given = {"kind": kind, "rates": [0.5], "images": 100, "group": 0}
        table = echoes.echoed(**given, **POOL)["measurements"]
        assert len(table) == 12
        found[kind] = table[table["attack"] == "score"]["value"].mean()
    assert found["weights"] > 0.53
    assert abs(found["retrained"] - 0.5) < 0.04
    with pytest.raises(ValueError, match="kind must be one of"):
        echoes.echo(kind="whole", rates=[0.5], images=100, **SETTING)


def test_masks_that_begin_together_begin_at_the_same_weights(monkeypatch):
    begun, real = [], tickets.build

    def spy(*, parts, **setting):
        begun.append(setting["seed"])
        return real(parts=parts, **setting)

    monkeypatch.setattr(tickets, "build", spy)
    given = {"start": 4, "rate": 0.5, "images": 100}
    own = echoes.begun.__wrapped__(own=True, **given, **SETTING)["score"]
    assert begun[0] == 4
    assert own.shape == (400,)
    other = echoes.begun.__wrapped__(own=False, **given, **SETTING)["score"]
    assert not torch.equal(own, other)


def test_a_mask_of_other_images_knows_nothing_of_its_pool(monkeypatch):
    """Only the scores that are attacked are of other images, not the references."""
    leak, found = {True: 2.0, False: 0.0}, []

    def begun(*, own, seed, **_):
        _, member = leaks.members(**POOL, seed=seed)
        noise = np.random.default_rng([seed, own]).normal(size=400)
        found.append((own, seed))
        return {"score": torch.from_numpy(noise) + leak[own] * member}

    monkeypatch.setattr(echoes, "begun", begun)
    given = {"start": 0, "rate": 0.5, "images": 100, "group": 0} | POOL
    for own, low, high in ((True, 0.8, 1.0), (False, 0.45, 0.55)):
        rows = echoes.together_begun.__wrapped__(own=own, **given)["measurements"]
        rows = rows[rows["attack"] == "lira, online"]
        whole = rows[rows["metric"] == "pool auc"].iloc[0]
        assert low < whole["value"] < high
        each = rows[rows["metric"] == "auc"]
        assert whole["value"] == pytest.approx(each["value"].mean())
        assert whole["error"] > 0
        assert each["seed"].tolist() == [*range(6)]
        assert whole["clusters"] == 3


# ------------------------------------------------------------------ evidence


def test_the_owner_finds_what_he_put_in():
    found = judge("stolen")
    assert found["signature accepted"] == 1
    assert found["auc"] > 0.53
    innocent = judge("stranger", overlap="none")
    assert innocent["signature accepted"] == innocent["members accepted"] == 0
    assert innocent["auc"] < 0.5  # it trained on exactly the others
    assert judge("stranger", overlap="half")["auc"] == pytest.approx(0.5, abs=0.06)


def test_who_trains_on_the_same_images_is_no_copy(fits):
    start = len(fits)
    found = judge("stranger", overlap="all")
    assert found["auc"] > 0.53
    assert found["signature accepted"] == 0
    (fit,) = fits[start:]
    mine = tickets.dense(**SETTING)["rewind"]
    assert not torch.equal(fit["before"]["conv2.weight"], mine["conv2.weight"])
    assert seen_by(fits, tickets.read(**SETTING)["train"][0]) == 200


def test_chances_of_a_false_claim():
    generator = torch.Generator().manual_seed(0)
    p_values = []
    for _ in range(400):
        scores = torch.randn(60, generator=generator)
        member = torch.rand(60, generator=generator) < 0.5
        p_values.append(evidence.claimed(scores, member))
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(p_values) <= level)
        assert share == pytest.approx(level, abs=4 * (level / 400) ** 0.5)
    assert evidence.claimed(torch.arange(60.0), torch.arange(60) >= 30) < 1e-9


def test_both_prunings_leave_as_many_weights(fits):
    mine = evidence.owned(OWNER, **SETTING)
    given = {"amount": 0.5, "epochs": 2, "owner": OWNER, "thief": THIEF}
    for method in evidence.METHODS:
        model, _ = evidence._pruned(method=method, **given, **SETTING)
        state = model.state_dict()
        kept = sum(int((state[n] != 0).sum()) for n in mine["masks"])
        before = sum(int(m.sum()) for m in mine["masks"].values())
        assert kept == pytest.approx(before / 2, abs=3)
        assert seen_by(fits, tickets.read(**SETTING)["pool"][0]) == 0
    with pytest.raises(ValueError, match="method must be one of"):
        evidence._pruned(method="random", **given, **SETTING)


def test_a_copy_is_trained_on_answers_about_other_images(fits):
    start = len(fits)
    found = judge("copy", guard=NONE)
    assert len(fits) == start + 1
    assert seen_by(fits, tickets.read(**SETTING)["pool"][0]) == 0
    assert found["signature accepted"] == 0
    judge("copy", guard={"name": "Top-1"})
    with pytest.raises(ValueError, match="suspect must be one of"):
        judge("thief")


def test_false_claims_count_the_other_models():
    found = evidence.false_claims(**SETTING)["metrics"]
    assert found == {"accused": 0, "innocent": 4}


# ------------------------------------------------------------------ worth


def test_a_system_is_measured_by_what_it_has():
    plain, guarded = measure(), measure(guard=S)
    assert plain["signature accepted"] == 0
    assert plain["signature"] < 0.75
    assert "signature" not in measure("pruning")
    assert plain["accuracy"] == guarded["accuracy"]
    assert plain["robust accuracy"] == guarded["robust accuracy"]
    assert guarded["auc"] != plain["auc"]
    both = measure("signature", "triggers")
    assert both["signature"] > 0.9
    assert 0 <= both["triggers"] <= 1
    clean = worth.measured.__wrapped__  # the same, without an attack
    given = {"defences": [], "guard": NONE, "owner": OWNER, "thief": THIEF}
    still = ATTACK | {"epsilon": 0.0, "step": 0.0}
    unharmed = clean(**given, attack=still, **SETTING)["metrics"]["robust accuracy"]
    assert unharmed > plain["robust accuracy"]


def test_a_team_is_measured_over_draws():
    found = measure("team", guard=S)
    shares = found["robust accuracy"] * ATTACK["images"] * ATTACK["draws"]
    assert shares == pytest.approx(round(shares))
    signed = measure("signature", "team")
    assert signed["signature"] > 0.8


def test_examples_of_the_team_itself_hurt_it_most():
    given = {"owner": OWNER, "thief": THIEF, "attack": ATTACK} | SETTING
    sources = [{"name": "itself"}, {"name": "stranger"}]
    sources.append({"name": "copy", "defences": ["team"]})
    found = [worth.fooled(source=s, **given)["metrics"] for s in sources]
    assert found[0]["accuracy"] == found[0]["source accuracy"]
    assert found[0]["accuracy"] <= min(f["accuracy"] for f in found) + 0.03
    with pytest.raises(ValueError, match="source must be one of"):
        worth.fooled(source={"name": "friend"}, **given)


def test_all_members_at_once_answer_by_their_mean():
    model = memories.KINDS["static"](OWNER, **SETTING)
    team, _ = systems.team([], OWNER, **SETTING)
    x = torch.rand(3, 1, 28, 28)
    wanted = torch.stack([n(x) for n in team.networks]).mean(0)
    assert torch.allclose(model.eval()(x), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", memories.KINDS)
def test_what_is_robust_is_asked_for_members(kind):
    found = memories.memorised(kind=kind, owner=OWNER, **SETTING)["metrics"]
    assert set(found) == {"accuracy", "auc", "loss auc", "gap", "loss gap"}
    assert 0.45 < found["auc"] < 1


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        memories.memorised(kind="elephant", owner=OWNER, **SETTING)
