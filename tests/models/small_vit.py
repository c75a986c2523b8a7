"""Vision Transformers of a size for tests."""

import pytest

from kvision.models.vit import VARIANTS, ViTSize

SIZE = ViTSize(embed_dim=16, depth=3, num_heads=2, mlp_dim=32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the variant "tiny" have 3 blocks of width 16."""
    monkeypatch.setitem(VARIANTS, "tiny", SIZE)
