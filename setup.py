"""The one thing that pyproject.toml cannot say: a wheel also holds the folder configs/, as reidray/configs."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """An editable install (`pip install -e .`) reads the folder itself: see reidray/packaged.py."""

    def run(self) -> None:
        """Builds the package, and copies the configs into it."""
        super().run()
        if not self.editable_mode:
            self.copy_tree("configs", str(Path(self.build_lib) / "reidray" / "configs"))


setup(cmdclass={"build_py": BuildWithConfigs})
