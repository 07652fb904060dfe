"""
Make a virtual environment with the libraries camrt is compared with, and the model collections it is tried on.

    python bench/make_peers.py FOLDER

torch-cam, pytorch-grad-cam, Quantus and captum live apart from camrt, at pinned versions, so that neither side's
requirements bend the other's. They, torchvision and timm are installed without their requirements, of which some would pull
another torch, others a second OpenCV. `bench/torchvision_cpu.py` lets torchvision import beside a CPU build of torch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

TORCH = ["torch==2.13.0"]
ALONE = [
    "torchvision==0.28.0", "timm==1.0.31", "torchcam==0.5.0", "grad-cam==1.5.7", "quantus==0.6.0", "captum==0.9.0"
]  # fmt: skip
NEEDED = [
    "cachetools==8.0.1",
    "matplotlib==3.11.2",
    "numpy==2.4.6",
    "onnx==1.23.2",
    "onnx-ir==1.1.0",
    "onnxscript==0.7.2",
    "opencv-python-headless==5.0.0.93",
    "pandas==3.1.1",
    "pillow==13.0.0",
    "pyyaml==6.0.3",
    "safetensors==0.8.0",
    "scikit-image==0.26.0",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
    "tqdm==4.70.1",
    "ttach==0.0.3",
]


def make(folder: Path) -> Path:
    """
    Create the environment and return its interpreter.

    Parameters
    ----------
    folder : Path
        Where it goes; packages that are there already are kept.

    Returns
    -------
    Path
        The interpreter that can import them all.

    Raises
    ------
    CalledProcessError
        If a package cannot be installed.
    """
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    for packages, flags in ((TORCH, []), (ALONE, ["--no-deps"]), (NEEDED, [])):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *flags, *packages], check=True)
    lines = "import torchvision_cpu, timm, torchcam.methods, pytorch_grad_cam, quantus, captum.metrics"
    subprocess.run([python, "-c", lines], check=True, cwd=Path(__file__).parent)
    return python


def main() -> None:
    """Read the folder from the command line and make the environment there."""
    parser = argparse.ArgumentParser(
        description="Make a virtual environment with torch-cam, pytorch-grad-cam, Quantus, captum and timm."
    )
    parser.add_argument("folder", type=Path, help="where the environment goes")
    sys.stdout.write(f"{make(parser.parse_args().folder)}\n")


if __name__ == "__main__":
    main()
