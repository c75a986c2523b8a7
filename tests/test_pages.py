"""The Python in README.md and docs/ runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.coco_folder import write_coco

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.M)


def run_as_script(code: str, folder: Path) -> str:
    """Run code in a folder of its own and return what it printed."""
    script = folder / "page.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for block in python_blocks(page):
        compile(block, page.name, "exec")


@pytest.mark.slow
def test_ten_lines_of_the_readme(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 4, "nucleus")
    write_coco(tmp_path, "val", 2, "nucleus")
    for source, copy in [("train_1.png", "a.jpg"), ("train_2.png", "b.png")]:
        Image.open(tmp_path / "images" / source).save(tmp_path / copy)
    (code,) = python_blocks(REPOSITORY / "README.md")
    # The same lines on smaller images for a shorter time.
    assert "(256, 256)" in code
    assert "epochs=10" in code
    code = code.replace("(256, 256)", "(64, 64)").replace("epochs=10", "epochs=1")
    run_as_script(code, tmp_path)
    for made in ["nuclei.keras", "a_detections.png", "nuclei.tflite"]:
        assert (tmp_path / made).stat().st_size > 0
    assert (tmp_path / "saved_models/nuclei/1/saved_model.pb").exists()


@pytest.mark.slow
def test_page_on_own_data(tmp_path: Path) -> None:
    (code,) = python_blocks(REPOSITORY / "docs/own_data.md")
    assert "mask_loss" in run_as_script(code, tmp_path)


@pytest.mark.slow
def test_page_from_matterport(tmp_path: Path) -> None:
    blocks = python_blocks(REPOSITORY / "docs/from_matterport.md")
    printed = run_as_script("\n".join(blocks), tmp_path)
    assert "mask_loss" in printed
    assert "detections" in printed
    assert len(list((tmp_path / "discs/images").iterdir())) == 24
    for made in ["found.png", "discs.keras"]:
        assert (tmp_path / made).stat().st_size > 0


@pytest.mark.slow
def test_page_on_fewer_tokens(tmp_path: Path) -> None:
    blocks = python_blocks(REPOSITORY / "docs/efficient_vit.md")
    printed = run_as_script("\n".join(blocks), tmp_path)
    assert "keep_logits_3" in printed
    assert "(1, 2)" in printed
