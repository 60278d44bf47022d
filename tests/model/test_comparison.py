"""The comparison: one budget, one order of samples, and differences with their intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from salibi_cli.model import app as commands
from salibi_data.store.errors import UsageError
from salibi_model.comparison import COMPARED_MODELS, compare, shared_budget
from salibi_model.data.loader import DataLoader
from salibi_model.data.store import SampleStore
from salibi_model.evals.options import KnnOptions, SegmentOptions
from salibi_model.evals.results import Results
from salibi_model.models import config as model_config
from salibi_model.nn.masking import random_masks
from salibi_model.training.config import TrainingConfig
from salibi_model.training.resolution import resolve
from salibi_model.training.tracking.metrics_log import read_metrics
from tests.support.model.labelled.labelled_arrays import coloured
from tests.support.model.nano import SIZE
from tests.support.model.stores import write_store

MODELS = ("scale-alibi", "croma", "scale-mae", "no-gsd-scaling")


@pytest.fixture(autouse=True)
def nano_size(monkeypatch):
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)


def config(store, **changes):
    return TrainingConfig(
        **{"stores": (str(store),), "steps": 2, "batch_size": 4, "validation_samples": 0, **changes}
    )


def compared_all(store, out, data, **told):
    return compare(
        config(store),
        models=MODELS,
        data=[data],
        methods=[KnnOptions(k=3)],
        scales=(1.0, 2.0),
        out=out,
        device="cpu",
        **told,
    )


@pytest.fixture(scope="module")
def compared(small_store, tmp_path_factory):
    """Four models of the smallest size, and their comparison."""
    out = tmp_path_factory.mktemp("compared")
    data = coloured(px=64, gsd_m=3.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model_config.SIZES, "tiny", SIZE)
        comparison = compared_all(small_store, out, data)
    return comparison, out, data


def test_every_model_and_floor_has_rows_at_every_scale(compared):
    comparison, _, data = compared
    rows = {(row.model, row.encoder, row.gsd_m) for row in comparison.scores}
    expected = {
        "scale-alibi": ("lores", "hires_4x"),
        "croma": ("lores",),
        "scale-mae": ("lores", "hires_4x"),
        "no-gsd-scaling": ("lores", "hires_4x"),
        "scale-alibi, untrained": ("lores", "hires_4x"),
        "mean colour": ("red green blue",),
    }
    assert rows == {
        (model, encoder, gsd_m)
        for model, encoders in expected.items()
        for encoder in encoders
        for gsd_m in (data.gsd_m, 2 * data.gsd_m)
    }


def test_all_are_trained_on_one_budget_and_one_order(compared, small_store):
    """Batches of fewer modalities are the same samples, with the same turns and masks."""
    _, out, _ = compared
    logs = [read_metrics(out / name / "metrics.csv") for name in MODELS]
    assert {tuple((row["step"], row["lr"]) for row in log) for log in logs} == {
        tuple((row["step"], row["lr"]) for row in logs[0])
    }
    store = SampleStore(small_store)
    batches = [
        iter(DataLoader([store], modalities=names, batch_size=4, seed=0))
        for names in (("sar", "lores", "hires_4x"), ("sar", "lores"))
    ]
    for _ in range(5):
        three, two = (next(each) for each in batches)
        assert three.seeds == two.seeds
        assert torch.equal(three.images["sar"], two.images["sar"])
        tokens = {"sar": 256, "lores": 256}
        masks = random_masks({**tokens, "hires_4x": 1024}, 0.75, three.seeds)
        for name, mask in random_masks(tokens, 0.75, two.seeds).items():
            assert torch.equal(mask.kept, masks[name].kept)
    for each in batches:
        each.close()


def test_the_first_model_decides_the_steps(small_store):
    open_ended = TrainingConfig(stores=(str(small_store),), epochs=6)
    budget = shared_budget(open_ended, MODELS)
    assert {(entrant.steps, entrant.batch_size, entrant.lr) for entrant in budget.values()} == {
        (6, 10, 1e-3)
    }


def test_differences_are_those_of_the_outcomes(compared):
    """Each is the difference of two values; its interval is that of a plain paired bootstrap."""
    comparison, out, _ = compared
    results = Results(out)
    by_label = {
        f"{row.model} ({row.encoder})": row
        for row in comparison.scores
        if row.settings["scale"] == 1
    }
    assert len(comparison.differences) == 2 * 5
    for one in comparison.differences:
        a, b = by_label[one.reference], by_label[one.other]
        assert one.value == pytest.approx(a.value - b.value)
        gain = results.outcomes(a).astype(float) - results.outcomes(b).astype(float)
        rng = np.random.default_rng(1)
        drawn = gain[rng.integers(0, len(gain), (4000, len(gain)))].mean(axis=1)
        low, high = np.percentile(drawn, (2.5, 97.5))
        step = 1 / len(gain)
        assert one.low == pytest.approx(low, abs=1.01 * step)
        assert one.high == pytest.approx(high, abs=1.01 * step)
        assert one.is_clear == (one.low > 0 or one.high < 0)


def test_croma_stands_against_both_encoders(compared):
    comparison, _, _ = compared
    pairs = [(d.reference, d.other) for d in comparison.differences if d.other.startswith("croma")]
    assert pairs == [
        ("scale-alibi (lores)", "croma (lores)"),
        ("scale-alibi (hires_4x)", "croma (lores)"),
    ]


def test_run_again_nothing_is_done_twice(compared, small_store):
    comparison, out, data = compared
    before = data.reads
    skipped, steps = [], []
    told = {"on_step": lambda *told: steps.append(told), "on_skip": skipped.append}
    again = compared_all(small_store, out, data, **told)
    assert again.scores == comparison.scores
    assert again.differences == comparison.differences
    assert not steps
    assert data.reads - before <= 2 * len(MODELS) + 3  # a look at the size of an image
    assert sum("is in" in message for message in skipped) == len(comparison.scores)


def test_options_in_a_file_are_a_model(small_store, tmp_path):
    file = tmp_path / "steep.toml"
    file.write_text('gsd_scaling = true\nfusion = "separate"\n')
    base = config(small_store, gsd_scaling=False)
    budget = shared_budget(base, ["croma", str(file)])
    assert (budget["steep"].fusion, budget["steep"].gsd_scaling) == ("separate", True)
    assert (budget["steep"].model, budget["croma"].model) == ("scale-alibi", "croma")


def test_a_file_cannot_have_a_budget_of_its_own(small_store, tmp_path):
    file = tmp_path / "greedy.toml"
    file.write_text("steps = 1000\nseed = 1\n")
    with pytest.raises(UsageError, match="sets seed, steps, which all models share"):
        shared_budget(config(small_store), ["croma", str(file)])


def test_modalities_of_one_model_are_not_those_of_another(small_store):
    """As where the configuration is the resolved one of a Scale-ALiBi run."""
    resolved = resolve(config(small_store), [SampleStore(small_store)])
    budget = shared_budget(resolved, ["scale-alibi", "croma", "scale-mae"])
    stores = [SampleStore(small_store)]
    built = {name: resolve(entrant, stores).modalities for name, entrant in budget.items()}
    assert built["croma"] == ("sar", "lores")
    assert built["scale-mae"] == ("lores", "hires_4x")


def test_a_model_that_cannot_be_built_is_found_before_training(tmp_path):
    store = write_store(
        tmp_path / "two.zarr", num_samples=8, validation=2, modalities=["sar", "lores"]
    )
    file = tmp_path / "wrong.toml"
    file.write_text('pairs = ["sar:hires_4x"]\n')
    with pytest.raises(UsageError, match="wrong: "):
        compare(
            config(store),
            models=("croma", str(file)),
            data=[coloured()],
            methods=[KnnOptions(k=3)],
            out=tmp_path / "out",
            device="cpu",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (("scale-alibi", "dino"), "no model 'dino'.*scale-alibi, croma, scale-mae"),
        (("croma", "croma"), "give each once"),
        ((), "got the models \\(none\\)"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(small_store, models, message):
    with pytest.raises(UsageError, match=message):
        shared_budget(config(small_store), models)


def test_methods_that_fit_no_data_are_refused_before_training(small_store, tmp_path):
    with pytest.raises(UsageError, match=r"arrays \(classification\)"):
        compare(
            config(small_store),
            models=("scale-alibi",),
            data=[coloured()],
            methods=[SegmentOptions()],
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_many_processes_are_sent_away(small_store, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="one process"):
        compare(config(small_store), models=("croma",), data=[], methods=[], out=tmp_path)


def test_all_entrants_can_be_configured(small_store):
    assert set(shared_budget(config(small_store), list(COMPARED_MODELS))) == set(COMPARED_MODELS)


def test_the_command_prints_a_table_and_says_what_differs(small_store, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in {"train": 6, "validation": 3, "test": 4}.items():
        for name, colour in {"blue": (20, 40, 160), "green": (30, 140, 40)}.items():
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 30, (64, 64, 3))
                image = Image.fromarray((np.array(colour) + noise).astype(np.uint8))
                image.save(folder / f"{number}.png")
    out = tmp_path / "out"
    arguments = ["compare", str(small_store), "--data", str(tmp_path / "images"), "-o", str(out)]
    arguments += ["--models", "scale-alibi,croma", "--steps", "2", "--batch-size", "4", "-k", "3"]
    arguments += ["--gsd-m", "3.7", "--device", "cpu"]
    done = CliRunner().invoke(commands.application, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for words in ("croma", "hires_4x", "mean colour", "untrained", "images accuracy %, knn, 3.7 m"):
        assert words in done.output
    assert "differences are larger than their intervals" in done.output
    assert ("is better than" in done.output) or ("no clear difference" in done.output)
    with Image.open(out / "results.png") as figure:
        assert figure.size[0] > 300
    as_json = CliRunner().invoke(commands.application, [*arguments, "--json"])
    content = json.loads(as_json.stdout)
    assert content["models"] == ["scale-alibi", "croma"]
    assert len(content["scores"]) == 2 + 1 + 2 + 1
    assert content["published"]["m-eurosat"]["CROMA"] == 0.663
