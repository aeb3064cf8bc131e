"""The wheel works outside the checkout: its sites, templates, recipes and playbooks come with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_an_installed_wheel_brings_its_defaults(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)], check=True, timeout=120
    )
    wheel = next(wheels.glob("pcloud-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=120)
    program = (
        "import pcloud, pathlib\n"
        "from pcloud.inventory import defaults_dir\n"
        "from pcloud.images import find_recipes\n"
        f"assert pathlib.Path(pcloud.__file__).is_relative_to({str(site)!r})\n"
        "roles = {'frontend', 'balancer', 'database', 'indexer'}\n"
        "assert set(find_recipes(defaults_dir('templates') / 'images')) >= roles\n"
        "from pcloud.cli import main\n"
        "main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(site), "PCLOUD_HOME": str(tmp_path / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", program, "validate", "demo"],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "demo" in ran.stdout
    assert (site / "pcloud/render/report.html.j2").is_file()
    assert (site / "pcloud/defaults/templates/shop/dump/shop.sql.gz").is_file()
