import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from photo_files import GARMENT, png

from fmnist_lit import demo


def test_run_that_does_not_exist_is_a_bad_argument(tmp_path, capsys):
    assert demo.main([str(tmp_path / "nowhere")]) == 2
    assert "no such run folder or checkpoint" in capsys.readouterr().err


def test_missing_gradio_is_named_with_its_extra(trained_run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo.main([str(trained_run)]) == 1
    assert "pip install 'fmnist_lit[demo]'" in capsys.readouterr().err


@pytest.fixture
def address(trained_run):
    """Where the page is served, on the address that it takes when told nothing."""
    pytest.importorskip("gradio.blocks", reason="needs the extra demo")
    arguments = [sys.executable, "-m", "fmnist_lit.demo", str(trained_run), "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            first_line = process.stdout.readline()
            assert first_line.startswith("http://127.0.0.1:")
            yield first_line.split()[0]
        finally:
            process.terminate()


@pytest.fixture
def browser():
    """A headless Chromium that records what it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    profile = tempfile.mkdtemp()
    quiet = "headless no-sandbox disable-gpu disable-quic no-first-run disable-component-update disable-sync"
    for flag in (*quiet.split(), "disable-background-networking", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.implicitly_wait(60)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_photo_gets_ten_probabilities_and_nothing_leaves_the_machine(address, browser, tmp_path):
    from selenium.webdriver.common.by import By

    png(tmp_path / "garment.png", GARMENT)
    browser.get(address)
    upload = browser.find_element(By.CSS_SELECTOR, "input[type=file]")
    upload.send_keys(os.fspath(tmp_path / "garment.png"))
    shown = browser.find_elements(By.CSS_SELECTOR, "[data-testid$=-confidence-set]")
    assert len(shown) == 10
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(address) for url in asked)
    answered = [m["params"]["response"]["url"] for m in messages if m["method"] == "Network.responseReceived"]
    assert [url for url in answered if url.startswith("http") and not url.startswith(f"{address}/")] == []
