"""Loading: by path, cached, quiet; and one clear line for each way in which it can fail."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from sg_guardrails.core.errors import ModelError
from sg_guardrails.models import builtin, hf, hub, loading
from sg_guardrails.models.builtin import builtin_path
from tests.models import tiny

WHAT_TO_DO = r"name another with `model: .* or --model, or try the policy `builtin`"


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return tiny.llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def copy(llava, tmp_path) -> Path:
    return Path(shutil.copytree(llava, tmp_path / "copy"))


def refused(source: object, match: str, **how: str) -> None:
    """One line, that says what was asked, why not, and what to do."""
    with pytest.raises(ModelError, match=match) as caught:
        hf.load(str(source), device="cpu", **how)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500


def test_a_folder_becomes_a_handle(llava):
    handle = hf.load(str(llava), device="cpu")
    assert handle.takes == {"image"}
    assert (handle.device.type, handle.dtype) == ("cpu", torch.float32)
    assert not handle.model.training
    settings = handle.model.generation_config
    assert (settings.do_sample, settings.temperature, settings.top_p, settings.top_k) == (False, None, None, None)


def test_guards_share_one_model_while_somebody_holds_it(llava):
    handle = hf.load(str(llava), device="cpu")
    assert hf.load(str(llava / ".." / llava.name), device="cpu") is handle
    assert hf.load(str(llava), device="cpu", dtype="bfloat16") is not handle
    count = len(loading._loaded)
    del handle
    gc.collect()
    assert len(loading._loaded) < count


def test_threads_that_load_at_once_get_one_model(llava):
    got: list[hf.Handle] = []
    threads = [threading.Thread(target=lambda: got.append(hf.load(str(llava), device="cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(handle) for handle in got}) == 1


def test_dtypes(copy):
    weights = load_file(copy / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in weights.items()}, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert hf.load(str(copy), device="cpu").dtype == torch.float32
    assert hf.load(str(copy), device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_answers_in_bfloat16(copy):
    import numpy as np

    from sg_guardrails.core.media import Image
    from sg_guardrails.core.policy import Smoothing
    from sg_guardrails.core.types import Copy, Prompt

    handle = hf.load(str(copy), device="cpu", dtype="bfloat16")
    prompt = Prompt.ask("What is this?", Image(np.zeros((32, 32, 3), dtype=np.float32)))
    assert len(hf.HFSampler(handle, max_new_tokens=2)([Copy(prompt), Copy(prompt, 1)], Smoothing())) == 2


@pytest.mark.slow
def test_loading_prints_nothing(llava):
    code = f"from sg_guardrails.models.hf import load; load({str(llava)!r}, device='cpu')"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert (done.stdout, done.stderr) == ("", "")


def test_loading_leaves_the_log_level_and_the_bars_as_they_were(llava):
    from transformers.utils import logging

    logging.set_verbosity_info()
    try:
        with pytest.raises(ModelError):
            hf.load(str(llava / "nowhere"))
        hf.load(str(llava), device="cpu", dtype="float16")
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()


@pytest.mark.parametrize(
    "path", ["./nowhere", "../nowhere", "/nowhere", "~/nowhere", "a/b/c", "nowhere/", r"c:\models\x"]
)
def test_a_path_is_never_asked_of_the_hub(path, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", None)
    refused(path, f"no model folder .* {WHAT_TO_DO}".replace(" .* ", ".*"))


def test_a_hub_id_without_network(monkeypatch):
    """Offline by setting or by fate: refused at once, not after half a minute of retries."""

    class Hub:
        def model_info(self, name, *, revision, timeout):
            assert timeout == hub.SECONDS
            raise httpx.ConnectError("no route")

    monkeypatch.setattr(hub, "HfApi", Hub)
    refused(
        "nobody/nothing-like-this",
        rf"'nobody/nothing-like-this'.*neither a folder nor in the local cache.*can't be reached.*{WHAT_TO_DO}",
    )


def test_a_hub_id_in_offline_mode():
    refused("nobody/nothing-like-this", rf"can't be reached.*{WHAT_TO_DO}")


def test_a_hub_id_that_the_hub_does_not_know(monkeypatch):
    class Hub:
        def model_info(self, name, *, revision, timeout):
            raise RepositoryNotFoundError(
                "404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub"))
            )

    monkeypatch.setattr(hub, "HfApi", Hub)
    refused("nobody/nothing-like-this", "there is no model 'nobody/nothing-like-this' at revision 'v1'", revision="v1")


@pytest.mark.parametrize("name", ["what is this?", "", "  "])
def test_what_is_no_id_at_all(name):
    refused(name, "there is no model")


def test_a_folder_without_a_model(tmp_path):
    refused(tmp_path, f"no config.json.*{WHAT_TO_DO}")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_type": "gpt2"}, r"\(gpt2\) does not answer about pictures or clips"),
        ({"model_type": "clip"}, r"\(clip\) does not answer about pictures or clips"),
        ({"model_type": "never-heard-of"}, "cannot be loaded: .*never-heard-of"),
        ({"auto_map": {"AutoConfig": "code.Config"}, "model_type": "own"}, "cannot be loaded: .*custom code"),
    ],
)
def test_a_wrong_architecture(copy, config, match):
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text("raise SystemExit('the code of a checkpoint ran')")
    refused(copy, f"{match}.*{WHAT_TO_DO}")


def test_a_broken_config(copy):
    (copy / "config.json").write_text("{")
    refused(copy, f"cannot be loaded.*valid JSON.*{WHAT_TO_DO}")


def test_truncated_weights(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refused(copy, f"cannot be loaded.*{WHAT_TO_DO}")


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    refused(copy, f"cannot be loaded.*safetensors.*{WHAT_TO_DO}")


def test_pickled_weights_are_not_read(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    refused(copy, "cannot be loaded.*safetensors")


def test_a_missing_weight(copy):
    """transformers would fill it with random numbers."""
    weights = load_file(copy / "model.safetensors")
    weights.pop(next(name for name in weights if "q_proj" in name))
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, f"1 of its weights are missing or misshapen; {WHAT_TO_DO}")


def test_a_misshapen_weight(copy):
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    weights[name] = weights[name][:1].clone()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, "1 of its weights are missing or misshapen")


def test_no_processor(copy):
    for file in copy.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    refused(copy, f"cannot be loaded.*{WHAT_TO_DO}")


def test_a_missing_package_is_named(llava, monkeypatch):
    class Processor:
        @staticmethod
        def from_pretrained(*_, **__):
            raise ImportError("SmolVLMProcessor requires the num2words library. But it was not found.")

    monkeypatch.setattr(loading, "AutoProcessor", Processor)
    refused(llava / ".", "needs a package that is not installed: .*num2words", dtype="float16")


@pytest.mark.parametrize("device", ["nope", "cuda:99"])
def test_a_device_that_is_not_there(llava, device):
    with pytest.raises(ModelError, match=f"device '{device}' is not to be had"):
        hf.load(str(llava), device=device)


def test_builtin_models_have_a_path(tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "config.json").write_text("{}")
    monkeypatch.setattr(builtin, "__file__", str(tmp_path / "__init__.py"))
    assert builtin_path("shapes") == tmp_path / "shapes"
    for name in ("nope", "", "..", "../shapes", "/"):
        with pytest.raises(ModelError, match=r"no built-in model .*shipped: shapes"):
            builtin_path(name)


def test_an_unknown_builtin_model_is_refused():
    with pytest.raises(ModelError, match="no built-in model 'nope'"):
        hf.load("builtin:nope")


def test_the_builtin_room_needs_no_torch():
    code = "import sys, sg_guardrails.models.builtin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
