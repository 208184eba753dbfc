from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
MINIWORLD = ["miniworld>=2.1,<3"]
ZOO = ["rl_zoo3[plots]>=2.9.2,<3"]
COMPARISON = ["rliable>=1.2,<2"]
VIDEO = ["imageio[ffmpeg]"]
BENCHMARKS = ["pyyaml", "sb3-contrib>=2.9,<3"]
RAY = ["ray>=2.40,<3"]

setup(
    name="sb3_dream",
    version=(ROOT / "sb3_dream" / "version.txt").read_text(encoding="utf8").strip(),
    description="The meta-RL algorithm DREAM for Stable-Baselines3",
    long_description=(ROOT / "README.md").read_text(encoding="utf8"),
    long_description_content_type="text/markdown",
    author="sb3_dream developers",
    license="MIT",
    license_files=["LICENSE"],
    keywords="meta-reinforcement-learning reinforcement-learning stable-baselines3 gymnasium pytorch dream",
    packages=[*find_packages(include=["sb3_dream", "sb3_dream.*"]), "sb3_dream.hyperparams"],
    package_dir={"sb3_dream.hyperparams": "benchmarks/hyperparams"},
    package_data={"sb3_dream": ["version.txt", "py.typed"], "sb3_dream.hyperparams": ["*.yml"]},
    python_requires=">=3.10",
    install_requires=[
        "stable-baselines3>=2.9,<3",
        "gymnasium>=1.0",
        "torch",
        "numpy",
        "pillow",
        "matplotlib",
        # SB3's progress bar
        "tqdm",
        "rich",
    ],
    extras_require={
        # what runs from benchmarks/ needs
        "benchmarks": BENCHMARKS,
        # python -m benchmarks.run --engine ray
        "ray": RAY,
        # python -m benchmarks.report
        "comparison": COMPARISON,
        # MetaSign-v0; the system needs OpenGL too:
        # apt-get install libegl1 libgl1 libglu1-mesa libgl1-mesa-dri libfreetype6 libfontconfig1
        "miniworld": MINIWORLD,
        # python -m sb3_dream.zoo
        "zoo": ZOO,
        # animate_trial and record_trial write MP4
        "video": VIDEO,
        "tests": [
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "black>=26.1,<27",
            "mypy>=2.0,<3",
            "types-PyYAML",
            "types-tqdm",
            "tensorboard",
            *BENCHMARKS,
            *RAY,
            *COMPARISON,
            *MINIWORLD,
            *ZOO,
            *VIDEO,
            # SB3's VecVideoRecorder
            "moviepy",
            # families of others
            "minigrid",
            "metaworld",
            "gymnasium[mujoco]",
        ],
        "docs": ["sphinx>=8,<10", "myst-parser>=4,<6", "sphinx-rtd-theme>=3", "sphinx-copybutton"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
