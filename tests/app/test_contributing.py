"""The example of CONTRIBUTING.md is a whole tool, as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from app.experiments.base import Experiment, panel_infos
from app.models import LoadedModel
from model.weights.folder import load
from tests.app.experiments import panels_of, trace_of
from tests.conftest import CPU, FLOAT

ROOT = Path(__file__).parents[2]
BLOCKS = dict(re.findall(r"^```(python|html)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S))
CALL = """
import sys
from fastapi.testclient import TestClient
from app.main import create_app
from app.settings import Settings
import time
with TestClient(create_app(Settings(model=sys.argv[1]))) as client:
    while client.get("/readyz").status_code != 200:
        time.sleep(0.1)
    assert "/tools/row-entropy" in client.get("/tools").text
    page = client.get("/tools/row-entropy", params={"text": "a b"})
    assert (page.status_code, "entropy of 0 bits" in page.text) == (200, True)
    reply = client.post("/api/v1/experiments/row-entropy", json={"text": "a b"}).json()
    assert reply["panels"]["entropies"]["values"][0] == 0
"""


def test_its_numbers_are_the_entropies_of_the_rows(tiny_gpt2: Path) -> None:
    module: dict[str, object] = {"__name__": "app.tools.row_entropy"}
    exec(compile(BLOCKS["python"], "CONTRIBUTING.md", "exec"), module)
    experiment = module["EXPERIMENT"]
    assert isinstance(experiment, Experiment)
    loaded = LoadedModel("tiny", *load(tiny_gpt2, device=CPU, dtype=FLOAT), max_tokens=64)
    tokens = loaded.tokens("the fat cat")
    work = experiment.work(loaded, tokens, module["RowEntropyControls"](text="the fat cat"))  # type: ignore[operator]
    work.trace = trace_of(loaded, tokens.ids, work.sites)
    assert [info.kind for info in panel_infos(experiment.work)] == ["bars"]
    rows = work.trace.stage("weights", 0, [0])[0]
    bits = [torch.special.entr(row[: i + 1]).sum() / torch.tensor(2.0).log() for i, row in enumerate(rows)]
    torch.testing.assert_close(torch.tensor(panels_of(work)["entropies"].values), torch.stack(bits))  # type: ignore[union-attr]


def test_one_module_and_one_template_are_a_page_and_a_call(tiny_gpt2: Path, tmp_path: Path) -> None:
    for folder in ("app", "model", "templates", "static"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "app/tools/row_entropy.py").write_text(BLOCKS["python"])
    (tmp_path / "templates/tools/row-entropy.html").write_text(BLOCKS["html"])
    subprocess.run([sys.executable, "-c", CALL, str(tiny_gpt2)], cwd=tmp_path, check=True, timeout=120)
